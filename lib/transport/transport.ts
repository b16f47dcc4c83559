import type { BatchView } from '../room/batch.ts'
import { encodings, type Encoding } from './encoding.ts'
import type { Envelope } from './envelope.ts'

/** Frames that leave in one write. Their memory is never reused. */
export interface FrameRun {
  readonly frames: Buffer[]
  /** All frames, one behind the other. */
  readonly whole: Buffer
  /** The same in memory of their own, for peers that buffer them. */
  readonly unpooled: Buffer
}

/** How much of its buffered bytes a peer had taken. */
export interface Look {
  /** Bytes of the writes that have ended. */
  written: number
  /** Bytes of the write under way that the operating system has not taken. */
  unsent: number
}

/**
 * How bytes reach one peer, and the only object of a member that a fan-out touches. Frames leave in the order of the calls. No write throws: a stream that fails
 * ends its own connection and no fan-out.
 */
export abstract class Transport {
  // The fields that a fan-out reads come first, so that they share a cache line.
  /** The last turn in which nothing was buffered before a write: all bytes that are buffered now are of that turn, or later. */
  emptyTurn = 0
  /** The server closes the connection because its peer reads too slowly or has lost messages. Nothing more is written. */
  isClosing = false
  readonly encoding: Encoding
  /** Frames that were written one by one and are buffered. Each costs more memory than its bytes. */
  bufferedFrames = 0
  /** Takes a frame out of `bufferedFrames`; made when the first one is buffered. */
  onFrameWritten: (() => void) | undefined = undefined
  /** Called once, when reading goes on: parses what was held back while it was paused. */
  onResume: (() => void) | undefined = undefined

  constructor (encoding: Encoding) {
    this.encoding = encoding
  }

  get envelope (): Envelope { return encodings[this.encoding].envelope }

  /** Bytes accepted for sending that the operating system has not taken yet. */
  abstract get bufferedBytes (): number
  /** Frames can be sent: no close frame was sent or received. */
  abstract get isOpen (): boolean
  /** Nothing is read from the peer. */
  abstract get isPaused (): boolean
  /** A message, or a frame of any kind, has begun to arrive and not ended. `false` if that cannot be known. */
  abstract get isReceiving (): boolean
  /** A fragmented message has begun to arrive and not ended. `false` if that cannot be known. */
  abstract get isFragmented (): boolean
  /**
   * A number of bytes that changes if the peer lives: those received from it, or, if nothing can be received, those that the operating system has taken for it.
   * `undefined` for a stream inside this process, which counts none and cannot go silent.
   */
  abstract get activity (): number | undefined
  /** The least of `slow.bytes` of the topics of a connection that has several: kept messages of one topic must not make the peer slow in another. */
  get leastSlowBytes (): number { return Infinity }
  set leastSlowBytes (_bytes: number) {}
  /** Frames can be received, so the peer can be asked, and can renew its credentials. */
  get canReceive (): boolean { return true }

  /** Writes one frame, without copying it if nothing is buffered. */
  abstract writeFrame (frame: Buffer): void
  /**
   * Writes the frames that all members with this encoding get.
   * @param isBehind - bytes are buffered already, so these will be kept
   */
  abstract writeBatch (batch: FrameRun, isBehind: boolean): void
  /** Writes the frames that only this peer gets. */
  abstract writeView (view: BatchView): void
  /** Writes several frames that only this peer gets. */
  abstract writeAll (frames: Buffer[]): void
  /**
   * Whether the peer has taken some of the buffered bytes since this was last called. Its pong may stand behind all of them.
   * @param last - the look of a caller that shall not share it with the heartbeat; it is brought up to date
   */
  abstract hasTaken (last?: Look): boolean
  /** Whether a refusal with this close code needs no `bye`, because the status of an HTTP response says that the peer should not come back. */
  tellsByStatus (_code: number): boolean { return false }
  /** Says when the peer should come back, in milliseconds from the end that follows, if its framing has a place for that. */
  comeBack (_after: { readonly min: number, readonly max: number }): void {}
  /** Sends a ping. */
  abstract keepAlive (): void
  abstract pause (): void
  abstract resume (): void
  /** Settles when the operating system has taken all that is buffered; rejects if the connection closes first. */
  abstract drained (): Promise<void>
  abstract close (code: number, reason: string): void
  abstract terminate (): void
}
