import { available, credit, draw } from '../limits/token-bucket.ts'
import type { Rate } from '../limits/token-bucket.ts'
import { FST_ROOMS_RATE_LIMITED } from '../errors.ts'
import type { Connection } from './connection.ts'

/** The limits that a frame can be over. */
export type OverRate = 'messages' | 'addressMessages'

/**
 * Draws a token for one frame, from the bucket of the connection and from that of its address. Returns which of them is empty. Frames that arrive at once because
 * the server had left them waiting (before hello, while reading was paused, in a stall of the event loop) are counted over the time for which they waited.
 */
export function drawFor (connection: Connection): OverRate | undefined {
  const { hub, rate } = connection
  const address = connection.addressBucket!
  const now = performance.now()
  const withheld = Math.max(connection.withheld, hub.stalledFor(now))
  if (withheld > 0) {
    connection.withheld = 0
    const beyond = credit(connection, rate, now, withheld)
    // The frames of all connections of an address that were left waiting at once are at most those that the address might have sent meanwhile.
    const ceiling = address.rate.capacity * (1 + withheld / address.rate.per)
    const tokens = available(address, address.rate, now)
    address.tokens = Math.max(tokens, Math.min(tokens + beyond, ceiling))
    address.creditedUntil = Math.max(address.creditedUntil, connection.creditedUntil)
  }
  const own = draw(connection, rate, now)
  const shared = draw(address, address.rate, now)
  const over = own < 0 ? 'messages' : shared < 0 ? 'addressMessages' : undefined
  if (over === undefined) connection.isOverRate = false
  return over
}

/**
 * Whether a peer goes on although as many of its frames were refused as may be served in the time of the rate. Call it for each frame over the rate. A peer is not
 * closed for its address without a warning.
 */
export function isPersistent (connection: Connection): boolean {
  const { tokens, rate, addressBucket, isOverRate } = connection
  connection.isOverRate = true
  return tokens < -rate.capacity || (isOverRate && addressBucket!.tokens < -addressBucket!.rate.capacity)
}

/** The error of a frame over a rate. */
export function overRate ({ capacity, per }: Rate, where = ''): Error {
  return new FST_ROOMS_RATE_LIMITED(`more than ${capacity} frames in ${per} ms${where}`)
}

/** The error of a frame over the rate of its connection, or of its address. */
export function rateLimited ({ rate, addressBucket }: Connection, over: OverRate): Error {
  return over === 'messages' ? overRate(rate) : overRate(addressBucket!.rate, ' from this address')
}
