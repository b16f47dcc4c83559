import type { Workload } from './workload.ts'

/**
 * The work of one member: one piece at a time, in order, bounded. Work that finishes at once never waits and costs no
 * promise. At the bound reading from the member pauses, so that TCP pushes back; what one read had already brought
 * (64 KiB) still comes in.
 */
export class Inbox<Item> {
  readonly #run: (item: Item) => void | Promise<void>
  readonly #limit: number
  readonly #flow: { pause (): void, resume (): void }
  readonly #workload: Workload
  #queue: Item[] = []
  #busy = false
  #paused = false
  /** It is part of the workload. */
  #counted = false
  #idle: (() => void)[] = []

  /** @param run - never throws, never rejects. */
  constructor (run: (item: Item) => void | Promise<void>, limit: number, flow: { pause (): void, resume (): void }, workload: Workload) {
    this.#run = run
    this.#limit = limit
    this.#flow = flow
    this.#workload = workload
  }

  /** Returns whether reading pauses with it. */
  push (item: Item): boolean {
    if (this.#busy) this.#queue.push(item)
    else this.#process(item)
    if (this.#paused || this.#unfinished < this.#limit) return false
    this.#paused = true
    this.#flow.pause()
    return true
  }

  /** Calls back when all is worked off. */
  whenIdle (done: () => void): void {
    if (this.#unfinished === 0) done()
    else this.#idle.push(done)
  }

  /** Drops what waits. */
  clear (): void {
    this.#queue = []
  }

  get #unfinished (): number { return this.#queue.length + (this.#busy ? 1 : 0) }

  #process (item: Item): void {
    const pending = this.#run(item)
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
    while (!this.#busy && this.#queue.length > 0) this.#process(this.#queue.shift()!)
    if (this.#paused && this.#unfinished < this.#limit) {
      this.#paused = false
      this.#flow.resume()
    }
    if (this.#unfinished > 0) return
    for (const done of this.#idle.splice(0)) done()
    this.#counted = false
    this.#workload.end()
  }
}
