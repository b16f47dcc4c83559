import type { Room } from './room.ts'

/**
 * Ends the turn of the event loop: every room that has something to say says it in one write per member. A microtask would come
 * too early, since each socket that is read ends in a microtask checkpoint; setImmediate comes after all that one poll has brought.
 */
export class Turn {
  readonly #flush: (room: Room) => void
  #rooms = new Set<Room>()

  constructor (flush: (room: Room) => void) {
    this.#flush = flush
  }

  /** A room has something to say in this turn. */
  add (room: Room): void {
    if (this.#rooms.size === 0) setImmediate(this.#end)
    this.#rooms.add(room)
  }

  readonly #end = (): void => {
    const rooms = this.#rooms
    this.#rooms = new Set()
    try {
      for (const room of rooms) {
        rooms.delete(room)
        this.#flush(room)
      }
    } finally {
      // One that fails is no reason for the others to wait for ever.
      for (const room of rooms) this.add(room)
    }
  }
}
