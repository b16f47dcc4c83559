/** Milliseconds of one slot. A caller that looks once per tick learns of an alarm up to two ticks late, because the alarm is due when its slot is over. */
export const tick = 100

/** An item with at most one alarm at a time. The wheel notes its slot here; 0 for none. */
export interface Timed { slot: number }

/**
 * Items by the time at which they are due, in slots of one tick: setting and clearing an alarm, and finding those that are due, cost the
 * same however many items there are. Each call gives the time. A clock that stands still, jumps ahead or goes back
 * makes alarms early or late by as much, and loses none.
 */
export class TimingWheel<Item extends Timed> {
  readonly #slots = new Map<number, Set<Item>>()
  /** All slots before this one are empty. */
  #first = 0

  get isEmpty (): boolean { return this.#slots.size === 0 }

  /** Sets the alarm of an item, in milliseconds since the epoch, in place of an earlier one. */
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

  /** Removes and returns the items that are due. */
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
