import { unpooled } from '../transport/ws/frame.ts'

/** A part of a member's view, in order: a range of the batch's frames, or one frame of the member's own. */
type Piece = Buffer | { from: number, to: number }

/** The frames of a room for one encoding in one turn of the event loop: one Buffer, made once, and the places at which its frames begin. */
export class Batch {
  readonly frames: Buffer[]
  readonly #starts = [0]
  /** The indices of frames that are not messages. */
  readonly #others: number[] = []
  #bytes: number
  #whole: Buffer | undefined
  #unpooled: Buffer | undefined

  constructor (first: Buffer) {
    this.frames = [first]
    this.#bytes = first.length
    this.#whole = first
  }

  get length (): number { return this.frames.length }
  get bytes (): number { return this.#bytes }

  push (frame: Buffer): void {
    this.#starts.push(this.#bytes)
    this.#bytes += frame.length
    this.frames.push(frame)
    this.#whole = this.#unpooled = undefined
  }

  /** All frames as they are written. */
  get whole (): Buffer {
    this.#whole ??= Buffer.concat(this.frames, this.#bytes)
    return this.#whole
  }

  /** All frames for the members that buffer them: one copy for all of these members, if a copy is made at all. */
  get unpooled (): Buffer {
    this.#unpooled ??= unpooled(this.whole)
    return this.#unpooled
  }

  /** Notes that the last frame is not a message. */
  markOther (): void {
    this.#others.push(this.length - 1)
  }

  /** Counts the messages in a range of the frames. */
  messages (from: number, to: number): number {
    return to - from - this.#others.filter(place => place >= from && place < to).length
  }

  /** The bytes of a range of the frames, not copied. */
  slice (from: number, to: number): Buffer {
    return this.whole.subarray(this.#starts[from] ?? this.#bytes, this.#starts[to] ?? this.#bytes)
  }
}

/**
 * A member's view of its room's batch, if it does not get the whole batch: the member joined in this turn, is excepted from a message, or has frames of its own in
 * between. The batch of the other members stays as it is.
 */
export class BatchView {
  readonly #batch: Batch
  readonly #pieces: Piece[] = []
  /** The first frame of the batch that the member may get. */
  readonly #start: number
  /** The first frame of the batch that is not in the view yet. */
  #cursor: number
  /** Bytes of the member's own frames. */
  ownBytes = 0

  constructor (batch: Batch, start: number) {
    this.#batch = batch
    this.#start = start
    this.#cursor = start
  }

  /** Adds a frame of the member's own, behind all frames of the batch so far. */
  add (frame: Buffer): void {
    this.catchUp()
    this.#pieces.push(frame)
    this.ownBytes += frame.length
  }

  /** Leaves out the last frame of the batch. */
  skipLast (): void {
    this.catchUp(this.#batch.length - 1)
    this.#cursor = this.#batch.length
  }

  /** Takes in the frames of the batch up to an index. */
  catchUp (to = this.#batch.length): void {
    if (this.#cursor < to) this.#pieces.push({ from: this.#cursor, to })
    this.#cursor = to
  }

  /** Bytes of all frames in the view. */
  get size (): number {
    return this.#pieces.reduce((size, piece) => size + (Buffer.isBuffer(piece) ? piece : this.#batch.slice(piece.from, piece.to)).length, 0)
  }

  /** Messages of the batch since the view began. */
  get span (): number { return this.#batch.messages(this.#start, this.#batch.length) }

  /** Messages of the batch that are in the view. */
  get messages (): number {
    return this.#pieces.reduce((count, piece) => count + (Buffer.isBuffer(piece) ? 0 : this.#batch.messages(piece.from, piece.to)), 0)
  }

  /** The member's own frames alone. */
  own (): Buffer[] {
    return this.#pieces.filter(piece => Buffer.isBuffer(piece))
  }

  /** The view as one Buffer; `undefined` if it is empty. */
  bytes (): Buffer | undefined {
    const parts = this.#pieces.map(piece => Buffer.isBuffer(piece) ? piece : this.#batch.slice(piece.from, piece.to))
    return parts.length > 1 ? Buffer.concat(parts) : parts[0]
  }

  /** The view frame by frame. */
  frames (): Buffer[] {
    return this.#pieces.flatMap(piece => Buffer.isBuffer(piece) ? [piece] : this.#batch.frames.slice(piece.from, piece.to))
  }
}
