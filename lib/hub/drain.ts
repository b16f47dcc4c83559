import type { InFlight } from '../session/in-flight.ts'

/** The part of the time for closing that may pass before the first connection is closed: for messages that are being handled. */
const workShare = 0.5
/** The part of the remaining time that may pass until all connections are closed; the rest is for the answers of their peers. */
const batchShare = 0.5
/** Milliseconds within which terminated connections emit `close`, as they do in the next turns of the event loop. */
const terminateTime = 100

/** How members are let go. */
export interface DrainSettings {
  /** Milliseconds for the whole drain. */
  readonly timeout: number
  /** Connections closed at a time. */
  readonly batch: number
  /** Milliseconds from one batch to the next. */
  readonly interval: number
  /** Bounds of the range in which clients come back, in milliseconds. */
  readonly retry: { readonly min: number, readonly max: number }
}

/** A connection as the drain sees it. */
export interface DrainedConnection {
  readonly isEnded: boolean
  readonly transport: { terminate (): void }
}

/** How many of the remaining connections to close now, so that all are closed within so many milliseconds: a batch, or more if the time is too short for batches. */
export function shareOf (remaining: number, milliseconds: number, { batch, interval }: Pick<DrainSettings, 'batch' | 'interval'>): number {
  const batches = 1 + Math.floor(Math.max(0, milliseconds) / Math.max(1, interval))
  return Math.max(batch, Math.ceil(remaining / batches))
}

/** Closes all connections within one time: waits for work in flight, closes in batches, waits for the peers. Connections still open after that are terminated. */
export class Drain<C extends DrainedConnection> {
  readonly #connections: ReadonlySet<C>
  readonly #inFlight: InFlight
  readonly #settings: DrainSettings
  readonly #close: (connections: C[]) => void
  #running: Promise<void> | undefined
  /** The wait for work in flight. It happens once, because no new work is taken after it began. */
  #workDone: Promise<void> | undefined
  /** Set while the drain waits for the last connections. */
  #allClosed: (() => void) | undefined

  /** @param close - closes connections, all in one turn of the event loop */
  constructor (connections: ReadonlySet<C>, inFlight: InFlight, settings: DrainSettings, close: (connections: C[]) => void) {
    this.#connections = connections
    this.#inFlight = inFlight
    this.#settings = settings
    this.#close = close
  }

  /** Call this when a connection has closed. */
  check (): void {
    if (this.#connections.size === 0) this.#allClosed?.()
  }

  /** Settles when all connections have closed, at the latest when the time is over. Calls during a drain wait for the same end. */
  run (): Promise<void> {
    this.#running ??= this.#run().finally(() => { this.#running = undefined })
    return this.#running
  }

  async #run (): Promise<void> {
    const deadline = performance.now() + this.#settings.timeout
    this.#workDone ??= this.#within(this.#settings.timeout * workShare, done => { this.#inFlight.whenDone(done) })
    await this.#workDone
    await this.#closeAll(deadline)
    await this.#awaitPeers(deadline)
  }

  /** Closes the connections that there are now. No connection joins any more. */
  async #closeAll (deadline: number): Promise<void> {
    const now = performance.now()
    const closedBy = now + (deadline - now) * batchShare
    const remaining = [...this.#connections].reverse() // the first to come is the first to be closed
    for (;;) {
      const batch: C[] = []
      for (let share = shareOf(remaining.length, closedBy - performance.now(), this.#settings); share > 0 && remaining.length > 0;) {
        const connection = remaining.pop()!
        if (connection.isEnded) continue
        batch.push(connection)
        share--
      }
      this.#close(batch)
      if (remaining.length === 0) return
      await this.#within(this.#settings.interval, () => {})
    }
  }

  async #awaitPeers (deadline: number): Promise<void> {
    await this.#awaitClosed(deadline - performance.now())
    for (const { transport } of this.#connections) transport.terminate()
    await this.#awaitClosed(terminateTime)
  }

  async #awaitClosed (milliseconds: number): Promise<void> {
    if (this.#connections.size === 0) return
    await this.#within(milliseconds, done => { this.#allClosed = done })
    this.#allClosed = undefined
  }

  #within (milliseconds: number, start: (done: () => void) => void): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(() => { resolve() }, milliseconds)
      start(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}
