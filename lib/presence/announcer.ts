import { diffEvery, type Roster } from './roster.ts'

/** Sends the presence frames of all rooms: at once if a room was quiet, otherwise when it may, by one timer. */
export class Announcer {
  readonly #waiting = new Set<Roster>()
  #timer: NodeJS.Timeout | undefined

  /** Call this when a roster has changed. */
  changed (roster: Roster): void {
    if (roster.wait(performance.now()) === 0) this.#send(roster)
    else {
      this.#waiting.add(roster)
      this.#timer ??= setTimeout(this.#sendDue, diffEvery).unref()
    }
  }

  /** Call this when the room of a roster is gone. */
  remove (roster: Roster): void {
    this.#waiting.delete(roster)
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#waiting.clear()
  }

  #send (roster: Roster): void {
    this.#waiting.delete(roster)
    const frame = roster.flush(performance.now())
    if (frame !== undefined) roster.room.announce(frame)
  }

  readonly #sendDue = (): void => {
    this.#timer = undefined
    const now = performance.now()
    for (const roster of [...this.#waiting]) {
      if (roster.wait(now) === 0) this.#send(roster)
    }
    if (this.#waiting.size > 0) this.#timer ??= setTimeout(this.#sendDue, diffEvery).unref()
  }
}
