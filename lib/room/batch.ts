import { kept } from '../transport/ws/frame.ts'

/** What one member gets of a batch, in order: frames of the batch from one place to another, and frames of its own. */
type Piece = Buffer | { from: number, to: number }

/** The frames that a room has for its members in one turn of the loop: one Buffer, made once, and where its frames begin. */
export class Batch {
  readonly frames: Buffer[]
  readonly #starts = [0]
  /** The places of frames that are no messages. */
  readonly #others: number[] = []
  #bytes: number
  #whole: Buffer | undefined
  #kept: Buffer | undefined

  constructor (first: Buffer) {
    this.frames = [first]
    this.#bytes = first.length
    this.#whole = first
  }

  get length (): number { return this.frames.length }
  get size (): number { return this.#bytes }

  push (frame: Buffer): void {
    this.#starts.push(this.#bytes)
    this.#bytes += frame.length
    this.frames.push(frame)
    this.#whole = this.#kept = undefined
  }

  /** All frames as they go onto the wire. */
  get whole (): Buffer {
    this.#whole ??= Buffer.concat(this.frames, this.#bytes)
    return this.#whole
  }

  /** The same for those with whom it waits: one copy for all of them, where one is made. */
  get kept (): Buffer {
    this.#kept ??= kept(this.whole)
    return this.#kept
  }

  /** The last frame is no message. */
  markOther (): void {
    this.#others.push(this.length - 1)
  }

  /** How many of some of the frames are messages. */
  messages (from: number, to: number): number {
    return to - from - this.#others.filter(place => place >= from && place < to).length
  }

  /** The bytes of some of the frames. No copy. */
  slice (from: number, to: number): Buffer {
    return this.whole.subarray(this.#starts[from] ?? this.#bytes, this.#starts[to] ?? this.#bytes)
  }
}

/**
 * A member's view of its room's batch where it differs from what everybody gets: it joined in this turn, a frame was not for it,
 * or it has frames of its own in between. Nobody else's batch is touched by it.
 */
export class View {
  readonly #batch: Batch
  readonly #pieces: Piece[] = []
  /** The first frame of the batch that can be for it. */
  readonly #start: number
  /** The first frame of the batch that it has not got. */
  #cursor: number
  /** Bytes of its own frames. */
  ownBytes = 0

  constructor (batch: Batch, cursor: number) {
    this.#batch = batch
    this.#start = cursor
    this.#cursor = cursor
  }

  /** A frame of its own, after what the room has sent so far. */
  add (frame: Buffer): void {
    this.catchUp()
    this.#pieces.push(frame)
    this.ownBytes += frame.length
  }

  /** The frame that the room has just sent is not for it. */
  skipLast (): void {
    this.catchUp(this.#batch.length - 1)
    this.#cursor = this.#batch.length
  }

  /** Takes the frames of the batch up to a place. */
  catchUp (to = this.#batch.length): void {
    if (this.#cursor < to) this.#pieces.push({ from: this.#cursor, to })
    this.#cursor = to
  }

  /** How many bytes that is. */
  get size (): number {
    return this.#pieces.reduce((size, piece) => size + (Buffer.isBuffer(piece) ? piece : this.#batch.slice(piece.from, piece.to)).length, 0)
  }

  /** How many messages the room has sent since it began. */
  get span (): number { return this.#batch.messages(this.#start, this.#batch.length) }

  /** How many of them it gets. */
  get messages (): number {
    return this.#pieces.reduce((count, piece) => count + (Buffer.isBuffer(piece) ? 0 : this.#batch.messages(piece.from, piece.to)), 0)
  }

  /** Its own frames alone. */
  own (): Buffer[] {
    return this.#pieces.filter(piece => Buffer.isBuffer(piece))
  }

  /** All that it gets, as it goes onto the wire; `undefined` where that is nothing. */
  bytes (): Buffer | undefined {
    const parts = this.#pieces.map(piece => Buffer.isBuffer(piece) ? piece : this.#batch.slice(piece.from, piece.to))
    return parts.length > 1 ? Buffer.concat(parts) : parts[0]
  }

  /** The same, frame by frame. */
  frames (): Buffer[] {
    return this.#pieces.flatMap(piece => Buffer.isBuffer(piece) ? [piece] : this.#batch.frames.slice(piece.from, piece.to))
  }
}
