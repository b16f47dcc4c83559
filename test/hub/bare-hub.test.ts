import { EventEmitter } from 'node:events'
import t, { type Test } from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import { Hub } from '../../lib/hub/hub.ts'
import type { AnySession } from '../../lib/hub/ports.ts'
import { HubRooms } from '../../lib/api/rooms.ts'
import { TopicRegistry } from '../../lib/topics/registry.ts'
import { payloadCompiler, schemaCompiler } from '../../lib/topics/payload.ts'
import { webSocketPeer } from '../../lib/transport/ws/listeners.ts'
import { createRooms, join, listen, until } from '../helpers/app.ts'
import { bareHooks, bareSettings, silent } from '../helpers/bare-hub.ts'

/** A hub without Fastify, and sockets that do nothing by themselves. */
async function createHub (t: Test, closing: 'answers' | 'mute' = 'answers') {
  const lines: [string, object][] = []
  const log = { ...silent, debug: (object: object, message: string) => { lines.push([message, object]) } }
  const registry = new TopicRegistry(undefined, payloadCompiler(schemaCompiler({}), {}), { limits: { payload: 1_000, messages: 1_000, per: 1_000, topicLength: 255 }, slow: { policy: 'close', bytes: 1_000_000 }, history: false })
  const hub = new Hub(memoryBroker(), bareHooks(), bareSettings({ limits: { connections: 10, topics: 10 } }), log)
  hub.rooms = new HubRooms(hub, registry, () => Promise.reject(new Error('no inject here')), () => { throw new Error('no document here') })
  await hub.start()
  t.teardown(() => hub.close())
  const arrive = (topic: string, onJoin?: (session: AnySession) => unknown) => {
    const frames: any[] = []
    const socket = Object.assign(new EventEmitter(), {
      readyState: 1,
      bufferedAmount: 0,
      isPaused: false,
      extensions: '',
      terminated: false,
      send: (data: Buffer | string) => { frames.push(JSON.parse(data.toString())) },
      ping: () => {},
      close: (code: number, reason: string) => {
        socket.readyState = 2
        if (closing === 'answers') setImmediate(() => socket.emit('close', code, Buffer.from(reason)))
      },
      terminate: () => { socket.terminated = true; socket.emit('close', 1006, Buffer.alloc(0)) },
      pause: () => { socket.isPaused = true },
      resume: () => { socket.isPaused = false }
    })
    hub.connect({ ...webSocketPeer(socket, {}, 'rooms.v1'), address: '-', addressKey: '-', isForwarded: false, definition: registry.get(topic), topic, user: undefined, info: undefined, since: undefined, presence: false, onJoin })
    return { socket, frames }
  }
  return { hub, arrive, lines }
}

t.test('the hub does not depend on Fastify: any socket can join', async t => {
  const { hub, arrive } = await createHub(t)
  const { socket, frames } = arrive('news')
  await until(() => frames.length > 0)
  t.match(frames[0], { type: 'hello', topic: 'news', heartbeat: 0, maxPayload: 1_000 })
  socket.emit('message', Buffer.from('{"type":"message","data":1,"ref":1}'), false)
  t.match(hub.counters, { broadcasts: 1, deliveries: 1 }, 'with an in-process broker all messages are queued within the call')
  t.equal(frames.length, 2, 'messages wait for the end of the turn')
  await new Promise(resolve => setImmediate(resolve))
  t.match(frames.slice(2), [{ type: 'message', data: 1 }, { type: 'ack', ref: 1 }])
  t.equal((await hub.rooms.broadcast('news', 2)).local, 1)
})

t.test('a full batch is written before the turn ends, and later messages at its end', async t => {
  const { hub, arrive } = await createHub(t)
  const { frames } = arrive('news')
  await until(() => frames.length > 0)
  await new Promise(resolve => setImmediate(resolve)) // after its own presence frame
  const messages = () => frames.filter(({ type }) => type === 'message').map(({ data }) => data)
  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index)
  for (const n of numbers(255)) hub.rooms.broadcast('news', n)
  t.same(messages(), [])
  hub.rooms.broadcast('news', 255)
  t.same(messages(), numbers(256))
  hub.rooms.broadcast('news', 256)
  t.equal(messages().length, 256)
  await new Promise(resolve => setImmediate(resolve))
  t.same(messages(), numbers(257))
  hub.rooms.broadcast('news', 'x'.repeat(262_144))
  t.equal(messages().length, 258)
})

t.test('connection errors are logged at debug, and counted if the peer violated the protocol', async t => {
  const { hub, arrive, lines } = await createHub(t)
  const { socket } = arrive('news')
  socket.emit('error', Object.assign(new Error('invalid frame'), { code: 'WS_ERR_INVALID_OPCODE' }))
  socket.emit('error', Object.assign(new Error('reset'), { code: 'ECONNRESET' }))
  socket.emit('error', new Error('no code'))
  t.match(lines.map(([message]) => message), ['connection error', 'connection error', 'connection error'])
  t.equal(hub.counters.invalid, 1)
  t.equal(hub.counters.errors, 0)
})

t.test('a drain terminates members that do not answer the close', async t => {
  const { hub, arrive } = await createHub(t, 'mute')
  const { socket, frames } = arrive('news')
  await until(() => frames.length > 0)
  await hub.drain()
  t.equal(socket.terminated, true)
  t.equal(hub.connections.size, 0)
})

t.test('a closed hub accepts nothing', async t => {
  const { hub } = await createHub(t)
  await hub.close()
  t.throws(() => hub.rooms.subscribe('news'), { code: 'FST_ROOMS_CLOSED' })
  await t.rejects(hub.rooms.broadcast('news', 1), { code: 'FST_ROOMS_CLOSED' })
  await t.rejects(hub.rooms.inject('/news'), { message: 'no inject here' })
})

t.test('a member that does not read is closed as slow, and counted', async t => {
  const app = await createRooms(t, { slow: { bytes: 1_000 } })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  client.socket.pause()
  await until(async () => {
    await app.rooms.broadcast('news', 'x'.repeat(1_000_000))
    return app.rooms.stats().slow === 1
  }, 20_000)
  t.equal(await app.rooms.count('news'), 0)
})

t.test('a silent member is terminated, and counted', async t => {
  const left: unknown[] = []
  const app = await createRooms(t, { heartbeat: { interval: 50, timeout: 50 }, onLeave: (_session, reason) => { left.push(reason) } })
  const url = await listen(app)
  await join(t, `${url}/rooms/news`, { autoPong: false })
  await until(() => left.length === 1)
  t.same(left, [{ code: 4203, reason: 'heartbeat' }])
  t.match(app.rooms.stats(), { silent: 1, members: 0 })
})

t.test('a joining member whose buffered bytes leave no room for hello is closed once, and never became a member', async t => {
  const { hub, arrive } = await createHub(t)
  const other = arrive('news')
  await until(() => other.frames.length > 1)
  const turnEnds = async (): Promise<void> => {
    hub.rooms.broadcast('news', 1)
    await new Promise(resolve => setImmediate(resolve))
  }
  const late = arrive('news', async session => {
    session.send(1)
    session.send(2)
    await turnEnds()
    late.socket.bufferedAmount = 1_000_000
  })
  await until(() => late.socket.readyState === 2)
  await new Promise(resolve => setTimeout(resolve, 250)) // two intervals of presence
  t.same(late.frames, [])
  t.match(hub.counters, { joined: 1, slow: 1 })
  t.notOk(other.frames.slice(2).some(({ type, join }) => type === 'presence' && join !== undefined), 'other members do not see the join')
})
