import { execFile } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { Broker, BrokerHandlers, RoomsEvents } from '../types/index.ts'
import { memoryBroker } from '../lib/index.ts'
import { connect, createRooms, join, listen, refused, until, type AnyOptions } from './helpers/app.ts'
import { environment } from './helpers/process.ts'

/** Collects the events of a channel until the end of the test. */
function listenTo<N extends keyof RoomsEvents> (t: Test, name: N): RoomsEvents[N][] {
  const events: RoomsEvents[N][] = []
  const add = (event: unknown): void => { events.push(event as RoomsEvents[N]) }
  subscribe(name, add)
  t.teardown(() => { unsubscribe(name, add) })
  return events
}

async function create (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
    topics: { 'chat:*': { publish: true } },
    ...options
  })
  const url = await listen(app)
  const as = (user: string) => join(t, `${url}/rooms/chat:1?token=secret`, { headers: { 'x-user': user, authorization: 'Bearer secret' } })
  return { app, rooms: app.rooms, url, as }
}

t.test('the join and leave channels give the member, its address, the duration and the reason', async t => {
  const [joins, leaves] = [listenTo(t, 'fastify-rooms:join'), listenTo(t, 'fastify-rooms:leave')]
  const { rooms, as, url } = await create(t)
  const anna = await as('anna')
  const stranger = await join(t, `${url}/rooms/chat:1`)
  t.equal(joins.length, 2)
  const about = { rooms, session: anna.hello.session, topic: 'chat:1', topicKey: 'chat:*', user: 'anna', address: '127.0.0.1', mode: 'rooms.v1' }
  t.same(joins[0], { ...about, milliseconds: joins[0]!.milliseconds })
  t.equal(joins[0]!.rooms, rooms, 'the event has app.rooms itself')
  t.ok(joins[0]!.milliseconds >= 0 && joins[0]!.milliseconds < 60_000)
  t.equal(joins[1]!.user, undefined)

  await rooms.kick({ user: 'anna' })
  t.same(leaves, [{ ...about, code: 4005, reason: 'kicked', by: 'server', milliseconds: leaves[0]!.milliseconds }])
  t.ok(leaves[0]!.milliseconds >= joins[0]!.milliseconds)
  stranger.socket.close(3001, 'enough')
  await until(() => leaves.length === 2)
  t.match(leaves[1], { user: undefined, code: 3001, reason: 'enough', by: 'peer' })
})

t.test('a refused join is reported neither as a join nor as a leave', async t => {
  const [joins, leaves] = [listenTo(t, 'fastify-rooms:join'), listenTo(t, 'fastify-rooms:leave')]
  const { rooms, url } = await create(t, { onJoin: () => false })
  await t.rejects(join(t, `${url}/rooms/chat:1`))
  await until(() => rooms.stats().refused === 1)
  t.match(rooms.stats(), { joined: 0 })
  t.same([...joins, ...leaves], [])
})

t.test('a frame is reported with its size, and a publication once, not once per member', async t => {
  const [messages, broadcasts] = [listenTo(t, 'fastify-rooms:message'), listenTo(t, 'fastify-rooms:broadcast')]
  const { rooms, as } = await create(t)
  const [anna] = await Promise.all([as('anna'), as('ben'), as('cleo')])
  const frame = JSON.stringify({ type: 'message', data: 'café', ref: 1 })
  anna.send(frame)
  await anna.next('ack')
  t.same(messages.map(({ session, user, topicKey, bytes }) => [session, user, topicKey, bytes]), [[anna.hello.session, 'anna', 'chat:*', Buffer.byteLength(frame)]])
  const { id } = await rooms.broadcast('chat:1', { n: 1 })
  const { id: none } = await rooms.broadcast('chat:2', 7)
  t.equal(none, undefined)
  t.same(broadcasts, [
    { rooms, topic: 'chat:1', topicKey: 'chat:*', from: anna.hello.session, bytes: 7, local: 3, published: true, id: broadcasts[0]!.id },
    { rooms, topic: 'chat:1', topicKey: 'chat:*', from: undefined, bytes: 7, local: 3, published: true, id },
    { rooms, topic: 'chat:2', topicKey: 'chat:*', from: undefined, bytes: 1, local: 0, published: true, id: undefined }
  ])
  anna.send('no JSON')
  await anna.next('error')
  t.equal(messages.length, 2, 'whatever is in it')
})

t.test('a publication is reported after the answer of the broker', async t => {
  const broadcasts = listenTo(t, 'fastify-rooms:broadcast')
  const memory = memoryBroker()
  let answer!: () => void
  const broker: Broker = {
    capabilities: memory.capabilities,
    start: (node, handlers) => memory.start(node, handlers),
    attach: topics => memory.attach(topics),
    detach: topics => memory.detach(topics),
    control: (to, bytes) => memory.control(to, bytes),
    close: () => memory.close(),
    publish: batch => new Promise(resolve => { answer = () => { resolve(batch.map(() => ({ state: 'failed' }))) } })
  }
  const { rooms } = await create(t, { broker })
  const result = rooms.broadcast('chat:1', 'lost')
  await new Promise(resolve => setImmediate(resolve))
  t.same(broadcasts, [])
  answer()
  t.match(await result, { published: false })
  t.match(broadcasts, [{ topic: 'chat:1', published: false, local: 0, bytes: 6 }])
})

t.test('a refusal is reported with its reason and the known fields of the request', async t => {
  const refusals = listenTo(t, 'fastify-rooms:refused')
  const { app, rooms, as, url } = await create(t, {
    topics: { 'chat:*': { post: true }, news: { post: true } },
    authorize: ({ action, topic }) => action === 'join' && topic !== 'chat:private',
    onJoin: session => session.user !== 'banned'
  })
  await refused(`${url}/rooms/chat:private?token=secret`, [], { headers: { 'x-user': 'anna' } })
  await refused(`${url}/rooms/chat:n*ws`)
  await app.inject({ method: 'POST', url: '/rooms/news', payload: 'no JSON', headers: { 'content-type': 'application/json' } })
  const banned = await connect(t, `${url}/rooms/chat:1`, [], { headers: { 'x-user': 'banned' } })
  await banned.closed
  const anna = await as('anna')
  await anna.ask({ type: 'message', data: 1 })
  const nobody = { session: undefined, user: undefined, address: '127.0.0.1' }
  t.same(refusals, [
    { rooms, what: 'request', reason: 'forbidden', status: 403, topic: 'chat:private', topicKey: 'chat:*', ...nobody },
    { rooms, what: 'request', reason: 'badRequest', status: 400, topic: undefined, topicKey: 'chat:*', ...nobody },
    { rooms, what: 'request', reason: 'badRequest', status: 400, topic: 'news', topicKey: 'news', ...nobody },
    { rooms, what: 'join', reason: 'forbidden', status: undefined, topic: 'chat:1', topicKey: 'chat:*', session: refusals[3]!.session, user: 'banned', address: '127.0.0.1' },
    { rooms, what: 'frame', reason: 'forbidden', status: undefined, topic: 'chat:1', topicKey: 'chat:*', session: anna.hello.session, user: 'anna', address: '127.0.0.1' }
  ])
  t.type(refusals[3]!.session, 'string')
})

t.test('an upgrade that is cut is reported as refused, although nothing is known of it', async t => {
  const refusals = listenTo(t, 'fastify-rooms:refused')
  const { rooms, url } = await create(t, { limits: { handshake: 100 }, identify: () => new Promise(() => {}) })
  await t.rejects(connect(t, `${url}/rooms/chat:1`))
  await until(() => refusals.length === 1)
  t.same(refusals, [{ rooms, what: 'request', reason: 'handshake', status: undefined, session: undefined, topic: undefined, topicKey: undefined, user: undefined, address: undefined }])
})

t.test('a member that does not read is reported, with its buffered bytes', async t => {
  const slow = listenTo(t, 'fastify-rooms:slow')
  const { rooms, as } = await create(t, { slow: { bytes: 1_000 } })
  const client = await as('anna')
  client.socket.pause()
  await until(async () => {
    await rooms.broadcast('chat:1', 'x'.repeat(1_000_000))
    return rooms.stats().slow === 1
  }, 20_000)
  t.match(slow, [{ session: client.hello.session, user: 'anna', policy: 'close' }])
  t.ok(slow[0]!.bytes > 1_000)
})

t.test('a member that may lag is reported with its policy', async t => {
  const slow = listenTo(t, 'fastify-rooms:slow')
  const { rooms, as } = await create(t, { slow: { policy: 'drop', bytes: 1_000 } })
  const client = await as('anna')
  client.socket.pause()
  await until(async () => {
    await rooms.broadcast('chat:1', 'x'.repeat(1_000_000))
    return rooms.stats().lagging === 1
  }, 20_000)
  t.match(slow, [{ session: client.hello.session, policy: 'drop' }])
  t.equal(rooms.stats().slow, 0)
})

t.test('an error of a hook is reported once, in addition to onError or the log', async t => {
  const failures = listenTo(t, 'fastify-rooms:error')
  const [one, two] = [new Error('one'), new Error('two')]
  const { rooms, as } = await create(t, { onMessage: { 'chat:*': () => { throw one } }, onLeave: () => { throw two }, onError: () => {} })
  const anna = await as('anna')
  await anna.ask({ type: 'message', data: 1 })
  t.same(failures, [{ rooms, error: one, session: anna.hello.session, topic: 'chat:1' }])
  t.equal(failures[0]!.error, one)
  await anna.close()
  await until(() => failures.length === 2)
  t.equal(failures[1]!.error, two)
  t.equal(rooms.stats().errors, 2)
})

t.test('a failure without a session names no session', async t => {
  const failures = listenTo(t, 'fastify-rooms:error')
  const memory = memoryBroker()
  memory.detach = () => Promise.reject(new Error('the broker is gone'))
  const { as } = await create(t, { broker: memory, onError: () => {} })
  const anna = await as('anna')
  await anna.close()
  await until(() => failures.length === 1)
  t.match(failures, [{ error: { message: 'the broker is gone' }, session: undefined, topic: undefined }])
})

t.test('a drain is reported at its begin and at its end, once each', async t => {
  const drains = listenTo(t, 'fastify-rooms:drain')
  const { app, rooms, as } = await create(t)
  await as('anna')
  const drained = rooms.drain()
  t.same(drains, [{ rooms, phase: 'begin', connections: 1 }])
  await drained
  await app.close()
  t.same(drains.slice(1), [{ rooms, phase: 'end', connections: 0 }])
})

/** A memory broker, and the handlers that it has got once it is started. */
function withHandlers () {
  const memory = memoryBroker()
  const { start } = memory
  let handlers!: BrokerHandlers
  memory.start = (node, given) => {
    handlers = given
    return start.call(memory, node, given)
  }
  return { memory, handlersOf: () => handlers }
}

t.test('the state of the broker is reported, including the first one', async t => {
  const states = listenTo(t, 'fastify-rooms:broker')
  const { memory, handlersOf } = withHandlers()
  const { rooms } = await create(t, { broker: memory })
  const handlers = handlersOf()
  const cause = new Error('connection refused')
  handlers.state('down', cause)
  handlers.state('down', cause)
  t.match(states, [
    { rooms, state: 'up', before: undefined, milliseconds: Number, cause: undefined },
    { rooms, state: 'down', before: 'up', milliseconds: Number, cause },
    { rooms, state: 'down', before: 'down', milliseconds: Number, cause }
  ])
  t.equal(states.length, 3)
  t.match(rooms.health(), { ok: false, state: 'open', broker: 'down', cause: 'connection refused' })
})

t.test('each loss that members are told of is reported, with its topic', async t => {
  const losses = listenTo(t, 'fastify-rooms:loss')
  const { memory, handlersOf } = withHandlers()
  const { rooms, as } = await create(t, { broker: memory })
  const handlers = handlersOf()
  const client = await as('anna')
  const { id: from } = await rooms.broadcast('chat:1', 1)
  handlers.lost(['chat:1', 'news'])
  handlers.lost('all')
  t.match(await client.next('gap'), { reason: 'lost', from })
  t.same(losses, [{ rooms, topic: 'chat:1', topicKey: 'chat:*', reason: 'lost', count: undefined, from, to: undefined }], 'a topic without a room, or whose members know, is none')
  t.equal(rooms.stats().losses, 1)
})

// Runs in a process of its own, because the test runner would get the uncaught exceptions.
t.test('a subscriber that throws breaks no room; Node.js turns the error into an uncaught exception', async t => {
  const program = `
import { subscribe } from 'node:diagnostics_channel'
import Fastify from 'fastify'
import fastifyRooms from './lib/index.ts'

const uncaught = []
process.on('uncaughtException', error => { uncaught.push(error.message) })
for (const name of ['join', 'message', 'broadcast', 'leave']) subscribe('fastify-rooms:' + name, () => { throw new Error(name) })

const app = Fastify()
await app.register(fastifyRooms)
const client = await app.rooms.inject('/news')
await client.next('hello')
client.send({ type: 'message', data: 'hi', ref: 1 })
const { data } = await client.next('message')
const { ok } = await client.next('ack')
await client.close()
await app.close()
console.log(JSON.stringify({ data, ok, uncaught, stats: app.rooms.stats().members }))
`
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], { env: environment(), timeout: 60_000 })
  t.same(JSON.parse(stdout), { data: 'hi', ok: true, uncaught: ['join', 'message', 'broadcast', 'leave'], stats: 0 })
})

t.test('two hubs of one process share the channels, and each event names its hub', async t => {
  const joins = listenTo(t, 'fastify-rooms:join')
  const [one, two] = [await create(t), await create(t)]
  await two.as('ben')
  await one.as('anna')
  t.same(joins.map(({ rooms }) => rooms === one.rooms ? 'one' : rooms === two.rooms ? 'two' : 'nobody'), ['two', 'one'])
})

t.test('events contain no payload, header or query', async t => {
  const names = [...(await readFile('types/events.ts', 'utf8')).matchAll(/^ {2}'(fastify-rooms:\w+)':/gm)].map(match => match[1] as keyof RoomsEvents)
  t.ok(names.length >= 8)
  const all = names.map(name => listenTo(t, name))
  const { app, as } = await create(t)
  const anna = await as('anna')
  await anna.ask({ type: 'message', data: 'secret' })
  await app.close()
  t.ok(all.flat().length >= 6)
  t.notMatch(JSON.stringify(all), 'secret')
})

t.test('stats count the bytes that members sent and received', async t => {
  const { rooms, as, url } = await create(t, { topics: { 'chat:*': { publish: true, presence: true } } })
  const clients = [await as('anna'), await as('ben')]
  const raw = await join(t, `${url}/rooms/chat:1`)
  clients.push(raw)
  // The length of a server's frame header for a payload (RFC 6455 5.2).
  const frameLength = (text: string): number => {
    const length = Buffer.byteLength(text)
    return length + (length < 126 ? 2 : length < 65_536 ? 4 : 10)
  }
  const got = (): number => clients.flatMap(client => client.received).reduce((sum, text) => sum + frameLength(text), 0)
  const sent = ['{"type":"message","data":"à la carte","ref":1}', '{"type":"ping","ref":2}', `{"type":"message","data":"${'x'.repeat(300)}"}`]
  for (const frame of sent) clients[0]!.send(frame)
  await rooms.broadcast('chat:1', 'y'.repeat(70_000))
  await rooms.broadcast('chat:1', 'not for ben', { except: clients[1]!.hello.session })
  await rooms.sendToUser('ben', 'for ben')
  await until(() => rooms.stats().receivedBytes === sent.reduce((sum, frame) => sum + Buffer.byteLength(frame), 0))
  await until(() => clients[0]!.received.some(text => text.includes('x'.repeat(300))))
  await until(() => rooms.stats().sentBytes === got())
  t.equal(clients[1]!.received.some(text => text.includes('not for ben')), false)
  t.match(rooms.stats(), { joined: 3, received: 3 })
})

t.test('a subscriber that ends the refused session finds it ended', async t => {
  const { app, url } = await create(t, { onJoin: () => false })
  let calls = 0
  const kick = (event: any): void => {
    if (++calls < 100) event.rooms.kick({ session: event.session }).then((count: number) => { t.equal(count, 0) })
  }
  subscribe('fastify-rooms:refused', kick)
  t.teardown(() => { unsubscribe('fastify-rooms:refused', kick) })
  const client = await connect(t, `${url}/rooms/chat:1`)
  t.match(await client.closed, { code: 4003 })
  t.equal(client.received.length, 1)
  t.equal(calls, 1)
  t.match(app.rooms.stats(), { refused: 1, refusals: { forbidden: 1 } })
})
