import type { Ref, Refusal } from '../../types/index.ts'
import { asError, isForPeer, wireError } from '../error-utils.ts'
import { FST_ROOMS_HANDLER_FAILED } from '../errors.ts'
import { isEndOf } from '../hub/end-cause.ts'
import { refusalOf, countRefusal } from '../limits/refusals.ts'
import { closeName } from '../protocol/close-codes.ts'
import * as frames from '../protocol/server-frames.ts'
import { closeCodeFor } from '../session/ending.ts'
import type { Membership } from '../session/membership.ts'
import type { PayloadType } from '../topics/payload.ts'

/** Sends a member a frame, unless its session has ended. Returns a promise if much is buffered for it. */
export function reply (session: Membership, text: string): void | Promise<void> {
  if (session.state !== 'closed') return session.deliver(text)
  // A peer that has left one of several topics still gets the answers to what it had sent there.
  const { connection, topic, isEndedByServer } = session
  if (connection.isMultiplexed && !isEndedByServer) connection.say(frames.withTopic(text, topic))
}

/** Ends a session for an error. */
export function closeFor (session: Membership, error: Error, refusal = refusalOf(error)): void {
  const code = closeCodeFor(error)
  session.end({ code, reason: closeName(code), by: 'server', refusal })
}

/** Tells a member that its frame was refused: by an answer, or by the close if it cannot be answered. */
export function refuse (session: Membership, error: Error, ref?: Ref): void {
  if (session.canBeAnswered) reply(session, ref === undefined ? frames.error(wireError(error)) : frames.ackError(ref, wireError(error)))
  // A reader that has left its loop ends the session, and that close says more.
  else if ((error as { code?: unknown }).code !== 'FST_ROOMS_SESSION_CLOSED') closeFor(session, error)
}

/**
 * Returns the error that answers a frame, of the one that a hook threw. An error that speaks to the member is its answer. Any other error is told to the host, and
 * so is an invalid payload, which the host has made. The end of the session is neither, and no refusal, because there is no member to answer. Only a peer that has
 * left one of several topics is answered then.
 * @param count - counts a refusal
 */
export function answerTo (session: Membership, error: Error & { code?: string }, count: (reason: Refusal) => void): Error {
  const isEnd = isEndOf(session, error)
  const isOfHost = isEnd || error.code === 'FST_ROOMS_INVALID_PAYLOAD' || !isForPeer(error)
  if (isOfHost) session.fail(error)
  const answer = isOfHost ? new FST_ROOMS_HANDLER_FAILED() : error
  if (!isEnd) count(refusalOf(answer))
  return answer
}

/**
 * Tells a member that its frame was taken, if it asked for that by a `ref`.
 * @param duplicate - it had been taken before
 */
export function acknowledge (session: Membership, ref: Ref | undefined, id?: string, data?: unknown, duplicate?: true): void {
  if (ref !== undefined && session.canBeAnswered) reply(session, frames.ackOk(ref, id, data, duplicate))
}

/** Handles a frame that is malformed or does not match its schema, as the host's `onInvalid` says. */
export function invalid (session: Membership, error: Error & { code: string }, ref?: Ref): void {
  const { hub } = session
  hub.counters.invalid++
  countRefusal(session, 'frame', refusalOf(error))
  let reaction: unknown = hub.hooks.onInvalid
  if (typeof reaction === 'function') {
    try {
      reaction = reaction(session, wireError(error))
      // The hook has to decide at once. If it is asynchronous, its promise is not awaited, but its failure is told.
      Promise.resolve(reaction).catch((thrown: unknown) => { session.fail(asError(thrown)) })
    } catch (thrown) {
      session.fail(asError(thrown))
      reaction = 'answer'
    }
  }
  if (reaction === 'close') closeFor(session, error)
  else if (reaction !== 'ignore') refuse(session, error, ref)
}

/** Whether a member's payload matches its schema. If not, the member has been told. */
export function isValid (session: Membership, type: PayloadType, payload: unknown, ref?: Ref): boolean {
  try {
    type.check(payload)
    return true
  } catch (error) {
    invalid(session, error as Error & { code: string }, ref)
    return false
  }
}

/** A member's payload as JSON again. `undefined` if it is nested too deeply for that; the member has then been told. */
export function jsonOf (session: Membership, type: PayloadType, payload: unknown, ref?: Ref): string | undefined {
  try {
    return type.stringify(payload)
  } catch (error) {
    invalid(session, error as Error & { code: string }, ref)
    return undefined
  }
}
