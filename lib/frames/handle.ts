import type { ClientFrame } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { countRefusal } from '../limits/refusals.ts'
import type { Membership } from '../session/membership.ts'
import { authenticate } from './auth.ts'
import { sendDirect } from './direct.ts'
import { readHistory } from './history.ts'
import { publishMessage } from './message.ts'
import { changePresence } from './presence.ts'
import { acknowledge, answerTo, refuse } from './reply.ts'

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

/** Answers a frame whose hook has thrown. */
function failed (session: Membership, { ref }: ClientFrame, error: Error): void {
  refuse(session, answerTo(session, error, reason => { countRefusal(session, 'frame', reason) }), ref)
}
