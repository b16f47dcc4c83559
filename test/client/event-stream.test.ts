import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { openEventStream } from '../../lib/client/event-stream.ts'
import { createRooms, listen, until, type AnyOptions } from '../helpers/app.ts'
import { atOnce, connect, failure, has, holdTimers, json, numbers, open, setGlobal, startFake } from './kit.ts'
import { startProxy } from './proxy.ts'

const topics = { 'chat:*': { message: Type.Object({ n: Type.Number() }), publish: true, presence: true, history: true, post: true } } as const

async function start (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { topics, authorize: () => true, ...options } as AnyOptions)
  const proxy = await startProxy(t, await listen(app))
  return { rooms: app.rooms as any, proxy }
}

/** A class of WebSockets that come through only if `isBlocked` is unset. */
function blockable () {
  return class Blockable extends WebSocket {
    static isBlocked = true
    static count = 0
    constructor (url: string, protocols: string[]) {
      super(Blockable.isBlocked ? 'ws://127.0.0.1:1/' : url, protocols)
      Blockable.count++
    }
  }
}

/** A platform without WebSockets: each connection is an event stream from the start. */
const withoutWebSocket = (t: Test): { WebSocket: undefined } => {
  setGlobal(t, 'WebSocket', undefined)
  return { WebSocket: undefined }
}

/** The storage of a page's session. */
function fakeStorage (t: Test, values: Record<string, string> = {}): Record<string, string> {
  setGlobal(t, 'sessionStorage', {
    getItem: (key: string) => values[key] ?? null,
    setItem (key: string, value: string) { values[key] = value },
    removeItem (key: string) { delete values[key] }
  })
  return values
}

t.test('event streams give way to WebSockets after 5 minutes, and the session remembers them until then', async t => {
  const { rooms, proxy } = await start(t)
  const values = fakeStorage(t)
  const timers = holdTimers(t, 100_000)
  atOnce(t)
  const Class = blockable()
  const room = connect(t, proxy.host, { WebSocket: Class as any }).room('chat:1')
  const got = numbers(room)
  await has(room, { status: 'open', transport: 'event-stream' })
  t.ok(Number(values['fastify-rooms']) > Date.now() + 290_000)
  t.equal(Class.count, 2)
  const other = connect(t, proxy.host, { WebSocket: Class as any }).room('chat:1')
  await has(other, { status: 'open', transport: 'event-stream' })
  t.equal(Class.count, 2, 'the next page begins with an event stream')
  Class.isBlocked = false
  t.ok(timers.times.length === 2 && timers.times.every(time => time > 290_000 && time <= 300_000), `${timers.times}`)
  timers.fire()
  await has(room, { status: 'open', transport: 'websocket' })
  await has(other, { status: 'open', transport: 'websocket' })
  t.same(values, {})
  await rooms.broadcast('chat:1', { n: 1 })
  await until(() => got.length === 1)
  t.equal(rooms.stats().connections, 2)
})

t.test('a session that has remembered event streams for too long begins with a WebSocket', async t => {
  const { proxy } = await start(t)
  const values = fakeStorage(t, { 'fastify-rooms': `${Date.now() - 1}` })
  const Class = blockable()
  Class.isBlocked = false
  await has(connect(t, proxy.host, { WebSocket: Class as any }).room('chat:1'), { status: 'open', transport: 'websocket' })
  t.same(values, {})
})

t.test('a page that may not use its storage', async t => {
  const { proxy } = await start(t)
  atOnce(t)
  const refuse = (): never => { throw new Error('SecurityError') }
  setGlobal(t, 'sessionStorage', { getItem: refuse, setItem: refuse, removeItem: refuse })
  await has(connect(t, proxy.host, { WebSocket: blockable() as any }).room('chat:1'), { status: 'open', transport: 'event-stream' })
})

t.test('credentials that end soon are renewed by another event stream', async t => {
  const tokens: (string | undefined)[] = []
  const { rooms, proxy } = await start(t, {
    identify (request: any) {
      tokens.push(request.headers.authorization)
      return { user: 'u', expires: Date.now() + (request.headers.authorization === 'Bearer old' ? 3_000 : 1_000_000) }
    }
  } as any)
  atOnce(t)
  const room = connect(t, proxy.host, { ...withoutWebSocket(t), token: ({ expired }) => expired ? 'new' : 'old' }).room('chat:1')
  const got = numbers(room)
  await failure(room)
  await rooms.broadcast('chat:1', { n: 1 })
  await until(() => got.length === 1)
  await rooms.broadcast('chat:1', { n: 2 })
  await until(() => got.length === 2)
  t.match([room.getSnapshot().recovered, got], [true, [1, 2]])
  t.same(tokens, ['Bearer old', 'Bearer new'])
})

t.test('refusals of event streams', async t => {
  const fake = await startFake(t)
  atOnce(t)
  const options = withoutWebSocket(t)
  const refuse = async (status: number, body: string, type = 'application/json') => {
    fake.respond = (_request, response) => response.writeHead(status, { 'content-type': type }).end(body || undefined)
    const client = connect(t, fake.host, options)
    const room = client.room('chat:1')
    const row = await failure(room)
    client.close()
    return row
  }
  t.match(await refuse(403, '{"code":"FST_ROOMS_FORBIDDEN","message":"no"}'), { status: 'closed', error: { code: 'FST_ROOMS_FORBIDDEN' } })
  t.match(await refuse(404, '<p>', 'text/html'), { status: 'closed', error: { code: 'http_404' } })
  t.match(await refuse(403, '{}'), { status: 'closed', error: { code: 'http_403' } })
  t.match(await refuse(401, '{}'), { status: 'reconnecting', error: { code: 'http_401' } })
  t.match(await refuse(503, ''), { status: 'reconnecting', error: { code: 'http_503' } })
  t.match(await refuse(200, '<p>', 'text/html'), { status: 'reconnecting', error: { code: 'bad_response' } })
  fake.respond = (_request, response) => response.writeHead(204).end()
  await has(connect(t, fake.host, options).room('chat:1'), { status: 'closed', error: null })
  fake.respond = (_request, response) => response.destroy()
  const room = connect(t, fake.host, options).room('chat:1')
  t.match(await failure(room), { status: 'reconnecting', error: { code: 'unreachable' } })
})

t.test('answers to messages and pages: refusals, no JSON, none', async t => {
  const fake = await startFake(t)
  atOnce(t)
  const stream = 'id: 0123456789abcdef-1\ndata: {"type":"hello","v":1,"session":"s","topic":"chat:1","heartbeat":0,"maxPayload":1}\n\n'
  let answer: [number, string] = [200, '{}']
  const asked: any[] = []
  fake.respond = (request, response) => {
    if (request.headers.accept === 'text/event-stream') {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(stream.slice(0, 30))
      response.write(`${stream.slice(30)}: comment\n\n`)
      return
    }
    asked.push([request.method, request.url, request.headers['idempotency-key'], request.headers['x-app'], request.headers.authorization])
    if (answer[0] === 0) response.destroy()
    else json(response, answer[1], answer[0])
  }
  const client = connect(t, fake.host, { ...withoutWebSocket(t), headers: { 'x-app': 'a' }, token: 'abc', onerror: () => {} })
  const room = client.room('chat:1', { since: '0', presence: true })
  await open(room)
  answer = [403, '{"code":"FST_ROOMS_FORBIDDEN","message":"no"}']
  await t.rejects(room.publish({ n: 1 }), { name: 'RoomsError', code: 'FST_ROOMS_FORBIDDEN', message: 'no' })
  answer = [502, '<p>']
  await t.rejects(room.publish({ n: 1 }, { mid: '0123456789abcdef' }), { code: 'http_502' })
  answer = [200, '{"messages":[],"complete":true,"id":"0123456789abcdef-1"}']
  t.match(await room.history({ since: '0123456789abcdef-0', limit: 5 }), { messages: [] })
  t.same(asked, [
    ['POST', '/rooms/chat%3A1', undefined, 'a', 'Bearer abc'],
    ['POST', '/rooms/chat%3A1', '0123456789abcdef', 'a', 'Bearer abc'],
    ['GET', '/rooms/chat%3A1?since=0123456789abcdef-0&limit=5', undefined, 'a', 'Bearer abc']
  ])
  await t.rejects(room.publish({ n: 1 }, { key: 'k' }), { code: 'unsupported', message: 'an event stream carries no message with a key' })
  await t.rejects(room.presence({}), { code: 'unsupported' })
  answer = [0, '']
  await t.rejects(room.publish({ n: 1 }), { code: 'unknown' })
  await until(() => room.log().some(({ error }) => error?.code === 'lost'))
  await open(room)
  client.close()
  t.equal(room.getSnapshot().status, 'closed')
})

t.test('an event stream has the states of a WebSocket', async t => {
  const socket = openEventStream({ signal: new AbortController().signal, options: {} } as any, new URL('http://127.0.0.1:1/'), null)
  t.equal(socket.readyState, 1)
  socket.close()
  t.equal(socket.readyState, 3)
})
