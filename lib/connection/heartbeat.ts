import type { ConnectedSession, Connection } from './connection.ts'

/** Milliseconds for the peer's answer to a close frame before the connection is terminated. */
const closeTimeout = 5_000

/** Looks in the shortest of the times that are watched. */
const looks = 8

export interface HeartbeatSettings<C> {
  heartbeat: false | { readonly interval: number, readonly timeout: number }
  /** Milliseconds that a join may take. */
  handshake: number
  /** Milliseconds that a message may take to end. */
  unfinished: number
  /** A join took too long. */
  late (connection: C): void
  /** A message took too long. */
  overdue (connection: C): void
  /** A peer has ended its side without a close frame, and its connection stands. */
  gone (connection: C): void
  /** A peer did not answer. */
  silent (connection: C): void
  /**
   * Called after all connections were looked at.
   * @param stalled - milliseconds for which this process has stood still before
   */
  swept (now: number, stalled: number): void
}

/**
 * Finds peers that are gone without a close. One timer looks at all connections; a connection that received anything since
 * the last look is alive, and only a quiet one is pinged. A peer is ended within interval + timeout of its last byte. An event
 * stream receives nothing: it is pinged if nothing was sent, and ended if the operating system takes no bytes for it.
 *
 * While reading from a connection is paused, while the peer takes buffered bytes, and after a stall of this process, silence says
 * nothing about the peer. A stall does not count for the time of a join, of a message, or of the answer to a close frame; nor does a
 * pause for the time of a message.
 */
export class Heartbeat<C extends Connection<ConnectedSession>> {
  readonly #connections: ReadonlySet<C>
  readonly #settings: HeartbeatSettings<C>
  readonly #every: number
  #timer: NodeJS.Timeout | undefined
  #sweptAt = 0

  constructor (connections: ReadonlySet<C>, settings: HeartbeatSettings<C>) {
    const { heartbeat, handshake, unfinished } = settings
    this.#connections = connections
    this.#settings = settings
    this.#every = Math.max(1, Math.min(closeTimeout, handshake, unfinished, ...(heartbeat === false ? [] : [heartbeat.interval, heartbeat.timeout])) / looks)
  }

  start (): void {
    this.#sweptAt = performance.now()
    this.#timer = setInterval(() => { this.#sweep(performance.now()) }, this.#every).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
  }

  /** Milliseconds for which the event loop has not turned at `now`; 0 up to one look that was missed, which proves nothing. */
  stalledFor (now: number): number {
    const late = now - this.#sweptAt - this.#every
    return late > this.#every ? late : 0
  }

  #sweep (now: number): void {
    const { heartbeat, handshake } = this.#settings
    const late = this.stalledFor(now)
    const isStalled = heartbeat !== false && now - this.#sweptAt > this.#every + heartbeat.timeout / 2
    this.#sweptAt = now
    for (const connection of this.#connections) {
      const { transport } = connection
      if (late > 0) connection.stalledFor(late, now)
      else if (connection.withheldAt !== 0) this.#endCredit(connection, now)
      if (connection.closingAt !== 0) {
        if (now - connection.closingAt >= closeTimeout) transport.terminate()
      } else if (!transport.isOpen) {
        connection.closes()
        this.#settings.gone(connection)
      } else if (connection.hasLateJoin(now, handshake)) this.#settings.late(connection)
      else if (this.#isOverdue(connection, now)) this.#settings.overdue(connection)
      else if (heartbeat !== false) this.#check(connection, heartbeat, now, isStalled)
      else connection.seenBytes = transport.activity
    }
    this.#settings.swept(now, late)
  }

  /** Whether a message has not ended in its time, which begins when it is first seen here. */
  #isOverdue (connection: C, now: number): boolean {
    if (connection.transport.isPaused) return false
    if (!connection.transport.isReceiving) connection.unfinishedAt = 0
    else if (connection.unfinishedAt === 0) connection.unfinishedAt = now
    else return now - connection.unfinishedAt >= this.#settings.unfinished
    return false
  }

  /** Ends the credit for bytes that were left waiting, if nothing was read since the last look although it could be: all that had waited has been read. */
  #endCredit (connection: C, now: number): void {
    const { activity, isPaused } = connection.transport
    const since = now - connection.withheldAt
    if (isPaused || since < this.#every) return
    if (activity === connection.seenBytes) connection.withheld = connection.withheldAt = connection.creditedUntil = 0
    // A frame that arrives byte by byte keeps the credit no longer than it had waited.
    else if (since >= connection.withheld) connection.withheld = 0
  }

  #check (connection: C, { interval, timeout }: { interval: number, timeout: number }, now: number, isStalled: boolean): void {
    const { transport } = connection
    const { activity } = transport
    if (activity === undefined) return
    if (isStalled || transport.isPaused || activity !== connection.seenBytes || transport.hasTaken()) {
      connection.seenBytes = activity
      connection.heard(now)
      return
    }
    // A byte may be one look older than it was seen, and each threshold is passed up to one look late.
    if (connection.pingedAt === 0) {
      if (now - connection.seenAt < interval - 2 * this.#every) return
      connection.pingedAt = now
      connection.awaitsPong = true
      transport.keepAlive()
    } else if (now - connection.pingedAt >= timeout - this.#every) this.#settings.silent(connection)
  }
}
