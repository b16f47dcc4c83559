import type { IoredisClient, NodeRedisClient, RedisBrokerOptions, RedisPort } from '../../types/redis.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { ioredisPort } from './ioredis-port.ts'
import { nodeRedisPort } from './node-redis-port.ts'
import { nodeRedisSentinelPort } from './node-redis-sentinel-port.ts'

const takes = 'a client of ioredis 5.9.2+ or of node-redis 5+ ("createClient", "createCluster" or "createSentinel"), or a RedisPort'

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
      if (!isSentinel(members)) return nodeRedisPort(client as NodeRedisClient)
    }
  }
  // In version 5 it has no "duplicate".
  if (isSentinel(members)) return nodeRedisSentinelPort(client as NodeRedisClient)
  throw new FST_ROOMS_INVALID_OPTION('client', takes, describe(client))
}

/** Whether a client is one of `createSentinel` of node-redis. */
function isSentinel (members: Record<string, unknown>): boolean {
  return ['sSubscribe', 'acquire', 'getMasterNode'].every(name => typeof members[name] === 'function')
}

function describe (client: unknown): string {
  if (client === null) return 'null'
  // A URL may contain a password.
  if (typeof client !== 'object') return client === undefined ? 'nothing' : `a ${typeof client}`
  const { name } = client.constructor ?? {}
  return name === undefined || name === 'Object' ? 'another object' : `a ${name}`
}
