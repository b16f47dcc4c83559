import t, { type Test } from 'tap'
import { RedisAnswerError } from '../../lib/redis/answer-error.ts'
import { encodePublication } from '../../lib/redis/codec.ts'
import { Epochs } from '../../lib/redis/epochs.ts'
import { Keys } from '../../lib/redis/keys.ts'
import type { Link } from '../../lib/redis/link.ts'
import type { Reader } from '../../lib/redis/reader.ts'
import { Subscriptions } from '../../lib/redis/subscriptions.ts'
import type { RedisArgument, RedisReply } from '../../types/redis.ts'
import type { Retention } from '../../types/index.ts'
import { publication } from '../brokers/start.ts'
import { until } from '../helpers/redis-node.ts'

const retention: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }
const keys = new Keys('rooms', 64)

/** Subscriptions over a link that the test answers for. */
function create (t: Test, isCluster = false, linger = 1) {
  const ended: (readonly string[])[] = []
  const renewed: RedisArgument[][] = []
  const lost: string[] = []
  const server = {
    isReady: true,
    isOpen: true,
    subscribe: async (_channels: readonly string[]): Promise<void> => {},
    unsubscribe: async (channels: readonly string[]) => { ended.push(channels) },
    call: async (_script: unknown, _keys: unknown, args: RedisArgument[]) => { renewed.push(args) },
    send: (_commands: unknown): Promise<RedisReply>[] => [],
    fault: (error: Error) => { throw error }
  }
  const link = server as unknown as Link
  const reader = { positions: async (_partition: number, topics: readonly string[]) => topics.map(() => ({ epoch: 'e', offset: 0, base: 0 })) } as unknown as Reader
  const subscriptions = new Subscriptions(keys, new Epochs(), reader, () => link, {
    node: 'n',
    entry: () => {},
    lost: line => { lost.push(line.topic) },
    skipped: () => {},
    read: async (_topic, offset) => ({ top: { epoch: 'e', offset }, base: 0, skips: [], messages: [] }),
    renew: async () => {},
    unreadable: () => {},
    stats: { mended: 0, holes: 0, resets: 0, dropped: 0 }
  }, { isCluster, linger })
  t.teardown(() => { subscriptions.close() })
  return { subscriptions, server, link, ended, renewed, lost }
}

t.test('a channel has a topic while that is attached', async t => {
  const { subscriptions } = create(t)
  const channel = keys.channel('a')
  t.equal(subscriptions.topicOf(channel), undefined)
  await subscriptions.attach('a', undefined)
  t.equal(subscriptions.topicOf(channel), 'a')
  subscriptions.detach('a')
  t.equal(subscriptions.topicOf(channel), undefined)
})

t.test('subscriptions end by partition in a cluster, and together outside of one', async t => {
  for (const isCluster of [true, false]) {
    const { subscriptions, ended } = create(t, isCluster)
    t.not(keys.partitionOf('a'), keys.partitionOf('b'))
    await Promise.all(['a', 'b'].map(topic => subscriptions.attach(topic, undefined)))
    for (const topic of ['a', 'b']) subscriptions.detach(topic)
    await until(() => subscriptions.size === 0, 500)
    const channels = ['a', 'b'].map(topic => keys.channel(topic))
    t.same(ended, isCluster ? channels.map(channel => [channel]) : [channels])
  }
})

t.test('a node that is cut off again before it has recovered tells the loss when it is back, once', async t => {
  const { subscriptions, server, link, lost } = create(t)
  await subscriptions.attach('plain', undefined)
  await subscriptions.attach('left', undefined)
  const { subscribe } = server
  server.subscribe = async () => { throw new Error('cut') }
  await t.rejects(subscriptions.recover(link), { message: 'cut' })
  t.same([lost, subscriptions.resubscribed], [[], 0])
  subscriptions.detach('left')
  server.subscribe = subscribe
  await subscriptions.recover(link)
  t.same([lost, subscriptions.resubscribed], [['plain'], 1])
  await subscriptions.recover(link)
  t.same(lost, ['plain', 'plain'], 'the next cut is a loss of its own')
})

t.test('a refusal that comes later than another one leaves a new subscription alone', async t => {
  const { subscriptions, server } = create(t)
  const answers = [new RedisAnswerError('BUSY running a script'), new RedisAnswerError('NOPERM none'), undefined, new RedisAnswerError('NOPERM none')]
  server.subscribe = async () => {
    const error = answers.shift()
    if (error !== undefined) throw error
  }
  const first = subscriptions.attach('a', undefined)
  first.catch(() => {})
  await until(() => answers.length === 3, 500)
  await t.rejects(subscriptions.attach('a', undefined), { message: 'NOPERM none' })
  await t.rejects(first, { message: 'NOPERM none' })
  t.equal(await subscriptions.attach('a', undefined), null)
  await until(() => answers.length === 0, 500)
  await new Promise(resolve => setImmediate(resolve))
  t.same([answers.length, subscriptions.size, subscriptions.line('a')?.isAttached], [0, 1, true])
})

t.test('a node that is back begins a new epoch if another publication has its place, unless the topic was detached', async t => {
  const own = publication('a', 1, 'n')
  for (const [kept, isDetached, count] of [[publication('a', 2, 'm'), false, 1], [publication('a', 2, 'm'), true, 0], [own, false, 0]] as const) {
    const { subscriptions, server, link, renewed } = create(t)
    await subscriptions.attach('a', retention)
    subscriptions.line('a')!.receive({ position: { epoch: 'e', offset: 1 }, entries: [{ publication: own, isRelayed: false }] })
    server.send = () => {
      if (isDetached) subscriptions.detach('a')
      return [Promise.resolve([[Buffer.from('1-0'), [Buffer.from('d'), encodePublication(kept, false)]]])]
    }
    await subscriptions.recover(link)
    t.same(renewed.map(([epoch, , offset, isDifferent]) => [epoch, offset, isDifferent]), Array.from({ length: count }, () => ['e', '1', '1']))
  }
  const { subscriptions, renewed } = create(t)
  await subscriptions.attach('a', retention)
  await subscriptions.renew(subscriptions.line('a')!, false)
  t.same(renewed.map(([epoch, , offset, isDifferent]) => [epoch, offset, isDifferent]), [['e', '0', '']], 'or if the server has lost the last ones')
})

t.test('a node is not back if the server does not say what it keeps, and is if that is kept as values', async t => {
  for (const [error, isBack] of [[new Error('cut'), false], [new RedisAnswerError('BUSY running a script'), false], [new RedisAnswerError('WRONGTYPE none'), true]] as const) {
    const { subscriptions, server, link, renewed } = create(t)
    await subscriptions.attach('a', retention)
    subscriptions.line('a')!.receive({ position: { epoch: 'e', offset: 1 }, entries: [{ publication: publication('a', 1, 'n'), isRelayed: false }] })
    server.send = () => [Promise.reject(error)]
    const recovered = subscriptions.recover(link)
    if (isBack) await recovered
    else await t.rejects(recovered, error)
    t.same(renewed, [])
  }
})

t.test('topics that are attached while a connection recovers are subscribed to when it is ready', async t => {
  const { subscriptions, server, link } = create(t)
  server.isReady = false
  let goOn = (): void => {}
  const channels: string[] = []
  server.subscribe = given => {
    channels.push(...given)
    return new Promise(resolve => { goOn = resolve })
  }
  const first = subscriptions.attach('a', retention)
  await Promise.resolve()
  const recovered = subscriptions.recover(link)
  const late = subscriptions.attach('b', retention)
  const gone = subscriptions.attach('c', retention)
  await new Promise(resolve => setImmediate(resolve))
  subscriptions.resume()
  t.same(channels, [keys.channel('a')], 'the connection is not ready')
  goOn()
  await recovered
  server.subscribe = async given => { channels.push(...given) }
  server.isReady = true
  subscriptions.resume()
  subscriptions.resume()
  for (const attached of [first, late, gone]) t.match(await Promise.race([attached, new Promise(resolve => setTimeout(resolve, 1_000))]), { epoch: 'e', offset: 0 })
  t.same(channels, ['a', 'b', 'c'].map(topic => keys.channel(topic)))
})

t.test('topics that were detached before there was a connection are forgotten, and those that wait for an answer are not', async t => {
  const { subscriptions, server } = create(t)
  server.isReady = server.isOpen = false
  const gone = Promise.allSettled(['a', 'b'].map(topic => subscriptions.attach(topic, retention)))
  const kept = subscriptions.attach('kept', retention)
  await Promise.resolve()
  for (const topic of ['a', 'b']) subscriptions.detach(topic)
  await until(() => subscriptions.size === 1, 500)
  t.equal(subscriptions.size, 1)
  t.match(await gone, [{ reason: { message: 'the topic was detached' } }, { reason: { message: 'the topic was detached' } }])
  server.isReady = server.isOpen = true
  const channels: string[] = []
  let goOn = (): void => {}
  server.subscribe = given => {
    channels.push(...given)
    return new Promise(resolve => { goOn = resolve })
  }
  subscriptions.resume()
  await new Promise(resolve => setImmediate(resolve))
  subscriptions.detach('kept')
  await new Promise(resolve => setTimeout(resolve, 150))
  t.equal(subscriptions.size, 1)
  goOn()
  t.match(await kept, { epoch: 'e', offset: 0 })
  t.same(channels, [keys.channel('kept')])
  await until(() => subscriptions.size === 0, 500)
  t.equal(subscriptions.size, 0)
})

t.test('without a pause before subscriptions end, all topics are not looked at in each millisecond', async t => {
  const { subscriptions } = create(t, false, 0)
  let looks = 0
  await subscriptions.attach('a', undefined)
  Object.defineProperty(subscriptions.line('a'), 'isAttached', { get: () => { looks++; return true }, set: () => {} })
  await new Promise(resolve => setTimeout(resolve, 200))
  t.ok(looks <= 10, String(looks))
})
