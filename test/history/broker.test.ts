import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { IdleReplays } from '../../lib/history/idle-replays.ts'
import { memoryBroker } from '../../lib/index.ts'
import type { Broker, BrokerHandlers } from '../../types/index.ts'
import { publication } from '../brokers/start.ts'
import { connect, createRooms, join, listen, until } from '../helpers/app.ts'
import { framesOf, joinMute } from '../helpers/wire.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'

/** Milliseconds after which a reading serves no further joins. */
const freshFor = 500

const sleep = (milliseconds: number) => new Promise<void>(resolve => setTimeout(resolve, milliseconds))

async function serve (t: Test, broker: Broker, history: object | true = true, options: object = {}) {
  const errors: (Error & { code: string })[] = []
  const app = await createRooms(t, { broker, topics: { news: { history } as never }, limits: { handshake: 2_000 }, onError: (error: any) => { errors.push(error) }, ...options })
  const rooms = app.rooms as any
  return { rooms, errors, url: `${await listen(app)}/rooms/news`, publish: async (data: unknown, more?: object) => (await rooms.broadcast('news', data, more)).id as string }
}

t.test('a broker that answers later: replay, then live, also while messages are published', async t => {
  const broker = new SlowBroker(() => sleep(1))
  const { url, publish } = await serve(t, broker, { size: 1_000 })
  const first = await publish(0)
  const keeper = await join(t, url)
  const done = new AbortController()
  const publishing = (async () => { for (let n = 1; !done.signal.aborted; n++) await publish(n) })()
  const clients = await Promise.all(Array.from({ length: 5 }, () => join(t, `${url}?since=${first}`)))
  await sleep(50)
  done.abort()
  await publishing
  await publish('end')
  for (const client of [...clients, await join(t, `${url}?since=${first}`)]) {
    t.equal(client.hello.recovered, true)
    const payloads: unknown[] = []
    while (payloads.at(-1) !== 'end') payloads.push((await client.next('message')).data)
    t.same(payloads.slice(0, -1), Array.from({ length: payloads.length - 1 }, (_, index) => index + 1))
  }
  await keeper.close()
})

t.test('a topic of values, with a broker that answers later', async t => {
  const { url, publish } = await serve(t, new SlowBroker(() => sleep(1)), { latest: true })
  for (const [key, data] of [['a', 1], ['b', 2], ['a', 3]] as const) await publish(data, { key })
  const late = await join(t, url)
  t.match([await late.next('message'), await late.next('message')], [{ data: 2 }, { data: 3 }])
  await publish(4, { key: 'b' })
  t.match(await late.next('message'), { data: 4 })
  const later = await join(t, url)
  t.match([await later.next('message'), await later.next('message')], [{ data: 3 }, { data: 4 }])
})

t.test('a broker that fails to read: joins that need kept messages wait, and end with 4103, because nothing is known to be lost; live messages go on', async t => {
  const broker = new SlowBroker(() => sleep(0))
  const { url, publish, errors, rooms } = await serve(t, broker, true, { limits: { handshake: 300 } })
  const first = await publish(1)
  await publish(2)
  const before = await join(t, `${url}?since=${first}`)
  t.equal(before.hello.recovered, true)
  await sleep(freshFor)
  const { history } = broker
  const failures: (() => unknown)[] = [
    async () => { throw new Error('cut') },
    () => { throw new Error('thrown') },
    async () => 'no page',
    async () => ({ nonsense: true }),
    () => new Promise(() => {})
  ]
  for (const fails of failures) {
    broker.fails = fails
    const peers = [await connect(t, `${url}?since=${first}`), await connect(t, `${url}?since=0`), await connect(t, `${url}?since=${first}`, 'rooms.raw')]
    for (const peer of peers) t.match(await peer.closed, { code: 4103 })
    await publish('live')
    t.match((await before.next('message')).data, /live|2/)
    await t.rejects(rooms.history('news'), { code: 'FST_ROOMS_BROKER_SILENT' })
  }
  broker.fails = async () => { throw new Error('cut') }
  await t.rejects(rooms.history('news', { since: first }), { code: 'FST_ROOMS_BROKER_SILENT' })
  for (const answer of [() => { throw new Error('thrown at once') }, () => ({ nonsense: true }), () => ({ then: (resolve: (page: unknown) => void) => { resolve({ position: 1 }) } })]) {
    broker.history = answer as never
    t.match(await (await connect(t, `${url}?since=${first}`)).closed, { code: 4103 })
  }
  broker.history = history
  t.ok(errors.length > 0)
  t.ok(rooms.stats().brokerFaults >= 4)
  const waiting = connect(t, `${url}?since=${first}`)
  await sleep(30)
  broker.fails = undefined
  t.match(await (await waiting).next('hello'), { recovered: true }, 'a broker that answers again in time')
})

t.test('a node that is behind the fleet, or cut off from it, makes a member wait, and does not tell it of a loss', async t => {
  const held: (() => void)[] = []
  let isBehind = false
  let handlers: BrokerHandlers
  class Behind extends SlowBroker {
    override start (node: string, given: BrokerHandlers): Promise<void> {
      handlers = given
      return super.start(node, { ...given, entry: (...entry) => { if (isBehind) held.push(() => { given.entry(...entry) }); else given.entry(...entry) } })
    }
  }
  const broker = new Behind(() => sleep(0))
  const { url, publish } = await serve(t, broker, true, { limits: { handshake: 1_000 } })
  const first = await publish(1)
  const keeper = await join(t, url)
  isBehind = true
  const retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }
  const [outcome] = await broker.publish([{ ...publication('news', 2, 'another'), retention }])
  const { epoch, offset } = outcome!.position!
  const ahead = await connect(t, `${url}?since=${epoch}-${offset}`)
  const wrong = await join(t, `${url}?since=${epoch}-${offset + 5}`)
  t.equal(wrong.hello.recovered, false, 'a position that the fleet does not know')
  await sleep(100)
  t.same(ahead.received, [])
  for (const deliver of held.splice(0)) deliver()
  t.match(await ahead.next('hello'), { recovered: true, replayed: 0, id: `${epoch}-${offset}` })
  t.match(await keeper.next('message'), { data: 2 })

  handlers!.state('down')
  const cutOff = await connect(t, `${url}?since=${first}`)
  const { readings } = broker
  await sleep(150)
  t.same([cutOff.received, broker.readings], [[], readings], 'a broker that is down is not asked')
  handlers!.state('up')
  t.match(await cutOff.next('hello'), { recovered: true, replayed: 1 })

  await broker.publish([{ ...publication('news', 3, 'another'), retention }])
  t.match(await (await connect(t, `${url}?since=${epoch}-${offset + 1}`)).closed, { code: 4103 }, 'it does not get there in time')
})

t.test('a member that ends while its messages are read joins no room', async t => {
  let open = (): void => {}
  const broker = new SlowBroker(() => new Promise(resolve => setImmediate(resolve)))
  const { url, publish, rooms } = await serve(t, broker)
  const first = await publish(1)
  await publish(2)
  broker.fails = () => new Promise(resolve => { open = () => { resolve({ position: { epoch: 'a'.repeat(16), offset: 0 }, from: 0, messages: [] }) } })
  const client = await connect(t, `${url}?since=${first}`)
  await until(() => broker.readings > 0)
  client.socket.terminate()
  await until(() => rooms.stats().connections === 0)
  open()
  await sleep(20)
  t.match(rooms.stats(), { members: 0, topics: 0, joined: 0 })
})

t.test('a broker that keeps no messages is refused for topics that do', async t => {
  const memory = memoryBroker()
  for (const capabilities of [{ ...memory.capabilities, history: false }, memory.capabilities]) {
    const broker = { capabilities, start: async () => {}, attach: async () => [], detach: async () => {}, publish: () => [], control: async () => 'gone', close: async () => {} }
    await t.rejects(createRooms(t, { broker: broker as never, topics: { news: {}, log: { history: true } } }), { code: 'FST_ROOMS_NO_HISTORY', message: /"log"/ })
  }
})

t.test('a broker that notes no presence over nodes is refused for topics that have it, and the error names both', async t => {
  const memory = memoryBroker()
  const broker = { start: async () => {}, attach: async () => [], detach: async () => {}, publish: () => [], control: async () => 'gone', close: async () => {} }
  const [without, having] = [false, true].map(presence => ({ ...broker, capabilities: { ...memory.capabilities, history: false, presence } as const }))
  const topics = { news: {}, chat: { presence: true } } as const
  await t.rejects(createRooms(t, { broker: without as never, topics }), { code: 'FST_ROOMS_NO_SHARED_PRESENCE', message: /"chat" has "presence", and this broker lacks the capability "presence"/ })
  await t.rejects(createRooms(t, { broker: without as never }), { code: 'FST_ROOMS_NO_SHARED_PRESENCE', message: /"\*"/ }, 'so is the open lobby')
  await createRooms(t, { broker: without as never, topics: { news: {} } })
  await createRooms(t, { broker: having as never, topics })
  await createRooms(t, { broker: { ...without, inProcess: true } as never, topics })
})

t.test('the option history holds for topics that say nothing', async t => {
  const { rooms } = await serve(t, memoryBroker(), true, { topics: { news: {}, none: { history: false }, own: { history: { size: 1 } } }, history: { size: 2 } })
  for (const topic of ['news', 'none', 'own']) for (let n = 0; n < 3; n++) await rooms.broadcast(topic, n)
  t.same(await Promise.all(['news', 'none', 'own'].map(async topic => (await rooms.history(topic)).messages.length)), [2, 0, 1])
  t.match(rooms.stats().history, { topics: 2, messages: 3, evicted: 0 })
})

t.test('a page of a message that is larger than a page: the broker fails between the two readings', async t => {
  const broker = new SlowBroker(() => sleep(0))
  const { publish, rooms } = await serve(t, broker, { bytes: 10_000_000 })
  const { id } = await rooms.history('news')
  await publish('x'.repeat(1_100_000))
  t.equal((await rooms.history('news', { since: id })).messages.length, 1)
  const { history } = broker
  broker.history = async (topic, query) => query.limit === 1 ? Promise.reject(new Error('cut')) : history.call(broker, topic, query)
  await t.rejects(rooms.history('news', { since: id }), { code: 'FST_ROOMS_BROKER_SILENT' })
})

t.test('a loss and a reset during a replay are told behind the messages that were promised', async t => {
  const broker = new SlowBroker(() => sleep(0))
  const { url, publish, rooms } = await serve(t, broker, { size: 10_000, bytes: 10_000_000, replay: 10_000_000 })
  const first = await publish('0')
  for (let n = 1; n <= 3_000; n++) await publish(`${n} ${'x'.repeat(2_000)}`)
  const peer = await joinMute(t, `${url}?since=${first}`)
  peer.socket.pause()
  await until(async () => await rooms.count('news', { local: true }) === 1)
  broker.lose()
  const during = await join(t, `${url}?since=${first}`)
  t.match(during.hello, { recovered: false, replayed: 0 }, 'no position is promised until the next message')
  t.notOk('id' in during.hello)
  peer.socket.resume()
  const types = () => framesOf(peer).map(({ type }) => type)
  await until(() => types().includes('gap'))
  t.same(types(), ['hello', ...Array.from({ length: 3_000 }, () => 'message'), 'gap'])
  await publish('live')
  await until(() => types().at(-1) === 'message')
  t.equal(types().length, 3_003)
})

t.test('a member whose messages are no longer kept, before it has read so far, is closed with 4202', async t => {
  const { url, publish, rooms } = await serve(t, memoryBroker(), { size: 400, bytes: 50_000_000, replay: 50_000_000 })
  const first = await publish('first')
  const text = 'x'.repeat(20_000)
  for (let n = 0; n < 399; n++) await publish(text)
  const peer = await joinMute(t, `${url}?since=${first}`)
  peer.socket.pause()
  await until(async () => await rooms.count('news', { local: true }) === 1)
  for (let n = 0; n < 900; n++) await publish(text)
  peer.socket.resume()
  await until(() => framesOf(peer).some(({ type }) => type === 'bye'))
  const frames = framesOf(peer)
  t.same(frames.slice(0, -1).map(({ type }) => type), ['hello', ...Array.from({ length: 399 }, () => 'message')], 'it got what it was promised')
  t.match(frames.at(-1), { type: 'bye', code: 4202 })
  t.match(rooms.stats(), { lagging: 0, slow: 0 })
})

t.test('members whose frames go one by one through ws are sent a replay', async t => {
  const { rooms, publish } = await serve(t, memoryBroker())
  const since = await publish(0)
  for (let n = 1; n < 5; n++) await publish(n)
  const client = await rooms.inject('/rooms/news', { since })
  t.match(await client.next('hello'), { recovered: true, replayed: 4 })
  for (let n = 1; n < 5; n++) t.match(await client.next(), { type: 'message', data: n })
  await client.close()
})

t.test('a broker whose numbers cannot be read: stats go on without them', async t => {
  const broker = Object.assign(memoryBroker(), { historyStats: () => { throw new Error('no numbers') } })
  const { rooms, errors } = await serve(t, broker)
  t.same(rooms.stats().history, { topics: 0, messages: 0, bytes: 0, evicted: 0 })
  t.equal(rooms.stats().brokerFaults, 2)
  t.match(errors, [{ code: 'FST_ROOMS_BROKER_FAULT', cause: { message: 'no numbers' } }])
  t.same((await serve(t, new SlowBroker(() => sleep(0)))).rooms.stats().history, { topics: 0, messages: 0, bytes: 0, evicted: 0 })
})

t.test('a broker that answers later, and an onJoin during which messages are published: they follow the kept ones', async t => {
  for (const history of [{ size: 100 }, { latest: true }]) {
    const doors: (() => void)[] = []
    const { url, publish } = await serve(t, new SlowBroker(() => sleep(1)), history, { onJoin: () => new Promise<void>(resolve => { doors.push(resolve) }), limits: { handshake: 5_000 } })
    const first = await publish(1)
    const joining = join(t, `${url}?since=${first}`)
    await until(() => doors.length === 1)
    await publish(2, { key: 'k' })
    await publish(3, { key: 'l' })
    doors[0]!()
    const client = await joining
    t.match(client.hello, { recovered: true, replayed: 2 })
    t.match([await client.next('message'), await client.next('message')], [{ data: 2 }, { data: 3 }])
  }
})

t.test('frames that a slow member is being sent are not dropped, however long it takes', async t => {
  const replays = new IdleReplays()
  const dropped: string[] = []
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => { mock.timers.reset() })
  const replay = { usedAt: -60_000, readers: 1, drop: () => { dropped.push('drop') } }
  replays.used(replay)
  mock.timers.tick(10_000)
  t.same(dropped, [])
  replay.readers = 0
  mock.timers.tick(5_000)
  t.same(dropped, ['drop'])
})

t.test('versions reach a broker that copies publications', async t => {
  const { rooms } = await serve(t, new SlowBroker(() => sleep(0)), { latest: true })
  t.equal((await rooms.broadcast('news', 2, { version: 2 })).published, true)
  await t.rejects(rooms.broadcast('news', 1, { version: 1 }), { code: 'FST_ROOMS_STALE' })
})
