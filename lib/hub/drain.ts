import type { MemberSession } from './session.ts'

/** Of the time for closing this part may pass before everybody is told: for messages that are being worked on. */
const workShare = 0.5

/** The two waits of closing, in one time: for unfinished work, and for connections; what is left at the end is cut. */
export class Drain {
  readonly #links: ReadonlySet<MemberSession>
  readonly #timeout: number
  readonly #waiting = new Set<() => void>()

  /** @param timeout - milliseconds for both */
  constructor (links: ReadonlySet<MemberSession>, timeout: number) {
    this.#links = links
    this.#timeout = timeout
  }

  /** A connection has closed. */
  check (): void {
    if (this.#links.size > 0) return
    for (const done of this.#waiting) done()
  }

  /** What members have sent is worked off, or has had its time. Returns when all must be over, on the clock of `performance`. */
  async settle (): Promise<number> {
    const deadline = performance.now() + this.#timeout
    let busy = 1
    await this.#within(this.#timeout * workShare, done => {
      const worked = (): void => { if (--busy === 0) done() }
      for (const { inbox } of this.#links) {
        busy++
        inbox.whenIdle(worked)
      }
      worked()
    })
    return deadline
  }

  async wait (deadline: number): Promise<void> {
    if (this.#links.size === 0) return
    let over: (() => void) | undefined
    await this.#within(deadline - performance.now(), done => {
      over = done
      this.#waiting.add(done)
    })
    this.#waiting.delete(over!)
    for (const { connection } of this.#links) connection.terminate()
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
