import { createRequire } from 'node:module'
import t from 'tap'
import { lock, manifest, type Locked } from './package/tarball.ts'

/** Whether a version is at least the other; both are plain `major.minor.patch`. */
function atLeast (version: string, least: string): boolean {
  const [numbers, bounds] = [version, least].map(text => text.split('.').map(Number)) as [number[], number[]]
  const at = numbers.findIndex((number, index) => number !== bounds[index])
  return at === -1 || numbers[at]! > bounds[at]!
}

const packages = Object.entries(lock.packages)
const named = (name: string): [string, Locked][] => packages.filter(([path]) => path === `node_modules/${name}` || path.endsWith(`/node_modules/${name}`))
/** The lowest version that a caret range admits. */
const floor = (range: string): string => /^\^(\d+\.\d+\.\d+)$/.exec(range)![1]!

t.test('versions are compared as numbers', async t => {
  t.ok(atLeast('8.23.0', '8.23.0'))
  t.ok(atLeast('8.100.0', '8.23.0'))
  t.ok(atLeast('9.0.0', '8.23.0'))
  t.notOk(atLeast('8.9.9', '8.23.0'))
  t.notOk(atLeast('5.8.4', '5.8.5'))
})

t.test('every ws in the lock file is 8.23.0 or newer, and so is each ws that the package\'s range admits', async t => {
  const found = named('ws')
  t.same(found.filter(([, { version }]) => !atLeast(version, '8.23.0')).map(([path, { version }]) => `${path} ${version}`), [])
  t.ok(atLeast(floor(manifest.dependencies.ws!), '8.23.0'), 'the package needs a range of its own, because the one of @fastify/websocket admits older versions')
  t.same([manifest.devDependencies.ws, manifest.peerDependencies.ws], [undefined, undefined])
})

t.test('@fastify/websocket loads the same ws as the package, and that ws bounds fragments', async t => {
  const websocket = createRequire(import.meta.resolve('@fastify/websocket'))
  t.equal(websocket.resolve('ws'), createRequire(import.meta.url).resolve('ws'))
  t.ok(atLeast((websocket('ws/package.json') as { version: string }).version, '8.23.0'))
  t.same(named('ws').filter(([path]) => path === 'node_modules/@fastify/websocket/node_modules/ws'), [], 'one copy of ws is installed')
  const { options } = new (websocket('ws') as { WebSocketServer: new (options: object) => { options: Record<string, unknown> } }).WebSocketServer({ noServer: true })
  t.match(options, { maxFragments: 16_384, maxBufferedChunks: 262_144 })
})

t.test('every fastify in the lock file is 5.8.5 or newer, and so is each version that the peer range admits', async t => {
  const found = named('fastify')
  t.ok(found.length > 0)
  t.same(found.filter(([, { version }]) => !atLeast(version, '5.8.5')).map(([path, { version }]) => `${path} ${version}`), [])
  t.equal(manifest.peerDependencies.fastify, '^5.8.5')
  t.ok(atLeast(floor(manifest.devDependencies.fastify!), '5.8.5'), 'the tests run within the peer range')
})

t.test('the lock file names no registry', async t => {
  t.same(packages.filter(([, { resolved, link }]) => resolved !== undefined || link === true).map(([path]) => path), [])
  t.notMatch(JSON.stringify(lock), /https?:\/\/[^"]*\.tgz/)
})

t.test('the lock file belongs to this package.json', async t => {
  const own = lock.packages[''] as unknown as typeof manifest
  for (const member of ['name', 'version', 'dependencies', 'devDependencies', 'peerDependencies', 'engines'] as const) t.same(own[member], manifest[member], member)
})
