import type { Ref } from '../../types/index.ts'
import { FST_ROOMS_BAD_FRAME } from '../errors.ts'
import { asError, isClientError, wireError } from '../error-utils.ts'
import type { PayloadType } from '../topics/payload.ts'
import { closeName } from '../protocol/close-codes.ts'
import * as frames from '../protocol/server-frames.ts'
import type { HubContext } from '../hub/context.ts'
import { countRefusal, refusalOf } from '../limits/refusals.ts'
import type { MemberSession } from '../session/session.ts'

const closeCodeOf = new Map<unknown, number>([
  ['FST_ROOMS_BAD_FRAME', 4000],
  ['FST_ROOMS_FRAME_TOO_LARGE', 1009],
  ['FST_ROOMS_INVALID_PAYLOAD', 4022],
  ['FST_ROOMS_BROKER_DOWN', 4103],
  ['FST_ROOMS_OVERLOADED', 4100]
])

const closeCodeOfStatus = new Map([[401, 4001], [404, 4004], [429, 4101]])

/** The close that says the same as an error. What speaks to the peer is a refusal; anything else is our own failure. */
export function closeCodeFor (error: Error & { code?: unknown }): number {
  const known = closeCodeOf.get(error.code)
  if (known !== undefined) return known
  return isClientError(error) ? closeCodeOfStatus.get(error.statusCode) ?? 4003 : 1011
}

/** Queues a frame that only this member gets, after hello; a promise where the member has much to read first. */
export function reply (session: MemberSession, frame: string): void | Promise<void> {
  if (session.state !== 'closed') return session.deliver(frame)
}

/** Ends a session for an error. */
export function closeFor (context: HubContext, session: MemberSession, error: Error, refusal = refusalOf(error)): void {
  const code = closeCodeFor(error)
  context.end(session, { code, reason: closeName(code), by: 'server', refusal })
}

/** Tells a member that something of it was refused: where nothing can be answered, by the close. */
export function refuse (context: HubContext, session: MemberSession, error: Error, ref?: Ref): void {
  if (session.connection.mode === 'rooms.raw') {
    // Its reader has left, and with that ends the session: that close says more.
    if ((error as { code?: unknown }).code !== 'FST_ROOMS_SESSION_CLOSED') closeFor(context, session, error)
  } else reply(session, ref === undefined ? frames.error(wireError(error)) : frames.ackError(ref, wireError(error)))
}

/** Says that a member's frame was taken, where it asked to be told. */
export function acknowledge (session: MemberSession, ref: Ref | undefined, id?: string, data?: unknown): void {
  if (ref !== undefined && session.connection.mode === 'rooms.v1') reply(session, frames.ackOk(ref, id, data))
}

/** A message that is no valid frame, or not by its schema: what happens is the host's to say (`onInvalid`). */
export function invalid (context: HubContext, session: MemberSession, error: Error & { code: string }, ref?: Ref): void {
  context.counters.invalid++
  countRefusal(context, session, 'frame', refusalOf(error))
  let reaction: unknown = context.hooks.onInvalid
  if (typeof reaction === 'function') {
    try {
      reaction = reaction(session, wireError(error))
      // It decides at once. Nobody waits for an asynchronous one, but its failure is heard.
      Promise.resolve(reaction).catch((thrown: unknown) => { context.fail(asError(thrown), session) })
    } catch (thrown) {
      context.fail(asError(thrown), session)
      reaction = 'answer'
    }
  }
  if (reaction === 'close') closeFor(context, session, error)
  else if (reaction !== 'ignore') refuse(context, session, error, ref)
}

/** Whether a member's payload is by its schema; where not, that has been answered. */
export function isValid (context: HubContext, session: MemberSession, type: PayloadType, payload: unknown, ref?: Ref): boolean {
  try {
    type.check(payload)
    return true
  } catch (error) {
    invalid(context, session, error as Error & { code: string }, ref)
    return false
  }
}

/** A member's payload as JSON again; `undefined` where it is nested too deeply for that, which has been answered. */
export function jsonOf (context: HubContext, session: MemberSession, type: PayloadType, payload: unknown, ref?: Ref): string | undefined {
  try {
    return type.stringify(payload)
  } catch (error) {
    invalid(context, session, error as Error & { code: string }, ref)
    return undefined
  }
}

/** A frame that is none. Nothing else is lost by it, but a peer that sends nothing else is let go. */
export function badFrame (context: HubContext, session: MemberSession, fault: string, ref?: Ref): void {
  const error = new FST_ROOMS_BAD_FRAME(fault)
  if (++session.badFrames < context.settings.limits.badFrames) {
    invalid(context, session, error, ref)
    return
  }
  context.counters.invalid++
  countRefusal(context, session, 'frame', 'badFrames')
  refuse(context, session, error, ref)
  closeFor(context, session, error)
}
