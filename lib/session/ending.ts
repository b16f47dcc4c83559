import type { LeaveReason, Refusal } from '../../types/index.ts'
import { asError, isClientError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_DRAINING, FST_ROOMS_FORBIDDEN, FST_ROOMS_HANDLER_FAILED, FST_ROOMS_JOIN_REFUSED, FST_ROOMS_OVERLOADED, FST_ROOMS_ROOM_FULL, FST_ROOMS_TOKEN_EXPIRED } from '../errors.ts'
import { refusalOf } from '../limits/refusals.ts'
import { closeName } from '../protocol/close-codes.ts'

/** Why a session ends: the peer went away, or the server decided so. `refusal` is the reason why a join was refused. */
export interface Ending extends LeaveReason {
  by: 'peer' | 'server'
  refusal?: Refusal
  /** The error that ended it, if the peer may read it. */
  error?: Error
}

/** The close code of slow members. */
export const slowCode = 4201

const closeCodeOf = new Map<unknown, number>([
  ['FST_ROOMS_BAD_FRAME', 4000],
  ['FST_ROOMS_FRAME_TOO_LARGE', 1009],
  ['FST_ROOMS_INVALID_PAYLOAD', 4022],
  ['FST_ROOMS_BROKER_DOWN', 4103],
  ['FST_ROOMS_OVERLOADED', 4100]
])

const closeCodeOfStatus = new Map([[401, 4001], [404, 4004], [429, 4101]])

/** An ending of the catalogue, decided by the server. */
export function serverEnding (code: number, refusal?: Refusal): Ending {
  const ending: Ending = { code, reason: closeName(code), by: 'server' }
  return refusal === undefined ? ending : { ...ending, refusal }
}

/** The close that says the same as an error: a refusal if the error speaks to the peer, otherwise a failure of the server. */
export function closeCodeFor (error: Error & { code?: unknown }): number {
  const known = closeCodeOf.get(error.code)
  if (known !== undefined) return known
  return isClientError(error) ? closeCodeOfStatus.get(error.statusCode) ?? 4003 : 1011
}

/**
 * How a session ends about which a hook threw. An error that speaks to the peer is its answer. Any other error is told to the host.
 * @param failed - the close code of any other error
 */
export function endingFor (session: { fail (error: Error): void }, thrown: unknown, failed: number): Ending {
  const error = asError(thrown)
  // An invalid payload that a hook throws was made by the host and not by the peer.
  if (isClientError(error) && (error as { code?: unknown }).code !== 'FST_ROOMS_INVALID_PAYLOAD') return { ...serverEnding(closeCodeFor(error), refusalOf(error)), error }
  session.fail(error)
  return serverEnding(failed, 'failed')
}

/** Close codes of joins by frame that differ from those of a session that ends with the same error. */
const joinCloseCodes = new Map<unknown, number>([
  ['FST_ROOMS_DRAINING', 1001],
  ['FST_ROOMS_CLOSED', 1001],
  ['FST_ROOMS_TOO_MANY_TOPICS', 4104],
  ['FST_ROOMS_TOKEN_EXPIRED', 4300],
  ['FST_ROOMS_BROKER_SILENT', 4103]
])

/** The close code of a join by frame that fails with an error. */
export function joinCloseCode (error: Error & { code?: unknown }): number {
  return joinCloseCodes.get(error.code) ?? closeCodeFor(error)
}

/** The error that says the same as the end of a session before its hello. */
export function refusalError (topic: string, { code, reason, refusal, error }: Ending): Error {
  if (error !== undefined) return error
  switch (code) {
    case 1001: return new FST_ROOMS_DRAINING()
    case 1011: return new FST_ROOMS_HANDLER_FAILED()
    case 4003: return new FST_ROOMS_FORBIDDEN('join')
    case 4100: return new FST_ROOMS_OVERLOADED(refusal === 'topics' ? 'too many topics have rooms' : 'the join took too long')
    case 4102: return new FST_ROOMS_ROOM_FULL(topic)
    case 4103: return new FST_ROOMS_BROKER_DOWN()
    case 4300: return new FST_ROOMS_TOKEN_EXPIRED()
    default: return new FST_ROOMS_JOIN_REFUSED(topic, code, reason)
  }
}
