import type { Call, CallName } from './messages.ts'

interface Pending {
  readonly call: Call
  readonly expiresAt: number
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error, isSent: boolean) => void
  /** Called once: when the exchange has answered, or never will. */
  readonly released: () => void
  /** On the clock of `performance`; `undefined` if it waits to be sent. */
  sentAt: number | undefined
}

/** Milliseconds between two looks for calls whose time is over. */
const sweepEvery = 100

/** The calls of a node that the exchange has not answered. Each settles once: by its answer, by the end of the channel, or by its time. */
export class Calls {
  readonly #pending = new Map<number, Pending>()
  #unsent: Pending[] = []
  /** Calls whose time is over, and which may wait in the channel: a primary that does not read would have it grow without a bound. */
  readonly #late = new Map<number, Pick<Pending, 'released' | 'sentAt'>>()
  readonly #silent: (name: CallName) => Error
  readonly #swept: () => void
  #next = 1
  #timer: NodeJS.Timeout | undefined
  #lag = 0

  /**
   * @param silent - makes the error of a call that was not answered in time
   * @param swept - called now and then while calls wait
   */
  constructor (silent: (name: CallName) => Error, swept = (): void => {}) {
    this.#silent = silent
    this.#swept = swept
  }

  /** Milliseconds that the last answer took, or that the oldest call has been waiting for its answer, if that is longer. */
  get lag (): number { return Math.max(this.#lag, this.waited) }

  /** Milliseconds that the oldest call has been waiting for its answer, also if its time is over. */
  get waited (): number {
    const [oldest] = this.#late.size > 0 ? this.#late.values() : this.#pending.values()
    return oldest?.sentAt === undefined ? 0 : performance.now() - oldest.sentAt
  }

  /**
   * Adds a call, to be sent.
   * @param timeout - milliseconds
   * @param reject - is told whether the call may have been sent
   * @param released - called once: when the exchange has answered, or never will. A call that was sent may be rejected before
   */
  add (name: CallName, args: readonly unknown[], timeout: number, resolve: (value: any) => void, reject: (error: Error, isSent: boolean) => void, released = (): void => {}): void {
    const call = { id: this.#next++, name, args }
    const pending = { call, expiresAt: performance.now() + timeout, resolve, reject, released, sentAt: undefined }
    this.#pending.set(call.id, pending)
    this.#unsent.push(pending)
    this.#timer ??= setInterval(this.#sweepSoon, sweepEvery)
  }

  /** Returns the calls that have not been sent, in order, and notes that they are sent now. */
  take (): Call[] {
    const now = performance.now()
    const calls: Call[] = []
    for (const pending of this.#unsent) {
      // Its time may be over.
      if (!this.#pending.has(pending.call.id)) continue
      pending.sentAt = now
      calls.push(pending.call)
    }
    this.#unsent = []
    return calls
  }

  /** The exchange has answered a call. An answer that comes too late is ignored. */
  answer (id: number, value: unknown): void {
    const pending = this.#answered(id)
    if (pending === undefined) return
    this.#lag = performance.now() - pending.sentAt!
    pending.resolve(value)
  }

  /** The exchange could not run a call. */
  fail (id: number, error: Error): void {
    this.#answered(id)?.reject(error, true)
  }

  /** Rejects the calls that were sent, because their answers will not come. */
  failSent (error: Error): void {
    for (const id of this.#late.keys()) this.#answered(id)
    for (const [id, { sentAt }] of this.#pending) if (sentAt !== undefined) this.#answered(id)!.reject(error, true)
  }

  /** Rejects all calls. */
  close (error: Error): void {
    this.failSent(error)
    for (const { call: { id }, reject } of this.#unsent) if (this.#answered(id) !== undefined) reject(error, false)
    this.#unsent = []
  }

  /** Ends a call that has no answer to wait for. */
  #answered (id: number): Pending | undefined {
    const pending = this.#end(id)
    const ended = pending ?? this.#late.get(id)
    this.#late.delete(id)
    ended?.released()
    return pending
  }

  #end (id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    if (this.#pending.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
    return pending
  }

  /** Sweeps one turn later, because after a stall of the event loop an answer may wait to be read. */
  readonly #sweepSoon = (): void => { setImmediate(() => { this.#sweep(performance.now()) }) }

  #sweep (now: number): void {
    for (const [id, { expiresAt, call: { name }, sentAt, released }] of this.#pending) {
      if (expiresAt > now) continue
      const pending = sentAt === undefined ? this.#answered(id) : this.#end(id)
      if (sentAt !== undefined) this.#late.set(id, { released, sentAt })
      pending!.reject(this.#silent(name), sentAt !== undefined)
    }
    this.#swept()
  }
}
