import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../../lib/index.ts'
import { createTestClient, until, type ClientRoom, type RoomsError, type TestClientOptions } from '../../lib/testing/index.ts'
import { injectedFetch } from '../../lib/testing/fetch.ts'
import { injectedWebSocket } from '../../lib/testing/websocket.ts'
import type { Identity } from '../../types/index.ts'
import { createRooms, until as eventually, type AnyOptions } from '../helpers/app.ts'

const topics = {
  news: { message: Type.Object({ title: Type.String() }), history: true, post: true },
  'chat:*': { message: Type.Object({ text: Type.String() }), publish: true, presence: true, history: true },
  admins: {}
} as const

async function build (t: Test, options: AnyOptions = {}, clientOptions: TestClientOptions = {}) {
  const app = await createRooms(t, {
    topics,
    identify: request => ({ user: String(request.headers['x-user'] ?? 'ann') }),
    authorize: ({ action, topic }) => action !== 'join' || topic !== 'admins',
    ...options
  })
  return { app, client: createTestClient<typeof topics>(app, clientOptions) }
}

t.test('a test client joins without a port, receives, publishes and reads snapshots', async t => {
  const { app, client } = await build(t)
  const room = client.room('chat:1', { presence: true })
  const state = await until(room, ({ status, members }) => status === 'open' && members !== null)
  t.match(state, { transport: 'websocket', error: null, count: 1 })
  t.match(state.members, [{ user: 'ann' }])

  const next = room[Symbol.asyncIterator]().next()
  await app.rooms.broadcast('chat:1', { text: 'from the host' })
  t.match((await next).value, { data: { text: 'from the host' } })
  await room.publish({ text: 'hi' })
  const { last } = await until(room, ({ last }) => last?.data.text === 'hi')
  t.equal(last!.from, state.session)

  const snapshot = await client.get('chat:1')
  t.same(snapshot.messages.map(({ data }) => data.text), ['from the host', 'hi'])
  t.equal(snapshot.count, 1)
  t.notOk(app.server.listening)
})

t.test('a test client sees what the server refuses', async t => {
  const { client } = await build(t, {}, { onerror: () => {} })
  const room = client.room('chat:1')
  await until(room, ({ status }) => status === 'open')
  await t.rejects(room.publish({ text: 1 } as any), { name: 'RoomsError', code: 'FST_ROOMS_INVALID_PAYLOAD' })
  await t.rejects(until(client.room('admins'), ({ status }) => status === 'open'), { code: 'FST_ROOMS_FORBIDDEN' })
  await t.rejects(client.get('elsewhere' as 'news'), { code: 'http_404', status: 404 })
  t.equal(room.getSnapshot().status, 'open', 'the other room goes on')
})

t.test('a room alone is refused by the status of its upgrade', async t => {
  const { client } = await build(t)
  const room = client.room('admins')
  await t.rejects(until(room, ({ status }) => status === 'open'), { code: 'FST_ROOMS_FORBIDDEN', status: 403 })
})

t.test('headers and tokens reach upgrades and requests', async t => {
  const seen: string[] = []
  const identify = ({ headers, host }: FastifyRequest): Identity => {
    seen.push(`${headers.upgrade ?? 'request'} ${headers['x-user']} ${headers.authorization ?? headers['sec-websocket-protocol']} ${host}`)
    return { user: String(headers['x-user']) }
  }
  const { client, app } = await build(t, { identify }, { headers: { 'x-user': 'ben' }, token: () => 'secret' })
  await until(client.room('chat:1'), ({ status }) => status === 'open')
  await client.get('chat:1')
  t.same(seen, [`websocket ben rooms.v1, bearer.${Buffer.from('secret').toString('base64url')} localhost`, 'request ben Bearer secret localhost'])
  t.same((await app.rooms.members('chat:1')).map(({ user }) => user), ['ben'])
})

t.test('several rooms share one connection, unless the options or the app say otherwise', async t => {
  for (const [connections, options, clientOptions] of [[1, {}, {}], [3, {}, { multiplex: false }], [3, { multiplex: false }, {}], [1, { multiplex: '/all' }, {}], [1, { multiplex: '/all', prefix: '/' }, {}]] as const) {
    const { app, client } = await build(t, options, clientOptions)
    const [chat, ...rooms] = [client.room('chat:1'), client.room('chat:2'), client.room('news')] as const
    for (const room of [chat, ...rooms]) await until(room as ClientRoom, ({ status }) => status === 'open')
    t.match(app.rooms.stats(), { connections, members: 3 }, JSON.stringify([options, clientOptions]))
    await chat.publish({ text: 'hi' })
    client.close()
    await eventually(() => app.rooms.stats().connections === 0)
  }
})

t.test('a test client closes when the app begins to close, also while it waits to reconnect', async t => {
  const { app, client } = await build(t, { onJoined: session => { if (session.topic === 'chat:2') session.close(4200, 'again') } }, { multiplex: false })
  const open = client.room('chat:1')
  await until(open, ({ status }) => status === 'open')
  const waiting = client.room('chat:2')
  await until(waiting, ({ status }) => status === 'reconnecting')
  await app.close()
  for (const room of [open, waiting, client.room('news')]) t.match(room.getSnapshot(), { status: 'closed', error: null }, room.topic)
})

t.test('a test client that is closed leaves the app, also while it connects', async t => {
  const { app, client } = await build(t)
  const room = client.room('chat:1')
  await until(room, ({ status }) => status === 'open')
  client.close()
  t.equal(room.getSnapshot().status, 'closed')
  const other = createTestClient(app)
  other.room('chat:2')
  await eventually(() => app.rooms.stats().connections === 1) // the first has left, the second has been accepted
  other.close()
  await eventually(() => app.rooms.stats().connections === 0)
  t.pass()
})

t.test('a WebSocket that is closed before it opens does not open, another one tells that it is open', async t => {
  const { app } = await build(t)
  const events: string[] = []
  const Injected = injectedWebSocket(app.rooms, {})
  const socket = new Injected('http://localhost/rooms/chat:1', ['rooms.v1'])
  socket.onopen = () => { events.push('open') }
  socket.onclose = ({ code }) => { events.push(`close ${code}`) }
  socket.close()
  socket.close()
  t.equal(socket.readyState, 2)
  await eventually(() => socket.readyState === 3)
  t.same(events, ['close 1000'])

  const other = new Injected('http://localhost/rooms/chat:1', ['rooms.v1'])
  other.onopen = () => { events.push('open') }
  await eventually(() => other.readyState === 1)
  other.close()
  await eventually(() => other.readyState === 3)
  t.same(events, ['close 1000', 'open'])
  await eventually(() => app.rooms.stats().connections === 0)
})

t.test('the app has to have the plugin', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  for (const wrong of [app, undefined, { rooms: {} }, {}]) {
    t.throws(() => createTestClient(wrong as any), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"app" takes an app in which fastify-rooms is loaded/ })
  }
  let scope: FastifyInstance
  await app.register(async api => {
    scope = api
    await api.register(fastifyRooms as any, { prefix: '/rooms/' })
  }, { prefix: '/api' })
  const room = createTestClient(scope!).room('news')
  await until(room, ({ status }) => status === 'open')
  t.equal(scope!.rooms.stats().members, 1)
})

t.test('until rejects with the error of the room, and tells the state when its time is up', async t => {
  const { app, client } = await build(t)
  const room = client.room('chat:1')
  await until(room, ({ status }) => status === 'open')
  await t.rejects(until(room, ({ last }) => last !== null, { timeout: 20 }), /it does not hold within 20 ms: .*last.*"chat:1".*status: 'open'/s)
  await t.rejects(until(room, () => { throw new Error('mine') }), { message: 'mine' })
  const kicked = until(room, ({ last }) => last !== null)
  await app.rooms.kick({ user: 'ann' })
  const error = await kicked.catch((error: RoomsError) => error) as RoomsError
  t.match(error, { name: 'RoomsError', code: 'kicked', status: 4005 })
  const left = client.room('chat:2')
  left.leave()
  await t.rejects(until(left, ({ status }) => status === 'open'), /the room "chat:2" has closed/)
})

t.test('the fetch of a test client reads event streams, and ends with its signal', async t => {
  const { app } = await build(t)
  app.get('/hangs', () => new Promise(() => {}))
  const fetch = injectedFetch(app)
  const controller = new AbortController()
  const { signal } = controller
  const response = await fetch('http://localhost/rooms/news', { headers: { accept: 'text/event-stream' }, signal })
  t.same([response.ok, response.status, response.headers.get('Content-Type'), response.headers.get('x-none')], [true, 200, 'text/event-stream; charset=utf-8', null])
  const reader = response.body.getReader()
  let received = ''
  const receive = async (text: string): Promise<void> => {
    while (!received.includes(text)) received += Buffer.from((await reader.read()).value).toString()
  }
  await receive('"type":"hello"')
  const hanging = fetch('http://localhost/hangs', { headers: {}, signal })
  await app.rooms.broadcast('news', { title: 'a' })
  await receive('"title":"a"')
  controller.abort()
  await t.rejects(reader.read(), { name: 'AbortError' })
  await t.rejects(hanging, { name: 'AbortError' })
  await t.rejects(fetch('http://localhost/rooms/news', { headers: {}, signal }), { name: 'AbortError' })
  const posted = await fetch('http://localhost/rooms/news', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"title":"b"}' })
  t.equal(posted.status, 200)
  t.match(JSON.parse(await posted.text()), { topic: 'news' })
})
