import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, rename } from 'node:fs/promises'
import { Type } from '@sinclair/typebox'
import { build } from 'esbuild'
import t, { type Test } from 'tap'
import * as undici from 'undici'
import { WebSocket } from 'ws'
import { stream } from '../../lib/client/http.ts'
import { createClient } from '../../lib/client/index.ts'
import { createRooms, listen, until, type AnyOptions } from '../helpers/app.ts'
import { emptyFolder } from '../helpers/folder.ts'
import { environment } from '../helpers/process.ts'
import { atOnce, connect, failure, fakePage, has, hello, holdTimers, json, next, numbers, open, setGlobal, startFake } from './kit.ts'
import { startProxy } from './proxy.ts'

const topics = { 'chat:*': { message: Type.Object({ n: Type.Number() }), publish: true, presence: true, history: true } } as const

async function start (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { topics, authorize: () => true, ...options } as AnyOptions)
  const proxy = await startProxy(t, await listen(app))
  return { rooms: app.rooms as any, proxy }
}

t.test('credentials that end soon are renewed over the connection', async t => {
  const given: string[] = []
  const { proxy } = await start(t, {
    identify: () => ({ user: 'u', expires: Date.now() + 5_000 }),
    onAuth: (_session: unknown, token: string) => {
      given.push(token)
      return { user: 'u' }
    }
  } as any)
  const asked: boolean[] = []
  const room = connect(t, proxy.host, { token: ({ expired }) => { asked.push(expired); return expired ? 'new' : 'old' } }).room('chat:1')
  await until(() => given.length === 1)
  t.same({ given, asked, connections: proxy.count }, { given: ['new'], asked: [false, true], connections: 1 })
  t.equal(room.getSnapshot().status, 'open')
})

t.test('a token that cannot be renewed is told, and the connection goes on', async t => {
  const fake = await startFake(t)
  const errors: any[] = []
  let make = (): string | null => { throw new Error('no network') }
  const room = connect(t, fake.host, { token: ({ expired }) => expired ? make() : 'old', onerror: error => { errors.push(error) } }).room('chat:1')
  await open(room)
  const peer = fake.peers[0]!
  peer.send({ type: 'expiring', in: 30_000 })
  await until(() => errors.length === 1)
  t.equal(errors[0].message, 'no network')
  make = () => null
  peer.send({ type: 'expiring', in: 30_000 })
  peer.send({ type: 'error', error: { code: 'FST_ROOMS_FORBIDDEN', message: 'no' } })
  await until(() => errors.length === 2)
  t.match(errors[1], { name: 'RoomsError', code: 'FST_ROOMS_FORBIDDEN', message: 'no' })
  t.same([peer.frames, room.getSnapshot().status], [[], 'open'])
})

t.test('credentials that a new token does not renew close the room', async t => {
  const fake = await startFake(t, { connected (peer) { peer.send({ type: 'bye', code: 4301, reason: 'token_revoked' }) } })
  atOnce(t)
  const asked: boolean[] = []
  const room = connect(t, fake.host, { token: ({ expired }) => { asked.push(expired); return 'x' } }).room('chat:1')
  await has(room, { status: 'closed' })
  t.same(asked, [false, true])
  t.match(room.getSnapshot().error, { code: 'token_revoked', status: 4301 })
})

t.test('bye.retry is the range of the next attempt', async t => {
  const fake = await startFake(t)
  const timers = holdTimers(t, 60_000)
  const room = connect(t, fake.host).room('chat:1')
  await open(room)
  const lost = next(room, 'reconnecting')
  fake.peers[0]!.send({ type: 'bye', code: 1012, reason: 'restart', retry: { min: 70_000, max: 80_000 } })
  await lost
  t.match(room.getSnapshot().error, { code: 'restart', status: 1012 })
  await until(() => timers.times.length === 1)
  t.ok(timers.times[0]! >= 70_000 && timers.times[0]! <= 80_000, `${timers.times[0]}`)
  timers.fire()
  await open(room)
  t.equal(room.getSnapshot().error, null)
})

t.test('the times between attempts double up to 20 s, and jump after 41xx', async t => {
  const fake = await startFake(t, { refusal: 0, respond: (_request, response) => response.destroy() })
  const timers = holdTimers(t, 400)
  const { random } = Math
  Math.random = () => 0.9
  t.teardown(() => { Math.random = random })
  const room = connect(t, fake.host, { multiplex: false }).room('chat:1')
  for (const wait of [450, 900, 1_800, 3_600, 7_200, 14_400, 18_000, 18_000]) {
    await until(() => timers.times.includes(wait), 2_000)
    timers.fire()
  }
  t.match(room.getSnapshot().error, { code: 'unreachable' })
  const other = connect(t, fake.host, { multiplex: false })
  fake.refusal = undefined
  fake.connected = peer => peer.socket.close(4100, 'overloaded')
  const busy = other.room('chat:2')
  await failure(busy)
  t.ok(timers.times.includes(1_800), `${timers.times}`)
})

t.test('a server of another version stops the client', async t => {
  const fake = await startFake(t, { refusal: 426, respond: (_request, response) => json(response, { code: 'FST_ROOMS_UPGRADE_REQUIRED', message: 'no' }, 426) })
  const client = connect(t, fake.host, { multiplex: false })
  const refused = client.room('chat:1')
  await has(refused, { status: 'closed' })
  t.match(refused.getSnapshot().error, { code: 'FST_ROOMS_UPGRADE_REQUIRED', status: 426 })
  fake.refusal = undefined
  fake.connected = peer => peer.socket.close(4008, 'version')
  const closed = client.room('chat:2')
  await has(closed, { status: 'closed' })
  t.match(closed.getSnapshot().error, { code: 'version', status: 4008 })
  t.equal(fake.asked.filter(path => path.startsWith('ws ')).length, 2, 'one attempt each')
})

t.test('statuses of refusals: which are for good', async t => {
  const fake = await startFake(t)
  atOnce(t)
  let status = 0
  let headers = {}
  fake.refusal = 0
  fake.respond = (_request, response) => json(response, status === 403 ? { code: 'FST_ROOMS_FORBIDDEN', message: 'forbidden: history' } : '', status, headers)
  const refuse = async (given: number) => {
    status = given
    const client = connect(t, fake.host, { multiplex: false })
    const room = client.room(`chat:${given}`)
    const row = await failure(room)
    client.close()
    return row
  }
  const rows = []
  for (const status of [400, 404, 410]) rows.push(await refuse(status))
  for (const { status, error } of rows as any[]) t.match([status, error.code], ['closed', `http_${error.status}`])
  for (const status of [408, 425, 500, 503]) t.match(await refuse(status), { status: 'reconnecting', error: { code: `http_${status}`, status } })
  t.match(await refuse(401), { status: 'reconnecting', error: { status: 401 } })
  t.match(await refuse(403), { status: 'reconnecting', error: { code: 'blocked' } }, 'the right to read messages is not that to join')
  headers = { 'retry-after': '3' }
  const timers = holdTimers(t, 3_000)
  t.match(await refuse(429), { status: 'reconnecting', error: { status: 429, retryAfter: 3_000 } })
  t.ok(timers)
})

t.test('a frame that is not known, or is none, is ignored', async t => {
  const fake = await startFake(t)
  const errors: unknown[] = []
  const room = connect(t, fake.host, { onerror: error => { errors.push(error) } }).room('chat:1')
  const got = numbers(room)
  await open(room)
  const peer = fake.peers[0]!
  for (const text of ['{', 'null', '7', '[]', '"x"', '{}', '{"type":"new","data":{"n":0}}', '{"type":"ack","ref":99,"ok":true}', '{"type":"hello"', '<p>']) peer.send(text)
  peer.send({ type: 'message', data: { n: 1 } })
  await until(() => got.length === 1)
  t.same([got, errors, room.getSnapshot().status, room.getSnapshot().id], [[1], [], 'open', null])
})

t.test('a page that is hidden makes no first attempt', async t => {
  const page = fakePage(t, 'hidden')
  const { proxy } = await start(t)
  const room = connect(t, proxy.host).room('chat:1')
  await has(room, { status: 'waiting' })
  page.dispatch('online')
  await new Promise(resolve => setTimeout(resolve, 50))
  t.equal(proxy.count, 0)
  page.document.visibilityState = 'visible'
  page.dispatch('visibilitychange')
  await open(room)
  t.equal(proxy.count, 1)
})

t.test('a page that is frozen closes its connection, and connects when it is resumed', async t => {
  const page = fakePage(t)
  const { rooms, proxy } = await start(t)
  const client = connect(t, proxy.host, { queue: 1 })
  const room = client.room('chat:1')
  const got = numbers(room)
  await open(room)
  page.dispatch('freeze')
  t.equal(room.getSnapshot().status, 'waiting')
  await until(() => rooms.stats().connections === 0)
  await rooms.broadcast('chat:1', { n: 1 })
  const sent = room.publish({ n: 2 })
  page.dispatch('resume')
  await sent
  await until(() => got.length === 2)
  t.same(got, [1, 2])
  page.dispatch('online')
  page.dispatch('visibilitychange')
  await room.publish({ n: 3 })
  t.same([got, room.log().filter(({ status }) => status === 'open').length, proxy.count], [[1, 2, 3], 2, 2], 'a server that answers keeps its connection')
})

t.test('a page without network waits for it', async t => {
  const page = fakePage(t)
  const { proxy } = await start(t)
  const room = connect(t, proxy.host).room('chat:1')
  await open(room)
  setGlobal(t, 'navigator', { onLine: false })
  const lost = next(room, 'waiting')
  proxy.cut()
  await lost
  setGlobal(t, 'navigator', { onLine: true })
  page.dispatch('online')
  await open(room)
})

t.test('the log has 50 rows at most', async t => {
  const fake = await startFake(t, { connected: peer => peer.socket.close(1012, 'restart') })
  atOnce(t)
  const room = connect(t, fake.host).room('chat:1')
  await until(() => fake.peers.length >= 40)
  const log = room.log()
  t.equal(log.length, 50)
  t.same(log.map(({ at }) => at), log.map(({ at }) => at).sort((a, b) => a.getTime() - b.getTime()), 'oldest first')
  t.match(log.find(({ error }) => error !== null), { error: { code: 'restart' }, transport: 'websocket' })
})

// Node.js has a WebSocket of its own since version 22.
for (const [name, class_] of [['undici', undici.WebSocket], ['the platform', (globalThis as any).WebSocket]].filter(([, class_]) => class_ !== undefined)) {
  t.test(`the WebSocket of ${name}`, async t => {
    const { rooms, proxy } = await start(t)
    const client = createClient({ url: `ws://${proxy.host}/rooms`, ...name === 'undici' && { WebSocket: class_ } })
    t.teardown(() => client.close())
    const room = client.room('chat:1')
    const got = numbers(room)
    await open(room)
    await room.publish({ n: 1 })
    const lost = next(room, 'reconnecting')
    proxy.cut()
    await lost
    await rooms.broadcast('chat:1', { n: 2 })
    await until(() => got.length === 2)
    t.match(room.getSnapshot(), { status: 'open', recovered: true, transport: 'websocket' })
    t.equal((await client.get('chat:1')).messages.length, 2)
    rooms.kick({ topic: 'chat:1' })
    await has(room, { status: 'closed' })
    t.match(room.getSnapshot().error, { code: 'kicked', status: 4005 })
  })
}

t.test('a token that does not settle has 10 s', async t => {
  const { proxy } = await start(t)
  const timers = holdTimers(t, 10_000)
  const client = connect(t, proxy.host, { token: () => new Promise(() => {}) })
  const room = client.room('chat:1')
  await until(() => timers.times.length === 1)
  t.same([timers.times, room.getSnapshot().status], [[10_000], 'connecting'])
  timers.fire()
  t.match(await failure(room), { status: 'reconnecting', error: { code: 'token' } })
  client.close()
  const snapshot = connect(t, proxy.host, { token: () => new Promise(() => {}) }).get('chat:1')
  await until(() => timers.times.length === 1)
  timers.fire()
  await t.rejects(snapshot, { code: 'token', cause: { message: 'timeout' } } as any)
  t.equal(proxy.count, 0)
})

t.test('a token that comes too late, and one that fails too late, are not used', async t => {
  const { proxy } = await start(t)
  let settle: ((error?: Error) => void)[] = []
  const client = connect(t, proxy.host, { token: () => new Promise((resolve, reject) => settle.push(error => error ? reject(error) : resolve(null))) })
  const rooms = [client.room('chat:1'), connect(t, proxy.host, { token: () => new Promise((resolve, reject) => settle.push(error => error ? reject(error) : resolve(null))) }).room('chat:1')]
  await until(() => settle.length === 2)
  for (const room of rooms) room.leave()
  settle[0]!()
  settle[1]!(new Error('late'))
  settle = []
  await new Promise(resolve => setTimeout(resolve, 20))
  t.same([proxy.count, ...rooms.map(room => room.getSnapshot().error)], [0, null, null])
})

t.test('a server that opens and says no hello is left after 10 s', async t => {
  const fake = await startFake(t, { connected: () => {} })
  const timers = holdTimers(t, 10_000)
  const room = connect(t, fake.host).room('chat:1')
  await until(() => fake.peers.length === 1 && timers.times.length === 1)
  fake.refusal = 0
  timers.fire()
  t.match(await failure(room), { status: 'reconnecting' })
})

t.test('an answer that does not come is unknown after 30 s', async t => {
  const fake = await startFake(t)
  const timers = holdTimers(t, 30_000)
  const room = connect(t, fake.host).room('chat:1')
  await open(room)
  const sent = [room.publish({ n: 1 }), room.publish({ n: 2 })]
  await until(() => timers.times.length === 2)
  timers.fire()
  for (const answer of sent) await t.rejects(answer, { code: 'unknown' })
  await until(() => fake.peers[0]!.frames.length === 2)
  t.match(fake.peers[0]!.frames, [{ data: { n: 1 } }, { data: { n: 2 } }])
  t.equal(room.getSnapshot().status, 'open')
})

t.test('presence info is set again after a reconnect, and private messages are answered', async t => {
  const fake = await startFake(t)
  const room = connect(t, fake.host, { onerror: () => {} }).room('chat:1', { presence: true, since: '0123456789abcdef-1' })
  t.rejects(room.presence({ name: 'Ada' }), { code: 'unsent' })
  room.answer(1)
  await open(room)
  fake.received = (peer, { ref, type }) => { if (type !== 'ack') peer.send({ type: 'ack', ref, ok: true, data: 1 }) }
  const [first] = fake.peers
  room.on('direct', ({ ref }) => room.answer(ref!, 'yes'))
  first!.send({ type: 'direct', data: 1, ref: 's1' })
  await until(() => first!.frames.length === 2)
  t.match(first!.frames, [{ type: 'presence', info: { name: 'Ada' } }, { type: 'ack', ref: 's1', data: 'yes' }])
  t.equal(await room.direct('user:u', {}), 1)
  t.match(first!.request.url, '/rooms/chat%3A1?since=0123456789abcdef-1&presence=1')
  atOnce(t)
  first!.socket.terminate()
  await until(() => fake.peers[1]?.frames.length === 1)
  t.match(fake.peers[1]!.frames, [{ type: 'presence', info: { name: 'Ada' } }])
})

t.test('a module that cannot be loaded is asked for again, and the client goes on meanwhile', async t => {
  const folder = await emptyFolder(t)
  await build({ stdin: { contents: "export { createClient } from './lib/client/index.ts'", resolveDir: `${import.meta.dirname}/../..`, loader: 'ts' }, bundle: true, format: 'esm', platform: 'browser', splitting: true, outdir: folder, entryNames: 'client', outExtension: { '.js': '.mjs' }, logLevel: 'error' })
  const bundle = await import(`${folder}/client.mjs`) as { createClient: typeof createClient }
  const chunks = (await readdir(folder)).filter(name => name !== 'client.mjs')
  for (const name of chunks) await rename(`${folder}/${name}`, `${folder}/${name}.gone`)
  const fake = await startFake(t, { refusal: 403, respond: (_request, response) => json(response, { code: 'FST_ROOMS_FORBIDDEN', message: 'no' }, 403) })
  atOnce(t)
  const errors: unknown[] = []
  const client = bundle.createClient({ url: `http://${fake.host}/rooms`, WebSocket: WebSocket as any, onerror: error => { errors.push(error) } })
  t.teardown(() => client.close())
  const room = client.room('chat:1')
  await until(() => fake.asked.length >= 3)
  t.match(room.getSnapshot().error, { status: 1006 })
  await t.rejects(client.get('chat:1'))
  for (const name of chunks) await rename(`${folder}/${name}.gone`, `${folder}/${name}`)
  await has(room, { status: 'closed' })
  t.match(room.getSnapshot().error, { code: 'FST_ROOMS_FORBIDDEN', status: 403 })
  t.same(errors, [])
})

t.test('a question why a WebSocket has not opened that fails is no reason to stop', async t => {
  const fake = await startFake(t, { refusal: 403 })
  let reads = 0
  // The first attempt reads it once, the question after it a second time.
  const options = { get url () { return ++reads === 2 ? 'nowhere' : `http://${fake.host}/rooms` }, WebSocket: WebSocket as any, multiplex: false as const }
  const client = createClient(options)
  t.teardown(() => client.close())
  const room = client.room('chat:1')
  t.match(await failure(room), { status: 'reconnecting', error: { code: 'lost', status: 1006 } })
})

t.test('a process ends by itself after close', async t => {
  const { proxy } = await start(t)
  const program = `
    import { WebSocket } from 'ws'
    import { createClient } from './lib/client/index.ts'
    const client = createClient({ url: 'http://${proxy.host}/rooms', WebSocket })
    const room = client.room('chat:1')
    room.on('status', async ({ status }) => {
      if (status !== 'open') return
      await room.publish({ n: 1 })
      client.close()
      console.log(room.getSnapshot().status)
    })`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], { cwd: `${import.meta.dirname}/../..`, env: environment(), stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let text = ''
  let ended = 0
  child.stdout.on('data', chunk => {
    text += chunk
    ended = Date.now()
  })
  const [code] = await once(child, 'exit')
  t.same([code, text], [0, 'closed\n'])
  t.ok(Date.now() - ended < 5_000, `${Date.now() - ended} ms after close`)
})

t.test('a client that is closed while it changes to event streams leaves no timer', async t => {
  const timers = holdTimers(t, 200_000)
  for (const isClosed of [false, true]) {
    const closing = new AbortController()
    const core = { options: { WebSocket }, signal: closing.signal, transport: 'websocket', open: undefined } as any
    const changed = stream(core)
    if (isClosed) closing.abort()
    await changed
    t.equal(core.transport, isClosed ? 'websocket' : 'event-stream')
    t.equal(timers.times.length, isClosed ? 0 : 1)
    closing.abort()
    t.equal(timers.times.length, 0)
  }
})

t.test('errors are shown on the console without onerror', async t => {
  const fake = await startFake(t)
  const shown: unknown[] = []
  const { error } = console
  t.teardown(() => { console.error = error })
  console.error = (...values) => { shown.push(...values) }
  const room = connect(t, fake.host).room('chat:1')
  await open(room)
  fake.peers[0]!.send({ type: 'error', error: { code: 'FST_ROOMS_BAD_FRAME', message: 'bad' } })
  await until(() => shown.length === 1)
  t.match(shown, [{ code: 'FST_ROOMS_BAD_FRAME' }])
})

t.test('a server without positions and heartbeat', async t => {
  const fake = await startFake(t, { connected: peer => peer.send(hello('chat:1', { heartbeat: 20, id: undefined })) })
  const room = connect(t, fake.host).room('chat:1')
  await open(room)
  await until(() => fake.peers[0]!.frames.filter(({ type }) => type === 'ping').length >= 2)
  t.match(room.getSnapshot(), { status: 'open', id: null })
})

t.test('a URL that is relative to the page, and its query', async t => {
  const fake = await startFake(t)
  setGlobal(t, 'location', { href: `http://${fake.host}/page/1` })
  const client = createClient({ url: '/rooms/?app=1', WebSocket: WebSocket as any })
  t.teardown(() => client.close())
  let changes = 0
  const room = client.room('chat:1')
  const stop = room.subscribe(() => { changes++ })
  await open(room)
  await client.get('chat:1', { since: '0', limit: 5 })
  await client.get('chat:1', { since: undefined })
  t.same(fake.asked, ['ws /rooms/chat%3A1?app=1', '/rooms/chat%3A1?app=1&since=0&limit=5', '/rooms/chat%3A1?app=1'])
  t.ok(changes > 0)
  stop()
  changes = 0
  room.leave()
  room.leave()
  t.same([changes, room.log().filter(({ status }) => status === 'closed').length], [0, 1])
})

t.test('a reload of a room without a position continues behind the snapshot', async t => {
  const fake = await startFake(t, { respond: (_request, response) => json(response, { topic: 'chat:1', id: '0123456789abcdef-3', messages: [], complete: true, count: 1 }) })
  const room = connect(t, fake.host).room('chat:1')
  await open(room)
  await room.reload()
  t.match(room.getSnapshot(), { id: '0123456789abcdef-3', recovered: true })
})
