import { Redis as Ioredis6 } from 'ioredis'
import { Redis as Ioredis5 } from 'ioredis5'
import { createClient as createClient6 } from 'redis'
import { createClient as createClient5 } from 'redis5'
import type { RedisBrokerOptions } from '../../types/redis.ts'

/** A client as a host has it, never connected, with options that the broker must not inherit. */
export const clients: Record<string, (port: number) => RedisBrokerOptions['client']> = {
  'ioredis 6': port => new Ioredis6(port, '127.0.0.1', { lazyConnect: true, keyPrefix: 'host:', stringNumbers: true }),
  'ioredis 5': port => new Ioredis5(port, '127.0.0.1', { lazyConnect: true, keyPrefix: 'host:', commandTimeout: 20 }),
  'node-redis 6': port => createClient6({ url: `redis://127.0.0.1:${port}`, keyPrefix: 'host:' }) as never,
  'node-redis 5': port => createClient5({ url: `redis://127.0.0.1:${port}`, commandsQueueMaxLength: 1 }) as never
}
