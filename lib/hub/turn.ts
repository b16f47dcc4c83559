import type { Room } from './room.ts'

/**
 * Ends the turn of the event loop: every room that has something to say says it in one write per member. A microtask would come
 * too early, since each socket that is read ends in a microtask checkpoint; setImmediate comes after all that one poll has brought.
 */
export class Turn {
  readonly #flush: (room: Room) => void
  #rooms: Room[] = []
  #scheduled = false

  constructor (flush: (room: Room) => void) {
    this.#flush = flush
  }

  /** A room has something to say, for the first time in this turn. */
  add (room: Room): void {
    this.#rooms.push(room)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#end)
  }

  readonly #end = (): void => {
    this.#scheduled = false
    const rooms = this.#rooms
    this.#rooms = []
    let next = 0
    try {
      while (next < rooms.length) this.#flush(rooms[next++]!)
    } finally {
      // One that fails is no reason for the others to wait for ever.
      for (const room of rooms.slice(next)) this.add(room)
    }
  }
}
