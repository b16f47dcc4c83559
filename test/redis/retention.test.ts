import t from 'tap'
import { Redis } from 'ioredis'
import type { HistoryQuery, Retention } from '../../types/index.ts'
import { range, startNode } from '../helpers/redis-node.ts'
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
    const other = await startNode(t, server.port)
    for (const key of [m, s, f]) await client.pexpire(key, 20_000)
    await other.publish('ttl', 5, { retention })
    t.same(await isWhole(), [true, true, true], 'another node')
  })
})
