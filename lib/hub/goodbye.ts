import { closeBehaviour } from '../protocol/close-codes.ts'
import { bye } from '../protocol/frames.ts'
import { formatPosition } from '../protocol/position.ts'
import type { MemberSession } from './session.ts'

/** When to come back, in milliseconds, by what the close code asks for; nothing where it asks not to. */
const retry = {
  backoff: { min: 1_000, max: 20_000 },
  resume: { min: 500, max: 15_000 },
  renew: undefined,
  stop: undefined
} as const

/** `bye` goes before every close of ours in `rooms.v1`, but where the peer would not read it (4201, 4203). */
export function sayGoodbye (session: MemberSession, code: number, reason: string): void {
  const { connection, room, state } = session
  if (connection.mode === 'rooms.raw' || code === 4201 || code === 4203) return
  const when = retry[closeBehaviour(code)]
  const position = state === 'open' ? room?.position : undefined
  session.queue(bye({
    code,
    reason,
    ...(when === undefined ? {} : { retry: when }),
    ...(position === undefined ? {} : { id: formatPosition(position) })
  }))
}
