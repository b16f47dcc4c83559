import type { WireError } from '../../types/index.ts'
import { FST_ROOMS_ASK_TIMEOUT, FST_ROOMS_HANDLER_FAILED, FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_NO_SUCH_SESSION, FST_ROOMS_NOT_ASKABLE, FST_ROOMS_SESSION_CLOSED } from '../errors.ts'

/** The beginning of the messages of FST_ROOMS_INVALID_PAYLOAD. */
const invalidPrefix = new FST_ROOMS_INVALID_PAYLOAD('').message

/** The error of an answer, as the same call throws it for a session of this node. */
export function errorOf ({ code, message, details }: WireError, session: string, timeout: number): Error {
  switch (code) {
    case 'FST_ROOMS_NO_SUCH_SESSION': return new FST_ROOMS_NO_SUCH_SESSION(session)
    case 'FST_ROOMS_SESSION_CLOSED': return new FST_ROOMS_SESSION_CLOSED(session)
    case 'FST_ROOMS_NOT_ASKABLE': return new FST_ROOMS_NOT_ASKABLE(session)
    case 'FST_ROOMS_ASK_TIMEOUT': return new FST_ROOMS_ASK_TIMEOUT(session, timeout)
    case 'FST_ROOMS_INVALID_PAYLOAD': {
      const error = new FST_ROOMS_INVALID_PAYLOAD(message.startsWith(invalidPrefix) ? message.slice(invalidPrefix.length) : message)
      return details === undefined ? error : Object.assign(error, { details: details.map(({ path, message }) => ({ path, message })) })
    }
    default: return new FST_ROOMS_HANDLER_FAILED()
  }
}

/** The number of sessions in an answer. */
export function countOf (data: unknown): number {
  return Number.isSafeInteger(data) && data as number >= 0 ? data as number : 0
}
