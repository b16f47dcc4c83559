/** Frames of kept messages that may become idle. */
interface Replay {
  /** When they were last asked for, on the clock of `performance`. */
  readonly usedAt: number
  /** Members that are being sent frames. */
  readonly readers: number
  drop (): void
}

/** Milliseconds after which frames of kept messages that no member has asked for are dropped. */
const idleFor = 5_000

/** Drops the frames of kept messages that are no longer asked for, with one timer for all rooms. */
export class IdleReplays {
  readonly #used = new Set<Replay>()
  #timer: NodeJS.Timeout | undefined

  /** Notes that a room's frames are in use. */
  used (replay: Replay): void {
    this.#used.add(replay)
    this.#timer ??= setInterval(() => { this.#sweep(performance.now() - idleFor) }, idleFor).unref()
  }

  /** Drops all frames. */
  close (): void {
    this.#sweep(Infinity)
  }

  #sweep (until: number): void {
    for (const replay of this.#used) {
      if (replay.usedAt > until || (replay.readers > 0 && until !== Infinity)) continue
      replay.drop()
      this.#used.delete(replay)
    }
    if (this.#used.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}
