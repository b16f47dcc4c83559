import { types } from 'node:util'
import type { Identity } from '../../types/index.ts'
import { FST_ROOMS_INVALID_IDENTITY, FST_ROOMS_TOKEN_EXPIRED } from '../errors.ts'
import { maxTopicLength } from '../protocol/topic-name.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { readInfo } from './info.ts'

/** An identity of the host, checked. */
export interface KnownIdentity extends Identity { expires?: Date }

/** The functions of the host that return an identity. */
export type Identifier = 'identify' | 'onAuth'

/** Numbers below this are seconds, as in the `exp` of a JWT. As seconds it is a time in the year 5138, as milliseconds in 1973. */
const secondsBelow = 100_000_000_000

/** @throws FST_ROOMS_INVALID_IDENTITY */
function readExpires (expires: unknown, by: Identifier): Date {
  const given = typeof expires === 'number' && expires < secondsBelow ? expires * 1_000 : expires
  const date = typeof given === 'number' || types.isDate(given) ? new Date(given) : undefined
  // An invalid Date has the time NaN, which is not >= 0.
  if (date !== undefined && date.getTime() >= 0) return date
  throw new FST_ROOMS_INVALID_IDENTITY(by, 'an "expires" that is no Date and no number of seconds or milliseconds since 1970')
}

/** @throws FST_ROOMS_INVALID_IDENTITY, FST_ROOMS_TOKEN_EXPIRED */
export function checkIdentity (identity: unknown, by: Identifier): KnownIdentity | null {
  if (identity === null) return null
  if (typeof identity !== 'object') throw new FST_ROOMS_INVALID_IDENTITY(by, `${typeof identity}; it takes { user, info?, expires? } or null`)
  const { user, info, expires, ...others } = identity as Partial<Identity>
  if (typeof user !== 'string' || user === '' || user.length > maxTopicLength) throw new FST_ROOMS_INVALID_IDENTITY(by, 'a "user" that is no string of 1 to 255 characters')
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) throw new FST_ROOMS_INVALID_IDENTITY(by, `"${unknown}", which it does not take`)
  const known: KnownIdentity = { user }
  if (info !== undefined) known.info = info
  if (expires !== undefined) {
    known.expires = readExpires(expires, by)
    if (known.expires.getTime() <= Date.now()) throw new FST_ROOMS_TOKEN_EXPIRED()
  }
  return known
}

/**
 * Checks the presence info of an identity. Its errors are told to the host, because the host has made the info.
 * @throws FST_ROOMS_INVALID_IDENTITY
 */
export function withInfo<I extends Identity | null> ({ presence }: TopicDefinition, identity: I, limit: number, by: Identifier): I {
  if (presence === null || identity?.info === undefined) return identity
  try {
    return { ...identity, info: readInfo(presence.serialise(identity.info), limit) }
  } catch (error) {
    throw new FST_ROOMS_INVALID_IDENTITY(by, `an "info" that this topic does not take: ${(error as Error).message}`)
  }
}
