import t from 'tap'
import { brokerConformance } from '../../lib/conformance/index.ts'
import type { ConformanceOptions } from '../../types/conformance.ts'
import type { Broker, BrokerHandlers, BrokerPresence, PresencePage } from '../../types/index.ts'
import { ClusterFleet } from '../cluster/fleet.ts'

type Change = (broker: Broker) => Partial<Broker>
type Told = (handlers: BrokerHandlers, node: string) => Partial<BrokerHandlers>

/** A fleet whose brokers break the contract in one way. */
class BrokenFleet {
  readonly #fleet = new ClusterFleet()
  readonly #real = new Map<Broker, Broker>()
  readonly #change: Change
  readonly #told: Told

  constructor (change: Change, told: Told) {
    this.#change = change
    this.#told = told
  }

  broker (): Broker {
    const real = this.#fleet.broker()
    const broken: Broker = {
      capabilities: real.capabilities,
      start: async (node, handlers) => real.start(node, { ...handlers, ...this.#told(handlers, node) }),
      attach: async (topics, retention) => real.attach(topics, retention),
      detach: async topics => real.detach(topics),
      publish: async batch => real.publish(batch),
      history: async (topic, query) => real.history(topic, query),
      control: async (to, bytes) => real.control(to, bytes),
      hold: (add, remove) => { real.hold(add, remove) },
      presence: real.presence,
      streams: real.streams,
      stats: () => real.stats(),
      close: async () => real.close(),
      ...this.#change(real)
    }
    this.#real.set(broken, real)
    return broken
  }

  cut (broker: Broker): void { this.#fleet.cut(this.#real.get(broker)!) }
  heal (broker: Broker): void { this.#fleet.heal(this.#real.get(broker)!) }
  kill (broker: Broker): void { this.#fleet.kill(this.#real.get(broker)!) }
  close (): void { this.#fleet.close() }
}

/** Runs the cases whose name begins with a text, and returns the names of those that fail. */
async function failures (starts: readonly string[], change: Change, told: Told, options: ConformanceOptions = { timeout: 150, quiet: 20, gone: 150, noticed: 150 }): Promise<string[]> {
  const chosen: { name: string, run: () => Promise<void> }[] = []
  await brokerConformance({
    test: (name, run) => { if (starts.some(start => name.startsWith(start))) chosen.push({ name, run }) }
  }, () => new BrokenFleet(change, told), options)
  const failed: string[] = []
  for (const { name, run } of chosen) await run().catch(() => { failed.push(name) })
  return failed
}

interface Mutant { what: string, finds: string, change?: Change, told?: Told }

const later = (call: () => void): void => { setTimeout(call, 5) }
const presence = (broker: Broker, change: Partial<BrokerPresence>): Partial<Broker> => ({ presence: { ...broker.presence!, ...change } })
const ahead = (page: PresencePage): PresencePage => ({ ...page, version: page.version + 1 })
let odd = false

const mutants: Mutant[] = [
  { what: 'tells no state', finds: 'a started broker reports', told: () => ({ state () {} }) },
  { what: 'starts twice', finds: 'a broker starts only once', change: broker => ({ start: async (node, handlers) => broker.start(node, handlers).catch(() => {}) }) },
  { what: 'says that it is up while it is cut off', finds: 'start resolves', told: handlers => ({ state: () => { handlers.state('up') } }) },
  { what: 'delivers after its close', finds: 'a closed broker', change: () => ({ close: async () => {} }) },
  { what: 'closes slowly', finds: 'a broker whose server', change: broker => ({ close: async () => { await broker.close(); await new Promise(resolve => { setTimeout(resolve, 160) }) } }) },
  { what: 'counts wrongly', finds: 'the numbers of a broker', change: broker => ({ stats: () => ({ ...broker.stats!(), lag: NaN }) }) },
  { what: 'delivers entries after outcomes', finds: 'publications of one topic', told: handlers => ({ entry: (...entry) => { later(() => { handlers.entry(...entry) }) } }) },
  { what: 'changes bytes', finds: 'a publication arrives unchanged', told: handlers => ({ entry: (topic, publication, position) => { handlers.entry(topic, { ...publication, tail: Buffer.from(publication.tail.toString('latin1')) }, position) } }) },
  { what: 'mixes topics up', finds: 'topics whose names', told: handlers => ({ entry: (topic, ...rest) => { handlers.entry(topic.toLowerCase(), ...rest) } }) },
  { what: 'delivers topics that are not attached', finds: 'a topic that is not attached', change: broker => ({ attach: async topics => broker.attach([...topics, 'b']) }) },
  { what: 'ignores detach', finds: 'a topic delivers nothing after detach', change: () => ({ detach: async () => {} }) },
  { what: 'detaches later', finds: 'attach and detach', change: broker => ({ detach: async topics => { await new Promise(resolve => { setTimeout(resolve, 5) }); await broker.detach(topics) } }) },
  { what: 'answers in the wrong order', finds: 'outcomes of one topic', change: broker => ({ publish: async batch => { const outcomes = await broker.publish(batch); odd = !odd; if (odd) await new Promise(resolve => { setTimeout(resolve, 2) }); return outcomes } }) },
  { what: 'attaches later', finds: 'a topic is delivered from', change: broker => ({ attach: async topics => { later(() => { broker.attach(topics).catch(() => {}) }); return topics.map(() => null) } }) },
  { what: 'delivers twice', finds: 'every node gets each publication once', told: handlers => ({ entry: (...entry) => { handlers.entry(...entry); handlers.entry(...entry) } }) },
  { what: 'has an order for each node', finds: 'all nodes get', told: (handlers, node) => ({ entry: (topic, publication, position) => { if (publication.node === node) handlers.entry(topic, publication, position); else later(() => { handlers.entry(topic, publication, position) }) } }) },
  { what: 'delivers every topic to every node', finds: 'a node gets only', change: broker => ({ attach: async topics => broker.attach([...topics, 'a', 'b']) }) },
  { what: 'has one epoch for all topics', finds: 'a position has an epoch', change: broker => ({ attach: async (topics, retention) => (await broker.attach(topics, retention)).map(position => ({ ...position!, epoch: 'epoch00000001' })) }) },
  { what: 'attaches at no position', finds: 'attach returns', change: broker => ({ attach: async (topics, retention) => { await broker.attach(topics, retention); return topics.map(() => null) } }) },
  { what: 'attaches at a position that is too new', finds: 'a node that attaches while', change: broker => ({ attach: async (topics, retention) => (await broker.attach(topics, retention)).map(position => ({ ...position!, offset: position!.offset + 1 })), detach: async topics => broker.detach(topics) }), told: handlers => ({ entry: (topic, publication, position) => { if (position!.offset % 5 > 0) handlers.entry(topic, publication, position) } }) },
  { what: 'has positions only with members', finds: 'a topic that keeps messages', change: broker => ({ history: async (topic, query) => ({ ...await broker.history!(topic, query), position: { epoch: `epoch${Math.random().toString(36).slice(2)}`.padEnd(12, '0'), offset: 0 } }) }) },
  { what: 'keeps a message after its entry', finds: 'a message is kept', change: broker => ({ history: async (topic, query) => { const page = await broker.history!(topic, query); return query.after === undefined ? page : { ...page, messages: [] } } }) },
  { what: 'ignores the limit', finds: 'kept messages are those', change: broker => ({ history: async (topic, query) => broker.history!(topic, { ...query, limit: Infinity }) }) },
  { what: 'never expires', finds: 'messages expire', change: broker => ({ publish: async batch => broker.publish(batch.map(publication => ({ ...publication, retention: { ...publication.retention!, ttl: 60_000 } }))) }) },
  { what: 'forgets the end', finds: 'an end is kept', change: broker => ({ publish: async batch => broker.publish(batch.map(({ end, ...publication }) => publication)) }) },
  { what: 'ignores versions', finds: 'an older version', change: broker => ({ publish: async batch => broker.publish(batch.map(({ version, ...publication }) => publication)) }) },
  { what: 'recovers what is not kept', finds: 'a client that comes back gets', change: broker => ({ history: async (topic, query) => ({ ...await broker.history!(topic, query), from: 0 }) }) },
  { what: 'never recovers', finds: 'a client that comes back gets', change: broker => ({ history: async (topic, query) => { const page = await broker.history!(topic, query); return { ...page, from: page.position.offset } } }) },
  { what: 'recovers what has expired', finds: 'a client that comes back after', change: broker => ({ history: async (topic, query) => ({ ...await broker.history!(topic, query), from: 0 }) }) },
  { what: 'ignores the mid', finds: 'a publication that is sent again', change: broker => ({ publish: async batch => broker.publish(batch.map(({ mid, ...publication }) => publication)) }) },
  { what: 'knows mids of its own node alone', finds: 'of publications with one mid', change: broker => { const own = String(Math.random()); return { publish: async batch => broker.publish(batch.map(publication => ({ ...publication, mid: own + publication.mid }))) } } },
  { what: 'notes the mid of what it refuses', finds: 'a publication that was refused', change: broker => { const mids = new Set<string>(); return { publish: async batch => { const [{ mid }] = batch as [typeof batch[0]]; if (mid !== undefined && mids.has(mid)) return [{ state: 'duplicate' }]; if (mid !== undefined) mids.add(mid); return broker.publish(batch) } } } },
  { what: 'sends control messages to all', finds: 'a control message to a node reaches', change: broker => ({ control: async (_to, bytes) => broker.control('*', bytes) }) },
  { what: 'sends to nodes that do not exist', finds: 'a control message to a node that', change: () => ({ control: async () => 'sent' }) },
  { what: 'sends control messages to itself', finds: 'a control message to all', told: (handlers, node) => ({ control: (_from, bytes) => { handlers.control(node, bytes) } }) },
  { what: 'sends what is for a user to all', finds: 'a control message to a user', change: broker => ({ control: async (to, bytes) => { const answer = await broker.control(to, bytes); if (answer === 'sent') await broker.control('*', bytes); return answer } }) },
  { what: 'never leaves', finds: 'a node that has closed', change: () => ({ close: async () => {} }) },
  { what: 'reads its own members alone', finds: 'members of all nodes', change: broker => { let node = ''; return { start: async (name, handlers) => { node = name; await broker.start(name, handlers) }, ...presence(broker, { read: async (topic, limit) => { const page = await broker.presence!.read(topic, limit); const members = page.members.filter(member => member.node === node); return { ...page, count: members.length, members } } }) } } },
  { what: 'does not tell a node of its own changes', finds: 'every node that has a topic attached', told: (handlers, node) => ({ presence: (topic, delta) => { if (delta!.node !== node) handlers.presence!(topic, delta) } }) },
  { what: 'reads a page of a later version', finds: 'a page and the deltas', change: broker => presence(broker, { read: async (topic, limit) => ahead(await broker.presence!.read(topic, limit)) }) },
  { what: 'says first for each session', finds: 'the first and the last session', change: broker => presence(broker, { change: async changes => (await broker.presence!.change(changes)).map(() => ({ user: 'first' })) }) },
  { what: 'forgets answers', finds: 'a change that is sent again', change: broker => { const known = new Set<string>(); return presence(broker, { change: async changes => { const text = JSON.stringify(changes); const outcomes = await broker.presence!.change(changes); if (known.has(text)) return changes.map(() => ({})); known.add(text); return outcomes } }) } },
  { what: 'counts its own members alone', finds: 'numbers of members', change: broker => { const own = new Map<string, number>(); return presence(broker, { report: async counts => { for (const [topic, count] of counts) own.set(topic, count); await broker.presence!.report(counts) }, counts: async topics => topics.map(topic => own.get(topic) ?? 0) }) } },
  { what: 'does not tell of users that are gone', finds: 'members of a node that was killed', told: () => ({ gone () {} }) },
  { what: 'tells every node of users that are gone', finds: 'members of a node that was killed', told: handlers => ({ gone: users => { handlers.gone!(users); handlers.gone!(users) } }) },
  { what: 'does not send members again', finds: 'after an outage a node has', change: broker => { const start: Broker['start'] = async (node, handlers) => broker.start(node, handlers); let sets = 0; return { start, ...presence(broker, { change: async changes => sets++ > 0 ? [] : broker.presence!.change(changes) }) } } },
  { what: 'lets every node claim a stream', finds: 'a stream has one producer', change: broker => ({ streams: { ...broker.streams!, claim: async () => true } }) },
  { what: 'does not have streams without a node ended', finds: 'streams of a node that was killed', told: () => ({ orphaned: async () => {} }) },
  { what: 'does not notice a cut', finds: 'a node that is cut off', told: handlers => ({ state: state => { if (state === 'up') handlers.state('up') } }) },
  { what: 'does not tell a loss', finds: 'topics that were attached before', told: () => ({ lost () {} }) },
  { what: 'says ok in an outage', finds: 'a publication in an outage', change: broker => ({ publish: async batch => (await broker.publish(batch)).map(outcome => outcome.state === 'failed' || outcome.state === 'unknown' ? { state: 'ok' } : outcome) }) }
]

for (const { what, finds, change = () => ({}), told = () => ({}) } of mutants) {
  t.test(`the suite finds a broker that ${what}`, async t => {
    const failed = await failures([finds], change, told)
    t.equal(failed.length, 1, finds)
  })
}

t.test('each case has found a broker that breaks it', async t => {
  const { cases } = await brokerConformance({ test () {} }, () => new ClusterFleet())
  t.same(cases.filter(name => !mutants.some(({ finds }) => name.startsWith(finds))), [])
})

t.test('a broker that can do less, or tells a loss by the names of topics, passes', async t => {
  const plain: Change = () => ({ capabilities: { order: 'node', history: false, presence: true, once: 'node' } })
  const named: Told = handlers => ({ lost: () => { handlers.lost(['a']) } })
  t.same(await failures(['topics that were attached', 'a node that has closed', 'a node that is cut off'], plain, named, { nodes: 2 }), [])
  t.same(await failures(['numbers of members', 'a stream has one producer', 'a publication in an outage', 'a change that is sent again'], () => ({}), () => ({}), { nodes: 1 }), [])
})

t.test('cases that are excepted, or need what is lacking, are named with the reason, and the runner is told', async t => {
  const skipped: string[] = []
  const name = 'a started broker reports that it is up'
  const report = await brokerConformance({ test () {}, skip: (name, reason) => { skipped.push(`${name}: ${reason}`) } }, () => {
    const fleet = new ClusterFleet()
    return { broker: () => ({ ...fleet.broker(), capabilities: { order: 'node', history: false, presence: false, once: 'node' } } as Broker) }
  }, { name: 'mine', except: { [name]: 'of its name' } })
  t.ok(skipped.includes(`mine: ${name}: of its name`))
  t.equal(skipped.length, report.omitted.length)
  t.match(report.omitted.find(({ name }) => name.startsWith('all nodes get'))?.reason, /order: "total", the capability history/)
  t.match(report.omitted.find(({ name }) => name.startsWith('members of a node'))?.reason, /"presence".*"kill"/)
  await t.rejects(brokerConformance({ test () {} }, () => new ClusterFleet(), { except: { nothing: 'x' } }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
})
