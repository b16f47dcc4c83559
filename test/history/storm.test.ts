import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { HistoryQuery, InjectOptions, Publication } from '../../types/index.ts'
import { publication } from '../brokers/start.ts'
import { until } from '../helpers/app.ts'
import { createFleet } from '../helpers/fleet-broker.ts'

/** Joins of a storm. */
const many = 500
/** Milliseconds for which a reading serves further joins. */
const freshFor = 500

/** Most readings of a topic in a storm of two encodings: one of each, one for joins that came during the first, and one for each time that they are no longer fresh. */
function most (begun: number): number {
  return 3 + Math.ceil((performance.now() - begun) / freshFor)
}

const fast = { limits: { connections: 10_000, perAddress: 10_000 }, heartbeat: false } as const

/** Two nodes: messages are published on the first one, and members come to the second one. */
async function serve (t: Test, history: object, options: object = {}) {
  const { exchange, nodes } = await createFleet(t, 2, { topics: { 'news:*': { history } as never }, ...fast, ...options })
  const [publisher, node] = nodes as [typeof nodes[0], typeof nodes[0]]
  /** The readings that have reached the server. */
  const readings: { topic: string, query: HistoryQuery }[] = []
  const history_ = exchange.history.bind(exchange)
  exchange.history = (topic, query) => {
    readings.push({ topic, query })
    return history_(topic, query)
  }
  /** Entries that the server brings to the second node, held while the node is behind. */
  const held: (() => void)[] = []
  const deliver = node.broker.deliver.bind(node.broker)
  return {
    exchange,
    node,
    readings,
    publish: async (topic: string, data: unknown, more = {}) => (await (publisher.rooms as any).broadcast(topic, data, more)).id as string,
    join: async (topic: string, options: InjectOptions = {}) => node.rooms.inject(`/rooms/${topic}`, options),
    /** The second node gets nothing until it catches up. */
    fallBehind () { node.broker.deliver = task => { held.push(() => { deliver(task) }) } },
    catchUp () {
      node.broker.deliver = deliver
      for (const task of held.splice(0)) task()
    },
    /** The server brings an entry to the second node. */
    bring (topic: string, given: Publication, epoch: string, offset: number) { deliver(handlers => { handlers.entry(topic, given, { epoch, offset }) }) }
  }
}

type Joined = Awaited<ReturnType<Awaited<ReturnType<typeof serve>>['join']>>

/** The payloads of a member's messages, up to the last one of its topic. */
async function payloads (client: Joined, last: number): Promise<number[]> {
  const got: number[] = []
  while (got.at(-1) !== last) {
    const frame = await client.next()
    if (typeof frame === 'string') got.push(Number(frame))
    else if (frame.type === 'message') got.push(frame.data as number)
  }
  return got
}

function range (from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index)
}

t.test('hundreds of members come back in a moment, from different positions, while messages are published: a few readings serve all', async t => {
  const { publish, join, readings } = await serve(t, { size: 1_000 })
  const ids = [await publish('news:a', 0)]
  for (let n = 1; n < 100; n++) ids.push(await publish('news:a', n))
  const joins: { joining: Promise<Joined>, first: number }[] = []
  let n = 100
  const begun = performance.now()
  for (let count = 0; count < many; count++) {
    const at = count % 101
    const mode = count % 3 === 2 && at !== 100 ? 'rooms.raw' as const : 'rooms.v1' as const
    joins.push({ joining: join('news:a', { mode, since: at === 100 ? '0' : ids[at]! }), first: at === 100 ? 0 : at + 1 })
    // Some come in the same turn of the event loop, and each of these turns brings a message.
    if (count % 10 === 0) await publish('news:a', n++)
  }
  const last = n
  await publish('news:a', last)
  for (const { joining, first } of joins) {
    const client = await joining
    const got = await payloads(client, last)
    if (got.length !== last - first + 1 || got.some((payload, index) => payload !== first + index)) t.same(got, range(first, last))
  }
  t.ok(readings.length <= most(begun), `${readings.length} readings`)
})

t.test('members come back to many topics: each is read once, or twice for two encodings', async t => {
  const { publish, join, readings } = await serve(t, { size: 100 })
  const topics = Array.from({ length: 50 }, (_, index) => `news:${index}`)
  const ids = await Promise.all(topics.map(topic => publish(topic, 0)))
  for (const topic of topics) await publish(topic, 1)
  const begun = performance.now()
  const clients = await Promise.all(Array.from({ length: many }, (_, count) => join(topics[count % 50]!, { since: ids[count % 50]!, mode: count % 3 === 0 ? 'rooms.raw' : 'rooms.v1' })))
  t.same(await Promise.all(clients.map(client => payloads(client, 1))), clients.map(() => [1]))
  const greatest = Math.max(...topics.map(topic => readings.filter(reading => reading.topic === topic).length))
  t.ok(greatest <= most(begun), `${greatest} readings of one topic`)
})

t.test('a topic of values: messages that are published during a storm take their places, and nothing is read again', async t => {
  const { publish, join, readings } = await serve(t, { latest: true, size: 20 })
  for (let n = 0; n < 20; n++) await publish('news:a', n, { key: `k${n}` })
  const joins: Promise<Joined>[] = []
  let n = 20
  const begun = performance.now()
  for (let count = 0; count < many; count++) {
    joins.push(join('news:a'))
    if (count % 10 === 0) {
      await publish('news:a', n, { key: `k${n % 20}` })
      n++
    }
  }
  const last = n
  await publish('news:a', last, { key: `k${last % 20}` })
  for (const client of await Promise.all(joins)) {
    const got = await payloads(client, last)
    const values = new Map(got.map(payload => [payload % 20, payload]))
    if (values.size !== 20 || [...values.values()].some(payload => payload <= last - 20)) t.same(got, range(last - 19, last))
  }
  t.ok(readings.length <= most(begun), `${readings.length} readings`)
})

t.test('a storm on a node that is behind: nothing is read or looked at while it waits, and all go on when it has caught up', async t => {
  const { publish, join, readings, node, fallBehind, catchUp } = await serve(t, { size: 1_000 })
  const ids = [await publish('news:a', 0)]
  const keeper = await join('news:a')
  await keeper.next('hello')
  fallBehind()
  const begun = performance.now()
  for (let n = 1; n <= 10; n++) ids.push(await publish('news:a', n))
  const clients = await Promise.all(Array.from({ length: many }, (_, count) => join('news:a', { since: ids[1 + count % 10]! })))
  await sleep(50)
  const { length } = readings
  t.ok(length <= 2, `${length} readings`)
  await sleep(200)
  t.equal(readings.length, length)
  t.equal(node.rooms.stats().members, 1)
  catchUp()
  await publish('news:a', 11)
  for (const [count, client] of clients.entries()) {
    const { recovered } = await client.next('hello')
    const got = await payloads(client, 11)
    if (recovered !== true || got.length !== 10 - count % 10) t.same([recovered, got], [true, range(2 + count % 10, 11)])
  }
  t.ok(readings.length <= most(begun), `${readings.length} readings`)
})

t.test('positions of an epoch that is over: one reading tells it for all', async t => {
  const { publish, join, readings } = await serve(t, { size: 1_000 })
  await publish('news:a', 0)
  const joins: Promise<Joined>[] = []
  for (let count = 0; count < many; count++) {
    joins.push(join('news:a', { since: `${'e'.repeat(16)}-${1 + count}` }))
    if (count % 5 === 0) await turn()
  }
  const hellos = await Promise.all(joins.map(async joining => (await joining).next('hello')))
  t.ok(hellos.every(({ recovered, replayed }) => recovered === false && replayed === 0))
  t.ok(readings.length <= 3, `${readings.length} readings`)
})

t.test('a topic that begins a new epoch while members wait for a position of the old one: they are told at once that it is lost', async t => {
  const { publish, join, node, exchange, bring, fallBehind } = await serve(t, { size: 1_000 })
  await publish('news:a', 0)
  const keeper = await join('news:a')
  await keeper.next('hello')
  fallBehind()
  const since = await publish('news:a', 1)
  const [waiting, raw] = [await join('news:a', { since }), await join('news:a', { since, mode: 'rooms.raw' })]
  await sleep(50)
  t.equal(node.rooms.stats().members, 1)
  const epoch = 'b'.repeat(16)
  exchange.history = () => ({ position: { epoch, offset: 1 }, from: 0, messages: [] })
  const begun = performance.now()
  bring('news:a', publication('news:a', 2, 'another'), epoch, 1)
  t.match(await waiting.next('hello'), { recovered: false, replayed: 0, id: `${epoch}-1` })
  t.match(await raw.closed, { code: 4202 })
  t.ok(performance.now() - begun < 1_000)
})

t.test('members that go, or whose time is over, while they wait: nothing is left of them', async t => {
  const { publish, join, node, fallBehind } = await serve(t, { size: 1_000 }, { limits: { connections: 10_000, perAddress: 10_000, handshake: 400 } })
  await publish('news:a', 0)
  const keeper = await join('news:a')
  await keeper.next('hello')
  fallBehind()
  const since = await publish('news:a', 1)
  const going = await Promise.all(Array.from({ length: 20 }, () => join('news:a', { since })))
  await sleep(50)
  for (const client of going) await client.close()
  await until(() => node.rooms.stats().connections === 1)
  const late = await Promise.all(Array.from({ length: 20 }, () => join('news:a', { since })))
  for (const client of late) t.match(await client.closed, { code: 4103 })
  t.match(node.rooms.stats(), { connections: 1, members: 1 })
  await keeper.close()
  await until(() => node.rooms.stats().topics === 0)
  const server = node.broker
  server.isSilent = true // joins that wait for an answer, and not for the room
  node.broker.topics.clear()
  const unread = await join('news:b', { since })
  await sleep(20)
  await unread.close()
  await until(() => node.rooms.stats().connections === 0)
  t.match(node.rooms.stats(), { topics: 0, members: 0 })
})
