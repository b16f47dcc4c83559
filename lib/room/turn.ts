import type { Room } from './room.ts'

/**
 * Ends the turn of the event loop: every room that has something to say says it in one write per member. A microtask would come
 * too early, since each socket that is read ends in a microtask checkpoint; setImmediate comes after all that one poll has brought.
 */
export class Turn {
  /** Grows with each turn that ends. What two writes have in common that find the same number is one turn. */
  now = 1
  readonly #flush: (room: Room) => void
  #rooms = new Set<Room>()
  #ends = false

  constructor (flush: (room: Room) => void) {
    this.#flush = flush
  }

  /** A room has something to say in this turn. */
  add (room: Room): void {
    this.#rooms.add(room)
    this.mark()
  }

  /** Something was written, and may still wait when this turn is over. */
  mark (): void {
    if (this.#ends) return
    this.#ends = true
    setImmediate(this.#end)
  }

  readonly #end = (): void => {
    const rooms = this.#rooms
    this.#rooms = new Set()
    this.#ends = false
    try {
      for (const room of rooms) {
        rooms.delete(room)
        this.#flush(room)
      }
    } finally {
      this.now++
      // One that fails is no reason for the others to wait for ever.
      for (const room of rooms) this.add(room)
    }
  }
}
