import { readFile, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build as bundle, type Metafile } from 'esbuild'
import t from 'tap'
import ts from 'typescript'
import { build as buildWithVite, type Rollup } from 'vite'
import { clientPage, page, sharedTopics } from './programs.ts'
import { entries, exportedNames, install, optionalPeers, write } from './tarball.ts'

/** The entries that need Node.js; all others are for browsers. */
const serverEntries = ['fastify-rooms', 'fastify-rooms/metrics', 'fastify-rooms/testing', 'fastify-rooms/redis', 'fastify-rooms/nats', 'fastify-rooms/broker-conformance', 'fastify-rooms/cluster']
const browserEntries = entries.map(({ name }) => name).filter(name => !serverEntries.includes(name))

const folder = await install(t, optionalPeers)
const names = await exportedNames(folder)
/** Peers of the host, which a bundle does not hold. */
const external = [...optionalPeers, '@sinclair/typebox']
/** The paths of the modules that a bundle of these entries may hold. */
const inBrowser = /\/fastify-rooms\/dist\/lib\/(?:protocol|topics|client|react)\//

await write(folder, {
  'package.json': { type: 'module' },
  'topics.ts': sharedTopics,
  'page.ts': page,
  'client.ts': clientPage,
  'uses.ts': browserEntries.map((name, index) => `
import * as entry${index} from '${name}'
export const names${index}: (keyof typeof entry${index})[] = ${JSON.stringify(names[name])}`).join('\n'),
  'control.ts': `
import type { ServerFrame } from 'fastify-rooms'
export type Frame = ServerFrame
export const timer = setTimeout(() => {}).unref()
export const all = [process, Buffer]
`
})

/** A page of a browser: without the types of Node.js, and with all declarations checked. */
const options: ts.CompilerOptions = {
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  target: ts.ScriptTarget.ES2023,
  lib: ['lib.es2023.d.ts', 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
  types: [],
  strict: true,
  noEmit: true,
  allowImportingTsExtensions: true
}

/** The files of Node.js's types in a program. */
const nodeTypes = (program: ts.Program): string[] => program.getSourceFiles().map(({ fileName }) => fileName).filter(name => name.includes('/@types/node/'))

t.test('the types of the browser entries know no process, Buffer or timer of Node.js', async t => {
  const program = ts.createProgram(['page.ts', 'client.ts', 'uses.ts'].map(file => join(folder, file)), options)
  const faults = ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => `${file === undefined ? '' : relative(folder, file.fileName)} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`)
  t.same(faults, [])
  t.same(nodeTypes(program), [])
})

t.test('the types of the main entry know them, so that the test before can fail', async t => {
  const file = join(folder, 'control.ts')
  const program = ts.createProgram([file], options)
  t.not(nodeTypes(program).length, 0)
  t.same(program.getSemanticDiagnostics(program.getSourceFile(file)), [])
})

/** Bundles an entry for browsers. Fails if it imports a module of Node.js, which esbuild does not find for this platform. */
async function bundleOf (stdin: string, outfile: string): Promise<{ metafile: Metafile, bytes: number }> {
  const { metafile } = await bundle({
    stdin: { contents: stdin, resolveDir: folder, loader: 'ts' },
    outfile: join(folder, outfile),
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    metafile: true,
    external,
    logLevel: 'silent'
  })
  return { metafile, bytes: (await stat(join(folder, outfile))).size }
}

for (const name of browserEntries) {
  t.test(`${name} is bundled for a browser, and holds nothing of Node.js, Fastify or ws`, async t => {
    const { metafile, bytes } = await bundleOf(`export * from '${name}'`, 'entry.js')
    t.comment(`${name}: ${bytes} bytes, minified`)
    const inputs = Object.keys(metafile.inputs).filter(input => input !== '<stdin>')
    t.not(inputs.length, 0)
    t.same(inputs.filter(input => !inBrowser.test(input)), [])
    const imported = Object.values(metafile.outputs).flatMap(({ imports }) => imports).filter(({ external }) => external === true)
    t.same(imported.filter(({ path }) => !optionalPeers.includes(path)), [])
  })
}

t.test('the main entry cannot be bundled for a browser, so that the tests before can fail', async t => {
  await t.rejects(bundleOf("export * from 'fastify-rooms'", 'main.js'), /Could not resolve "node:/)
})

t.test('a shared module of topics is below 2 kB in a page, besides the schema library', async t => {
  const { metafile, bytes } = await bundleOf("export * from './topics.ts'", 'topics.js')
  t.comment(`topics.ts: ${bytes} bytes, minified, with ${Object.keys(metafile.inputs).length - 1} modules`)
  t.ok(bytes < 2_000, `${bytes} bytes`)
  const { topics } = await import(pathToFileURL(join(folder, 'topics.js')).href) as { topics: Record<string, { message: { type: string } }> }
  t.same(Object.keys(topics), ['news', 'chat:*', 'answer:*'])
  t.equal(topics.news!.message.type, 'object')
})

t.test('a page with a client that imports the types of the topics has neither topics nor the schema library in its bundle', async t => {
  const { metafile } = await bundleOf("import './client.ts'", 'client.js')
  const inputs = Object.keys(metafile.inputs)
  t.ok(inputs.some(input => input.endsWith('client.ts')))
  t.same(inputs.filter(input => !/(?:^|\/)client\.ts$|^<stdin>$/.test(input) && !inBrowser.test(input)), [])
  t.same(Object.values(metafile.outputs).flatMap(({ imports }) => imports).filter(({ external }) => external === true), [])
})

t.test('Vite builds the browser entries', async t => {
  const built = await buildWithVite({
    root: folder,
    configFile: false,
    logLevel: 'silent',
    build: {
      write: false,
      lib: { entry: { uses: join(folder, 'uses.ts'), page: join(folder, 'page.ts') }, formats: ['es'] },
      rolldownOptions: { external }
    }
  }) as Rollup.RollupOutput[]
  const modules = built.flatMap(({ output }) => output).flatMap(chunk => chunk.type === 'chunk' ? chunk.moduleIds : [])
  t.ok(modules.some(id => id.endsWith('dist/lib/topics/define.js')))
  // Vite replaces modules of Node.js by one of its own, which has this in its name.
  t.same(modules.filter(id => id.includes('browser-external')), [])
  t.same(modules.filter(id => id.includes('/node_modules/') && !inBrowser.test(id)), [])
})

t.test('the code of the browser entries says where a bundle may drop it', async t => {
  const { sideEffects } = JSON.parse(await readFile(join(folder, 'node_modules/fastify-rooms/package.json'), 'utf8')) as { sideEffects: boolean }
  t.equal(sideEffects, false)
  const { bytes } = await bundleOf(`${browserEntries.map(name => `import '${name}'`).join('\n')}\nconsole.log(1)`, 'unused.js')
  t.ok(bytes < 40, `a bundle that uses no export has ${bytes} bytes`)
})
