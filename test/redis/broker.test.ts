import t from 'tap'
import { redisBroker } from '../../lib/redis/index.ts'
import type { Broker } from '../../types/index.ts'
import type { RedisBrokerOptions } from '../../types/redis.ts'
import { brokerSuite, historySuite, positionSuite } from '../brokers/suite.ts'
import { clients } from '../helpers/redis-clients.ts'
import { noRedis, startRedis, type RedisServer } from '../helpers/redis-server.ts'

const kept = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }
const [first, ...others] = Object.entries(clients)
let prefixes = 0

/** Each broker has rooms of its own. */
function creator (server: RedisServer, client: (port: number) => RedisBrokerOptions['client']): () => Broker {
  return () => redisBroker({ client: client(server.port), prefix: `t${++prefixes}` })
}

t.test(`the suites of brokers, with ${first![0]}`, { skip: noRedis }, async t => {
  const create = creator(await startRedis(t), first![1])
  brokerSuite(t, create)
  positionSuite(t, create, kept)
  historySuite(t, create)
})

for (const [name, client] of others) {
  t.test(`the suite of brokers, with ${name}`, { skip: noRedis }, async t => {
    const create = creator(await startRedis(t), client)
    brokerSuite(t, create)
    positionSuite(t, create, kept)
  })
}
