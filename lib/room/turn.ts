/** A room as the turn sees it. */
export interface Flushable {
  /** It has frames that leave with the turn. */
  readonly isDirty: boolean
  /** It has so many frames that they leave at once. */
  readonly isFull: boolean
}

/**
 * Ends each turn of the event loop: every room with frames to send writes once to each member. A microtask would come too early, because each socket that is read
 * ends in a microtask checkpoint; `setImmediate` comes after all that one poll has brought.
 */
export class Turn<Room extends Flushable> {
  /** Grows with each turn that ends. Two writes that find the same number belong to one turn. */
  now = 1
  readonly #flush: (room: Room) => void
  readonly #ended: () => void
  #rooms = new Set<Room>()
  /** Empty. The two sets change places, so that a turn allocates none. */
  #spare = new Set<Room>()
  #isEnding = false

  /** @param ended - called when all rooms are flushed, and before the next turn */
  constructor (flush: (room: Room) => void, ended: () => void = () => {}) {
    this.#flush = flush
    this.#ended = ended
  }

  /** Flushes a room when the turn ends, or at once if it is full. */
  queued (room: Room): void {
    if (room.isFull) {
      this.mark()
      this.#flush(room)
    } else if (room.isDirty) this.add(room)
  }

  /** Flushes a room when the turn ends. */
  add (room: Room): void {
    this.#rooms.add(room)
    this.mark()
  }

  /** Ends the turn soon, so that bytes still buffered then count as left over from an earlier turn. */
  mark (): void {
    if (this.#isEnding) return
    this.#isEnding = true
    setImmediate(this.#end)
  }

  readonly #end = (): void => {
    const rooms = this.#rooms
    this.#rooms = this.#spare
    this.#isEnding = false
    try {
      for (const room of rooms) {
        rooms.delete(room)
        this.#flush(room)
      }
    } finally {
      this.#ended()
      this.now++
      // If one room fails, the others are flushed in the next turn.
      for (const room of rooms) this.add(room)
      rooms.clear()
      this.#spare = rooms
    }
  }
}
