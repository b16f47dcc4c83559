import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { createClient, type Client, type ClientOptions, type ClientRoom, type RoomState } from '../../lib/client/index.ts'
import { createRooms, listen, until, type AnyOptions } from '../helpers/app.ts'
import { startProxy } from './proxy.ts'

const topics = {
  'chat:*': { message: Type.Object({ n: Type.Number() }), publish: true, presence: true, history: true, post: true },
  'short:*': { message: Type.Object({ n: Type.Number() }), history: { size: 2 } },
  tokens: { stream: true }
} as const

async function start (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { topics, authorize: () => true, ...options } as AnyOptions)
  const proxy = await startProxy(t, await listen(app))
  return { app, rooms: app.rooms as any, proxy }
}

function connect (t: Test, host: string, options: Partial<ClientOptions> = {}): Client {
  const client = createClient({ url: `http://${host}/rooms`, WebSocket: WebSocket as any, ...options })
  t.teardown(() => client.close())
  return client
}

/** All numbers that a room gets. */
function numbers (room: ClientRoom<any, any, any, any>): number[] {
  const got: number[] = []
  room.on('message', ({ data }) => { got.push(data.n) })
  return got
}

const has = (room: ClientRoom<any, any, any, any>, state: Partial<RoomState>) => until(() => Object.entries(state).every(([name, value]) => (room.getSnapshot() as any)[name] === value), 8_000)
const open = (room: ClientRoom<any, any, any, any>) => has(room, { status: 'open' })

/** Makes all timers of the process faster for a test. */
function hurry (t: Test, factor: number): void {
  const { setTimeout, setInterval } = globalThis
  const faster = (timer: any) => (act: any, milliseconds: number, ...values: unknown[]) => timer(act, milliseconds / factor, ...values)
  Object.assign(globalThis, { setTimeout: faster(setTimeout), setInterval: faster(setInterval) })
  t.teardown(() => Object.assign(globalThis, { setTimeout, setInterval }))
}

/** Gives the process the events of a page. */
function fakePage (t: Test) {
  const listeners = new Map<() => void, string>()
  const document = { visibilityState: 'visible' }
  const addEventListener = (type: string, listener: () => void, { signal }: { signal: AbortSignal }): void => {
    listeners.set(listener, type)
    signal.addEventListener('abort', () => listeners.delete(listener))
  }
  Object.assign(globalThis, { document, addEventListener })
  t.teardown(() => {
    delete (globalThis as any).document
    delete (globalThis as any).addEventListener
  })
  return {
    document,
    listeners,
    dispatch (type: string) { for (const [listener, name] of listeners) if (name === type) listener() }
  }
}

t.test('a client resumes after each cut: no message is lost, and none comes twice', async t => {
  const { rooms, proxy } = await start(t)
  const room = connect(t, proxy.host).room('chat:1', { presence: true }) as any
  const got = numbers(room)
  const iterated: number[] = []
  const iteration = (async () => { for await (const { data } of room) if (iterated.push(data.n) === 60) break })()
  await open(room)
  for (let n = 0; n < 60; n++) {
    await rooms.broadcast('chat:1', { n })
    if (n % 20 === 10) {
      await open(room)
      proxy.cut()
      await until(() => room.getSnapshot().status !== 'open')
    }
  }
  await until(() => got.length >= 60)
  await iteration
  t.same(got, Array.from({ length: 60 }, (_, n) => n))
  t.same(iterated, got)
  t.match(room.getSnapshot(), { status: 'open', transport: 'websocket', recovered: true, gap: null, error: null, last: { data: { n: 59 } } })
  await until(() => room.getSnapshot().members?.length === 1)
  t.equal(room.getSnapshot(), room.getSnapshot(), 'the same object until something changes')
  const log = room.log()
  t.ok(log.filter(({ status }: any) => status === 'open').length === 4 && log.every(({ at }: any) => at instanceof Date), 'the log has each attempt')
  for (let n = 0; n < 55; n++) room.log().push({})
  t.ok(room.log().length <= 50)
})

t.test('messages that are lost are state until a reload has succeeded', async t => {
  const { rooms, proxy } = await start(t)
  const states: unknown[] = []
  const reloaded: number[][] = []
  const room = connect(t, proxy.host).room('short:1', {
    reload (snapshot: any) {
      states.push(room.getSnapshot().recovered)
      reloaded.push(snapshot.messages.map(({ data }: any) => data.n))
    }
  }) as any
  const got = numbers(room)
  await open(room)
  await rooms.broadcast('short:1', { n: 0 })
  await until(() => got.length === 1)
  proxy.isDown = true
  proxy.cut()
  await until(() => room.getSnapshot().status !== 'open')
  for (let n = 1; n < 5; n++) await rooms.broadcast('short:1', { n })
  proxy.isDown = false
  await until(() => reloaded.length === 1)
  await has(room, { recovered: true })
  await rooms.broadcast('short:1', { n: 5 })
  await until(() => got.length === 2)
  t.same({ got, states, reloaded }, { got: [0, 5], states: [false], reloaded: [[3, 4]] })
})

t.test('a close code or a refusal that is for good stops the client, which says why', async t => {
  const { rooms, proxy } = await start(t, { authorize: ({ topic }: any) => topic !== 'chat:closed' } as any)
  const client = connect(t, proxy.host, { multiplex: false })
  const kicked = client.room('chat:1')
  await open(kicked)
  rooms.kick({ topic: 'chat:1' })
  await has(kicked, { status: 'closed' })
  t.match(kicked.getSnapshot().error, { name: 'RoomsError', code: 'kicked', status: 4005 })
  await t.rejects(kicked.publish({}), { code: 'unsent' })
  await t.rejects((async () => { for await (const message of kicked) t.fail(`${message}`) })(), { code: 'kicked' })
  const refused = client.room('chat:closed')
  await has(refused, { status: 'closed' })
  t.match(refused.getSnapshot().error, { code: 'FST_ROOMS_FORBIDDEN', status: 403 })
  const unknown = client.room('nowhere')
  await has(unknown, { status: 'closed' })
  t.match(unknown.getSnapshot().error, { status: 404 })
  const elsewhere = connect(t, proxy.host, { url: 'http://' }).room('chat:1')
  await has(elsewhere, { status: 'closed' })
  t.match(elsewhere.getSnapshot().error, { code: 'bad_url' })
  const version = client.room('chat:version')
  await open(version)
  rooms.kick({ topic: 'chat:version' }, { code: 4008, reason: 'version' })
  await has(version, { status: 'closed' })
  t.match(version.getSnapshot().error, { code: 'version', status: 4008 })
})

t.test('HTML instead of JSON is told, and tried again', async t => {
  const app = await createRooms(t, { topics, authorize: () => true } as AnyOptions)
  app.get('/page/:topic', (_request, reply) => reply.type('text/html').send('<p>hello</p>'))
  const host = await listen(app)
  const room = connect(t, host, { url: `http://${host}/page`, multiplex: false }).room('chat:1')
  await until(() => room.getSnapshot().error !== null)
  t.match(room.getSnapshot(), { status: 'reconnecting', error: { code: 'bad_response', status: 200 } })
  await t.rejects(connect(t, host, { url: `http://${host}/page` }).get('chat:1'), { code: 'bad_response' })
})

t.test('after a wake-up a silent server is found within 2 s, and a page that is put away closes with 1000', async t => {
  const page = fakePage(t)
  const { rooms, proxy } = await start(t)
  const codes: number[] = []
  class Noted extends WebSocket {
    constructor (url: string, protocols: string[]) {
      super(url, protocols)
      this.on('close', code => { codes.push(code) })
    }
  }
  const room = connect(t, proxy.host, { WebSocket: Noted as any }).room('chat:1')
  const got = numbers(room)
  await open(room)
  proxy.isBlackhole = true
  await rooms.broadcast('chat:1', { n: 0 })
  page.dispatch('online')
  const since = Date.now()
  await until(() => room.getSnapshot().status !== 'open')
  t.ok(Date.now() - since < 3_000)
  proxy.isBlackhole = false
  await until(() => got.length === 1)
  codes.length = 0
  page.dispatch('pagehide')
  t.equal(room.getSnapshot().status, 'waiting')
  await until(() => codes.length === 1)
  t.same(codes, [1000])
  await rooms.broadcast('chat:1', { n: 1 })
  page.dispatch('pageshow')
  await until(() => got.length === 2)
  page.document.visibilityState = 'hidden'
  proxy.cut()
  await until(() => room.getSnapshot().status === 'waiting')
  const { count } = proxy
  await new Promise(resolve => setTimeout(resolve, 700))
  t.equal(proxy.count, count, 'no attempt while the page is hidden')
  page.document.visibilityState = 'visible'
  page.dispatch('visibilitychange')
  await open(room)
  t.same(got, [0, 1])
})

t.test('a dead server is found by the client\'s own ping', async t => {
  const { proxy } = await start(t, { heartbeat: { interval: 1_000 } } as any)
  hurry(t, 20)
  const room = connect(t, proxy.host).room('chat:1')
  await open(room)
  proxy.isBlackhole = true
  await until(() => room.getSnapshot().status !== 'open')
  t.match(room.getSnapshot().error, { code: 'silent' })
  proxy.isBlackhole = false
  await open(room)
})

t.test('a token is asked for on each attempt, and a new one after 43xx', async t => {
  const offers: string[] = []
  const { rooms, proxy } = await start(t, { identify: (request: any) => { offers.push(request.headers['sec-websocket-protocol']); return null } } as any)
  const asked: boolean[] = []
  const room = connect(t, proxy.host, { token: async ({ expired }) => { asked.push(expired); return expired ? 'new?>' : 'old' } }).room('chat:1')
  await open(room)
  rooms.kick({ topic: 'chat:1' }, { code: 4300 })
  await until(() => asked.length === 2)
  await open(room)
  t.same(asked, [false, true])
  t.same(offers, ['rooms.v1, bearer.b2xk', 'rooms.v1, bearer.bmV3Pz4'].map(text => text.replace(', ', ',')))
  const failing = connect(t, proxy.host, { token: () => { throw new Error('no network') } }).room('chat:1')
  await until(() => failing.getSnapshot().error !== null)
  t.match(failing.getSnapshot(), { status: 'reconnecting', error: { code: 'token', cause: { message: 'no network' } } })
  hurry(t, 100)
  const silent = connect(t, proxy.host, { token: () => new Promise(() => {}) }).room('chat:1')
  await until(() => silent.getSnapshot().error !== null)
  t.match(silent.getSnapshot().error, { code: 'token' })
})

t.test('publishing while away: rejected, or kept and handled once', async t => {
  const handled: number[] = []
  const { proxy } = await start(t, { onMessage: { 'chat:*': async (session: any, payload: any) => { handled.push(payload.n); await new Promise(resolve => setTimeout(resolve, 50)); return payload.n * 2 } } } as any)
  const plain = connect(t, proxy.host).room('chat:1')
  await t.rejects(plain.publish({ n: 0 }), { code: 'unsent' })
  await open(plain)
  t.equal(await plain.publish({ n: 1 }), 2)
  await t.rejects(plain.publish({ wrong: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  const circular: any = {}
  circular.self = circular
  await t.rejects(plain.publish(circular), TypeError)
  const lost = plain.publish({ n: 2 })
  await until(() => handled.includes(2))
  proxy.cut()
  await t.rejects(lost, { code: 'unknown' })
  const keeping = connect(t, proxy.host, { queue: 2 }).room('chat:1')
  await open(keeping)
  const sent = keeping.publish({ n: 3 })
  await until(() => handled.includes(3))
  proxy.isDown = true
  proxy.cut()
  await until(() => keeping.getSnapshot().status !== 'open')
  const queued = keeping.publish({ n: 4 })
  await t.rejects(keeping.publish({ n: 5 }), { code: 'unsent' })
  proxy.isDown = false
  t.same(await Promise.all([sent, queued]), [6, 8])
  t.same(handled, [1, 2, 3, 4])
})

t.test('WebSockets that do not come through are replaced by an event stream', async t => {
  const { rooms, proxy } = await start(t)
  class Blocked extends WebSocket {
    constructor (_url: string, protocols: string[]) { super('ws://127.0.0.1:1/', protocols) }
  }
  const client = connect(t, proxy.host, { WebSocket: Blocked as any })
  const room = client.room('chat:1', { since: '0' }) as any
  const got = numbers(room)
  await has(room, { status: 'open', transport: 'event-stream' })
  t.equal(await room.publish({ n: 1 }), undefined)
  await until(() => got.length === 1)
  proxy.cut()
  await rooms.broadcast('chat:1', { n: 2 })
  await until(() => got.length === 2)
  t.same((await room.history()).messages.map(({ data }: any) => data.n), [1, 2])
  await t.rejects(room.direct('user:u', {}), { code: 'unsupported' })
  t.same(got, [1, 2])
})

t.test('several rooms share one connection, and the first moves there', async t => {
  const { app, rooms, proxy } = await start(t)
  const client = connect(t, proxy.host)
  const first = client.room('chat:1') as any
  t.equal(client.room('chat:1'), first as never)
  const got = numbers(first)
  await open(first)
  await rooms.broadcast('chat:1', { n: 0 })
  await until(() => got.length === 1)
  const second = client.room('chat:2') as any
  const others = numbers(second)
  let n = 1
  await until(async () => {
    await rooms.broadcast('chat:1', { n: n++ })
    return second.getSnapshot().status === 'open' && rooms.stats().connections === 1
  })
  for (let more = 0; more < 5; more++) {
    await rooms.broadcast('chat:1', { n: n++ })
    await rooms.broadcast('chat:2', { n: more })
    if (more === 2) proxy.cut()
  }
  await until(() => got.length >= n && others.length >= 5)
  t.same(got, Array.from({ length: n }, (_, index) => index))
  t.same(others, [0, 1, 2, 3, 4])
  await second.publish({ n: 5 })
  await until(() => others.length === 6)
  const third = client.room('nowhere')
  await has(third, { status: 'closed' })
  t.match(third.getSnapshot().error, { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  t.equal(await rooms.count('chat:2'), 1)
  second.leave()
  await until(async () => await rooms.count('chat:2') === 0)
  t.equal(first.getSnapshot().status, 'open')
  t.ok(app.server.listening)
})

t.test('a snapshot and a room that continues behind it', async t => {
  const { rooms, proxy } = await start(t)
  await rooms.broadcast('chat:1', { n: 0 })
  const client = connect(t, proxy.host)
  const snapshot = await client.get('chat:1')
  t.match(snapshot, { topic: 'chat:1', messages: [{ data: { n: 0 } }] })
  await rooms.broadcast('chat:1', { n: 1 })
  const room = client.room('chat:1', { since: snapshot.id })
  const got = numbers(room)
  await until(() => got.length === 1)
  t.same(got, [1])
  await t.rejects(client.get('nowhere'), { status: 404 } as any)
})

t.test('a stream ends the iteration', async t => {
  const { rooms, proxy } = await start(t)
  const room = connect(t, proxy.host).room('tokens')
  const ends: unknown[] = []
  room.on('end', ({ reason, data }) => { ends.push([reason, data]) })
  await open(room)
  const run = await rooms.stream('tokens')
  await run.write('a')
  await run.write('b')
  await run.end('done')
  const parts: unknown[] = []
  for await (const { data } of connect(t, proxy.host).room('tokens')) parts.push(data)
  t.same(parts, ['a', 'b'])
  await has(room, { status: 'closed', error: null })
  t.same(ends, [['done', 'done']])
  const since = room.getSnapshot().id!
  for (const multiplex of [undefined, false] as const) {
    const client = connect(t, proxy.host, { ...multiplex === false && { multiplex } })
    if (multiplex === undefined) await open(client.room('chat:1'))
    const late = client.room('tokens', { since })
    for await (const frame of late) t.fail(`a message behind the end: ${JSON.stringify(frame)}`)
    t.match(late.getSnapshot(), { status: 'closed', error: null })
  }
})

t.test('a listener that throws is told to onerror, and nothing is left after close', async t => {
  const page = fakePage(t)
  const { rooms, proxy } = await start(t)
  const errors: unknown[] = []
  const timers = () => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  const before = timers()
  const client = createClient({ url: `http://${proxy.host}/rooms`, WebSocket: WebSocket as any, onerror: error => { errors.push(error) } })
  const room = client.room('chat:1')
  client.room('chat:2')
  room.on('message', () => { throw new Error('mine') })
  const got = numbers(room)
  await open(room)
  await open(client.room('chat:2'))
  await rooms.broadcast('chat:1', { n: 0 })
  await until(() => got.length === 1)
  t.match(errors, [{ message: 'mine' }])
  t.equal(page.listeners.size, 6)
  client.close()
  t.equal(page.listeners.size, 0)
  t.equal(room.getSnapshot().status, 'closed')
  await until(() => rooms.stats().connections === 0)
  await until(() => timers() <= before)
  t.equal(client.room('chat:3').getSnapshot().status, 'closed')
})
