import { setTimeout } from 'node:timers/promises'
import { isWithinMessage, type Holder } from '../internals.ts'
import type { BatchView } from '../room/batch.ts'
import type { Encoding } from './encoding.ts'
import { Transport, type FrameRun, type Look } from './transport.ts'
import { payloadOf } from './ws/frame.ts'
import { isUnfinished } from './ws/unfinished.ts'

/** The members of a `ws` WebSocket that the package uses. */
export interface WebSocketLike {
  readonly readyState: number
  readonly bufferedAmount: number
  readonly isPaused: boolean
  /** The names of the negotiated extensions. */
  readonly extensions: string
  send (data: Buffer, options: { binary: false, compress: false }): void
  ping (data?: Buffer): void
  close (code: number, reason: string): void
  terminate (): void
  pause (): void
  resume (): void
  on (event: 'message', listener: (this: this, data: Buffer, isBinary: boolean) => void): unknown
  on (event: 'ping' | 'pong', listener: (this: this) => void): unknown
  on (event: 'close', listener: (this: this, code: number, reason: Buffer) => void): unknown
  on (event: 'error', listener: (this: this, error: Error) => void): unknown
}

/** The stream below a WebSocket: a TCP or TLS socket, or for an injected client a stream inside the process, which counts no bytes. */
export interface ByteStream { readonly bytesRead?: number }

/** RFC 6455: the state in which frames may be sent; the same number in every implementation of the WebSocket API. */
const OPEN = 1

// Compressing is asynchronous in ws: pings and the close frame would overtake it.
const TEXT = { binary: false, compress: false } as const
const NO_BYTES = Buffer.alloc(0)

/** Milliseconds between two looks at the bytes that an extension holds back. */
const pollEvery = 10

/**
 * A WebSocket whose frames go one by one through ws: that of an injected client, or one with an extension that this package does not know and that may change
 * frames.
 */
export class WebSocketFrames extends Transport {
  /** The part of the receiver that holds an unfinished message; `undefined` if that cannot be known. */
  holder: Holder | undefined = undefined
  readonly #socket: WebSocketLike
  readonly #stream: ByteStream | undefined
  /** The close of ws. The socket's own property is replaced by one that flushes first. */
  readonly #close: WebSocketLike['close']
  #draining: Promise<void> | undefined = undefined

  /** @param stream - `undefined` if ws does not tell: then silence is not watched */
  constructor (socket: WebSocketLike, stream: ByteStream | undefined, encoding: Encoding) {
    super(encoding)
    this.#socket = socket
    this.#stream = stream
    this.#close = socket.close
  }

  get bufferedBytes (): number { return this.#socket.bufferedAmount }
  get isOpen (): boolean { return this.#socket.readyState === OPEN }
  get isPaused (): boolean { return this.#socket.isPaused }
  get isReceiving (): boolean { return this.holder !== undefined && isUnfinished(this.holder) }
  get isFragmented (): boolean { return this.holder !== undefined && isWithinMessage(this.holder) }
  get activity (): number | undefined { return this.#stream?.bytesRead }

  /** Whether frames may be written. After the close frame, and once the transport is closing, none leaves. */
  protected get isWritable (): boolean { return this.isOpen && !this.isClosing }

  writeFrame (frame: Buffer): void {
    if (this.isWritable) this.#socket.send(payloadOf(frame), TEXT)
  }

  writeBatch (batch: FrameRun, _isBehind: boolean): void {
    this.writeAll(batch.frames)
  }

  writeView (view: BatchView): void {
    this.writeAll(view.frames())
  }

  writeAll (frames: Buffer[]): void {
    for (const frame of frames) this.writeFrame(frame)
  }

  /** The heartbeat goes without, because a stream that cannot go silent is not watched. */
  hasTaken (last?: Look): boolean {
    if (last === undefined) return false
    const { unsent } = last
    last.unsent = this.bufferedBytes
    return last.unsent < unsent
  }

  keepAlive (): void { this.#socket.ping(NO_BYTES) }
  pause (): void { this.#socket.pause() }

  resume (): void {
    this.#socket.resume()
    const { onResume } = this
    this.onResume = undefined
    onResume?.()
  }

  drained (): Promise<void> {
    this.#draining ??= this.nextDrained().finally(() => { this.#draining = undefined })
    return this.#draining
  }

  close (code: number, reason: string): void { this.#close.call(this.#socket, code, reason) }
  terminate (): void { this.#socket.terminate() }

  /** Looks at the buffered bytes again and again, because an extension above the stream holds them back and emits no event. */
  protected async nextDrained (): Promise<void> {
    while (this.bufferedBytes > 0) {
      await setTimeout(pollEvery, undefined, { ref: false })
      // A stream that was destroyed buffers nothing, and yet its bytes have not left.
      if (!this.isOpen) throw new Error('the connection has closed')
    }
  }
}
