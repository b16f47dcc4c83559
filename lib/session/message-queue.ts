import type { Workload } from './in-flight.ts'

/** Who works items off. */
export interface Worker<Item> {
  /** Never throws, never rejects. */
  work (item: Item): void | Promise<void>
}

/**
 * The work of one member: one piece at a time, in order, bounded. Work that finishes at once never waits and costs no
 * promise. At the bound reading from the member pauses, so that TCP pushes back; what one read had already brought
 * (64 KiB) still comes in.
 */
export class Inbox<Item> {
  readonly #worker: Worker<Item>
  readonly #limit: number
  readonly #flow: { pause (): void, resume (): void }
  readonly #workload: Workload
  /** What waits; `undefined` for most, who have never sent faster than they were worked for. */
  #queue: Item[] | undefined
  #busy = false
  #paused = false
  /** It is part of the workload. */
  #counted = false
  #idle: (() => void)[] | undefined

  constructor (worker: Worker<Item>, limit: number, flow: { pause (): void, resume (): void }, workload: Workload) {
    this.#worker = worker
    this.#limit = limit
    this.#flow = flow
    this.#workload = workload
  }

  /** Returns whether reading pauses with it. */
  push (item: Item): boolean {
    if (!this.#busy) this.#process(item)
    else if (this.#queue === undefined) this.#queue = [item]
    else this.#queue.push(item)
    if (this.#paused || this.#unfinished < this.#limit) return false
    this.#paused = true
    this.#flow.pause()
    return true
  }

  /** Calls back when all is worked off. */
  whenIdle (done: () => void): void {
    if (this.#unfinished === 0) done()
    else (this.#idle ??= []).push(done)
  }

  /** Drops what waits. */
  clear (): void {
    this.#queue = undefined
  }

  get #unfinished (): number { return (this.#queue?.length ?? 0) + (this.#busy ? 1 : 0) }

  #process (item: Item): void {
    const pending = this.#worker.work(item)
    if (pending === undefined) return
    this.#busy = true
    if (!this.#counted) {
      this.#counted = true
      this.#workload.begin()
    }
    pending.then(() => { this.#next() })
  }

  #next (): void {
    this.#busy = false
    let item: Item | undefined
    while (!this.#busy && (item = this.#queue?.shift()) !== undefined) this.#process(item)
    if (this.#paused && this.#unfinished < this.#limit) {
      this.#paused = false
      this.#flow.resume()
    }
    if (this.#unfinished > 0) return
    const waiting = this.#idle
    this.#idle = undefined
    if (waiting !== undefined) for (const done of waiting) done()
    this.#counted = false
    this.#workload.end()
  }
}
