/** Another program writes to the keys and channels of the nodes. */
import { Redis } from 'ioredis'
import t from 'tap'
import type { Retention } from '../../types/index.ts'
import { startNode, until } from '../helpers/redis-node.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

const log: Retention = { size: 3, bytes: 1_000_000, ttl: 60_000, latest: false }
const values: Retention = { ...log, latest: true }

t.test('another program writes where nodes do', { skip: noRedis }, async t => {
  const { port } = await startRedis(t)
  const other = new Redis(port, '127.0.0.1')
  t.teardown(() => { other.disconnect() })
  const keyOf = async (kind: string, topic: string): Promise<string> => (await other.keys(`rooms:*:${kind}:${topic}`))[0]!

  t.test('foreign messages of a log do not stop it: they are told as lost, or replaced', async t => {
    const node = await startNode(t, port)
    await node.broker.attach(['a'], log)
    await node.publish('a', 1, { retention: log })
    const stream = await keyOf('s', 'a')
    await other.xadd(stream, '2-0', 'd', 'x')
    await other.xadd(stream, '2-1', 'other', '')
    await other.hset(await keyOf('m', 'a'), 'o', '2')
    t.match(await node.publish('a', 3, { retention: log }), [{ state: 'ok', position: { offset: 3 } }])
    await until(() => node.entries.length === 2)
    t.same([node.entries, node.lost], [['a 1', 'a 3'], [['a'], ['a']]])
    t.match(await node.broker.history!('a', { limit: 10, bytes: 1_000, retention: log }), { from: 2, messages: [{ offset: 3 }] })
    for (let n = 4; n < 8; n++) t.match(await node.publish('a', n, { retention: log }), [{ state: 'ok', position: { offset: n } }], 'they are trimmed like all others')
    t.equal(await other.xlen(stream), 3)

    await other.xadd(stream, '500-0', 'd', 'x')
    const channel = await keyOf('m', 'a').then(key => key.replace(':m:', ':c:'))
    await other.publish(channel, 'unreadable')
    await until(() => node.broker.stats!().unreadable >= 3)
    t.match(await node.publish('a', 8, { retention: log }), [{ state: 'ok', position: { offset: 8 } }])
    t.equal(node.entries.at(-1), 'a 8', 'behind the top there is nothing')
    t.same(node.causes.flatMap(cause => (cause as { code?: string } | undefined)?.code ?? []), Array(3).fill('FST_ROOMS_BROKER_UNREADABLE'), 'once for each kind of bytes')
  })

  t.test('foreign positions on a channel are read for once, and not waited for', async t => {
    const node = await startNode(t, port)
    const [position] = await node.broker.attach(['b'], log)
    await node.publish('b', 1, { retention: log })
    const channel = await keyOf('m', 'b').then(key => key.replace(':m:', ':c:'))
    const frame = Buffer.alloc(20)
    frame.writeUInt32BE(20, 0)
    for (const head of [`1${position!.epoch}:999999999999999:`, '1anotherepoch:1:']) await other.publish(channel, Buffer.concat([Buffer.from(head), frame]))
    await until(() => node.broker.stats!().unreadable === 1)
    await new Promise(resolve => setTimeout(resolve, 50))
    const calls = async (): Promise<number> => Number(/cmdstat_evalsha:calls=(\d+)/.exec(await other.info('commandstats'))![1])
    const before = await calls()
    await new Promise(resolve => setTimeout(resolve, 100))
    t.ok(await calls() - before < 10, 'the node does not read again and again')
    await node.publish('b', 2, { retention: log })
    t.same(node.entries, ['b 1', 'b 2'])
  })

  t.test('foreign values, fences and places are replaced', async t => {
    const node = await startNode(t, port)
    await node.broker.attach(['v'], values)
    const set = (key: string, version: number) => node.publish('v', version, { key, version, retention: values })
    await set('k', 5)
    const [field] = await other.hkeys(await keyOf('s', 'v')) as [string]
    for (const text of ['x', '1:y:2:']) {
      await other.hset(await keyOf('s', 'v'), field, text)
      t.match(await set('k', 1), [{ state: 'ok' }], 'without a version that can be read, each one is newer')
    }
    await other.hset(await keyOf('s', 'v'), field, 'x')
    for (const ghost of ['g', 'h']) await other.zadd((await keyOf('s', 'v')).replace(':s:', ':z:'), 0, ghost)
    t.same((await node.broker.history!('v', { limit: 10, bytes: 1_000, retention: values })).messages, [])
    await set('j', 1)
    await set('i', 1)
    await set('l', 1)
    t.same((await node.broker.history!('v', { limit: 10, bytes: 1_000, retention: values })).messages.map(({ key }) => key), ['j', 'i', 'l'])
    const fence = await keyOf('f', 'v')
    for (const name of await other.hkeys(fence)) await other.hset(fence, name, 'x')
    t.match(await set('j', 2), [{ state: 'ok' }])
    for (let n = 0; n < 140; n++) await other.hset(fence, `node${n}`, 'x')
    const late = await startNode(t, port)
    t.match(await late.publish('v', 3, { key: 'j', version: 3, retention: values }), [{ state: 'ok' }])
  })
})
