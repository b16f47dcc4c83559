import { FST_ROOMS_SESSION_CLOSED } from '../errors.ts'
import type { AnySession } from './ports.ts'

/** Causes of an error that are looked at, one behind the other: an error may be its own cause. */
const maxCauses = 10

/**
 * Whether an error is the end of this session, as a hook of the host meets it: the session has ended, and the error is
 * `FST_ROOMS_SESSION_CLOSED` of it, which is the reason of `session.signal`, or was caused by that. Node.js makes an `AbortError` with the
 * signal's reason as its `cause`.
 */
export function isEndOf (session: Pick<AnySession, 'id' | 'state'>, error: Error): boolean {
  if (session.state !== 'closed') return false
  const { code, message } = new FST_ROOMS_SESSION_CLOSED(session.id) // the message names the session
  try {
    let cause: unknown = error
    for (let n = 0; n <= maxCauses && cause instanceof Error; n++) {
      if ((cause as { code?: unknown }).code === code && cause.message === message) return true
      cause = cause.cause
    }
  } catch {} // a cause that cannot be read is not the end of the session
  return false
}
