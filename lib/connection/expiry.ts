import { expiring } from '../protocol/server-frames.ts'
import { TimingWheel, tick, type Timed } from './timing-wheel.ts'

/** A connection as its expiry sees it. */
export interface ExpiringConnection extends Timed {
  /** When its credentials end, in milliseconds since the epoch; `undefined`: never. */
  expiresAt: number | undefined
  readonly transport: { readonly envelope: { readonly canBeAnswered: boolean } }
  readonly isEnded: boolean
  say (text: string): void
}

/**
 * Ends connections when the credentials they came with end, and tells their peers before. One timer for all connections, which runs while one of them has
 * credentials that end.
 *
 * The clock is Date.now(), because credentials end at a time of day, and the other parties look at that clock too. It is set right now and then, and goes on while
 * the machine sleeps; the clock of timers does neither. So the time is looked at once per tick, and no timer is set for it.
 */
export class Expiry<C extends ExpiringConnection = ExpiringConnection> {
  readonly #notice: number
  readonly #expired: (connection: C) => void
  readonly #wheel = new TimingWheel<C>()
  #timer: NodeJS.Timeout | undefined

  /** @param notice - milliseconds before the end at which the peer is told; 0: it is not told */
  constructor (notice: number, expired: (connection: C) => void) {
    this.#notice = notice
    this.#expired = expired
  }

  /** Watches a new connection. Before hello its peer cannot be told, but the connection can end. */
  watch (connection: C): void {
    if (connection.expiresAt !== undefined) this.#set(connection, connection.expiresAt)
  }

  /** Call this after hello: from now on the peer can be told. */
  opened (connection: C): void {
    const { expiresAt } = connection
    if (expiresAt === undefined || this.#notice === 0 || !connection.transport.envelope.canBeAnswered) return
    const now = Date.now()
    if (expiresAt - now > this.#notice) this.#set(connection, expiresAt - this.#notice)
    else this.#tell(connection, expiresAt - now)
  }

  /**
   * Sets new credentials; without an end the connection is watched no longer. The peer is told again before their end. It is told of credentials that live shorter
   * than the notice at half of their life, because a client that renews when it is told would otherwise renew without a pause.
   */
  renew (connection: C, expiresAt: number | undefined): void {
    connection.expiresAt = expiresAt
    if (expiresAt === undefined) {
      this.remove(connection)
      return
    }
    const remaining = expiresAt - Date.now()
    this.#set(connection, this.#notice === 0 ? expiresAt : expiresAt - (remaining > this.#notice ? this.#notice : remaining / 2))
  }

  /** Ends the connection if its credentials have ended. Returns whether they have. */
  check (connection: C): boolean {
    const { expiresAt } = connection
    if (expiresAt === undefined || expiresAt > Date.now()) return false
    this.#expired(connection)
    return true
  }

  /** Stops watching a connection. */
  remove (connection: C): void {
    this.#wheel.clear(connection)
    if (!this.#wheel.isEmpty) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #set (connection: C, at: number): void {
    this.#wheel.set(connection, at)
    this.#timer ??= setInterval(() => { this.#sweep(Date.now()) }, tick).unref()
  }

  #sweep (now: number): void {
    for (const connection of this.#wheel.due(now)) {
      if (connection.isEnded) continue // a hook about another one has ended it
      const remaining = connection.expiresAt! - now
      if (remaining <= 0) this.#expired(connection)
      else {
        this.#set(connection, connection.expiresAt!)
        this.#tell(connection, remaining)
      }
    }
  }

  #tell (connection: C, remaining: number): void {
    connection.say(expiring(remaining))
  }
}
