import { closeBehaviour } from '../protocol/close-codes.ts'
import { bye } from '../protocol/server-frames.ts'
import { formatPosition } from '../protocol/position.ts'
import type { Ending } from '../hub/context.ts'
import type { DrainSettings } from '../hub/drain.ts'
import { textFrameOf } from '../transport/ws/frame.ts'
import type { MemberSession } from './session.ts'

/** When to come back, in milliseconds, by what the close code asks for; nothing where it asks not to. */
const retry = {
  backoff: { min: 1_000, max: 20_000 },
  resume: { min: 500, max: 15_000 },
  renew: undefined,
  stop: undefined
} as const

/** Milliseconds of the range per member that a drain lets go: some 670 joins in a second, of which each costs a server 0.1 ms and what its hooks do. */
const perMember = 1.5
/** The shortest range of a drain, in milliseconds. */
const shortest = 900
/** The part of the range in which the ranges of single members begin. */
const startShare = 1 / 3

/**
 * When one of so many members that a drain lets go may come back, in milliseconds. The range grows with their number, so that a few are back at
 * once and thousands do not come at once. Each member's range begins elsewhere, which spreads also clients that come back as soon as they may.
 */
export function drainRetry (members: number, { min, max }: DrainSettings['retry']): { min: number, max: number } {
  const end = Math.min(max, min + Math.max(shortest, Math.round(members * perMember)))
  return { min: min + Math.floor(Math.random() * (end - min) * startShare), max: end }
}

/** `bye` goes before every close of ours in `rooms.v1`, but where the peer would not read it (4201, 4203). */
export function sayGoodbye (session: MemberSession, { code, reason, refusal }: Ending): void {
  const { connection, room, state, lag, hub } = session
  if (connection.mode === 'rooms.raw' || code === 4201 || code === 4203) return
  const when = refusal === 'draining' ? drainRetry(hub.leaving, hub.settings.drain.retry) : retry[closeBehaviour(code)]
  // A member that lags has not received up to the room's position.
  const position = state === 'open' && lag === undefined ? room?.feed.position : undefined
  session.queue(textFrameOf(bye({
    code,
    reason,
    ...(when === undefined ? {} : { retry: when }),
    ...(position === undefined ? {} : { id: formatPosition(position) })
  })))
}
