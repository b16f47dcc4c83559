import type { ByeFrame } from '../../types/index.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'
import { formatPosition } from '../protocol/position.ts'
import { bye } from '../protocol/server-frames.ts'
import type { DrainSettings } from '../hub/drain.ts'
import { slowCode, type Ending } from './ending.ts'
import type { Membership } from './membership.ts'

/** When a client may come back, in milliseconds, by the behaviour that the close code asks for; `undefined` if it asks not to. */
const retry = {
  backoff: { min: 1_000, max: 20_000 },
  resume: { min: 500, max: 15_000 },
  renew: undefined,
  stop: undefined
} as const

/** Milliseconds of the range per member that a drain lets go: some 670 joins per second, each of which costs a server 0.1 ms and the time of its hooks. */
const perMember = 1.5
/** The shortest range of a drain, in milliseconds. */
const shortest = 900
/** The part of the range in which the ranges of single members begin. */
const startShare = 1 / 3

/** The members of the hub that `bye` uses. */
export interface ByeHub {
  /** Connections at the begin of the drain; 0 before. */
  readonly leaving: number
  readonly settings: { readonly drain: DrainSettings }
}

/**
 * When one of the members that a drain lets go may come back, in milliseconds. The range grows with their number, so that a few are back at
 * once and thousands do not come at once. Each member's range begins at another time, which also spreads clients that come back as soon as they may.
 */
export function drainRetry (members: number, { min, max }: DrainSettings['retry']): { min: number, max: number } {
  const end = Math.min(max, min + Math.max(shortest, Math.round(members * perMember)))
  return { min: min + Math.floor(Math.random() * (end - min) * startShare), max: end }
}

/** Whether `bye` is sent before a close with this code: not to a peer that does not read. */
export function isTold (code: number): boolean {
  return code !== slowCode && code !== 4203
}

/** The `bye` frame of an ending, without a position. */
export function byeFrame (hub: ByeHub, { code, reason, refusal }: Ending): Omit<ByeFrame, 'type'> {
  const when = refusal === 'draining' ? drainRetry(hub.leaving, hub.settings.drain.retry) : retry[closeBehaviour(code)]
  return { code, reason, ...(when === undefined ? {} : { retry: when }) }
}

/** Sends `bye` before the server ends a session, or the answer to a `join` that was not committed, if the peer can be answered and would read it. */
export function sayBye (hub: ByeHub, session: Membership, ending: Ending): void {
  const { code } = ending
  if (!session.canBeAnswered || !isTold(code) || session.transport.tellsByStatus(code)) return
  if (session.state === 'joining' && session.connection.refuseJoin(session, ending)) return
  const frame = byeFrame(hub, ending)
  if (frame.retry !== undefined) session.transport.comeBack(frame.retry)
  // A slow member has not received up to the room's position, so its `bye` has no `id`.
  const position = session.state === 'open' && session.lag === undefined ? session.room?.feed.position : undefined
  session.write(bye(position === undefined ? frame : { ...frame, id: formatPosition(position) }))
}
