import type { Ending } from '../hub/context.ts'

/** A kick, and whom it meant: who matches all that is given. */
interface Kick {
  at: number
  user: string | undefined
  topic: string | undefined
  ending: Ending
}

/**
 * Kicks of late, for those who were on the way in: who they are, and whether they may, was looked at before the kick, and they come
 * after it.
 */
export class Kicks {
  /** Milliseconds that an upgrade may take: of hubs on one server the first says so. Who began longer ago is let in nowhere. */
  keep: number
  #recent: Kick[] = []

  constructor (keep: number) {
    this.keep = keep
  }

  note (user: string | undefined, topic: string | undefined, ending: Ending): void {
    this.#forget()
    this.#recent.push({ at: performance.now(), user, topic, ending: { ...ending, refusal: 'forbidden' } })
  }

  /** How somebody is ended who began to come in at this time, on the clock of `performance`; `undefined` where no kick meant it. */
  find (begunAt: number, of: string | undefined, into: string): Ending | undefined {
    const kick = this.#recent.find(({ at, user, topic }) => begunAt <= at && (user === undefined || user === of) && (topic === undefined || topic === into))
    // Not before: it was in time a moment ago, on a clock that goes on.
    this.#forget()
    return kick?.ending
  }

  /** Who was on the way in then has come by now, or never will. */
  #forget (): void {
    if (this.#recent.length === 0) return
    const since = performance.now() - this.keep
    const kept = this.#recent.findIndex(({ at }) => at >= since)
    if (kept !== 0) this.#recent = kept === -1 ? [] : this.#recent.slice(kept)
  }
}
