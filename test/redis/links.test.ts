import { mock } from 'node:test'
import t from 'tap'
import { RedisAnswerError } from '../../lib/redis/answer-error.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import { Keys } from '../../lib/redis/keys.ts'
import { Link } from '../../lib/redis/link.ts'
import { Links } from '../../lib/redis/links.ts'
import type { RedisPort, RedisShard } from '../../types/redis.ts'
import type { BrokerState } from '../../types/index.ts'
import { until } from '../helpers/redis-node.ts'

/** The slot of the only partition. */
const slot = new Keys('rooms', 1).slots[0]!

/** A port whose connections answer everything; probes come back, unless `refuse` gives an error. */
function createPort (shards: () => Promise<RedisShard[]>, refuse: () => Error | undefined = () => undefined): RedisPort & { opened: string[] } {
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
          const error = refuse()
          if (error !== undefined) throw error
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

t.test('a broker that is closed while it reads the servers in vain does not read them again', async t => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => { mock.timers.reset() })
  let readings = 0
  let fail = (): void => {}
  const port = createPort(() => {
    readings++
    return new Promise((_resolve, reject) => { fail = () => { reject(new Error('no cluster')) } })
  })
  const broker = redisBroker({ client: port, partitions: 1 })
  const states: BrokerState[] = []
  const started = broker.start('n', { entry: () => {}, control: () => {}, lost: () => {}, state: state => { states.push(state) } })
  await broker.close()
  fail()
  await started
  mock.timers.tick(1_000)
  t.same([readings, states], [1, []])
})

t.test('a server that refuses a probe is degraded until the next one; without an answer to a probe it is down', async t => {
  const answers = [undefined, new RedisAnswerError('NOPERM none'), undefined, new Error('cut')]
  const port = createPort(async () => [], () => answers.shift())
  const states: [BrokerState, string | undefined][] = []
  const link = new Link({ port, shard: 'one', heartbeat: 150, channels: ['c'], probeKey: 'k' }, {
    message: () => {},
    control: () => {},
    recover: async () => {},
    changed: () => {
      states.push([link.state, link.cause?.message])
      if (link.state === 'down') link.close()
    }
  })
  t.teardown(() => { link.close() })
  await link.start()
  let lag = 0
  await until(() => {
    lag = Math.max(lag, link.lag)
    return link.state === 'down'
  }, 8_000)
  t.same(states, [['up', undefined], ['degraded', 'NOPERM none'], ['up', undefined], ['down', 'Redis has not answered a probe within 150 ms']])
  await new Promise(resolve => setTimeout(resolve, 120)) // longer than the first pause before another attempt
  t.same(port.opened, ['one', 'one'], 'a refusal does not end the connections, and a link that was closed when it went down makes no others')
  t.equal(link.missedProbes, 1)
  t.ok(lag >= 75, 'a probe that waits counts')
  t.ok(link.lag < 75, 'one that has come back is what counts without a connection')
})

t.test('a link that was not started, or is closed, refuses commands and subscriptions', async t => {
  const link = new Link({ port: createPort(async () => []), shard: 'one', heartbeat: 4_000, channels: ['c'], probeKey: 'k' }, { message: () => {}, control: () => {}, recover: async () => {}, changed: () => {} })
  const refuses = async (): Promise<void> => {
    await t.rejects(link.send([['PING']])[0]!, { message: 'there is no connection to Redis' })
    await t.rejects(link.subscribe(['x']), { message: 'there is no connection to Redis' })
  }
  await refuses()
  await link.start()
  t.same(await Promise.all(link.send([['PING']])), [1])
  t.equal(link.reconnects, 0)
  link.close()
  await refuses()
})

t.test('a link that is closed while it connects, or while the node recovers, does not come up', async t => {
  for (const closedAt of ['connect', 'recover']) {
    const port = createPort(async () => [])
    const states: string[] = []
    let closed = 0
    const link: Link = new Link({
      port: {
        ...port,
        connect: async (shard, events) => {
          const connection = await port.connect(shard, events)
          if (closedAt === 'connect') setImmediate(() => { link.close() })
          await new Promise(resolve => setImmediate(resolve))
          return { ...connection, close: () => { closed++ } }
        }
      },
      shard: 'one',
      heartbeat: 4_000,
      channels: ['c'],
      probeKey: 'k'
    }, { message: () => {}, control: () => {}, recover: async () => { link.close() }, changed: () => { states.push(link.state) } })
    await link.start()
    t.same([states, link.state, link.isOpen, closed >= 2], [[], 'down', false, true], closedAt)
  }
})

t.test('a link that breaks in the turn in which a probe is due connects again', async t => {
  const port = createPort(async () => [])
  let probes = 0
  const states: [string, string | undefined][] = []
  const link: Link = new Link({
    port: {
      ...port,
      connect: async (shard, events) => {
        const connection = await port.connect(shard, events)
        return {
          ...connection,
          send: commands => {
            if (commands[0]![0] === 'EVALSHA' && ++probes === 2) {
              queueMicrotask(() => {
                // This timer is made after that of the heartbeat. After a stall both run in one turn.
                setTimeout(() => { link.fault(new Error('cut')) }, 20)
                Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 30)
              })
            }
            return connection.send(commands)
          }
        }
      }
    },
    shard: 'one',
    heartbeat: 20,
    channels: ['c'],
    probeKey: 'k'
  }, { message: () => {}, control: () => {}, recover: async () => {}, changed: () => { states.push([link.state, link.cause?.message]) } })
  t.teardown(() => { link.close() })
  await link.start()
  await until(() => states.length === 3, 500)
  t.same(states, [['up', undefined], ['down', 'cut'], ['up', undefined]])
  t.equal(link.reconnects, 1)
})

t.test('the first connection of a link that takes the place of another one was made again', async t => {
  const link = new Link({ port: createPort(async () => []), shard: 'one', heartbeat: 4_000, channels: ['c'], probeKey: 'k', isAgain: true }, { message: () => {}, control: () => {}, recover: async () => {}, changed: () => {} })
  await link.start()
  t.equal(link.reconnects, 1)
  link.close()
})

t.test('links that have told no state are down', t => {
  const links = new Links(createPort(async () => []), new Keys('rooms', 1), 'n', 1_000, {} as never)
  t.equal(links.state, 'down')
  links.close()
  t.end()
})
