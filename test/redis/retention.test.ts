import t from 'tap'
import { Redis } from 'ioredis'
import type { HistoryQuery, Retention } from '../../types/index.ts'
import { startProxy } from '../client/proxy.ts'
import { range, startNode, until } from '../helpers/redis-node.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

t.test('what a topic keeps in Redis', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const client = new Redis(server.port, '127.0.0.1')
  t.teardown(() => { client.disconnect() })
  const keyOf = async (kind: string, topic: string) => (await client.keys(`*:${kind}:${topic}`))[0]!

  t.test('is never less than its size, at most a sixteenth more, and a page shows its size alone', async t => {
    const { broker, publish } = await startNode(t, server.port)
    for (const size of [0, 1, 15, 16, 100, 1_000]) {
      const topic = `size${size}`
      const retention: Retention = { size, bytes: 1e6, ttl: 60_000, latest: false }
      const most = size + Math.min(16, Math.floor(size / 16))
      const page = async (more: Partial<HistoryQuery> = {}) => {
        const { messages, from } = await broker.history!(topic, { limit: 5_000, bytes: Infinity, retention, ...more })
        return [messages.map(({ offset }) => offset), from]
      }
      await broker.attach([topic], retention)
      const lengths = new Set<number>()
      for (let top = 1; top <= size + 40; top++) {
        await publish(topic, top, { retention })
        const length = await client.xlen(await keyOf('s', topic) ?? 'none')
        if (top > size) lengths.add(length)
        if (top <= size) continue
        const kept = range(top - size + 1, top).map(text => Number(text.split(' ').at(-1)))
        t.same(await page(), [kept, top - size], `${size} of ${top}`)
        t.same(await page({ after: 0 }), [kept, top - size], 'a page behind what is kept begins with the first kept one')
        if (size < 2) continue
        t.same(await page({ after: top - size + 1 }), [kept.slice(1), top - size])
        t.same(await page({ limit: 1 }), [[top], top - size])
        t.same(await page({ after: 0, limit: 1 }), [[top - size + 1], top - size])
      }
      t.equal(Math.min(...lengths), size)
      t.equal(Math.max(...lengths), most)
    }
  })

  t.test('lives as long as its publications say, though metadata and fences are not renewed with each of them', async t => {
    const { broker, publish } = await startNode(t, server.port)
    const retention: Retention = { size: 10, bytes: 1e6, ttl: 60_000, latest: false }
    await broker.attach(['ttl'], retention)
    await publish('ttl', 1, { retention })
    const [m, s, f] = [await keyOf('m', 'ttl'), await keyOf('s', 'ttl'), await keyOf('f', 'ttl')]
    const times = () => Promise.all([m, s, f].map(key => client.pttl(key)))
    const isWhole = async () => (await times()).map((time, i) => time > [2_500_000_000, 55_000, 550_000][i]!)
    t.same(await isWhole(), [true, true, true])
    for (const key of [m, s, f]) await client.pexpire(key, 20_000)
    await publish('ttl', 2, { retention })
    t.same(await isWhole(), [false, true, false], 'only the messages, within a minute')
    await client.del(f)
    await publish('ttl', 3, { retention })
    t.same(await isWhole(), [true, true, true], 'new fences')
    await client.del(m)
    await publish('ttl', 4, { retention })
    t.same(await isWhole(), [true, true, true], 'new metadata')
    // A repetition alone leaves the topic unused, which lives for an hour.
    const mid = 'm'.repeat(16)
    await publish('ttl', 5, { retention, mid })
    await client.del(m)
    t.match(await publish('ttl', 5, { retention, mid }), [{ state: 'duplicate' }])
    await (await startNode(t, server.port)).broker.attach(['ttl'], retention)
    t.ok(await client.pttl(m) <= 3_600_000)
    await publish('ttl', 6, { retention })
    t.same(await isWhole(), [true, true, true], 'the first message of an epoch')
    const other = await startNode(t, server.port)
    for (const key of [m, s, f]) await client.pexpire(key, 20_000)
    await other.publish('ttl', 5, { retention })
    t.same(await isWhole(), [true, true, true], 'another node')
  })

  const log: Retention = { size: 10, bytes: 1e6, ttl: 60_000, latest: false }
  const values: Retention = { ...log, latest: true }

  t.test('of values is nothing if the server has dropped one of their two keys, and then they begin anew', async t => {
    const { broker, publish } = await startNode(t, server.port)
    for (const kind of ['s', 'z']) {
      const topic = `dropped-${kind}`
      const page = async () => {
        const { messages, from } = await broker.history!(topic, { after: 1, limit: 100, bytes: Infinity, retention: values })
        return [messages.map(({ offset }) => offset), from]
      }
      for (const key of ['a', 'b', 'c']) await publish(topic, 1, { retention: values, key, version: 5 })
      t.same(await page(), [[2, 3], 0])
      await client.del(await keyOf(kind, topic))
      t.same(await page(), [[], 3], kind)
      t.match(await publish(topic, 2, { retention: values, key: 'a', version: 4 }), [{ state: 'ok', position: { offset: 4 } }], 'no newer value is kept')
      t.same(await page(), [[4], 3], kind)
      t.same([await client.hlen(await keyOf('s', topic)), await client.zcard(await keyOf('z', topic))], [1, 1])
      t.equal(Number(await client.hget(await keyOf('m', topic), 'b')), 320 + '"data":2}'.length + 2)
    }
  })

  t.test('is nothing after a deploy by which a log has become values, or values a log, until something is published', async t => {
    const { broker, publish } = await startNode(t, server.port)
    for (const [before, after] of [[log, values], [values, log]] as const) {
      const topic = before.latest ? 'was-values' : 'was-log'
      for (const key of ['a', 'b']) await publish(topic, 1, { retention: before, key })
      const page = async (retention: Retention) => {
        const { position: { offset }, messages, from } = await broker.history!(topic, { limit: 100, bytes: Infinity, retention })
        return [offset, messages.map(({ offset }) => offset), from]
      }
      t.same(await page(after), [2, [], 2])
      t.same(await page(before), [2, [1, 2], 0], 'an older node still has it')
      t.match(await publish(topic, 2, { retention: after, key: 'a' }), [{ state: 'ok', position: { offset: 3 } }])
      t.same(await page(after), [3, [3], 2])
      t.same(await page(before), [3, [], 3])
    }
  })

  t.test('is nothing for an older node whose log has become values, and that node comes back after a cut', async t => {
    const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
    const old = await startNode(t, Number(proxy.host.split(':').at(-1)))
    const { publish } = await startNode(t, server.port)
    await old.broker.attach(['mixed'], log)
    await old.publish('mixed', 1, { retention: log })
    await publish('mixed', 2, { retention: values })
    await until(() => old.entries.length === 2)
    proxy.cut()
    await until(() => old.states.at(-1) === 'down')
    await until(() => old.states.at(-1) === 'up')
    t.same([old.states.at(-1), old.entries], ['up', ['mixed 1', 'mixed 2']])
    await publish('mixed', 3, { retention: values })
    await until(() => old.entries.length === 3)
    t.same([old.entries.at(-1), old.lost], ['mixed 3', []])
  })
})
