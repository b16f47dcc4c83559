import type { BroadcastResult, WireError } from '../types/index.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_HANDLER_FAILED } from './errors.ts'

/** Members of an error that are read on its way to a peer, through Fastify or into a log, beside the enumerable ones. */
const readMembers = ['name', 'message', 'stack', 'code', 'statusCode', 'status', 'headers', 'details', 'validation', 'cause'] as const

/**
 * Whether the members of an error can be read and its message is a string.
 * @throws the error of a getter
 */
function isReadable (error: Error): boolean {
  for (const name of readMembers) Reflect.get(error, name)
  for (const name in error) Reflect.get(error, name)
  return typeof error.message === 'string'
}

/** Returns a thrown value as an error, because hooks may throw anything: `undefined`, a string, an error with a getter that throws. */
export function asError (thrown: unknown): Error {
  try {
    if (!(thrown instanceof Error)) return new Error(String(thrown))
    if (isReadable(thrown)) return thrown
  } catch {}
  return new Error('a value was thrown that is not an error, or cannot be read')
}

/** Whether the peer caused an error: its status is 400 to 499. */
export function isClientError (error: Error): error is Error & { statusCode: number } {
  const { statusCode } = error as { statusCode?: unknown }
  return typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500
}

function isDetails (details: unknown): details is NonNullable<WireError['details']> {
  return Array.isArray(details) && details.every(entry => typeof entry?.path === 'string' && typeof entry.message === 'string')
}

/** Codes of errors that are no fault of the peer, which can try again. */
const retried: ReadonlySet<unknown> = new Set(['FST_ROOMS_BROKER_DOWN', 'FST_ROOMS_BROKER_SILENT', 'FST_ROOMS_DRAINING', 'FST_ROOMS_OVERLOADED'])

/** Whether the peer may read an error: it caused the error, or can try again. */
export function isForPeer (error: Error & { code?: unknown }): boolean {
  return isClientError(error) || retried.has(error.code)
}

/** Returns an error as frames carry it. An error that the peer may not read becomes `FST_ROOMS_HANDLER_FAILED`, so that no internal text leaks. */
export function wireError (error: Error): WireError {
  const shown = isForPeer(error) ? error : new FST_ROOMS_HANDLER_FAILED()
  const { code, details } = shown as { code?: unknown, details?: unknown }
  return {
    code: typeof code === 'string' ? code : 'FST_ROOMS_HANDLER_FAILED',
    message: String(shown.message),
    // Copies the two members only: `details` of a host's error may hold values that cannot be serialised.
    ...(isDetails(details) ? { details: details.map(({ path, message }) => ({ path, message })) } : {})
  }
}

/** Returns the error of a publication that the broker has not accepted. Its `outcome` says whether the broker may have done so. */
export function notPublished ({ outcome }: Pick<BroadcastResult, 'outcome'>): Error {
  const error = new FST_ROOMS_BROKER_DOWN()
  if (outcome === 'unknown') error.message = 'the broker has not answered in time, and may have accepted the message; repeat it with the same id'
  return Object.assign(error, { outcome })
}
