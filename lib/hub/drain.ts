import type { MemberSession } from './session.ts'

/** Waits until all connections have closed; what is left at the deadline is cut. */
export class Drain {
  readonly #links: ReadonlySet<MemberSession>
  readonly #timeout: number
  readonly #waiting = new Set<() => void>()

  constructor (links: ReadonlySet<MemberSession>, timeout: number) {
    this.#links = links
    this.#timeout = timeout
  }

  /** A connection has closed. */
  check (): void {
    if (this.#links.size > 0) return
    for (const done of this.#waiting) done()
  }

  async wait (): Promise<void> {
    if (this.#links.size === 0) return
    await new Promise<void>(resolve => {
      const timer = setTimeout(() => {
        for (const { connection } of this.#links) connection.terminate()
        done()
      }, this.#timeout)
      const done = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      this.#waiting.add(done)
    })
  }
}
