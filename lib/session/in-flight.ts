/**
 * Counts the sessions with work in flight, those that have ended included. Keeps a number and no references, because such work may never end.
 */
export class InFlight {
  #sessions = 0
  #done: (() => void) | undefined

  begin (): void {
    this.#sessions++
  }

  end (): void {
    if (--this.#sessions === 0) this.#done?.()
  }

  /** Calls back once when no work is in flight. Keeps one callback, the last. */
  whenDone (done: () => void): void {
    if (this.#sessions === 0) done()
    else this.#done = done
  }
}
