import type { Position } from '../../types/index.ts'
import { formatPosition } from '../protocol/position.ts'

/** The calls that wait for one position. */
interface Group {
  readonly position: Position
  readonly calls: Set<() => void>
}

/** Positions of one topic that are known and have not been delivered here yet, and who waits for them. */
export class AwaitedPositions {
  /** By the id of the position. */
  readonly #groups = new Map<string, Group>()

  /** Calls back once, when the topic is at the position or behind it, or cannot get there any more. Returns a function that ends the wait. */
  add (position: Position, done: () => void): () => void {
    const id = formatPosition(position)
    const group = this.#groups.get(id) ?? { position, calls: new Set() }
    this.#groups.set(id, group)
    group.calls.add(done)
    return () => {
      group.calls.delete(done)
      if (group.calls.size === 0 && this.#groups.get(id) === group) this.#groups.delete(id)
    }
  }

  get size (): number { return this.#groups.size }

  /**
   * Takes the position of an entry.
   * @param isReset - the entry before it was of another epoch: no position of a third one will be reached
   */
  reached ({ epoch, offset }: Position, isReset: boolean): void {
    for (const [id, { position, calls }] of this.#groups) {
      if (position.epoch === epoch ? position.offset > offset : !isReset) continue
      this.#groups.delete(id)
      for (const call of calls) call()
    }
  }
}
