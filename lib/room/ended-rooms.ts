import { serverEnding, type Ending } from '../session/ending.ts'

/** Memberships that are ended in one turn of the event loop: as many as `drain.batch` lets go by default. */
const perTurn = 500

/** A room whose topic has ended. */
export interface EndedRoom {
  /** Members that have been sent everything. Each leaves the array when it ends. */
  readonly members: readonly { end (ending: Ending): void }[]
}

/**
 * Ends the memberships of rooms whose topics have ended, with 1000: at the end of the turn, so that the end of a stream leaves with the messages before it, and only so
 * many in a turn. Members that lag end when they have caught up (see slow-members.ts).
 */
export class EndedRooms<R extends EndedRoom> {
  readonly #rooms = new Set<R>()
  readonly #flush: (room: R) => void
  #timer: NodeJS.Immediate | undefined

  /** @param flush - writes what a room has for its members in this turn */
  constructor (flush: (room: R) => void) {
    this.#flush = flush
  }

  add (room: R): void {
    this.#rooms.add(room)
    this.#timer ??= setImmediate(this.#next)
  }

  readonly #next = (): void => {
    this.#timer = undefined
    let remaining = perTurn
    for (const room of this.#rooms) {
      this.#flush(room)
      const members = room.members.slice(0, remaining)
      remaining -= members.length
      for (const member of members) member.end(serverEnding(1000))
      if (room.members.length > 0) break
      this.#rooms.delete(room)
    }
    if (this.#rooms.size > 0) this.#timer = setImmediate(this.#next)
  }
}
