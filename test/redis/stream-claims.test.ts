import t from 'tap'
import { Redis } from 'ioredis'
import { Keys } from '../../lib/redis/keys.ts'
import { StreamClaims } from '../../lib/redis/stream-claims.ts'
import { until } from '../helpers/app.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

t.test('claims of streams in Redis', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const client = new Redis(server.port, '127.0.0.1')
  t.teardown(() => { client.disconnect() })
  const create = (name: string) => {
    const state = { isCut: false, incarnation: 1, ended: [] as string[][] }
    const claims = new StreamClaims({
      keys: new Keys('t', 4),
      calls: {
        call: async (_partition, { source }, keys, args) => {
          if (state.isCut) throw new Error('cut')
          return await client.eval(source, keys.length, ...keys, ...args.map(String)) as never
        }
      },
      name: () => `${name}:${state.incarnation}`,
      handlers: { orphaned: async topics => { state.ended.push(topics) } }
    })
    t.teardown(() => claims.close())
    return { claims, state }
  }
  const keys = async () => (await client.keys('*')).length

  t.test('are given back as soon as the server answers, and leave nothing', async t => {
    const { claims, state } = create('a')
    t.equal(await claims.claim('one'), true)
    t.equal(await claims.claim('two'), true)
    for (const key of await client.keys('*')) t.ok(await client.pttl(key) > 3_500_000, 'no key lives for ever')
    state.isCut = true
    claims.release('one')
    claims.release('two')
    await t.rejects(claims.claim('one'), { message: 'cut' }, 'and may have reached the server')
    state.isCut = false
    await until(async () => await client.hlen((await client.keys('*:streams'))[0] ?? '') === 1)
    t.equal(await claims.isTaken('one'), false)
    claims.release('one')
    await until(async () => await keys() === 0)
    t.equal(await keys(), 0)
  })

  t.test('are said again to a server that has lost them, and are those of a new incarnation then', async t => {
    const { claims, state } = create('b')
    await claims.claim('one')
    await client.flushall()
    state.incarnation = 2
    claims.up()
    await until(async () => await keys() === 2)
    const other = create('c')
    t.equal(await other.claims.claim('one'), false)
    t.equal(await other.claims.isTaken('one'), true)
    state.isCut = true
    claims.up()
    await other.claims.sweep('b:1')
    t.same(other.state.ended, [], 'the former incarnation has nothing')
    await other.claims.sweep('b:2')
    t.same(other.state.ended, [['one']])
    t.equal(await keys(), 0)
    t.equal(await other.claims.claim('one'), true)
    other.claims.release('one')
    await until(async () => await keys() === 0)
  })

  t.test('of a dead node are ended a hundred at a time', async t => {
    const { claims } = create('d')
    for (let n = 0; n < 250; n++) await claims.claim(`s${n}`)
    const other = create('e')
    await other.claims.sweep('d:1')
    t.same(other.state.ended.map(({ length }) => length), [100, 100, 50])
    t.equal(new Set(other.state.ended.flat()).size, 250)
    t.equal(await keys(), 0)
  })
})
