import t from 'tap'
import { redisBroker } from '../../lib/redis/index.ts'
import { Keys } from '../../lib/redis/keys.ts'
import type { RedisPort, RedisShard } from '../../types/redis.ts'
import type { BrokerState } from '../../types/index.ts'
import { until } from '../helpers/redis-node.ts'

/** The slot of the only partition. */
const slot = new Keys('rooms', 1).slots[0]!

/** A port whose connections answer everything; probes come back. */
function createPort (shards: () => Promise<RedisShard[]>): RedisPort & { opened: string[] } {
  const opened: string[] = []
  let receive: (channel: string, bytes: Buffer) => void = () => {}
  return {
    opened,
    isCluster: true,
    shards,
    async connect (shard, { message }) {
      opened.push(shard)
      return {
        send: commands => commands.map(async ([name, , , , channel, , bytes]) => {
          if (name !== 'EVALSHA') return name === 'INFO' ? '' : 1
          receive(channel as string, Buffer.from(bytes!))
          return 'OK'
        }),
        subscribe: async () => { receive = message },
        unsubscribe: async () => {},
        close: () => {}
      }
    },
    close: () => {}
  }
}

t.test('a cluster whose servers cannot be read, or lack slots, is down until it is whole', async t => {
  let readings = 0
  const port = createPort(async () => {
    readings++
    if (readings === 1) throw new Error('no cluster')
    return readings === 2 ? [{ id: 'idle', slots: [[0, slot - 1]] }] : [{ id: 'idle', slots: [[0, slot - 1], [slot + 1, 16_383]] }, { id: 'one', slots: [[slot, slot]] }]
  })
  const states: [BrokerState, string | undefined][] = []
  const broker = redisBroker({ client: port, partitions: 1 })
  t.teardown(() => broker.close())
  await broker.start('n', { entry: () => {}, control: () => {}, lost: () => {}, state: (state, cause) => { states.push([state, cause?.message]) } })
  await until(() => states.at(-1)?.[0] === 'up')
  t.same(states, [['down', 'no cluster'], ['down', 'slots of the cluster have no primary'], ['up', undefined]])
  t.same(port.opened, ['one', 'one'], 'a server without a partition gets no connection')
})

t.test('a broker that is closed while it reads the servers opens nothing', async t => {
  let open = (): void => {}
  const port = createPort(() => new Promise(resolve => { open = () => { resolve([{ id: 'one', slots: [[0, 16_383]] }]) } }))
  const broker = redisBroker({ client: port, partitions: 1 })
  const states: BrokerState[] = []
  const started = broker.start('n', { entry: () => {}, control: () => {}, lost: () => {}, state: state => { states.push(state) } })
  await broker.close()
  open()
  await started
  t.same([port.opened, states], [[], []])
  t.same(await broker.publish([]), [])
})
