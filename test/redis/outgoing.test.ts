import { mock } from 'node:test'
import t from 'tap'
import { RedisAnswerError } from '../../lib/redis/answer-error.ts'
import { Epochs } from '../../lib/redis/epochs.ts'
import { Keys } from '../../lib/redis/keys.ts'
import { Outgoing } from '../../lib/redis/outgoing.ts'
import { Reader } from '../../lib/redis/reader.ts'
import { Subscriptions } from '../../lib/redis/subscriptions.ts'
import type { Outcome, Publication } from '../../types/index.ts'
import { publication } from '../brokers/start.ts'
import { until } from '../helpers/redis-node.ts'

const retention = { size: 100, bytes: 1e6, ttl: 60_000, latest: false }

/** A link whose answers are given by the test: `calls` are the keys and arguments of scripts. */
class FakeLink {
  readonly serverRun = ''
  isReady = true
  isOpen = true
  readonly calls: { args: unknown[], resolve (reply: unknown): void, reject (error: Error): void }[] = []
  readonly faults: Error[] = []
  /** Answers of `call`, one after the other. */
  readonly replies: (unknown | Error)[] = []
  subscribed: Error | undefined

  run (_script: unknown, calls: { args: unknown[] }[]) {
    return calls.map(({ args }) => new Promise((resolve, reject) => { this.calls.push({ args, resolve, reject }) }))
  }

  send (commands: unknown[][]) { return this.run(undefined, commands.map(args => ({ args }))) }

  async call () {
    const reply = this.replies.shift()
    if (reply instanceof Error) throw reply
    return reply
  }

  async subscribe () { if (this.subscribed !== undefined) throw this.subscribed }
  async unsubscribe () { throw new Error('cut') }
  fault (error: Error) { this.faults.push(error) }
}

function createOutgoing (line?: object) {
  const link = new FakeLink()
  const outgoing = new Outgoing(new Keys('t', 1), new Epochs(), { node: 'n', isCluster: false, line: () => line as never, linkOf: () => link as never })
  const outcomes: Outcome['state'][] = []
  const publish = (more: Partial<Publication> = { retention }, topic = 'a') => {
    const one = { ...publication(topic), ...more }
    outgoing.publish(one).then(({ state }) => { outcomes.push(state) }, () => {})
    return one.uid
  }
  return { link, outgoing, outcomes, publish }
}

const soon = () => until(() => false, 5)
const seqOf = ({ args }: { args: unknown[] }) => Number(args[6])
const countOf = ({ args }: { args: unknown[] }) => Number(args[12])

t.test('publications of a topic are one call, and those behind it wait for its answer', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  for (let i = 0; i < 3; i++) publish()
  await soon()
  publish()
  await soon()
  t.same(link.calls.map(countOf), [3])
  link.calls[0]!.resolve(['done', 'e o1 s e'])
  await soon()
  t.same([outcomes, link.calls.map(countOf), outgoing.size], [['ok', 'stale', 'ended'], [3, 1], 1])
  link.calls[1]!.resolve(['passed', ''])
  await soon()
  t.same([outcomes.at(-1), outgoing.size], ['unknown', 0])
})

t.test('the time to live of a topic is renewed once a minute, and until a call has done it', async t => {
  const { link, publish } = createOutgoing()
  const answers = [['fenced', 'e o1'], ['passed', ''], ['done', 'e o1'], ['done', 'e o2']]
  for (const answer of answers) {
    publish()
    await soon()
    link.calls.at(-1)!.resolve(answer)
    await soon()
  }
  publish({ retention }, 'other')
  await soon()
  t.same(link.calls.map(({ args }) => args[14]), ['1', '1', '1', '', '1'])
})

t.test('a call that did not renew the time to live, and is answered in the next minute, does not count as renewal', async t => {
  let now = 0
  const clock = mock.method(performance, 'now', () => now)
  t.teardown(() => { clock.mock.restore() })
  const { link, publish } = createOutgoing()
  for (const topic of ['a', 'a', 'other']) {
    publish({ retention }, topic)
    await soon()
    if (link.calls.length === 2) now = 60_001
    else link.calls.at(-1)!.resolve(['done', 'e o1'])
    await soon()
  }
  link.calls[1]!.resolve(['done', 'e o2'])
  await soon()
  publish()
  await soon()
  t.same(link.calls.map(({ args }) => args[14]), ['1', '', '1', '1'])
})

t.test('a call whose answer was lost is sent again as it was, before later ones', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  publish()
  await soon()
  publish()
  link.isReady = false
  link.calls[0]!.reject(new Error('cut'))
  await soon()
  t.equal(link.calls.length, 1)
  link.isReady = true
  outgoing.resume()
  await soon()
  t.same(link.calls.map(seqOf), [1, 1])
  link.calls[1]!.resolve(['fenced', 'e o1'])
  await soon()
  t.same([link.calls.map(seqOf), outgoing.fenced, outcomes], [[1, 1, 2], 1, ['ok']])
  link.calls[2]!.reject(new RedisAnswerError('OOM none'))
  await soon()
  t.same(outcomes, ['ok', 'failed'])
})

t.test('an error after a lost answer leaves it open whether the publication was accepted', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  publish()
  await soon()
  link.calls[0]!.reject(new Error('cut'))
  await soon()
  outgoing.resume()
  await soon()
  link.calls[1]!.reject(new RedisAnswerError('OOM none'))
  await soon()
  t.same(outcomes, ['unknown'])
})

t.test('a publication that must not wait for the server fails at once, those that may do not', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  publish()
  await soon()
  publish({ retention, whenDown: 'fail' })
  publish()
  publish({ retention, whenDown: 'fail' })
  await soon()
  t.same([outcomes, outgoing.size], [[], 4], 'while the server is there, they wait for their turn')
  link.isReady = false
  link.calls[0]!.reject(new Error('cut'))
  outgoing.resume()
  await soon()
  t.same([outcomes, outgoing.size], [['failed', 'failed'], 2])
  publish({ retention, whenDown: 'fail' })
  await soon()
  t.same([outcomes, outgoing.size], [['failed', 'failed', 'failed'], 2])
  link.isReady = true
  outgoing.resume()
  await soon()
  link.calls[1]!.resolve(['done', 'e o1'])
  await soon()
  link.calls[2]!.resolve(['done', 'e o2'])
  await soon()
  t.same([outcomes.slice(3), outgoing.size], [['ok', 'ok'], 0])
})

t.test('a publication that was given up as not accepted does not go with others of its call when the server takes that again', async t => {
  const { link, outcomes, publish } = createOutgoing()
  const deadline = Date.now() + 300
  publish({ retention, deadline })
  publish({ retention, deadline: deadline + 5_000 })
  for (let i = 0; i < 20 && outcomes.length === 0; i++) {
    await until(() => link.calls.length > i || outcomes.length > 0)
    link.calls[i]?.reject(new RedisAnswerError('BUSY running a script'))
  }
  t.ok(Date.now() < deadline, 'before the deadline, at which the answer would be open')
  t.same(outcomes, ['failed'])
  const refused = link.calls.length
  await until(() => link.calls.length > refused)
  t.same(link.calls.map(countOf), [...Array(refused).fill(2), 1])
  link.calls.at(-1)!.resolve(['done', 'e o1'])
  await soon()
  t.same(outcomes, ['failed', 'ok'])
})

t.test('a call that was given up is never sent again', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  publish({ retention, deadline: Date.now() + 20 })
  await soon()
  link.isReady = false
  link.calls[0]!.reject(new Error('cut'))
  publish({ retention, deadline: Date.now() + 20 })
  publish({ retention, deadline: Date.now() + 5_000 })
  await until(() => outcomes.length === 2)
  t.same(outcomes.sort(), ['failed', 'unknown'])
  link.isReady = true
  outgoing.resume()
  await soon()
  t.same(link.calls.map(seqOf), [1, 2])
  t.equal(countOf(link.calls[1]!), 1)
  outgoing.close()
  link.calls[1]!.resolve(['done', 'e o1'])
  await soon()
  t.same(outcomes.at(-1), 'unknown', 'what is under way when the broker closes may have been accepted')
})

t.test('a publication whose deadline comes before that of the one ahead is given up, and never sent', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  link.isReady = false
  publish()
  publish({ retention, deadline: Date.now() + 20 })
  publish()
  await until(() => outcomes.length === 1)
  t.same([outcomes, outgoing.size], [['failed'], 2])
  link.isReady = true
  outgoing.resume()
  await soon()
  t.same(link.calls.map(countOf), [2])
  link.calls[0]!.resolve(['done', 'e o1 o2'])
  await soon()
  t.same([outcomes, outgoing.size], [['failed', 'ok', 'ok'], 0])
})

t.test('topics that keep nothing are sent once', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  const plain = { mid: undefined } as never
  publish(plain)
  publish(plain, 'b')
  publish(plain)
  publish(plain, 'c')
  await soon()
  link.calls[0]!.resolve(1)
  link.calls[1]!.reject(new Error('cut'))
  link.calls[2]!.reject(new RedisAnswerError('NOPERM'))
  await until(() => outcomes.length === 3)
  t.same(outcomes, ['ok', 'unknown', 'failed'])
  publish({ mid: 'm' }, 'd')
  publish(plain, 'd')
  await soon()
  t.equal(countOf(link.calls[4]!), 2, 'what follows an id waits for its place')
  link.calls[4]!.reject(new Error('cut'))
  await soon()
  outgoing.resume()
  await soon()
  t.same([outcomes.slice(3), link.calls.length], [['unknown', 'unknown'], 5])
  publish({ mid: undefined, deadline: Date.now() + 20 } as never)
  await until(() => outcomes.length === 6)
  t.equal(outcomes.at(-1), 'unknown', 'it was sent, and its deadline came before an answer')
  link.isOpen = false
  publish(plain)
  await soon()
  t.equal(outcomes.at(-1), 'failed')
})

t.test('an outcome waits for the entry, unless there is a loss', async t => {
  const line = { topic: 'a', losses: 0 }
  const { link, outgoing, outcomes, publish } = createOutgoing(line)
  const [first] = [publish(), publish(), publish()]
  outgoing.delivered('none')
  await soon()
  link.calls[0]!.resolve(['done', 'e o1 o2 d'])
  await soon()
  t.same(outcomes, ['duplicate'])
  outgoing.delivered(first!)
  await soon()
  t.same(outcomes, ['duplicate', 'ok'])
  outgoing.review({} as never)
  outgoing.review(line as never)
  await soon()
  t.same(outcomes, ['duplicate', 'ok', 'ok'])
  publish({ retention, deadline: Date.now() + 50 })
  await soon()
  link.calls[1]!.resolve(['done', 'e o3'])
  await until(() => outcomes.length === 4)
  t.same(outcomes.at(-1), 'ok', 'the answer counts at the deadline')
})

t.test('a server that cannot execute a call is asked again', async t => {
  const { link, outcomes, publish } = createOutgoing()
  publish()
  await soon()
  link.calls[0]!.reject(new RedisAnswerError('BUSY with a script'))
  await until(() => link.calls.length === 2)
  t.same(link.calls.map(seqOf), [1, 1])
  link.calls[1]!.resolve(['done', 'e o1'])
  await soon()
  t.same(outcomes, ['ok'])
})

t.test('a call that the server could not execute before its deadline has failed', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  publish({ retention, deadline: Date.now() + 20 })
  await soon()
  link.isReady = false
  link.calls[0]!.reject(new RedisAnswerError('BUSY with a script'))
  await until(() => outcomes.length === 1)
  t.same([outcomes, outgoing.size], [['failed'], 0])
  link.isReady = true
  outgoing.resume()
  await soon()
  t.equal(link.calls.length, 1)
})

t.test('publications that wait are bounded', async t => {
  const { link, outgoing, outcomes, publish } = createOutgoing()
  link.isReady = false
  const tail = Buffer.alloc(8_000_000)
  for (let i = 0; i < 6; i++) publish({ retention, tail })
  await soon()
  t.same([outcomes, outgoing.size], [['failed'], 5])
  outgoing.close()
  await soon()
  t.equal(outcomes.length, 6)
})

function createSubscriptions (t: { teardown (end: () => void): void }) {
  const link = new FakeLink()
  const keys = new Keys('t', 1)
  const epochs = new Epochs()
  const linkOf = () => link as never
  const read: number[] = []
  const subscriptions: Subscriptions = new Subscriptions(keys, epochs, new Reader(keys, epochs, linkOf, () => {}), linkOf, {
    node: 'n',
    entry: () => {},
    lost: () => {},
    skipped: () => {},
    read: async (_topic, after) => {
      read.push(after)
      return new Promise(() => {})
    },
    renew: async () => {},
    unreadable: () => {},
    stats: { mended: 0, holes: 0, resets: 0, dropped: 0 }
  }, { isCluster: false, linger: 20 })
  t.teardown(() => { subscriptions.close() })
  return { link, subscriptions, read }
}

t.test('positions are compared with those of the server: what is missing or gone is read', async t => {
  const positions: [unknown[], number][] = [[['e', '3', '', '0'], 0], [['e', '2', '', '0'], 1], [['e2', '3', '', '0'], 1], [['e', '5', '', '0'], 1]]
  // The timers of the broker keep no process alive.
  const alive = setInterval(() => {}, 1_000)
  t.teardown(() => { clearInterval(alive) })
  await Promise.all(positions.map(async ([answer, expected]) => {
    const { link, subscriptions, read } = createSubscriptions(t)
    await subscriptions.check()
    link.replies.push(['e', '3', '', '0'], answer)
    t.match(await subscriptions.attach('a', retention), { epoch: 'e', offset: 3 })
    await subscriptions.check()
    t.equal(read.length, expected, JSON.stringify(answer))
  }))
})

t.test('positions are compared again and again, until the broker closes', async t => {
  const later = () => new Promise(resolve => { setImmediate(resolve) })
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => { mock.timers.reset() })
  const { link, subscriptions, read } = createSubscriptions(t)
  link.replies.push(['e', '3', '', '0'])
  await subscriptions.attach('a', retention)
  link.replies.push(new Error('no answer'), ['e', '2', '', '0'], ['e', '2', '', '0'])
  mock.timers.tick(24_000)
  await later()
  t.equal(link.replies.length, 3, 'not at once')
  mock.timers.tick(16_000)
  await later()
  t.same([link.replies.length, read], [2, []])
  mock.timers.tick(40_000)
  await later()
  t.same([link.replies.length, read], [1, [3]], 'a reading that failed ends nothing')
  mock.timers.tick(40_000)
  subscriptions.close()
  await later()
  t.equal(link.replies.length, 0)
  subscriptions.check = async () => { t.fail('the check under way when the broker closes is the last one') }
  mock.timers.tick(40_000)
})

t.test('a join that fails for another reason than an answer breaks the connection; one that waits ends with the broker', async t => {
  const { link, subscriptions } = createSubscriptions(t)
  link.subscribed = new Error('silent')
  const attached = subscriptions.attach('a', retention)
  await soon()
  t.same(link.faults, [link.subscribed])
  subscriptions.detach('a')
  subscriptions.detach('a')
  subscriptions.close()
  await t.rejects(attached, { message: /closed/ })
  await t.rejects(subscriptions.attach('a', retention), { message: /closed/ })
})

t.test('an end of a subscription that fails keeps no later one from being made', async t => {
  const { link, subscriptions } = createSubscriptions(t)
  t.equal(await subscriptions.attach('plain', undefined), null)
  subscriptions.detach('plain')
  await until(() => subscriptions.size === 0)
  t.equal(await subscriptions.attach('plain', undefined), null)
  t.same(link.faults, [])
})
