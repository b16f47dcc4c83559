import { closeBehaviour } from '../protocol/close-codes.ts'
import { bye } from '../protocol/frames.ts'
import { formatPosition } from '../protocol/position.ts'
import type { Ending } from './context.ts'
import { textFrameOf } from './fan-out/text-frame.ts'
import type { MemberSession } from './session.ts'

/** When to come back, in milliseconds, by what the close code asks for; nothing where it asks not to. */
const retry = {
  backoff: { min: 1_000, max: 20_000 },
  resume: { min: 500, max: 15_000 },
  renew: undefined,
  stop: undefined
} as const

/**
 * Whoever is let go with everybody else comes back with everybody else. The range that each of them gets begins somewhere else,
 * so that those who come back as soon as they may do not come at once either.
 */
function drainRetry (): { min: number, max: number } {
  return { min: 500 + Math.floor(Math.random() * 4_501), max: 15_000 }
}

/** `bye` goes before every close of ours in `rooms.v1`, but where the peer would not read it (4201, 4203). */
export function sayGoodbye (session: MemberSession, { code, reason, refusal }: Ending): void {
  const { connection, room, state, lag } = session
  if (connection.mode === 'rooms.raw' || code === 4201 || code === 4203) return
  const when = refusal === 'draining' ? drainRetry() : retry[closeBehaviour(code)]
  // Who lags has not had what the room has.
  const position = state === 'open' && lag === undefined ? room?.feed.position : undefined
  session.queue(textFrameOf(bye({
    code,
    reason,
    ...(when === undefined ? {} : { retry: when }),
    ...(position === undefined ? {} : { id: formatPosition(position) })
  })))
}
