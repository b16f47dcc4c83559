import t, { type Test } from 'tap'
import fastifyRooms, { defineTopics } from '../../lib/index.ts'
import type { Broker, BrokerHandlers } from '../../types/index.ts'
import { ClusterFleet } from '../cluster/fleet.ts'
import { createApp, until, type LogLine } from '../helpers/app.ts'

const topics = defineTopics({ 'answer:*': { stream: true }, chat: {} })
type Part = string | { reason: string }

/** An app on a broker, whose handlers the test may call. */
async function startNode (t: Test, broker: Broker, logs: LogLine[] = [], publish = 300) {
  let handlers!: BrokerHandlers
  const start: Broker['start'] = broker.start.bind(broker)
  broker.start = async (node, given, settings) => {
    handlers = given
    return start(node, given, settings)
  }
  const app = createApp(t, {}, logs)
  await app.register(fastifyRooms, { prefix: '/rooms', topics, broker, limits: { handshake: 400, publish } })
  await app.ready()
  await until(() => app.rooms.health().broker === 'up')
  const read = async (topic: string): Promise<Part[]> => {
    const parts: Part[] = []
    for await (const data of app.rooms.subscribe(topic as 'answer:1')) parts.push(data as string)
    parts.push({ reason: (await app.rooms.history(topic as 'answer:1')).ended!.reason })
    return parts
  }
  return { app, rooms: app.rooms, handlers, read, broker }
}

const faultsOf = ({ rooms }: Awaited<ReturnType<typeof startNode>>) => rooms.stats().brokerFaults

t.test('a stream has one producer in the fleet, which alone writes to it until its end', async t => {
  const fleet = new ClusterFleet()
  const [a, b] = [await startNode(t, fleet.broker()), await startNode(t, fleet.broker())]
  const run = await a.rooms.stream('answer:1')
  await t.rejects(b.rooms.stream('answer:1'), { code: 'FST_ROOMS_STREAM_TAKEN' })
  await t.rejects(b.rooms.broadcast('answer:1', 'between'), { code: 'FST_ROOMS_STREAM_TAKEN' })
  await t.rejects(async () => a.rooms.broadcast('answer:1', 'between'), { code: 'FST_ROOMS_STREAM_TAKEN' })
  t.match(await b.rooms.broadcast('answer:2', 'free'), { published: true })
  const parts = b.read('answer:1')
  await run.write('x')
  await run.end()
  t.same(await parts, ['x', { reason: 'done' }])
  await t.rejects(b.rooms.stream('answer:1'), { code: 'FST_ROOMS_STREAM_ENDED' })
  await t.rejects(b.rooms.broadcast('answer:1', 'late'), { code: 'FST_ROOMS_STREAM_ENDED' })
  t.equal((await (await b.rooms.stream('answer:2')).end()).reason, 'done', 'a claim that was refused, or a topic that was broadcast to, is free')
  t.same([a, b].map(faultsOf), [0, 0])
})

t.test('readers of a stream whose node dies are told its end by another node', async t => {
  const fleet = new ClusterFleet()
  const nodes = [await startNode(t, fleet.broker()), await startNode(t, fleet.broker()), await startNode(t, fleet.broker())]
  const [a, b, c] = nodes as [typeof nodes[0], typeof nodes[0], typeof nodes[0]]
  const run = await a!.rooms.stream('answer:1')
  const untouched = await a!.rooms.stream('answer:2')
  const parts = [b!.read('answer:1'), c!.read('answer:1')]
  await run.write('x')
  fleet.cut(a!.broker)
  for (const one of await Promise.all(parts)) t.same(one, ['x', { reason: 'lost' }])
  await t.rejects(b!.rooms.stream('answer:1'), { code: 'FST_ROOMS_STREAM_ENDED' })
  await until(async () => (await b!.rooms.history('answer:2')).ended?.reason === 'lost')
  fleet.heal(a!.broker)
  await until(() => a!.rooms.health().broker === 'up')
  await t.rejects(run.write('y'), { code: 'FST_ROOMS_STREAM_ENDED' }, 'a producer that comes back writes no more')
  t.ok(run.signal.aborted)
  t.match(await untouched.end(), { reason: 'lost' })
  t.equal(a!.rooms.stats().streams, 0)
})

t.test('a producer on a node that counted as dead is ended as lost', async t => {
  const fleet = new ClusterFleet()
  const a = await startNode(t, fleet.broker())
  const run = await a.rooms.stream('answer:1')
  await a.handlers.orphaned!(['answer:1', 'chat', 'nothing'])
  t.equal(run.signal.aborted, true)
  t.equal((await a.rooms.history('answer:1')).ended?.reason, 'lost')
  t.notOk((await a.rooms.history('answer:1')).messages.length)
  await a.handlers.orphaned!(['answer:1'])
  t.equal(faultsOf(a), 0)
})

t.test('a broker that does not answer, answers late or breaks the contract of streams', async t => {
  const broker = new ClusterFleet().broker()
  const { streams } = broker
  let fault: 'reject' | 'silent' | 'throw' | undefined
  let release = 0
  const faulty = async (): Promise<boolean> => fault === 'silent' ? new Promise(() => {}) : Promise.reject(new Error('cut'))
  Object.assign(broker, {
    streams: {
      claim: async (topic: string) => fault === undefined ? streams.claim(topic) : faulty(),
      isTaken: async (topic: string) => fault === undefined ? streams.isTaken(topic) : faulty(),
      release: (topic: string) => {
        release++
        if (fault === 'throw') throw new Error('broken')
        streams.release(topic)
      }
    }
  })
  const logs: LogLine[] = []
  const a = await startNode(t, broker, logs)
  for (const how of ['reject', 'silent'] as const) {
    fault = how
    await t.rejects(a.rooms.stream('answer:1'), { code: 'FST_ROOMS_BROKER_SILENT', message: /claim of stream "answer:1"/ }, how)
    t.match(await a.rooms.broadcast('answer:2', how), { published: true }, 'a broadcast is not held by it')
  }
  t.equal(release, 2, 'a claim that was not answered is given back')
  t.equal(faultsOf(a), 1)
  fault = undefined
  const run = await a.rooms.stream('answer:1')
  fault = 'throw'
  await run.end()
  await until(() => faultsOf(a) === 2)
  await a.handlers.orphaned!('answer:1' as never)
  t.equal(faultsOf(a), 3)

  broker.publish = async batch => batch.map(() => ({ state: 'failed' }))
  await t.rejects(a.handlers.orphaned!(['answer:3']), { code: 'FST_ROOMS_BROKER_DOWN' })
  await a.app.close()
  await t.rejects(a.handlers.orphaned!(['answer:3']), { code: 'FST_ROOMS_CLOSED' })
})

t.test('streams of a fleet whose last node has died are ended by the next one', async t => {
  const fleet = new ClusterFleet()
  const a = await startNode(t, fleet.broker())
  const run = await a.rooms.stream('answer:1')
  await run.write('x')
  fleet.kill(a.broker)
  const b = await startNode(t, fleet.broker())
  await until(async () => (await b.rooms.history('answer:1')).ended?.reason === 'lost')
  t.equal(faultsOf(b), 0)
})

t.test('a stream whose end is not answered before the broker closes is not given back to it', async t => {
  const broker = new ClusterFleet().broker()
  const released: string[] = []
  Object.assign(broker, { streams: { ...broker.streams, release: (topic: string) => { released.push(topic) } } })
  const a = await startNode(t, broker, [], 5_000)
  const run = await a.rooms.stream('answer:1')
  broker.publish = async () => new Promise(() => {})
  const closed = a.app.close()
  const end = run.end().then(() => 'ended', () => 'failed')
  await closed
  t.equal(await end, 'failed')
  await until(() => a.rooms.stats().streams === 0)
  t.same([released, faultsOf(a)], [[], 0])
})
