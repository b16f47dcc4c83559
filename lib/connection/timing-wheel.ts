/** Milliseconds of one slot. Who looks once per tick, at whatever moment of it, learns of something up to two of them late: it is due when its slot is over. */
export const tick = 100

/** What has at most one alarm at a time; the wheel notes its slot here, 0 for none. */
export interface Timed { slot: number }

/**
 * Items by the time at which they are due, in slots of one tick: putting one in, taking one out and finding those that are due cost the
 * same however many there are. It keeps no clock, and takes any for one: a clock that stands still, jumps ahead or goes back
 * makes it early or late by as much, and never forgetful.
 */
export class Wheel<Item extends Timed> {
  readonly #slots = new Map<number, Set<Item>>()
  /** No slot before this one holds anything. */
  #first = 0

  get isEmpty (): boolean { return this.#slots.size === 0 }

  /** Sets its alarm, in milliseconds since the epoch; an earlier one is gone. */
  set (item: Item, at: number): void {
    this.clear(item)
    item.slot = Math.max(1, Math.ceil(at / tick))
    const items = this.#slots.get(item.slot)
    if (items === undefined) this.#slots.set(item.slot, new Set([item]))
    else items.add(item)
    if (item.slot < this.#first) this.#first = item.slot
  }

  clear (item: Item): void {
    const items = this.#slots.get(item.slot)
    if (items?.delete(item) === true && items.size === 0) this.#slots.delete(item.slot)
    item.slot = 0
  }

  /** Takes out what is due. */
  due (now: number): Item[] {
    const due: Item[] = []
    const last = Math.floor(now / tick)
    // After a stall, or a jump of the clock, there may be far fewer slots than ticks.
    if (last - this.#first > this.#slots.size) {
      for (const slot of [...this.#slots.keys()]) {
        if (slot <= last) this.#take(slot, due)
      }
    } else {
      for (let slot = this.#first; slot <= last; slot++) this.#take(slot, due)
    }
    this.#first = Math.max(this.#first, last + 1)
    return due
  }

  #take (slot: number, due: Item[]): void {
    const items = this.#slots.get(slot)
    if (items === undefined) return
    this.#slots.delete(slot)
    for (const item of items) {
      item.slot = 0
      due.push(item)
    }
  }
}
