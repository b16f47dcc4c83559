import { FST_ROOMS_BAD_IDEMPOTENCY_KEY } from '../errors.ts'
import { maxMidLength, minSharedMidLength } from '../protocol/client-frames.ts'

/** A string of a structured field (RFC 9651), as the IETF draft of the header has it. */
const quoted = /^"((?:[ !#-[\]-~]|\\["\\])*)"$/
/** Visible ASCII without quotes. A comma separates two headers that Node.js has joined. */
const bare = /^[!#-+\--~]+$/

/**
 * Returns the mid in an `Idempotency-Key` header, which may stand in quotes.
 * @param isAnonymous - the client shares the mids of the topic with all anonymous clients
 * @throws FST_ROOMS_BAD_IDEMPOTENCY_KEY
 */
export function readIdempotencyKey (header: string | string[], isAnonymous: boolean): string {
  const value = String(header)
  const mid = bare.test(value) ? value : quoted.exec(value)?.[1]?.replace(/\\(.)/g, '$1')
  const minimum = isAnonymous ? minSharedMidLength : 1
  if (mid === undefined || mid.length < minimum || mid.length > maxMidLength) throw new FST_ROOMS_BAD_IDEMPOTENCY_KEY(minimum, maxMidLength)
  return mid
}
