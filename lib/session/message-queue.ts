import type { ClientFrame } from '../../types/index.ts'
import type { InFlight } from './in-flight.ts'

/** The session of a queue. */
export interface QueueOwner {
  /** Handles a frame. Never throws, never rejects. */
  handle (frame: ClientFrame): void | Promise<void>
  /** Stops and resumes reading from the peer. */
  readonly connection: { holdReading (reason: object): void, releaseReading (reason: object): void }
}

/**
 * The frames of one member: handled one at a time, in order, bounded. A frame that is handled at once never waits and costs no promise. At the bound reading
 * from the peer pauses, so that TCP pushes back; the frames that one read (64 KiB) had already brought still come in.
 */
export class MessageQueue {
  readonly #owner: QueueOwner
  readonly #limit: number
  readonly #inFlight: InFlight
  /** Frames that wait; `undefined` for most members, which have never sent faster than their frames were handled. */
  #waiting: ClientFrame[] | undefined
  /** A frame is being handled. */
  #isBusy = false
  #isHolding = false
  /** The session counts as one with work in flight. */
  #isCounted = false
  #idle: (() => void)[] | undefined

  /** @param limit - unfinished frames at which reading pauses */
  constructor (owner: QueueOwner, limit: number, inFlight: InFlight) {
    this.#owner = owner
    this.#limit = limit
    this.#inFlight = inFlight
  }

  /** Returns whether reading pauses with this frame. */
  push (frame: ClientFrame): boolean {
    if (!this.#isBusy) this.#handle(frame)
    else if (this.#waiting === undefined) this.#waiting = [frame]
    else this.#waiting.push(frame)
    if (this.#isHolding || this.#unfinished < this.#limit) return false
    this.#isHolding = true
    this.#owner.connection.holdReading(this)
    return true
  }

  /** Calls back when all frames are handled. */
  whenIdle (done: () => void): void {
    if (this.#unfinished === 0) done()
    else (this.#idle ??= []).push(done)
  }

  /** Drops the frames that wait. */
  clear (): void {
    this.#waiting = undefined
  }

  get #unfinished (): number { return (this.#waiting?.length ?? 0) + (this.#isBusy ? 1 : 0) }

  #handle (frame: ClientFrame): void {
    const pending = this.#owner.handle(frame)
    if (pending === undefined) return
    this.#isBusy = true
    if (!this.#isCounted) {
      this.#isCounted = true
      this.#inFlight.begin()
    }
    pending.then(() => { this.#next() })
  }

  #next (): void {
    this.#isBusy = false
    let frame: ClientFrame | undefined
    while (!this.#isBusy && (frame = this.#waiting?.shift()) !== undefined) this.#handle(frame)
    if (this.#isHolding && this.#unfinished < this.#limit) {
      this.#isHolding = false
      this.#owner.connection.releaseReading(this)
    }
    if (this.#unfinished > 0) return
    const idle = this.#idle
    this.#idle = undefined
    if (idle !== undefined) for (const done of idle) done()
    this.#isCounted = false
    this.#inFlight.end()
  }
}
