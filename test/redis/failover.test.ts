import t, { type Test } from 'tap'
import type { Retention } from '../../types/index.ts'
import { startProxy, type Proxy } from '../client/proxy.ts'
import { range, startNode, until, type Node } from '../helpers/redis-node.ts'
import { noRedis, startRedis, type RedisServer } from '../helpers/redis-server.ts'
import { replicated, settled } from '../helpers/redis-sentinel.ts'

const retention: Retention = { size: 200, bytes: 64_000_000, ttl: 60_000, latest: false }

function portOf ({ host }: Proxy): number {
  return Number(host.split(':')[1])
}

/** Two nodes on a primary whose replica stopped after the third of five messages, and then takes its place. */
async function failOver (t: Test, between: (node: Node, replica: RedisServer) => Promise<void> = async () => {}): Promise<{ nodes: Node[], epoch: string }> {
  const primary = await startRedis(t)
  const replica = await startRedis(t, ['--replicaof', '127.0.0.1', String(primary.port)])
  await primary.command('CONFIG', 'SET', 'repl-diskless-sync-delay', '0')
  const proxy = await startProxy(t, `127.0.0.1:${primary.port}`)
  const nodes = [await startNode(t, portOf(proxy)), await startNode(t, portOf(proxy))]
  for (const { broker } of nodes) await broker.attach(['a'], retention)
  for (let n = 1; n <= 3; n++) await nodes[0]!.publish('a', n)
  await replicated(primary)
  await replica.command('REPLICAOF', 'NO', 'ONE')
  for (let n = 4; n <= 5; n++) await nodes[0]!.publish('a', n)
  await until(() => nodes.every(({ entries }) => entries.length === 5))
  await between(await startNode(t, replica.port), replica)
  const { epoch } = nodes[0]!.positions[0]!
  proxy.target = `127.0.0.1:${replica.port}`
  await primary.kill()
  proxy.cut()
  return { nodes, epoch }
}

t.test('failover', { skip: noRedis }, async t => {
  t.test('to a replica that lacks messages: a new epoch, before anything is published', async t => {
    const { nodes, epoch } = await failOver(t)
    const [published] = await nodes[1]!.publish('a', 6, { deadline: Date.now() + 20_000 })
    t.match(published, { state: 'ok', position: { offset: 4 } })
    t.not(published!.position!.epoch, epoch)
    await until(() => nodes.every(({ entries }) => entries.length === 6))
    // The hub tells members of an epoch that it sees.
    for (const { entries, positions } of nodes) t.same([entries, positions[5]], [range(1, 6), published!.position])
  })

  t.test('to a replica that has other messages at the same positions', async t => {
    const { nodes, epoch } = await failOver(t, async (node, replica) => {
      // As if the run of the server were not known: then no offsets are skipped.
      await replica.command('HDEL', (await replica.command('KEYS', '*:m:a')).split('\r\n')[2]!, 'g')
      for (let n = 1; n <= 2; n++) await node.publish('a', `other ${n}`)
    })
    await until(() => nodes.every(({ states }) => states.at(-1) === 'down'))
    const [published] = await nodes[1]!.publish('a', 6, { deadline: Date.now() + 20_000 })
    t.match(published, { state: 'ok', position: { offset: 6 } })
    t.not(published!.position!.epoch, epoch)
    await until(() => nodes.every(({ entries }) => entries.length === 6))
    for (const { entries, positions } of nodes) t.same([entries, positions[5]], [range(1, 6), published!.position])
  })
})

t.test('a server that loads its data holds publications, and tells why', { skip: noRedis }, async t => {
  const server = await startRedis(t, ['--key-load-delay', '5000', '--loading-process-events-interval-bytes', '1024'])
  const node = await startNode(t, server.port)
  await node.broker.attach(['a'], retention)
  await node.publish('a', 1)
  await server.command('EVAL', "for i = 1, 150 do redis.call('SET', 'key' .. i, string.rep('x', 2000)) end", '0')
  await server.command('SAVE')
  await server.kill()
  const published = node.publish('a', 2, { deadline: Date.now() + 20_000 })
  await server.restart()
  t.match(await published, [{ state: 'ok' }])
  t.ok(node.causes.some(cause => /LOADING/.test(String(cause))), 'it loaded while the node connected')
  await until(() => node.entries.length === 2)
  t.same([node.entries, node.states.at(-1), node.lost], [range(1, 2), 'up', []])
})

t.test('a subscriber that the server drops for what it has not read gets all of it', { skip: noRedis }, async t => {
  const server: RedisServer = await startRedis(t, ['--client-output-buffer-limit', 'pubsub 1mb 1mb 0'])
  const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
  const near = await startNode(t, server.port)
  // Its probes are not due before the server has dropped it.
  const far = await startNode(t, portOf(proxy), { heartbeat: 5_000 })
  for (const { broker } of [near, far]) await broker.attach(['a'], retention)
  proxy.pause(true)
  const text = 'x'.repeat(100_000)
  for (let n = 1; n <= 150; n++) await near.publish('a', `${n} ${text}`, { retention })
  await settled(async () => !(await server.command('INFO', 'stats')).includes('client_output_buffer_limit_disconnections:0'))
  proxy.pause(false)
  await until(() => far.entries.length === 150)
  t.same(far.entries.map(entry => Number(/\d+/.exec(entry))), Array.from({ length: 150 }, (_, i) => i + 1))
  t.same([far.states.includes('down'), far.lost], [true, []])
})
