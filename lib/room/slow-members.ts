import type { SlowPolicy } from '../../types/index.ts'
import { FST_ROOMS_INVALID_POLICY } from '../errors.ts'
import { asError } from '../error-utils.ts'
import type { HubContext } from '../hub/context.ts'
import { fellBehind } from '../hub/events.ts'
import { serverEnding } from '../session/join.ts'
import type { Room } from './room.ts'
import type { MemberSession } from '../session/session.ts'
import type { Turn } from './turn.ts'

/** Bytes that a frame which waits by itself costs besides its own: some 400 were measured, of Node's and of V8's. */
const frameOverhead = 512

const policies: readonly unknown[] = ['close', 'latest', 'drop'] satisfies SlowPolicy[]

/**
 * What becomes of members that read too slowly: more than the bound would wait for them, some of it from an earlier turn. A member for
 * which nothing waits takes whatever one turn brings, however much.
 */
export class Backlog {
  readonly #hub: HubContext
  readonly #turn: Turn

  constructor (hub: HubContext, turn: Turn) {
    this.#hub = hub
    this.#turn = turn
  }

  /** Decides on members that a fan-out has left behind. After it, since what the end of a membership sets off comes after the message. */
  judge (room: Room, behind: readonly MemberSession[]): void {
    for (const session of behind) {
      const { connection, lag } = session
      if (lag === undefined) continue // the hooks of one before it have ended it
      const owed = lag.owed.reduce((bytes, frame) => bytes + frame.length, 0)
      const isOver = lag.isLost || (owed > 0 && connection.bufferedBytes + owed > room.definition.slow.bytes)
      const policy = isOver ? 'close' : this.#policy(session)
      if (session.lag !== lag) continue // the host has ended it
      if (policy === 'close') this.#close(session)
      else {
        room.settle(lag, policy)
        connection.sendAll(lag.owed.splice(0))
        // Whoever is told may end it.
        fellBehind(session, policy)
        this.#await(room, session).catch((error: unknown) => {
          this.#hub.fail(asError(error), session)
          // Nobody waits for it any more, and it is owed what cannot be made.
          this.#hub.end(session, serverEnding(1011))
        })
      }
    }
  }

  async #await (room: Room, session: MemberSession): Promise<void> {
    try {
      await session.connection.drained()
    } catch {
      return // it has gone
    }
    room.caughtUp(session, this.#turn.now)
    this.sent(session)
  }

  /** Whether a member can be sent a private frame; where not, it is closed, whatever the policy: nothing private is ever dropped. */
  admits (session: MemberSession, bytes: number): boolean {
    const { connection } = session
    if (connection.condemned) return false
    const waiting = connection.bufferedBytes
    if (waiting === 0) connection.emptyTurn = this.#turn.now
    else if (connection.emptyTurn !== this.#turn.now && waiting + bytes + connection.waitingFrames * frameOverhead > session.definition.slow.bytes) {
      this.#close(session)
      return false
    }
    return true
  }

  /** A private frame was written: what is left of it when the turn ends is from an earlier one. */
  sent ({ connection }: MemberSession): void {
    if (connection.bufferedBytes > 0) this.#turn.mark()
  }

  #policy (session: MemberSession): SlowPolicy {
    const { policy } = session.definition.slow
    if (typeof policy !== 'function') return policy
    try {
      const answer = policy(session as never, { bytes: session.connection.bufferedBytes })
      if (policies.includes(answer)) return answer as SlowPolicy
      // It decides at once. Nobody waits for an asynchronous one, but its failure is heard.
      Promise.resolve(answer).catch((error: unknown) => { this.#hub.fail(asError(error), session) })
      throw new FST_ROOMS_INVALID_POLICY(typeof answer === 'string' ? JSON.stringify(answer.slice(0, 64)) : typeof answer)
    } catch (error) {
      this.#hub.fail(asError(error), session)
      return 'close'
    }
  }

  #close (session: MemberSession): void {
    session.connection.condemned = true
    fellBehind(session, 'close')
    this.#hub.counters.slow++
    this.#hub.end(session, serverEnding(4201))
  }
}
