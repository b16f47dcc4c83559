import { expiring } from '../protocol/server-frames.ts'
import type { MemberSession } from '../session/session.ts'
import { Wheel, tick } from './timing-wheel.ts'

/**
 * Ends sessions when the credentials they came with end, and says so before. One timer for all, which runs while there is
 * such a session.
 *
 * The clock is Date.now(): credentials end at a time of day, and everybody else who is shown them looks at that clock, too. It is
 * set right now and then, and goes on while the machine sleeps; the clock of timers does neither. So the time is
 * looked at again and again, and never waited for.
 */
export class Expiry {
  readonly #notice: number
  readonly #expired: (session: MemberSession) => void
  readonly #alarms = new Wheel<MemberSession>()
  #timer: NodeJS.Timeout | undefined

  /** @param notice - milliseconds before the end at which a member is told; 0: it is not */
  constructor (notice: number, expired: (session: MemberSession) => void) {
    this.#notice = notice
    this.#expired = expired
  }

  /** A session has come. Before hello nothing can be told, but it can end. */
  watch (session: MemberSession): void {
    if (session.expiresAt !== undefined) this.#set(session, session.expiresAt)
  }

  /** It was told hello. */
  opened (session: MemberSession): void {
    const { expiresAt } = session
    if (expiresAt === undefined || this.#notice === 0 || session.connection.mode === 'rooms.raw') return
    const now = Date.now()
    if (expiresAt - now > this.#notice) this.#set(session, expiresAt - this.#notice)
    else this.#tell(session, expiresAt - now)
  }

  /**
   * Its credentials are new; without an end it is watched no more. The notice comes again. Credentials that live shorter than it are
   * told of halfway: at once would have a client that renews when it is told go round and round.
   */
  renew (session: MemberSession, expiresAt: number | undefined): void {
    session.expiresAt = expiresAt
    if (expiresAt === undefined) {
      this.forget(session)
      return
    }
    const left = expiresAt - Date.now()
    this.#set(session, this.#notice === 0 ? expiresAt : expiresAt - (left > this.#notice ? this.#notice : left / 2))
  }

  /** Ends it where its time is over already: whether that is so. */
  check (session: MemberSession): boolean {
    const { expiresAt } = session
    if (expiresAt === undefined || expiresAt > Date.now()) return false
    this.#expired(session)
    return true
  }

  forget (session: MemberSession): void {
    this.#alarms.clear(session)
    if (!this.#alarms.isEmpty) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #set (session: MemberSession, at: number): void {
    this.#alarms.set(session, at)
    this.#timer ??= setInterval(() => { this.#sweep(Date.now()) }, tick).unref()
  }

  #sweep (now: number): void {
    for (const session of this.#alarms.due(now)) {
      if (session.state === 'closed') continue // by a hook of the one before
      const left = session.expiresAt! - now
      if (left <= 0) this.#expired(session)
      else {
        this.#set(session, session.expiresAt!)
        this.#tell(session, left)
      }
    }
  }

  #tell (session: MemberSession, left: number): void {
    session.deliver(expiring(left))
  }
}
