import t, { type Test } from 'tap'
import { Cluster } from 'ioredis'
import { createCluster } from 'redis'
import { controlCases } from '../../lib/conformance/control.ts'
import { brokerConformance } from '../../lib/conformance/index.ts'
import { presenceCases } from '../../lib/conformance/presence.ts'
import { redisBroker } from '../../lib/redis/broker.ts'
import { Keys } from '../../lib/redis/keys.ts'
import { portOf } from '../../lib/redis/port.ts'
import type { Retention } from '../../types/index.ts'
import type { RedisBrokerOptions } from '../../types/redis.ts'
import { startNode, until } from '../helpers/redis-node.ts'
import { noRedis, startRedis, type RedisServer } from '../helpers/redis-server.ts'

const retention: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }

/** Starts a cluster of three primaries. */
async function startCluster (t: Test): Promise<RedisServer[]> {
  const options = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000']
  const servers = await Promise.all([1, 2, 3].map(() => startRedis(t, options)))
  const ranges = [[0, 5_460], [5_461, 10_922], [10_923, 16_383]] as const
  for (const [i, { command }] of servers.entries()) {
    await command('CLUSTER', 'ADDSLOTSRANGE', ...ranges[i]!.map(String))
    await command('CLUSTER', 'SET-CONFIG-EPOCH', String(i + 1))
    if (i > 0) await command('CLUSTER', 'MEET', '127.0.0.1', String(servers[0]!.port))
  }
  for (const { command } of servers) {
    for (let i = 0; i < 500 && !(await command('CLUSTER', 'INFO')).includes('cluster_state:ok'); i++) await new Promise(resolve => setTimeout(resolve, 20))
  }
  return servers
}

const clients: Record<string, (t: Test, port: number) => RedisBrokerOptions['client']> = {
  ioredis: (t, port) => {
    const cluster = new Cluster([{ host: '127.0.0.1', port }], { lazyConnect: true, keyPrefix: 'host:' } as object)
    t.teardown(() => { cluster.disconnect() })
    return cluster
  },
  'node-redis': (_t, port) => createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }] }) as never
}

t.test('tags of partitions lie in different parts of all slots', async t => {
  for (const partitions of [1, 3, 64, 1_024]) {
    const { slots } = new Keys('rooms', partitions)
    t.same(slots.map(slot => Math.floor(slot * partitions / 16_384)), Array.from({ length: partitions }, (_, i) => i))
  }
})

t.test('a cluster of three', { skip: noRedis }, async t => {
  const servers = await startCluster(t)
  const topics = Array.from({ length: 12 }, (_, i) => `topic-${i}`)

  for (const [name, create] of Object.entries(clients)) {
    t.test(`carries topics on all servers, with ${name}`, async t => {
      const prefix = name.replace('-', '')
      const nodes = [await startNode(t, 0, { client: create(t, servers[0]!.port), prefix }), await startNode(t, 0, { client: create(t, servers[1]!.port), prefix })]
      t.same(nodes.map(({ states }) => states), [['up'], ['up']])
      for (const { broker } of nodes) {
        await broker.attach(topics, retention)
        await broker.attach(['plain'])
      }
      const outcomes = await Promise.all(topics.flatMap(topic => [nodes[0]!.publish(topic, 1, { mid: 'm' }), nodes[0]!.publish(topic, 1, { mid: 'm' }), nodes[0]!.publish(topic, 2)]))
      t.same(outcomes.map(([outcome]) => [outcome!.state, outcome!.position!.offset]), topics.flatMap(() => [['ok', 1], ['duplicate', 1], ['ok', 2]]))
      await nodes[1]!.publish('plain', 1, { retention: undefined })
      t.equal(await nodes[0]!.broker.control(`node:${nodes[1]!.name}`, Buffer.from('x')), 'sent')
      await until(() => nodes.every(({ entries }) => entries.length === 25) && nodes[1]!.controls.length === 1)
      for (const { entries } of nodes) t.same([...entries].sort(), ['plain 1', ...topics.flatMap(topic => [`${topic} 1`, `${topic} 2`])].sort())
      for (const { command } of servers) t.match(await command('PUBSUB', 'SHARDCHANNELS', `${prefix}:*:c:*`), /^\*[1-9]/, 'each server has some of them')
    })
  }

  for (const [name, create] of Object.entries(clients)) {
    t.test(`connects to primaries that have been read, and ends subscriptions, with ${name}`, async t => {
      const port = portOf(create(t, servers[0]!.port))
      t.teardown(() => { port.close() })
      const messages: string[] = []
      const on = { message: (channel: string, bytes: Buffer) => { messages.push(`${channel} ${bytes.toString()}`) }, closed: () => {}, moved: () => {} }
      const slot = Number(/\d+/.exec(await servers[0]!.command('CLUSTER', 'KEYSLOT', '{x}'))![0])
      const owner = `127.0.0.1:${servers[[5_460, 10_922, 16_383].findIndex(last => slot <= last)]!.port}`
      await t.rejects(port.connect(owner, on), { message: `there is no primary ${owner} in the cluster` })
      t.same((await port.shards()).map(({ id }) => id).sort(), servers.map(server => `127.0.0.1:${server.port}`).sort())
      await t.rejects(port.connect('127.0.0.1:1', on), { message: 'there is no primary 127.0.0.1:1 in the cluster' })
      const [subscriber, publisher] = await Promise.all([port.connect(owner, on), port.connect(owner, on)])
      t.teardown(() => { for (const connection of [subscriber, publisher]) connection.close() })
      await subscriber.subscribe(['{x}a', '{x}b'])
      await subscriber.unsubscribe(['{x}a'])
      t.same(await Promise.all(publisher.send([['SPUBLISH', '{x}a', '1'], ['SPUBLISH', '{x}b', '2']])), [0, 1])
      await until(() => messages.length > 0)
      t.same(messages, ['{x}b 2'])
    })
  }

  t.test('members and users are noted on all servers: the contract of presence and control', async t => {
    const names = new Set([...presenceCases, ...controlCases].map(({ name }) => name))
    const tests: Promise<unknown>[] = []
    let prefixes = 0
    const test = (name: string, run: () => Promise<void>): void => {
      if (names.has(name)) tests.push(t.test(name, { buffered: true }, run))
    }
    t.jobs = 4
    await brokerConformance({ test }, () => {
      const prefix = `contract${++prefixes}`
      return { broker: () => redisBroker({ client: clients.ioredis!(t, servers[0]!.port), prefix, heartbeat: 2_000 }, { every: 300, ttl: 2_000 }) }
    }, { gone: 10_000 })
    await Promise.all(tests)
    t.ok(tests.length > 8, `${tests.length} cases`)
  })

  t.test('a slot that moves takes its topics along', async t => {
    const nodes = [await startNode(t, 0, { client: clients.ioredis!(t, servers[0]!.port), prefix: 'move' }), await startNode(t, 0, { client: clients['node-redis']!(t, servers[0]!.port), prefix: 'move' })]
    for (const { broker } of nodes) await broker.attach(['a'], retention)
    await nodes[0]!.publish('a', 1)
    await until(() => nodes.every(({ entries }) => entries.length === 1))
    const keys = new Keys('move', 64)
    const slot = keys.slots[keys.partitionOf('a')]!
    const owner = [5_460, 10_922, 16_383].findIndex(last => slot <= last)
    const [from, to] = [servers[owner]!, servers[(owner + 1) % 3]!]
    const idOf = async ({ command }: RedisServer): Promise<string> => /\r\n(\S+)/.exec(await command('CLUSTER', 'MYID'))![1]!
    const [fromId, toId] = [await idOf(from), await idOf(to)]
    await to.command('CLUSTER', 'SETSLOT', String(slot), 'IMPORTING', fromId)
    await from.command('CLUSTER', 'SETSLOT', String(slot), 'MIGRATING', toId)
    const names = (await from.command('CLUSTER', 'GETKEYSINSLOT', String(slot), '100')).match(/move:\S+/g)!
    await from.command('MIGRATE', '127.0.0.1', String(to.port), '', '0', '2000', 'KEYS', ...names)
    // Until the slot has a new owner, the old one sends those who ask to the new one, and that one asks them to try again.
    const early = nodes[0]!.publish('a', 2)
    await until(() => nodes[0]!.causes.some(cause => /ASK|TRYAGAIN/.test(String(cause))))
    t.match(nodes[0]!.causes.find(cause => cause !== undefined), { message: /ASK|TRYAGAIN/ })
    for (const { command } of [to, from, servers[(owner + 2) % 3]!]) await command('CLUSTER', 'SETSLOT', String(slot), 'NODE', toId)
    const outcomes = [...await early, ...await nodes[1]!.publish('a', 3)]
    t.same(outcomes.map(({ state }) => state), ['ok', 'ok'])
    await until(() => nodes.every(({ entries }) => entries.length === 3))
    for (const { entries, lost } of nodes) t.same([entries, lost], [['a 1', 'a 2', 'a 3'], []])
  })
})
