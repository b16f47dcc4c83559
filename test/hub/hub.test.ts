import t, { type Test } from 'tap'
import type { Broker, BrokerHandlers, Outcome, Position, Publication } from '../../types/index.ts'
import fastifyRooms, { memoryBroker } from '../../lib/index.ts'
import { connect, createApp, createRooms, join, listen, until, type AnyOptions, type LogLine } from '../helpers/app.ts'
import { publication } from '../brokers/start.ts'

/** A slow broker under the control of the test, which records its calls. */
class FakeBroker implements Broker {
  readonly capabilities = { order: 'node', history: false, presence: true, once: 'node' } as const
  handlers!: BrokerHandlers
  node = ''
  readonly calls: string[] = []
  readonly published: Publication[] = []
  /** Results of attach; by default it confirms without positions. */
  onAttach: (topic: string) => Promise<Position | null> = async () => null
  onDetach: () => Promise<void> = async () => {}
  onPublish: (publications: Publication[]) => Promise<Outcome[]> = async publications => publications.map(publication => {
    this.handlers.entry(publication.topic, publication)
    return { state: 'ok' }
  })

  async start (node: string, handlers: BrokerHandlers): Promise<void> {
    this.calls.push('start')
    this.node = node
    this.handlers = handlers
    handlers.state('up')
  }

  async attach (topics: string[]): Promise<(Position | null)[]> {
    this.calls.push(`attach ${topics.join()}`)
    return Promise.all(topics.map(topic => this.onAttach(topic)))
  }

  async detach (topics: string[]): Promise<void> {
    this.calls.push(`detach ${topics.join()}`)
    return this.onDetach()
  }

  publish (batch: Publication[]): Promise<Outcome[]> {
    this.published.push(...batch)
    return this.onPublish(batch)
  }

  async control (): Promise<'gone'> { return 'gone' }
  async close (): Promise<void> { this.calls.push('close') }
}

function deferred<T = void> () {
  let resolve!: (value: T) => void
  let reject!: (error: unknown) => void
  const promise = new Promise<T>((_resolve, _reject) => { resolve = _resolve; reject = _reject })
  return { promise, resolve, reject }
}

const turns = async (): Promise<void> => { for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve)) }

async function create (t: Test, options: AnyOptions = {}, logs: LogLine[] = []) {
  const broker = new FakeBroker()
  const errors: Error[] = []
  const app = await createRooms(t, { broker, onError: error => { errors.push(error) }, ...options }, logs)
  return { app, broker, errors, url: await listen(app) }
}

const position = (offset: number): Position => ({ epoch: 'abcdefghijkl', offset })

t.test('a broadcast resolves when the broker has answered, with the broker\'s verdict', async t => {
  const { app, broker } = await create(t)
  const outcomes: [Outcome[], object][] = [
    [[{ state: 'ok', position: position(7) }], { topic: 'news', id: 'abcdefghijkl-7', local: 0, published: true }],
    [[{ state: 'ok' }], { topic: 'news', local: 0, published: true }],
    [[{ state: 'duplicate' }], { topic: 'news', local: 0, published: true, duplicate: true }],
    [[{ state: 'stale' }], { topic: 'news', local: 0, published: false, outcome: 'none' }],
    [[{ state: 'failed' }], { topic: 'news', local: 0, published: false, outcome: 'none' }],
    [[{ state: 'unknown' }], { topic: 'news', local: 0, published: false, outcome: 'unknown' }],
    [[], { topic: 'news', local: 0, published: false, outcome: 'unknown' }]
  ]
  for (const [outcome, expected] of outcomes) {
    const answer = deferred<Outcome[]>()
    broker.onPublish = () => answer.promise
    let settled = false
    const result = app.rooms.broadcast('news', 1).finally(() => { settled = true })
    await turns()
    t.notOk(settled)
    answer.resolve(outcome)
    t.same(await result, expected)
  }
})

t.test('the broker carries finished bytes with all metadata', async t => {
  const { app, broker, url } = await create(t, { identify: () => ({ user: 'änne' }) })
  const client = await join(t, `${url}/rooms/news`)
  const before = Date.now()
  await app.rooms.broadcast('news', { text: 'ä' }, { except: 'somebody' })
  await client.ask({ type: 'message', data: 'hi' })
  const [one, two] = broker.published as [Publication, Publication]
  t.match(one, { v: 1, node: broker.node, topic: 'news', except: 'somebody', payloadLength: Buffer.byteLength('{"text":"ä"}') })
  t.equal(one.tail.toString(), '"data":{"text":"ä"}}')
  t.ok(one.deadline >= before && one.deadline <= Date.now() + 60_000)
  t.not(one.uid, two.uid)
  t.equal(two.tail.toString(), `"data":"hi","from":"${client.hello.session}","user":"änne"}`)
  t.equal(two.except, undefined)
  t.equal(two.tail.subarray(7, 7 + two.payloadLength).toString(), '"hi"')
})

t.test('local counts the members on this node that got the publication', async t => {
  const { app, broker, url } = await create(t)
  await join(t, `${url}/rooms/news`)
  broker.onPublish = async ([one]) => {
    broker.handlers.entry('news', one!, position(1))
    return [{ state: 'ok', position: position(1) }]
  }
  t.same(await app.rooms.broadcast('news', 1), { topic: 'news', id: 'abcdefghijkl-1', local: 1, published: true })
})

t.test('the ack of a member waits for the broker, and its next message for the ack', async t => {
  const { broker, url } = await create(t)
  const answer = deferred<Outcome[]>()
  broker.onPublish = () => answer.promise
  const client = await join(t, `${url}/rooms/news`)
  client.send({ type: 'message', data: 1, ref: 1 })
  client.send({ type: 'message', data: 2, ref: 2 })
  await client.ask({ type: 'ping' })
  t.equal(broker.published.length, 1)
  answer.resolve([{ state: 'ok', position: position(3) }])
  t.match(await client.next('ack'), { ref: 1, ok: true, id: 'abcdefghijkl-3' })
  t.match(await client.next('ack'), { ref: 2, ok: true })
})

t.test('a broker that breaks its contract by rejecting a publication fails only that publication', async t => {
  const { app, broker, errors, url } = await create(t)
  const broken = new Error('broken')
  broker.onPublish = () => Promise.reject(broken)
  const client = await join(t, `${url}/rooms/news`)
  t.match(await app.rooms.broadcast('news', 1), { published: false })
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  t.match(errors, [{ code: 'FST_ROOMS_BROKER_FAULT', cause: broken }], 'onError is called at most once a second')
  t.equal(app.rooms.stats().brokerFaults, 2)
})

t.test('an attach that fails refuses the joins that wait for it, and the next join tries again', async t => {
  const { app, broker, errors, url } = await create(t)
  const answer = deferred<null>()
  broker.onAttach = () => answer.promise
  const waiting = [await connect(t, `${url}/rooms/news`), await connect(t, `${url}/rooms/news`)]
  await until(() => app.rooms.stats().connections === 2)
  const failure = new Error('no broker')
  answer.reject(failure)
  for (const client of waiting) {
    t.match(await client.next(), { type: 'bye', code: 4103, reason: 'broker_down', retry: {} })
    t.same(await client.closed, { code: 4103, reason: 'broker_down' })
  }
  t.same(errors, [failure], 'onError is called once')
  t.match(app.rooms.stats(), { topics: 0, refused: 2 })
  broker.onAttach = async () => null
  await join(t, `${url}/rooms/news`)
  t.same(broker.calls, ['start', 'attach news', 'detach news', 'attach news'])
})

t.test('an attach that throws counts as failed', async t => {
  const { broker, url } = await create(t)
  broker.attach = () => { throw new Error('at once') }
  const client = await connect(t, `${url}/rooms/news`)
  t.equal((await client.closed).code, 4103)
})

t.test('a subscription whose attach fails ends with that error', async t => {
  const { app, broker } = await create(t)
  broker.onAttach = () => Promise.reject(new Error('no broker'))
  await t.rejects(app.rooms.subscribe('news').next(), { message: 'no broker' })
  t.equal(app.rooms.stats().topics, 0)
})

t.test('members join and leave while an attach is slow', async t => {
  const { app, broker, url } = await create(t)
  const answer = deferred<Position>()
  broker.onAttach = () => answer.promise
  const [gone, stays] = [await connect(t, `${url}/rooms/news`), await connect(t, `${url}/rooms/news`)]
  await until(() => app.rooms.stats().connections === 2)
  await gone.close()
  await until(() => app.rooms.stats().connections === 1)
  stays.send({ type: 'ping', ref: 1 })
  t.equal(await app.rooms.count('news', { local: true }), 0)
  answer.resolve(position(4))
  t.equal((await stays.next('hello')).id, 'abcdefghijkl-4')
  t.match(await stays.next('ack'), { ref: 1 })
  t.equal(await app.rooms.count('news', { local: true }), 1)
  t.same(broker.calls, ['start', 'attach news'], 'one attach serves all')
})

t.test('the topic is detached when the last waiting join has gone, and an attach that settles later changes nothing', async t => {
  const { app, broker, url } = await create(t)
  const answer = deferred<Position>()
  broker.onAttach = () => answer.promise
  const client = await connect(t, `${url}/rooms/news`)
  await until(() => app.rooms.stats().topics === 1)
  client.socket.terminate()
  await until(() => app.rooms.stats().topics === 0)
  t.same(broker.calls, ['start', 'attach news', 'detach news'])
  answer.resolve(position(4))
  await turns()
  broker.onAttach = async () => position(9)
  t.equal((await join(t, `${url}/rooms/news`)).hello.id, 'abcdefghijkl-9')
})

t.test('entries before attach has settled reach no member, but hello has their position', async t => {
  const { app, broker, url } = await create(t)
  const answer = deferred<Position>()
  broker.onAttach = () => answer.promise
  const client = await connect(t, `${url}/rooms/news`)
  await until(() => app.rooms.stats().topics === 1)
  broker.handlers.entry('news', publication('news', 'early', 'node-2'), position(5))
  answer.resolve(position(4))
  t.equal((await client.next('hello')).id, 'abcdefghijkl-5')
  broker.handlers.entry('news', publication('news', 'live', 'node-2'), position(6))
  t.same(await client.next('message'), { type: 'message', id: 'abcdefghijkl-6', data: 'live' })
})

t.test('entries of a topic without members are ignored', async t => {
  const { app, broker, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  await client.close()
  await until(() => broker.calls.includes('detach news'))
  t.doesNotThrow(() => broker.handlers.entry('news', publication('news', 'late', 'node-2'), position(1)))
  t.doesNotThrow(() => broker.handlers.entry('never', publication('never', 'late', 'node-2')))
  t.equal(app.rooms.stats().deliveries, 0)
})

t.test('publications of another node reach the members here, and their except applies as well', async t => {
  const { app, broker, url } = await create(t)
  const [one, two] = [await join(t, `${url}/rooms/news`), await join(t, `${url}/rooms/news`)]
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await app.rooms.count('news', { local: true }) === 3)
  broker.handlers.entry('news', { ...publication('news', { n: 1 }, 'node-2'), except: one.hello.session }, position(1))
  broker.handlers.entry('news', publication('news', 'two', 'node-2'), position(2))
  t.same((await one.next('message')).data, 'two')
  t.same((await two.next('message')).data, { n: 1 })
  t.same([await raw.text(), await raw.text()], ['{"n":1}', 'two'])
  t.match(app.rooms.stats(), { deliveries: 5, broadcasts: 0 })
})

t.test('without positions hello, messages and acks have no id, and nothing is ever recovered', async t => {
  const { app, broker, url } = await create(t)
  broker.onPublish = async ([one]) => {
    broker.handlers.entry('news', one!)
    return [{ state: 'ok' }]
  }
  const client = await join(t, `${url}/rooms/news?since=abcdefghijkl-1`)
  t.notOk('id' in client.hello)
  t.match(client.hello, { recovered: false, replayed: 0 })
  t.match(await client.ask({ type: 'message', data: 1 }, 1), { ref: 1, ok: true })
  const [message, ack] = client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message' || type === 'ack')
  t.notOk('id' in message)
  t.notOk('id' in ack)
  t.same(await app.rooms.broadcast('news', 2), { topic: 'news', local: 1, published: true })
  await app.rooms.kick({ topic: 'news' })
  t.notOk('id' in await client.next('bye'))
  const raw = await connect(t, `${url}/rooms/news?since=abcdefghijkl-1`, 'rooms.raw')
  t.same(await raw.closed, { code: 4202, reason: 'position_lost' })
})

t.test('health and the log tell the state of the broker', async t => {
  const logs: LogLine[] = []
  const { app, broker } = await create(t, {}, logs)
  t.match(app.rooms.health(), { ok: true, broker: 'up' })
  for (const state of ['degraded', 'down', 'up'] as const) {
    broker.handlers.state(state, state === 'down' ? new Error('connection lost') : undefined)
    t.match(app.rooms.health(), { ok: state === 'up', state: 'open', broker: state })
    t.equal(app.rooms.health().cause, state === 'down' ? 'connection lost' : undefined)
  }
  t.match(app.rooms.stats().broker, { state: 'up', outages: 1 })
  t.match(logs.filter(({ msg }) => msg.startsWith('the broker')), [
    { level: 30, msg: 'the broker is up' },
    { level: 40, msg: /^the broker is degraded: /, milliseconds: Number },
    { level: 50, msg: /^the broker is down: /, err: { message: 'connection lost' }, milliseconds: Number },
    { level: 30, msg: 'the broker is up again', milliseconds: Number }
  ])
})

t.test('numbers of the broker that are none are 0, and one that cannot count is a fault', async t => {
  const { app, broker, errors } = await create(t)
  const { rooms } = app as any
  t.match(rooms.stats().broker, { state: 'up', lag: 0, topics: 0 })
  const given: object = { lag: NaN, queued: -1, queuedBytes: Infinity, reconnects: '3', topics: 7, unheard: 9, state: 'down' }
  Object.assign(broker, { stats: () => given })
  const { stateFor, ...numbers } = rooms.stats().broker
  t.match(numbers, { state: 'up', lag: 0, queued: 0, queuedBytes: 0, reconnects: 0, topics: 7 })
  t.notOk('unheard' in numbers)
  Object.assign(broker, { stats: () => { throw new Error('no numbers') } })
  t.match(rooms.stats(), { broker: { topics: 0 }, brokerFaults: 1 })
  t.match(errors, [{ code: 'FST_ROOMS_BROKER_FAULT', message: /stats threw/ }])
})

t.test('publications are counted by outcome, also if a broker of this process answers with none', async t => {
  const { app, broker } = await create(t)
  const { rooms } = app as any
  for (const outcome of [{ state: 'failed' }, { state: 'unknown' }, { state: 'toString' }]) {
    broker.onPublish = async () => [outcome as Outcome]
    await rooms.broadcast('news', 1)
  }
  t.same(rooms.stats().broker.outcomes, { ok: 0, duplicate: 0, stale: 0, ended: 0, failed: 1, unknown: 2 })
  const memory = memoryBroker()
  const here = (await createRooms(t, { broker: memory })).rooms as any
  await here.broadcast('news', 1)
  memory.publish = () => [{ state: 'toString' as 'ok' }]
  await here.broadcast('news', 1)
  t.same(here.stats().broker.outcomes, { ok: 1, duplicate: 0, stale: 0, ended: 0, failed: 0, unknown: 0 })
})

t.test('a detach that fails goes to onError', async t => {
  const { broker, errors, url } = await create(t)
  broker.onDetach = () => Promise.reject(new Error('no detach'))
  const client = await join(t, `${url}/rooms/news`)
  await client.close()
  await until(() => errors.length > 0)
  t.match(errors, [{ message: 'no detach' }])
})

t.test('a broker that cannot start fails the registration', async t => {
  const broker = new FakeBroker()
  broker.start = () => Promise.reject(new Error('no start'))
  await t.rejects(createRooms(t, { broker }), { message: 'no start' })
})

t.test('one memory broker serves one hub', async t => {
  const broker = memoryBroker()
  await createRooms(t, { broker })
  await t.rejects(createRooms(t, { broker }), { code: 'FST_ROOMS_INVALID_OPTION' })
})

t.test('the broker is started first and closed once, after the members have left', async t => {
  const broker = new FakeBroker()
  const app = createApp(t)
  await app.register(fastifyRooms as any, { prefix: '/rooms', broker })
  t.same(broker.calls, ['start'])
  t.match(broker.node, /^.{8,}$/)
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.doesNotThrow(() => { broker.handlers.control('node-2', Buffer.from('x')); broker.handlers.lost('all') }, 'which mean nothing yet')
  await app.close()
  t.equal((await client.closed).code, 1001)
  t.same(broker.calls, ['start', 'attach news', 'detach news', 'close'])
})

t.test('a join over a limit is refused with its close code', async t => {
  const { app, url } = await create(t, { limits: { connections: 2, topics: 1 } })
  await join(t, `${url}/rooms/news`)
  const other = await connect(t, `${url}/rooms/sports`)
  t.match(await other.next(), { type: 'bye', code: 4100, reason: 'overloaded', retry: {} })
  t.equal((await other.closed).code, 4100)
  await until(() => app.rooms.stats().connections === 1)
  await join(t, `${url}/rooms/news`)
  const third = await connect(t, `${url}/rooms/news`)
  t.same(await third.closed, { code: 4104, reason: 'connection_limit' })
  await until(() => app.rooms.stats().connections === 2)
  t.match(app.rooms.stats(), { members: 2, refused: 2 })
})

t.test('an onJoin that takes too long is refused', async t => {
  const { app, url } = await create(t, { limits: { handshake: 500 }, onJoin: () => new Promise(() => {}) })
  const client = await connect(t, `${url}/rooms/news`)
  t.same(await client.closed, { code: 4100, reason: 'overloaded' })
  t.equal(app.rooms.stats().topics, 0)
})

t.test('a join that was admitted at the begin of a drain is ended', async t => {
  const gate = deferred<boolean>()
  let asked = false
  const { app, url } = await create(t, { authorize: () => { asked = true; return gate.promise } })
  const client = connect(t, `${url}/rooms/news`)
  await until(() => asked)
  await app.rooms.drain()
  gate.resolve(true)
  t.same(await (await client).closed, { code: 1001, reason: 'going_away' })
})

t.test('hello has the heartbeat, a join resumes if it missed nothing, and a snapshot comes on request', async t => {
  const { app, url } = await create(t, { broker: memoryBroker(), heartbeat: { interval: 4_000 } })
  const stays = await join(t, `${url}/rooms/news`)
  t.equal(stays.hello.heartbeat, 4_000)
  const { id } = await app.rooms.broadcast('news', 1)
  const resumed = await join(t, `${url}/rooms/news?since=${id}&presence=1`)
  t.match(resumed.hello, { recovered: true, replayed: 0, id })
  t.match(await resumed.next('presence'), { count: 2, state: [{ session: String }, { session: String }] })
  t.match((await join(t, `${url}/rooms/news?since=${stays.hello.id}`)).hello, { recovered: false })
  const latest = await join(t, `${url}/rooms/news?since=latest`)
  t.notOk('recovered' in latest.hello)
  const raw = await connect(t, `${url}/rooms/news?since=${id}&presence=1`, 'rooms.raw')
  await until(async () => await app.rooms.count('news') === 5)
  await app.rooms.broadcast('news', 2)
  t.equal(await raw.text(), '2', 'raw mode has no hello and no presence')

  const quiet = await create(t, { topics: { news: {} }, heartbeat: false })
  const member = await join(t, `${quiet.url}/rooms/news?presence=1`)
  t.equal(member.hello.heartbeat, 0)
  await member.ask({ type: 'ping' })
  t.same(member.received.map(text => JSON.parse(text).type), ['hello', 'ack'], 'a topic without presence has no snapshot')
})

t.test('an unauthorized message is refused, whether authorize answers synchronously or later', async t => {
  const { app, url } = await create(t, {
    authorize: context => context.action !== 'publish' || (context.payload === 'later' ? Promise.resolve(false) : false)
  })
  const client = await join(t, `${url}/rooms/news`)
  for (const data of ['now', 'later']) t.match(await client.ask({ type: 'message', data }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: publish' } })
  t.equal(app.rooms.stats().broadcasts, 0)
})

t.test('frames queued before hello are sent once', async t => {
  const sessions: any[] = []
  const { url } = await create(t, { onJoin: session => { sessions.push(session); session.send('early') } })
  const client = await join(t, `${url}/rooms/news`)
  t.equal((await client.next('direct')).data, 'early')
  sessions[0].send('late')
  await client.next('direct')
  t.equal(client.received.filter(text => text.includes('early')).length, 1)
})

t.test('a member gets an error for a message that the broker did not accept, and onError gets none', async t => {
  const { broker, app, url } = await create(t)
  broker.onPublish = async () => [{ state: 'failed' }]
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  raw.send('1')
  t.match(await raw.closed, { code: 4103, reason: 'broker_down' })
  t.equal(app.rooms.stats().errors, 0)
})

t.test('a broker may copy publications', async t => {
  const memory = memoryBroker()
  const { start } = memory
  memory.start = (node, handlers) => start.call(memory, node, { ...handlers, entry: (topic, publication, position) => { handlers.entry(topic, { ...publication, tail: Buffer.from(publication.tail) }, position) } })
  const copying: Broker = { ...memory, capabilities: memory.capabilities, start: memory.start, attach: topics => memory.attach(topics), detach: topics => memory.detach(topics), publish: batch => memory.publish(batch.map(publication => ({ ...publication }))), control: async () => 'gone', close: () => memory.close() }
  const app = await createRooms(t, { broker: copying })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.match(await app.rooms.broadcast('news', { a: 'ü' }), { published: true })
  t.same((await client.next('message')).data, { a: 'ü' })
})
