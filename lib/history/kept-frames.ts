import type { Retention, Skip } from '../../types/index.ts'
import type { FrameRun } from '../transport/transport.ts'
import type { KeptKey } from './end.ts'

/** Some of the frames of kept messages, in order. */
export class KeptRun implements FrameRun {
  readonly whole: Buffer
  readonly count: number
  /** The offset of the last message. */
  readonly last: number
  readonly #starts: readonly number[]

  /** @param starts - where each frame begins in `whole` */
  constructor (whole: Buffer, starts: readonly number[], last: number) {
    this.whole = whole
    this.#starts = starts
    this.count = starts.length
    this.last = last
  }

  get unpooled (): Buffer { return this.whole }
  get frames (): Buffer[] { return this.#starts.map((start, index) => this.whole.subarray(start, this.#starts[index + 1])) }
}

/**
 * Kept messages of one topic as frames of one encoding, one behind the other in one piece of memory. Frames are appended and never changed, so that members that
 * resume are sent slices of this memory, and members that read them slowly need no copy.
 */
export class KeptFrames {
  readonly epoch: string
  /** The offset behind which every message up to `top` is among the frames. */
  from: number
  top: number
  /** Offsets that no message has, before `top`. */
  skips: readonly Skip[]
  readonly #bytes: Buffer
  #end = 0
  readonly #offsets: number[] = []
  readonly #ends: number[] = []
  readonly #keys: (KeptKey)[] = []
  /** Bytes of the tails of all messages up to each one. */
  readonly #weights: number[] = []
  /** Messages may have replaced others of their keys since the last compaction. */
  hasReplaced = false

  constructor (epoch: string, from: number, capacity: number, skips: readonly Skip[] = []) {
    this.epoch = epoch
    this.skips = skips
    this.from = this.top = from
    this.#bytes = Buffer.allocUnsafeSlow(capacity)
  }

  /**
   * Appends the frame of a message. Returns `false` if there is no space for it.
   * @param weight - bytes of its tail, by which a topic is bounded
   */
  append (offset: number, frame: Buffer, key: KeptKey, weight: number): boolean {
    if (this.#bytes.length - this.#end < frame.length) return false
    this.#bytes.set(frame, this.#end)
    this.#end += frame.length
    this.#offsets.push(offset)
    this.#ends.push(this.#end)
    this.#keys.push(key)
    this.#weights.push((this.#weights.at(-1) ?? 0) + weight)
    this.top = offset
    return true
  }

  /** Notes which messages a topic with these bounds keeps no longer. */
  bound ({ size, bytes }: Pick<Retention, 'size' | 'bytes'>): void {
    const over = this.#offsets.length - size
    if (over > 0) this.from = Math.max(this.from, this.#offsets[over - 1]!)
    let index = this.#indexBehind(this.from)
    const weight = this.#weights.at(-1)
    while (index < this.#offsets.length && weight! - this.#weightBefore(index) > bytes) this.from = this.#offsets[index++]!
  }

  /** Returns a copy of what is still kept, with as much space again, and some more. */
  grown (space: number): KeptFrames {
    const start = this.#indexBehind(this.from)
    const copy = new KeptFrames(this.epoch, this.from, 2 * (this.#end - this.#startOf(start) + space), this.skips)
    for (let index = start; index < this.#offsets.length; index++) this.#copyTo(copy, index)
    copy.top = this.top
    return copy
  }

  /**
   * Returns a copy of the frames of a topic of values, without values that newer ones have replaced, and with as much space again, and some more.
   * @param size - most values that the topic keeps
   */
  compacted (size: number, space: number): KeptFrames {
    const newest = this.#newestOfEachKey(0)
    const kept = newest.slice(Math.max(0, newest.length - size))
    const copy = new KeptFrames(this.epoch, this.from, 2 * (kept.reduce((sum, index) => sum + this.#ends[index]! - this.#startOf(index), 0) + space), this.skips)
    for (const index of kept) this.#copyTo(copy, index)
    const isKept = new Set(kept)
    for (const [index, offset] of this.#offsets.entries()) if (!isKept.has(index)) copy.from = Math.max(copy.from, offset)
    copy.top = this.top
    return copy
  }

  /** Bytes of the frames behind an offset. */
  bytesBehind (offset: number): number {
    return this.#end - this.#startOf(this.#indexBehind(offset))
  }

  /** Counts the frames behind an offset. */
  countBehind (offset: number): number {
    return this.#offsets.length - this.#indexBehind(offset)
  }

  /** Returns a copy with the newest message of each key alone. Messages without a key are one value. */
  newestOfEachKey (): KeptFrames {
    const copy = new KeptFrames(this.epoch, this.from, this.#end, this.skips)
    for (const index of this.#newestOfEachKey(this.#indexBehind(this.from))) this.#copyTo(copy, index)
    copy.top = this.top
    return copy
  }

  /**
   * The offset before the first of the newest messages that are at most so many bytes; `top` if there are none.
   * @param behind - messages up to this offset are no longer kept
   */
  beforeNewest (bytes: number, behind: number): number {
    const least = this.#indexBehind(behind)
    let index = this.#offsets.length
    while (index > least && this.#end - this.#startOf(index - 1) <= bytes) index--
    return index === this.#offsets.length ? this.top : this.#offsets[index]! - 1
  }

  /** The frames behind an offset and up to another: at least one, and more while they are at most so many bytes. `undefined` if there are none. */
  run (behind: number, to: number, bytes: number): KeptRun | undefined {
    const begin = this.#indexBehind(behind)
    const start = this.#startOf(begin)
    let end = begin
    while (end < this.#offsets.length && this.#offsets[end]! <= to && (end === begin || this.#ends[end]! - start <= bytes)) end++
    if (end === begin) return undefined
    const starts: number[] = []
    for (let index = begin; index < end; index++) starts.push(this.#startOf(index) - start)
    return new KeptRun(this.#bytes.subarray(start, this.#ends[end - 1]), starts, this.#offsets[end - 1]!)
  }

  /** The indices of the newest message of each key, in order. */
  #newestOfEachKey (start: number): number[] {
    const newest = new Map<KeptKey, number>()
    for (let index = start; index < this.#offsets.length; index++) {
      const key = this.#keys[index]
      newest.delete(key)
      newest.set(key, index)
    }
    return [...newest.values()]
  }

  #copyTo (frames: KeptFrames, index: number): void {
    const start = this.#startOf(index)
    frames.append(this.#offsets[index]!, this.#bytes.subarray(start, this.#ends[index]), this.#keys[index], this.#weights[index]! - this.#weightBefore(index))
  }

  #weightBefore (index: number): number {
    return index === 0 ? 0 : this.#weights[index - 1]!
  }

  #startOf (index: number): number {
    return index === 0 ? 0 : this.#ends[index - 1]!
  }

  /** The index of the first frame behind an offset. */
  #indexBehind (offset: number): number {
    let low = 0
    let high = this.#offsets.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#offsets[middle]! <= offset) low = middle + 1
      else high = middle
    }
    return low
  }
}
