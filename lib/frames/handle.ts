import type { ClientFrame } from '../../types/index.ts'
import { asError, isForPeer } from '../error-utils.ts'
import { FST_ROOMS_HANDLER_FAILED } from '../errors.ts'
import { isEndOf } from '../hub/end-cause.ts'
import { countRefusal, refusalOf } from '../limits/refusals.ts'
import type { Membership } from '../session/membership.ts'
import { authenticate } from './auth.ts'
import { sendDirect } from './direct.ts'
import { readHistory } from './history.ts'
import { publishMessage } from './message.ts'
import { changePresence } from './presence.ts'
import { acknowledge, refuse } from './reply.ts'

/** Takes a frame of a member. Answers, pings and new credentials never wait behind unfinished messages. */
export function take (session: Membership, frame: ClientFrame): void {
  const { hub } = session
  switch (frame.type) {
    case 'ack': session.requests?.answer(frame.ref, frame.data); break
    case 'ping': acknowledge(session, frame.ref); break
    case 'auth':
      if (hub.state === 'open') handle(session, frame)
      break
    default:
      if (hub.state === 'open' && session.enqueue(frame)) hub.counters.paused++
  }
}

/** Handles one frame. Never throws, never rejects. */
export function handle (session: Membership, frame: ClientFrame): void | Promise<void> {
  try {
    const pending = dispatch(session, frame)
    return pending?.catch((error: unknown) => { failed(session, frame, asError(error)) })
  } catch (error) {
    failed(session, frame, asError(error))
  }
}

function dispatch (session: Membership, frame: ClientFrame): void | Promise<void> {
  switch (frame.type) {
    case 'message': return publishMessage(session, frame)
    case 'auth': return authenticate(session, frame)
    case 'direct': return sendDirect(session, frame)
    case 'presence': return changePresence(session, frame)
    case 'history': return readHistory(session, frame)
  }
}

/**
 * Handles an error that a hook threw. An error that speaks to the member is its answer. Any other error is told to the host, and so is an invalid payload, which
 * the host has made. The end of the session is neither, because there is no member to answer. Only a peer that has left one of several topics is answered then.
 */
function failed (session: Membership, { ref }: ClientFrame, error: Error & { code?: string }): void {
  if (isEndOf(session, error)) {
    session.fail(error)
    refuse(session, new FST_ROOMS_HANDLER_FAILED(), ref)
    return
  }
  const isOfHost = error.code === 'FST_ROOMS_INVALID_PAYLOAD' || !isForPeer(error)
  if (isOfHost) session.fail(error)
  const shown = isOfHost ? new FST_ROOMS_HANDLER_FAILED() : error
  countRefusal(session, 'frame', refusalOf(shown))
  refuse(session, shown, ref)
}
