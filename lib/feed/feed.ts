import type { GapFrame, Position } from '../../types/index.ts'
import { formatPosition } from '../protocol/position.ts'

/** A loss, as a `gap` frame tells it. */
export type Gap = Omit<GapFrame, 'type'>

/** The place of an entry in the order of its topic: it is the next one, it has been here before, or something is missing before it. */
export type Step = 'next' | 'old' | Gap

/** How far one topic has come on this node: whether the broker delivers it, and the position up to which nothing is missing. */
export class Feed {
  /** Settles when the broker delivers the topic here; rejects if it does not. */
  ready: Promise<void> = Promise.resolve()
  isReady = false
  /**
   * Everything up to this position has been delivered, or was published before the topic was attached. `undefined` if the broker has no positions, and
   * from a loss to the next entry: until then no position can be promised.
   */
  position: Position | undefined
  /** The position of the newest entry. Unlike `position` it is kept through a loss, to recognise entries that come late or twice. */
  #newest: Position | undefined
  /** All receivers have been told of a loss, and nothing has arrived since. */
  #isLost = false
  /** Losses so far, jumps and resets included. */
  losses = 0
  /** The room has gone: no entry is delivered any more. */
  isGone = false
  /** Publications of this node that the broker has answered, and whose entries are to come. */
  answered = 0

  /** The broker delivers the topic from now on, beginning after this position. */
  attachedAt (position: Position | undefined): void {
    const newest = this.#newest
    this.isReady = true
    this.#isLost = false
    if (position === undefined) return
    if (newest === undefined || (newest.epoch === position.epoch && newest.offset < position.offset)) this.position = this.#newest = position
    // Which of two epochs is the newer one is not known. An entry of the same epoch that arrived before attach settled is newer.
    else if (newest.epoch !== position.epoch) this.position = undefined
  }

  /** A member or a subscriber has come, who has not been told of a loss before: the next entry is no proof that nothing is missing. */
  receiverCame (): void {
    this.#isLost = false
  }

  /** Whether an entry at this position, or a later one of the same epoch, has arrived. */
  hasReached ({ epoch, offset }: Position): boolean {
    const newest = this.#newest
    return newest !== undefined && newest.epoch === epoch && newest.offset >= offset
  }

  /** Moves on to the position of an entry. Never moves back: an `'old'` entry must not be delivered. */
  advance (position: Position | undefined): Step {
    const newest = this.#newest
    if (position !== undefined && newest !== undefined && newest.epoch === position.epoch && newest.offset >= position.offset) return 'old'
    const last = this.position
    const isLost = this.#isLost
    this.position = position // none, if a message without a position comes after those that had one
    this.#isLost = false
    if (position === undefined) return 'next'
    this.#newest = position
    if (newest === undefined) return 'next'
    const { epoch, offset } = position
    if (newest.epoch !== epoch) {
      this.losses++
      return { reason: 'reset', to: formatPosition({ epoch, offset: Math.max(0, offset - 1) }) }
    }
    const count = offset - newest.offset - 1
    // A jump right after a loss is that loss.
    if (count === 0 || isLost) return 'next'
    this.losses++
    return { count, reason: 'lost', ...(last === undefined ? {} : { from: formatPosition(last) }), to: formatPosition({ epoch, offset: offset - 1 }) }
  }

  /** Entries may have been missed. Returns what members are to be told; `undefined` if they know: nothing has arrived since the last loss. */
  lose (): Gap | undefined {
    this.losses++
    if (this.#isLost) return undefined
    const last = this.position
    this.position = undefined
    this.#isLost = true
    return { reason: 'lost', ...(last === undefined ? {} : { from: formatPosition(last) }) }
  }
}
