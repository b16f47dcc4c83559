import { readFile } from 'node:fs/promises'
import { isBuiltin } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import ts from 'typescript'
import { manifest, pack, root, tool } from './tarball.ts'

const { file, paths } = await pack(t)

t.test('publint finds nothing in strict mode', async t => {
  const { code, stdout } = await tool('publint/src/cli.js', ['--strict', file], root)
  t.equal(code, 0, stdout)
  t.match(stdout, 'All good!')
})

t.test('the types resolve in every module system that can load the package', async t => {
  const { code, stdout } = await tool('@arethetypeswrong/cli/dist/index.js', ['--profile', 'esm-only', '--no-emoji', '--no-color', file], root)
  t.equal(code, 0, stdout)
  t.match(stdout, 'fastify-rooms')
})

t.test('the tarball holds the documents and the build, and nothing else', async t => {
  const documents = ['CHANGELOG.md', 'LICENSE', 'README.md', 'SECURITY.md', 'package.json']
  t.same(paths.filter(path => !path.startsWith('dist/') && !/^docs\/([\w-]+\/)?[\w-]+\.md$/.test(path)).sort(), [...documents, 'docs/grafana-dashboard.json', 'skills/fastify-rooms/SKILL.md'].sort())
  t.ok(paths.includes('docs/protocol.md'), 'links of README.md have a target in the tarball')
  t.same(paths.filter(path => path.startsWith('dist/') && !/^dist\/(lib|types)\/([\w-]+\/)*[\w-]+(\.d\.ts|\.js)$/.test(path)), [])
  for (const path of ['dist/lib/index.js', 'dist/lib/index.d.ts', 'dist/types/index.d.ts', 'dist/lib/metrics/index.js', 'dist/lib/metrics/index.d.ts']) t.ok(paths.includes(path), path)
})

t.test('each file in the exports is in the tarball', async t => {
  const { exports, main, types } = manifest
  const named = [main, types, ...Object.values(exports).flatMap(target => typeof target === 'string' ? target : Object.values(target))]
  t.same(named.filter(path => !paths.includes(path.replace(/^\.\//, ''))), [])
})

t.test('typesVersions, for resolvers that do not read the exports, has the same types for each entry', async t => {
  const { exports, typesVersions } = manifest
  const entries = Object.entries(exports).flatMap(([path, target]) => typeof target === 'string' || path === '.' ? [] : [[path.slice(2), [target.types]]])
  t.same(typesVersions, { '*': Object.fromEntries(entries) })
})

t.test('imports of the build are declared dependencies, and declared dependencies are imported', async t => {
  const declared = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies)]
  const imported = new Set<string>()
  for (const path of paths.filter(path => path.startsWith('dist/'))) {
    const { importedFiles, typeReferenceDirectives } = ts.preProcessFile(await readFile(join(root, path), 'utf8'), true, true)
    for (const { fileName } of [...importedFiles, ...typeReferenceDirectives]) {
      if (!fileName.startsWith('.') && !isBuiltin(fileName)) imported.add(/^(@[^/]+\/)?[^/]+/.exec(fileName)![0])
    }
  }
  t.same([...imported].filter(name => !declared.includes(name)), [])
  // The package's types include those of @fastify/websocket, which import the types of ws without depending on them. Its own
  // range of ws admits vulnerable versions, which the range of this package does not (see test/lock.test.ts). The host makes the client
  // of a broker, whose peers say which versions were tested.
  t.same(declared.filter(name => !imported.has(name)), ['@types/ws', 'ws', '@nats-io/transport-node', 'ioredis', 'redis'])
})
