import type { PresenceChange, PresenceOutcome } from '../../types/index.ts'

/** Most changes in one call of the broker. */
const mostChanges = 1_000
/** Milliseconds after which changes that the broker has not taken are sent again: the first time, and at most. */
const retryFirst = 250
const retryMost = 5_000

/** Called with the broker's answer to a change. */
export type Settled = (outcome: PresenceOutcome) => void

interface Entry {
  change: PresenceChange
  /** `undefined` for new info of a member. */
  readonly settled: Settled | undefined
}

/**
 * The changes of this node's members on their way to the broker: in order, one call at a time. A call has the changes of a turn of the event loop, or of the time that
 * the broker took for the call before. A call that fails is repeated with the same changes until it succeeds.
 */
export class Changes {
  readonly #send: (changes: PresenceChange[]) => Promise<PresenceOutcome[]>
  /** Changes that were never sent, by session. */
  readonly #queue = new Map<string, Entry>()
  /** The changes of the call that has not succeeded yet. */
  #sent: Entry[] = []
  #isSending = false
  #failures = 0
  #immediate: NodeJS.Immediate | undefined
  #timer: NodeJS.Timeout | undefined
  #isClosed = false
  #waiters: (() => void)[] = []

  /** @param send - calls the broker; rejects if it has not taken the changes */
  constructor (send: (changes: PresenceChange[]) => Promise<PresenceOutcome[]>) {
    this.#send = send
  }

  get #isIdle (): boolean { return this.#sent.length === 0 && this.#queue.size === 0 }

  /**
   * Notes that a session has joined or has new info.
   * @param joined - called with the answer to its join; never, if the session leaves before that was sent
   */
  set (change: PresenceChange, joined: Settled | undefined): void {
    const queued = this.#queue.get(change.session)
    if (queued === undefined) this.#queue.set(change.session, { change, settled: joined })
    else queued.change = change
    this.#schedule()
  }

  /**
   * Notes that a session has left. If its join was never sent, neither is this.
   * @param left - called with the answer
   */
  leave (change: PresenceChange, left: Settled): void {
    const queued = this.#queue.get(change.session)
    this.#queue.delete(change.session)
    if (queued?.settled !== undefined) return
    this.#queue.set(change.session, { change, settled: left }) // behind all changes before it
    this.#schedule()
  }

  /** Sends at once what waits for its repetition, because the broker is back. */
  resume (): void {
    this.#failures = 0
    if (this.#timer === undefined) return
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#schedule()
  }

  /** Settles when all changes have been answered, at the latest after so many milliseconds. */
  async settled (milliseconds: number): Promise<void> {
    if (this.#isIdle) return
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, milliseconds)
      this.#waiters.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  close (): void {
    this.#isClosed = true
    clearImmediate(this.#immediate)
    clearTimeout(this.#timer)
    for (const wake of this.#waiters.splice(0)) wake()
  }

  #schedule (): void {
    if (this.#isSending || this.#isClosed || this.#timer !== undefined || this.#isIdle) return
    this.#immediate ??= setImmediate(() => {
      this.#immediate = undefined
      this.#work()
    })
  }

  /** Takes changes out of the queue for one call. */
  #take (): Entry[] {
    const taken: Entry[] = []
    for (const [session, entry] of this.#queue) {
      if (taken.length === mostChanges) break
      this.#queue.delete(session)
      taken.push(entry)
    }
    return taken
  }

  async #work (): Promise<void> {
    if (this.#sent.length === 0) this.#sent = this.#take()
    const sent = this.#sent
    if (sent.length === 0) return // all that was queued has been taken back
    this.#isSending = true
    let outcomes: PresenceOutcome[] | undefined
    try {
      outcomes = await this.#send(sent.map(({ change }) => change))
    } catch {} // reported by the link
    this.#isSending = false
    if (this.#isClosed) return
    if (outcomes === undefined) {
      const wait = Math.min(retryMost, retryFirst * 2 ** this.#failures++)
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        this.#schedule()
      }, wait * (1 + Math.random()) / 2).unref()
      return
    }
    this.#failures = 0
    this.#sent = []
    sent.forEach(({ settled }, index) => { settled?.(outcomes[index]!) })
    this.#schedule()
    if (this.#isIdle) for (const wake of this.#waiters.splice(0)) wake()
  }
}
