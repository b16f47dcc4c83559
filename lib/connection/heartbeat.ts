import type { MemberSession } from '../session/session.ts'
import type { Connection } from './connection.ts'

/** Milliseconds for the peer's answer to a close frame before the connection is cut. */
const closeTimeout = 5_000

/** Sweeps in the shortest of the times that are watched. */
const sweeps = 8

export interface HeartbeatSettings {
  heartbeat: false | { readonly interval: number, readonly timeout: number }
  /** Milliseconds that a join may take. */
  handshake: number
  /** Milliseconds that a message may take to end. */
  unfinished: number
  /** A join took too long. */
  late (session: MemberSession): void
  /** A message took too long. */
  overdue (session: MemberSession): void
  /** A peer has ended its side without a word, and its connection stands. */
  gone (session: MemberSession): void
  /** A peer did not answer. */
  silent (session: MemberSession): void
  /** All were looked at. */
  swept (now: number): void
}

/**
 * Finds peers that are gone without a word. One timer looks at all connections; a connection that received anything since
 * it last looked is alive, and only a quiet one is pinged. A peer is ended within interval + timeout of its last byte.
 *
 * While reading from a connection is paused, while the peer takes what waits for it, and after a stall of this process, silence says
 * nothing about the peer. A stall does not count for the time of a join, of a message, or of the answer to a close frame; nor does a
 * pause for the time of a message.
 */
export class Heartbeat {
  readonly #links: ReadonlySet<MemberSession>
  readonly #settings: HeartbeatSettings
  readonly #every: number
  #timer: NodeJS.Timeout | undefined
  #sweptAt = 0

  constructor (links: ReadonlySet<MemberSession>, settings: HeartbeatSettings) {
    const { heartbeat, handshake, unfinished } = settings
    this.#links = links
    this.#settings = settings
    this.#every = Math.max(1, Math.min(closeTimeout, handshake, unfinished, ...(heartbeat === false ? [] : [heartbeat.interval, heartbeat.timeout])) / sweeps)
  }

  start (): void {
    this.#sweptAt = performance.now()
    this.#timer = setInterval(() => { this.#sweep(performance.now()) }, this.#every).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  /** Milliseconds for which the event loop has not turned at `now`; 0 up to one look that was missed, by which nothing can be told. */
  stalledFor (now: number): number {
    const late = now - this.#sweptAt - this.#every
    return late > this.#every ? late : 0
  }

  #sweep (now: number): void {
    const { heartbeat, handshake } = this.#settings
    const late = this.stalledFor(now)
    const stalled = heartbeat !== false && now - this.#sweptAt > this.#every + heartbeat.timeout / 2
    this.#sweptAt = now
    for (const session of this.#links) {
      const { connection } = session
      if (late > 0) connection.stalledFor(late, now)
      else if (connection.withheldAt !== 0) this.#settle(session, now)
      if (connection.closingAt !== 0) {
        if (now - connection.closingAt >= closeTimeout) connection.terminate()
      } else if (!connection.isOpen) {
        connection.closes()
        this.#settings.gone(session)
      } else if (session.state === 'joining' && now - connection.openedAt - connection.stalled >= handshake) this.#settings.late(session)
      else if (this.#isOverdue(connection, now)) this.#settings.overdue(session)
      else if (heartbeat !== false) this.#check(session, heartbeat, now, stalled)
      else connection.seenBytes = connection.bytesRead
    }
    this.#settings.swept(now)
  }

  /** Whether a message has not ended in its time, which begins when it is first seen here. */
  #isOverdue (connection: Connection, now: number): boolean {
    if (connection.isPaused) return false
    if (!connection.isUnfinished) connection.unfinishedAt = 0
    else if (connection.unfinishedAt === 0) connection.unfinishedAt = now
    else return now - connection.unfinishedAt >= this.#settings.unfinished
    return false
  }

  /** Where nothing was read since the last look, though it could be, what was kept waiting is through, and what comes now did not wait. */
  #settle (session: MemberSession, now: number): void {
    const { connection } = session
    const since = now - connection.withheldAt
    if (connection.isPaused || since < this.#every) return
    if (connection.bytesRead === connection.seenBytes) connection.withheld = connection.withheldAt = session.creditedUntil = 0
    // A frame that comes byte by byte keeps it no longer than it was.
    else if (since >= connection.withheld) connection.withheld = 0
  }

  #check (session: MemberSession, { interval, timeout }: { interval: number, timeout: number }, now: number, stalled: boolean): void {
    const { connection } = session
    const { bytesRead } = connection
    if (bytesRead === undefined) return
    if (stalled || connection.isPaused || bytesRead !== connection.seenBytes || connection.hasTaken()) {
      connection.seenBytes = bytesRead
      connection.heard(now)
      return
    }
    // A byte may be one sweep older than it was seen, and each threshold is passed up to one sweep late.
    if (connection.pingedAt === 0) {
      if (now - connection.seenAt >= interval - 2 * this.#every) connection.ping(now)
    } else if (now - connection.pingedAt >= timeout - this.#every) this.#settings.silent(session)
  }
}
