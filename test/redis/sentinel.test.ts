import { EventEmitter } from 'node:events'
import t from 'tap'
import { Redis as Ioredis6 } from 'ioredis'
import { Redis as Ioredis5 } from 'ioredis5'
import { createSentinel as createSentinel6 } from 'redis'
import { createSentinel as createSentinel5 } from 'redis5'
import { nodeRedisSentinelPort } from '../../lib/redis/node-redis-sentinel-port.ts'
import { portOf } from '../../lib/redis/port.ts'
import type { Retention } from '../../types/index.ts'
import type { RedisBrokerOptions, RedisConnectionEvents } from '../../types/redis.ts'
import { freePort } from '../helpers/process.ts'
import { range, startNode, until, type Node } from '../helpers/redis-node.ts'
import { noRedis } from '../helpers/redis-server.ts'
import { replicated, settled, startSentinel } from '../helpers/redis-sentinel.ts'

const retention: Retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }
const events: RedisConnectionEvents = { message: () => {}, closed: () => {}, moved: () => {} }

t.test('a Sentinel client that is connected by its host: connections end with its primary, and a failure is told', async t => {
  const calls: string[] = []
  let refusal: Error | undefined = new Error('refused')
  const client = Object.assign(new EventEmitter(), {
    duplicate: () => client,
    connect: async () => { if (refusal !== undefined) throw refusal },
    sendCommand: async () => 'OK',
    subscribe: async () => {},
    unsubscribe: async () => { calls.push('unsubscribe') },
    destroy: () => { calls.push('destroy') }
  })
  let execute = async (_isReadonly: boolean, use: (given: unknown) => unknown): Promise<unknown> => use(client)
  const nodes: object[] = []
  const sentinel = Object.assign(new EventEmitter(), { isOpen: true, getMasterNode: () => nodes[0], _execute: (isReadonly: boolean, use: (given: unknown) => unknown) => execute(isReadonly, use) })
  const port = nodeRedisSentinelPort(sentinel as never, 20)
  await t.rejects(port.connect('', events), { message: 'Sentinel knows no primary that can be reached' })
  nodes.push({})
  await t.rejects(port.connect('', events), { message: 'refused' })
  t.equal(sentinel.listenerCount('topology-change'), 0)
  const other = Object.assign(new EventEmitter(), { isOpen: true, getMasterNode: () => ({}) })
  await t.rejects(nodeRedisSentinelPort(other as never, 20).connect('', events), { message: 'this version of node-redis does not give the client of its primary' })

  refusal = undefined
  const closed: string[] = []
  const connection = await port.connect('', { ...events, closed: ({ message }) => { closed.push(message) } })
  await port.connect('', events)
  t.same(await Promise.all(connection.send([['PING']])), ['OK'])
  await connection.subscribe(['a'])
  await connection.unsubscribe(['a'])
  sentinel.emit('topology-change', { type: 'REPLICA_ADD' })
  t.same(closed, [])
  sentinel.emit('topology-change', { type: 'MASTER_CHANGE' })
  t.same(closed, ['Sentinel has named another primary'])
  t.same(calls.slice(-3), ['unsubscribe', 'destroy', 'destroy'])

  execute = () => new Promise(() => {})
  await t.rejects(port.connect('', events), { message: 'no primary was found within 20 ms' })
  port.close()
  port.close()
  t.equal(sentinel.listenerCount('topology-change'), 0)
})

t.test('with Sentinel', { skip: noRedis }, async t => {
  const group = await startSentinel(t)
  const { primary, replica, port, name } = group
  const silent = await freePort()
  /** The first Sentinel is gone; reading clients are for replicas. */
  const sentinels = [{ host: '127.0.0.1', port: silent }, { host: '127.0.0.1', port }]
  const clients: Record<string, () => unknown> = {
    'ioredis 6': () => new Ioredis6({ sentinels, name, lazyConnect: true, keyPrefix: 'host:', role: 'slave' }),
    'ioredis 5': () => new Ioredis5({ sentinels, name, lazyConnect: true }),
    'node-redis 6': () => createSentinel6({ name, sentinelRootNodes: sentinels, keyPrefix: 'host:' })
  }

  t.test('a name that the Sentinel does not know is told', async t => {
    const wrong = portOf(new Ioredis6({ sentinels: [sentinels[1]!], name: 'other', lazyConnect: true }))
    await t.rejects(wrong.connect('', events), { message: /No such master/ })
    const later = nodeRedisSentinelPort(createSentinel6({ name: 'other', sentinelRootNodes: [sentinels[1]!] }) as never, 300)
    t.teardown(() => { later.close() })
    await t.rejects(later.connect('', events), { message: /no primary was found within 300 ms: .*No such master/i })
  })

  t.test('a Sentinel client of node-redis 5 that is not connected is named as the cause, until it is', async t => {
    const client = createSentinel5({ name, sentinelRootNodes: [sentinels[1]!] })
    client.on('error', () => {})
    const five = portOf(client as never)
    await t.rejects(five.connect('', events), { message: /not connected.*connect\(\)/ })
    five.close()
    await client.connect()
    t.teardown(() => client.destroy())
    const connection = await five.connect('', events)
    t.same(await Promise.all(connection.send([['SET', 'five', '1']])), ['OK'])
    connection.close()
    five.close()
    t.equal(client.listenerCount('topology-change'), 0)
  })

  t.test('the nodes of all clients follow the primary, and lose nothing', async t => {
    // Without a bound, version 5 waits for a primary that is gone, also in its destroy().
    const five = createSentinel5({ name, sentinelRootNodes: [sentinels[1]!], nodeClientOptions: { socket: { reconnectStrategy: false } } })
    five.on('error', () => {})
    await five.connect()
    t.teardown(() => five.destroy())
    const all: [string, unknown][] = [...Object.entries(clients).map(([name, create]): [string, unknown] => [name, create()]), ['node-redis 5', five]]
    const nodes: Node[] = []
    for (const [, client] of all) nodes.push(await startNode(t, 0, { client: client as RedisBrokerOptions['client'], prefix: 'fleet' }))
    await until(() => nodes.every(({ states }) => states.at(-1) === 'up'))
    for (const { broker } of nodes) await broker.attach(['a'], retention)
    let count = 0
    const publish = (node: Node) => node.publish('a', ++count, { deadline: Date.now() + 20_000 })
    const arrived = async (): Promise<void> => {
      await until(() => nodes.every(({ entries }) => entries.length === count))
      for (const [i, { entries, lost }] of nodes.entries()) t.same([[...entries].sort(), lost], [range(1, count).sort(), []], all[i]![0])
    }
    for (const node of nodes) t.match(await publish(node), [{ state: 'ok' }])
    await arrived()

    // The old primary goes on as a replica, and answers.
    await settled(async () => {
      if (await group.current() === replica.port) return true
      // A Sentinel that is busy refuses.
      await group.command('SENTINEL', 'FAILOVER', name)
      return false
    })
    await settled(async () => (await primary.command('INFO', 'replication')).includes('master_link_status:up'))
    t.match((await Promise.all(nodes.map(publish))).flat(), nodes.map(() => ({ state: 'ok' })))
    await arrived()

    // It takes the place of the new one again, which dies.
    await settled(async () => (await group.command('SENTINEL', 'REPLICAS', name)).includes('master-link-status\r\n$2\r\nok'))
    await replicated(replica)
    await replica.kill()
    t.match((await Promise.all(nodes.map(publish))).flat(), nodes.map(() => ({ state: 'ok' })))
    await arrived()
    t.equal(await group.current(), primary.port)
    for (const [i, { positions }] of nodes.entries()) t.equal(new Set(positions.map(position => position!.epoch)).size, 1, all[i]![0])
  })
})
