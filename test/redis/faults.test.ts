import t, { type Test } from 'tap'
import type { Retention } from '../../types/index.ts'
import { startProxy, type Proxy } from '../client/proxy.ts'
import { range, startNode, until, type Node } from '../helpers/redis-node.ts'
import { noRedis, startRedis, type RedisServer } from '../helpers/redis-server.ts'

const retention: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }

/** Two nodes, one of them behind a proxy. */
async function startPair (t: Test, server: RedisServer): Promise<{ near: Node, far: Node, proxy: Proxy }> {
  await server.command('FLUSHALL')
  const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
  const near = await startNode(t, server.port)
  const far = await startNode(t, Number(proxy.host.split(':')[1]))
  for (const { broker } of [near, far]) await broker.attach(['a'], retention)
  await far.broker.attach(['plain'])
  return { near, far, proxy }
}

async function cutOff ({ far, proxy }: { far: Node, proxy: Proxy }): Promise<void> {
  proxy.isDown = true
  proxy.cut()
  await until(() => far.states.at(-1) === 'down')
}

t.test('faults', { skip: noRedis }, async t => {
  const server = await startRedis(t, ['--appendonly', 'yes', '--appendfsync', 'always'])

  t.test('a node that was cut off gets all that is kept, in order, and is told of what is not', async t => {
    const pair = await startPair(t, server)
    const { near, far, proxy } = pair
    await near.publish('a', 1)
    await until(() => far.entries.length === 1)
    await cutOff(pair)
    for (let n = 2; n <= 50; n++) await near.publish('a', n)
    const held = far.publish('a', 51)
    t.equal(far.broker.stats!().queued, 1)
    t.ok(far.broker.stats!().queuedBytes > 0)
    t.match(await far.publish('plain', 1, { retention: undefined }), [{ state: 'failed' }])
    t.same(far.entries.slice(1), ['plain 1'], 'members of this node get it nevertheless')
    proxy.isDown = false
    t.match(await held, [{ state: 'ok', position: { offset: 51 } }])
    await until(() => far.entries.length === 52 && near.entries.length === 51)
    t.same(far.entries.filter(entry => entry.startsWith('a')), range(1, 51))
    t.same(near.entries, range(1, 51))
    t.same(far.lost, [['plain']])
    t.match(far.broker.stats!(), { mended: 1, resubscribed: 2, holes: 0, resets: 0, missedProbes: 0, queued: 0, queuedBytes: 0, topics: 2 })
    t.equal(far.broker.stats!().reconnects, 1, 'attempts that fail do not count')
  })

  t.test('a node that missed more than is kept is told, and goes on', async t => {
    const pair = await startPair(t, server)
    const { near, far, proxy } = pair
    await near.publish('a', 1)
    await until(() => far.entries.length === 1)
    await cutOff(pair)
    for (let n = 2; n <= 120; n++) await near.publish('a', n)
    proxy.isDown = false
    await until(() => far.entries.length === 101)
    t.same(far.entries, ['a 1', ...range(21, 120)])
    t.same(far.lost.filter(topics => topics.includes('a')), [['a']])
    t.equal(far.broker.stats!().holes, 1)
    await near.publish('a', 121)
    await until(() => far.entries.length === 102)
    t.equal(far.entries.at(-1), 'a 121')
  })

  t.test('a publication whose answer was lost is there once', async t => {
    const { near, far, proxy } = await startPair(t, server)
    await far.publish('a', 1)
    // Bytes go out, and the answer does not come back.
    proxy.isMute = true
    const waiting = [far.publish('a', 2), far.publish('a', 3)]
    await until(() => near.entries.length > 1)
    proxy.cut()
    proxy.isMute = false
    waiting.push(far.publish('a', 4))
    t.match((await Promise.all(waiting)).flat(), [{ state: 'ok', position: { offset: 2 } }, { state: 'ok', position: { offset: 3 } }, { state: 'ok', position: { offset: 4 } }])
    await until(() => near.entries.length === 4 && far.entries.length === 4)
    t.same([near.entries, far.entries], [range(1, 4), range(1, 4)])
    t.equal(far.broker.stats!().fenced, 1)
  })

  t.test('connections that the server kills lose nothing', async t => {
    const { near, far } = await startPair(t, server)
    for (let n = 1; n <= 60; n++) {
      const published = near.publish('a', n)
      if (n % 20 === 0) await server.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
      if (n % 30 === 0) await server.command('CLIENT', 'KILL', 'TYPE', 'normal')
      t.match(await published, [{ state: 'ok' }])
    }
    await until(() => near.entries.length === 60 && far.entries.length === 60)
    t.same([near.entries, far.entries], [range(1, 60), range(1, 60)])
    t.same([...near.lost, ...far.lost].filter(topics => topics.includes('a')), [])
  })

  t.test('silence is noticed, and what was missed is read', async t => {
    const { near, far, proxy } = await startPair(t, server)
    proxy.isBlackhole = true
    await near.publish('a', 1)
    await until(() => far.states.at(-1) === 'down', 3_000)
    t.equal(far.states.at(-1), 'down')
    t.match(far.causes.at(-1), { message: /probe/ })
    t.equal(far.broker.stats!().missedProbes, 1)
    proxy.isBlackhole = false
    proxy.cut()
    await until(() => far.entries.length === 1)
    t.same(far.entries, ['a 1'])
  })

  t.test('a server that stands still for a while loses and doubles nothing', async t => {
    const { near, far } = await startPair(t, server)
    await near.publish('a', 1)
    server.suspend()
    const held = [near.publish('a', 2), near.publish('a', 3), far.publish('a', 4)]
    await until(() => near.states.at(-1) === 'down', 3_000)
    server.resume()
    t.match((await Promise.all(held)).flat(), [{ state: 'ok' }, { state: 'ok' }, { state: 'ok' }])
    await until(() => near.entries.length === 4 && far.entries.length === 4)
    t.same([...near.entries].sort(), range(1, 4))
    t.same(near.entries, far.entries)
  })

  t.test('a server that starts again with its data goes on', async t => {
    const { near, far } = await startPair(t, server)
    const [before] = await near.publish('a', 1)
    await server.kill()
    const held = near.publish('a', 2)
    await server.restart()
    const [outcome] = await held
    t.match(outcome, { state: 'ok', position: { epoch: before!.position!.epoch } })
    t.ok(outcome!.position!.offset > before!.position!.offset)
    await until(() => far.entries.length === 2)
    t.same(far.entries, range(1, 2))
  })

  t.test('publications that wait are given up at their deadlines: they were not accepted', async t => {
    const pair = await startPair(t, server)
    const { near, far, proxy } = pair
    await cutOff(pair)
    const begin = Date.now()
    t.match(await far.publish('a', 1, { deadline: Date.now() + 400 }), [{ state: 'failed' }])
    t.ok(Date.now() - begin < 2_000)
    proxy.isDown = false
    t.match(await far.publish('a', 2), [{ state: 'ok' }])
    await until(() => near.entries.length === 1)
    t.same(near.entries, ['a 2'])
  })

  t.test('a start and a join wait for a server that is down', async t => {
    const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
    proxy.isDown = true
    const node = await startNode(t, Number(proxy.host.split(':')[1]))
    t.same(node.states, ['down'])
    const attached = node.broker.attach(['late'], retention)
    t.equal(await node.broker.control('*', Buffer.from('x')), 'unknown')
    await t.rejects(async () => node.broker.history!('late', { limit: 1, bytes: 1, retention }))
    proxy.isDown = false
    t.match(await attached, [{ offset: 0 }])
    await until(() => node.states.length > 1)
    t.same(node.states, ['down', 'up'])
    t.same(node.lost, [])
  })
})
