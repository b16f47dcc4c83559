import type { Ending } from '../session/ending.ts'

/** A kick, and the sessions that it meant: those that match all that is given. */
interface Kick {
  at: number
  user: string | undefined
  topic: string | undefined
  ending: Ending
}

/**
 * Recent kicks, for upgrades that were under way: their identity and permission were looked at before the kick, and they join after it.
 */
export class RecentKicks {
  /** Milliseconds that an upgrade may take. The first hub on a server sets it. Upgrades that began longer ago are refused. */
  keep: number
  #kicks: Kick[] = []

  constructor (keep: number) {
    this.keep = keep
  }

  note (user: string | undefined, topic: string | undefined, ending: Ending): void {
    this.#dropOld()
    this.#kicks.push({ at: performance.now(), user, topic, ending: { ...ending, refusal: 'forbidden' } })
  }

  /**
   * How a session is ended whose upgrade began before a kick that meant it; `undefined` if there is none.
   * @param begunAt - on the clock of `performance`
   * @param inTopic - `undefined` for a connection that has not joined one: kicks from a topic did not mean it
   */
  find (begunAt: number, ofUser: string | undefined, inTopic: string | undefined): Ending | undefined {
    const kick = this.#kicks.find(({ at, user, topic }) => begunAt <= at && (user === undefined || user === ofUser) && (topic === undefined || topic === inTopic))
    // Drops old kicks only after the search: an upgrade that began just inside the window must still find its kick.
    this.#dropOld()
    return kick?.ending
  }

  /** Drops kicks that no upgrade under way can have begun before. */
  #dropOld (): void {
    if (this.#kicks.length === 0) return
    const since = performance.now() - this.keep
    const firstKept = this.#kicks.findIndex(({ at }) => at >= since)
    if (firstKept !== 0) this.#kicks = firstKept === -1 ? [] : this.#kicks.slice(firstKept)
  }
}
