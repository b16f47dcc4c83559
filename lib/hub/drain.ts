import type { Workload } from '../session/in-flight.ts'
import type { MemberSession } from '../session/session.ts'

/** Of the time for closing this part may pass before anybody is told: for messages that are being worked on. */
const workShare = 0.5
/** Of what is left after that this part may pass until everybody is told; the rest is for their answers. */
const batchShare = 0.5
/** Milliseconds within which connections that were cut say that they have closed, as they do in the next turns of the event loop. */
const cutTime = 100

/** How members are let go. */
export interface DrainSettings {
  /** Milliseconds for all of it. */
  readonly timeout: number
  /** Members let go at a time. */
  readonly batch: number
  /** Milliseconds from one batch to the next. */
  readonly interval: number
  /** Bounds of the range in which members come back, in milliseconds. */
  readonly retry: { readonly min: number, readonly max: number }
}

/** How many of those that are left to let go now, to be done in so many milliseconds: a batch, or more where that is no time for it. */
export function shareOf (left: number, milliseconds: number, { batch, interval }: Pick<DrainSettings, 'batch' | 'interval'>): number {
  const batches = 1 + Math.floor(Math.max(0, milliseconds) / Math.max(1, interval))
  return Math.max(batch, Math.ceil(left / batches))
}

/** Closing, in one time: unfinished work, then batch by batch the goodbyes, then the wait for connections; what is left at the end is cut. */
export class Drain {
  readonly #links: ReadonlySet<MemberSession>
  readonly #workload: Workload
  readonly #settings: DrainSettings
  readonly #release: (sessions: MemberSession[]) => void
  #running: Promise<void> | undefined
  /** What was sent has its time once: nothing more is taken meanwhile. */
  #settling: Promise<void> | undefined
  /** Set while the last wait goes on. */
  #gone: (() => void) | undefined

  /** @param release - says goodbye to members, all in one turn of the event loop */
  constructor (links: ReadonlySet<MemberSession>, workload: Workload, settings: DrainSettings, release: (sessions: MemberSession[]) => void) {
    this.#links = links
    this.#workload = workload
    this.#settings = settings
    this.#release = release
  }

  /** A connection has closed. */
  check (): void {
    if (this.#links.size === 0) this.#gone?.()
  }

  /** Settles when all have gone, at the latest when the time is over. Whoever asks meanwhile waits for the same end. */
  run (): Promise<void> {
    this.#running ??= this.#run().finally(() => { this.#running = undefined })
    return this.#running
  }

  async #run (): Promise<void> {
    const deadline = performance.now() + this.#settings.timeout
    this.#settling ??= this.#within(this.#settings.timeout * workShare, done => { this.#workload.whenDone(done) })
    await this.#settling
    await this.#letGo(deadline)
    await this.#wait(deadline)
  }

  /** Nobody joins any more: those who are here now are all. */
  async #letGo (deadline: number): Promise<void> {
    const now = performance.now()
    const told = now + (deadline - now) * batchShare
    const left = [...this.#links].reverse() // whoever came first goes first
    for (;;) {
      const batch: MemberSession[] = []
      for (let share = shareOf(left.length, told - performance.now(), this.#settings); share > 0 && left.length > 0;) {
        const session = left.pop()!
        if (session.state === 'closed') continue
        batch.push(session)
        share--
      }
      this.#release(batch)
      if (left.length === 0) return
      await this.#within(this.#settings.interval, () => {})
    }
  }

  async #wait (deadline: number): Promise<void> {
    await this.#allGone(deadline - performance.now())
    for (const { connection } of this.#links) connection.terminate()
    await this.#allGone(cutTime)
  }

  async #allGone (milliseconds: number): Promise<void> {
    if (this.#links.size === 0) return
    await this.#within(milliseconds, done => { this.#gone = done })
    this.#gone = undefined
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
