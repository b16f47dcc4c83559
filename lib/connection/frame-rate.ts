import type { HubContext } from '../hub/context.ts'
import type { MemberSession } from '../session/session.ts'
import { credit, draw, left } from '../limits/token-bucket.ts'

/** The limits that a frame can be over. */
export type OverRate = 'messages' | 'addressMessages'

/**
 * Draws for one frame of a member, from its own bucket and from that of its address, and says which of them is empty. Frames that
 * come in a heap because they were kept waiting by us (before hello, while reading was paused, in a stall of the event loop) are counted
 * over the time for which they were.
 */
export function drawFor (hub: HubContext, session: MemberSession): OverRate | undefined {
  const { connection, definition: { rate } } = session
  const source = session.source!
  const now = performance.now()
  const withheld = Math.max(connection.withheld, hub.stalledFor(now))
  if (withheld > 0) {
    connection.withheld = 0
    const beyond = credit(session, rate, now, withheld)
    // What was kept waiting of many members at once is no more of their address than it might have sent meanwhile.
    const ceiling = source.rate.capacity * (1 + withheld / source.rate.per)
    const tokens = left(source, source.rate, now)
    source.tokens = Math.max(tokens, Math.min(tokens + beyond, ceiling))
    source.creditedUntil = Math.max(source.creditedUntil, session.creditedUntil)
  }
  const own = draw(session, rate, now)
  const shared = draw(source, source.rate, now)
  const over = own < 0 ? 'messages' : shared < 0 ? 'addressMessages' : undefined
  if (over === undefined) session.tooFast = false
  return over
}

/** A frame of it is too many: whether it was refused as much as it may be served, and goes on. Of an address that does, nobody is closed unwarned. */
export function goesOn (session: MemberSession): boolean {
  const { tokens, definition: { rate }, source, tooFast } = session
  session.tooFast = true
  return tokens < -rate.capacity || (tooFast && source!.tokens < -source!.rate.capacity)
}
