import type { RedisConnection } from '../../types/redis.ts'
import { FST_ROOMS_BROKER_UNSUITABLE } from '../errors.ts'
import { RedisAnswerError } from './answer-error.ts'

/**
 * Checks whether a server can be used. A server that does not allow INFO is taken on trust.
 * @returns a warning if it may drop what it must keep, and its run: a name that it has until it is started again or takes the place of another
 * server; empty if it does not tell it
 * @throws FST_ROOMS_BROKER_UNSUITABLE if it is too old; what the server answers
 */
export async function checkServer (connection: RedisConnection): Promise<{ warning: Error | undefined, run: string }> {
  let info: string
  try {
    info = String(await connection.send([['INFO']])[0])
  } catch (error) {
    if (error instanceof RedisAnswerError && error.word === 'NOPERM') return { warning: undefined, run: '' }
    throw error
  }
  const valueOf = (name: string): string | undefined => new RegExp(`^${name}:([^\\r\\n]*)`, 'm').exec(info)?.[1]
  // Valkey says that it is Redis 7.2, and which version it has besides.
  const version = valueOf('redis_version')
  if (version !== undefined && Number.parseInt(version) < 7) throw new FST_ROOMS_BROKER_UNSUITABLE(`the server is Redis ${version}, and 7.0 or later is needed`)
  const policy = valueOf('maxmemory_policy')
  const warning = policy !== undefined && policy !== 'noeviction' ? new FST_ROOMS_BROKER_UNSUITABLE(`Redis may drop kept messages at any time, because its maxmemory-policy is ${policy}: set noeviction`) : undefined
  return { warning, run: `${valueOf('run_id')?.slice(0, 16) ?? ''}${valueOf('master_replid')?.slice(0, 16) ?? ''}` }
}
