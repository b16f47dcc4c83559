import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

const root = join(dirname(fileURLToPath(import.meta.url)), '../..')

/** Compiles files with this repository's settings. Without `outDir` the package's own name resolves to the build, as for a host. */
function compile (files: string[], overrides: ts.CompilerOptions = {}): { program: ts.Program, faults: string[] } {
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent({ ...config, files: [], include: [] }, ts.sys, root)
  delete options.outDir
  const program = ts.createProgram(files, { ...options, ...overrides })
  const faults = ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const line = file === undefined ? '' : `${relative(root, file.fileName)}:${file.getLineAndCharacterOfPosition(start ?? 0).line + 1} `
    return line + ts.flattenDiagnosticMessageText(messageText, '\n')
  })
  return { program, faults }
}

function resolvesTo (program: ts.Program, path: string): boolean {
  return program.getSourceFile(join(root, path)) !== undefined
}

const usage = join(root, 'test/types/registered/usage.ts')

t.test('a declared Register applies to the build', async t => {
  for (const overrides of [{}, { module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler }, { exactOptionalPropertyTypes: false, noUncheckedIndexedAccess: false }]) {
    const { program, faults } = compile([usage], overrides)
    t.ok(resolvesTo(program, 'dist/lib/index.d.ts'), 'the program uses dist (npm run build)')
    t.notOk(resolvesTo(program, 'lib/index.ts'))
    t.same(faults, [])
  }
})

t.test('a declared Register applies to the sources', async t => {
  const { program, faults } = compile([usage], { outDir: join(root, 'dist'), configFilePath: join(root, 'tsconfig.json') })
  t.ok(resolvesTo(program, 'lib/index.ts'))
  t.notOk(resolvesTo(program, 'dist/lib/index.d.ts'))
  t.same(faults, [])
})

t.test('the build compiles by itself', async t => {
  const { faults } = compile([join(root, 'dist/lib/index.d.ts')], { skipLibCheck: false, types: ['node'] })
  t.same(faults.filter(fault => !fault.startsWith('node_modules/')), [])
})

/** A program with `count` topics, half of them families, each used. */
function many (count: number): string {
  const topics: string[] = []
  const uses: string[] = []
  for (let index = 0; index < count; index++) {
    const family = index % 2 === 0
    topics.push(`  '${family ? `t${index}:*` : `t${index}`}': { message: Type.Object({ text: Type.String(), n${index}: Type.Number() })${family ? ', publish: true, presence: Type.Object({ name: Type.String() })' : ''} }`)
    uses.push(`  await app.rooms.broadcast('${family ? `t${index}:x` : `t${index}`}', { text: 'x', n${index}: 1 })`)
  }
  return `import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import fastifyRooms, { defineTopics } from 'fastify-rooms'

export const topics = defineTopics({
${topics.join(',\n')}
})
declare module 'fastify-rooms' { interface Register { topics: typeof topics } }

export async function use (app: FastifyInstance, name: string): Promise<void> {
  await app.register(fastifyRooms, {
    topics,
    onMessage: { 't0:*': async (session, payload) => { await session.send({ text: payload.text, n0: payload.n0 }) } },
    onJoin: async session => { if (session.key === 't2:*') await session.send({ text: 'x', n2: 1 }) },
    authorize: ({ topic }) => topic === 't1'
  })
${uses.join('\n')}
  // @ts-expect-error the member of another topic
  await app.rooms.broadcast('t1', { text: 'x', n0: 1 })
  if (app.rooms.has(name)) await app.rooms.count(name)
}
`
}

t.test('three hundred topics compile in reasonable time', async t => {
  const dir = t.testdir({ 'few.ts': many(30), 'many.ts': many(300) })
  const cost = (file: string): number => {
    const started = performance.now()
    const { program, faults } = compile([join(dir, file)])
    t.same(faults, [])
    const seconds = (performance.now() - started) / 1_000
    t.comment(`${file}: ${program.getInstantiationCount()} instantiations, ${seconds.toFixed(1)} s`)
    // The count is equal on all machines; ten seconds would be slow even on a busy one.
    t.ok(seconds < 60, `${seconds} s`)
    return program.getInstantiationCount()
  }
  const few = cost('few.ts')
  const lots = cost('many.ts')
  t.ok(lots < 1_500_000, `${lots} instantiations`)
  t.ok(lots / few < 12, `ten times as many topics cost ${(lots / few).toFixed(1)} times as much`)
})
