/** How many sessions have something that is being worked on, those that have ended included. A number alone is kept: such work may never end. */
export class Workload {
  #busy = 0
  #done: (() => void) | undefined

  begin (): void {
    this.#busy++
  }

  end (): void {
    if (--this.#busy === 0) this.#done?.()
  }

  /** Calls back when all is worked off, for one who waits. */
  whenDone (done: () => void): void {
    if (this.#busy === 0) done()
    else this.#done = done
  }
}
