import type { IoredisClient, NodeRedisClient, RedisBrokerOptions, RedisPort } from '../../types/redis.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { ioredisPort } from './ioredis-port.ts'
import { nodeRedisPort } from './node-redis-port.ts'

const takes = 'a client of ioredis 5.9.2+ or of node-redis 5+ ("createClient" or "createCluster"), or a RedisPort'

/**
 * The port of a client, which is recognised by its members, because the clients are optional dependencies.
 * @throws FST_ROOMS_INVALID_OPTION if it is none that is known
 */
export function portOf (client: RedisBrokerOptions['client']): RedisPort {
  const members = Object(client) as Record<string, unknown>
  if (typeof members.connect === 'function' && typeof members.shards === 'function' && typeof members.close === 'function') return client as RedisPort
  if (typeof members.duplicate === 'function') {
    if (typeof members.defineCommand === 'function') {
      if (typeof members.ssubscribe !== 'function') throw new FST_ROOMS_INVALID_OPTION('client', takes, 'an older client of ioredis')
      return ioredisPort(client as IoredisClient)
    }
    if (typeof members.sSubscribe === 'function') {
      if (typeof members.destroy !== 'function') throw new FST_ROOMS_INVALID_OPTION('client', takes, 'an older client of node-redis')
      if (typeof members.acquire !== 'function') return nodeRedisPort(client as NodeRedisClient)
    }
  }
  throw new FST_ROOMS_INVALID_OPTION('client', takes, describe(client))
}

function describe (client: unknown): string {
  if (typeof client !== 'object' || client === null) return client === undefined ? 'nothing' : String(client).slice(0, 32)
  const { name } = client.constructor ?? {}
  return name === undefined || name === 'Object' ? 'another object' : `a ${name}`
}
