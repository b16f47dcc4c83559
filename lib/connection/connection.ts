import { Socket } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import type { Connection as PublicConnection, Mode } from '../../types/index.ts'
import { asError } from '../errors.ts'
import type { Batch, View } from '../room/batch.ts'
import { encodingOf, type Encoding } from '../transport/encoding.ts'
import { kept, payloadOf } from '../transport/ws/frame.ts'
import { isUnfinished } from '../transport/ws/unfinished.ts'
import { deflateParameters, unsentOf, type Holder } from '../internals.ts'

/** What is used of a `ws` WebSocket. */
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
export interface Transport { readonly bytesRead?: number }

/** RFC 6455: the state in which frames may be sent; the same number in every implementation of the WebSocket API. */
const OPEN = 1

// Compressing is asynchronous in ws: it would be overtaken by pings and by the close frame.
const TEXT = { binary: false, compress: false } as const
const NO_BYTES = Buffer.alloc(0)

/** While a socket is corked for its join: up to so many bytes in front of it (the answer to the upgrade), a frame does not count as waiting. */
const gathered = 1_024

/** Milliseconds between two looks at what an extension holds back. */
const pollEvery = 10

/** Whether it takes messages that were compressed without regard to what it was sent before. */
function takesDeflated (socket: WebSocketLike): boolean {
  const { server_no_context_takeover: alone, server_max_window_bits: bits = 15 } = deflateParameters(socket)
  return alone === true && bits === 15
}

function nextDrain (socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const drain = (): void => {
      socket.removeListener('close', close)
      resolve()
    }
    const close = (): void => {
      socket.removeListener('drain', drain)
      reject(new Error('the connection has closed'))
    }
    socket.once('drain', drain)
    socket.once('close', close)
  })
}

/** Where no drain is announced, since the stream takes more than waits: an empty write is done when all before it is. */
function nextWritten (socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(NO_BYTES, error => { error ? reject(error) : resolve() })
  })
}

/** One WebSocket. Every frame of the server leaves through here, in the order of the calls. */
export class Connection implements PublicConnection {
  // What a fan-out looks at comes first, to be found together in memory.
  /** What it gets in this turn, where that is not what everybody in its room gets. */
  view: View | undefined = undefined
  readonly #socket: WebSocketLike
  /** Where whole batches go, past ws; `undefined`: frame by frame through ws. */
  readonly #direct: Socket | undefined
  /** Of the messages that it gets. Frames of its own are not compressed. */
  readonly encoding: Encoding
  /** The last turn in which nothing waited for it before something was sent: all that waits now is of that turn, or later. */
  emptyTurn = 0
  /** Frames of its own that wait one by one: each costs more memory than its bytes. */
  waitingFrames = 0
  #taken: (() => void) | undefined
  /** It is to be closed for not reading: rule 6, nothing more is queued to it. */
  condemned = false
  readonly mode: Mode
  readonly address: string
  readonly #transport: Transport | undefined
  readonly #close: WebSocketLike['close']
  #drained: Promise<void> | undefined
  /** Bytes that had left Node.js, and those that the operating system had not taken of the rest, when `hasTaken` last looked. */
  #written = 0
  #unsent = 0
  /** Kept by the heartbeat: `bytesRead` when it last looked, and when that changed. */
  seenBytes: number | undefined = undefined
  seenAt: number
  pingedAt = 0
  /** It was pinged, and no pong has come since. */
  awaitsPong = false
  /** When the close frame was handed over; 0 before. */
  closingAt = 0
  readonly openedAt: number
  /** Milliseconds for which this process has stood still since it was opened. */
  stalled = 0
  /** Milliseconds for which what the peer sent was left waiting, and which are not accounted for yet. */
  withheld = 0
  /** When that was last added to; 0 where all that had waited has been read. */
  withheldAt = 0
  #pausedAt = 0
  /** Holds what has come of a message that has not ended; `undefined` if that cannot be known. */
  holder: Holder | undefined = undefined
  /** Kept by the heartbeat: when it first saw the message that has not ended; 0 if there is none. */
  unfinishedAt = 0
  /** What waits for reading to go on. */
  onResume: (() => void) | undefined = undefined

  constructor (socket: WebSocketLike, transport: Transport | undefined, mode: Mode, address: string) {
    this.#socket = socket
    this.#transport = transport
    this.#close = socket.close
    // What ws itself writes here (pings, pongs, the close frame) it writes at once, and so all keeps its place. An extension may
    // change frames; permessage-deflate takes those that are not compressed as they are.
    if (transport instanceof Socket && (socket.extensions === '' || socket.extensions === 'permessage-deflate')) this.#direct = transport
    this.encoding = encodingOf(mode, this.#direct !== undefined && takesDeflated(socket))
    this.mode = mode
    this.address = address
    this.seenAt = this.openedAt = performance.now()
  }

  get bufferedBytes (): number { return this.#direct === undefined ? this.#socket.bufferedAmount : this.#direct.writableLength }
  get isOpen (): boolean { return this.#socket.readyState === OPEN }
  get isPaused (): boolean { return this.#socket.isPaused }
  get isUnfinished (): boolean { return this.holder !== undefined && isUnfinished(this.holder) }
  /** Bytes received so far; `undefined` for a stream inside the process, which cannot go silent. */
  get bytesRead (): number | undefined { return this.#transport?.bytesRead }

  /** Whether the peer has taken some of what waits for it since this was last asked. Its pong may stand behind all of that. */
  hasTaken (): boolean {
    const direct = this.#direct
    if (direct === undefined || direct.writableLength === 0) return false
    const written = direct.bytesWritten - direct.writableLength
    const unsent = unsentOf(direct)
    if (written === this.#written && unsent === this.#unsent) return false
    this.#written = written
    this.#unsent = unsent
    return true
  }

  /** One frame. */
  send (frame: Buffer): void {
    if (!this.#takes()) return
    const direct = this.#direct
    if (direct === undefined) this.#socket.send(payloadOf(frame), TEXT)
    else if (direct.writableLength === 0 || (direct.writableCorked > 0 && direct.writableLength < gathered)) this.#write(frame)
    else {
      this.waitingFrames++
      this.#taken ??= () => { this.waitingFrames-- }
      this.#write(kept(frame), this.#taken)
    }
  }

  /** What everybody in a room gets, in one write. @param waits - behind what waits already */
  sendBatch (batch: Batch, waits: boolean): void {
    if (!this.#takes()) return
    if (this.#direct !== undefined) this.#write(waits ? batch.kept : batch.whole)
    else this.#sendEach(batch.frames)
  }

  /** What only this member gets, in one write. */
  sendView (view: View): void {
    if (!this.#takes()) return
    if (this.#direct === undefined) {
      this.#sendEach(view.frames())
      return
    }
    const bytes = view.bytes()
    if (bytes !== undefined) this.#writeOwn(this.#direct, bytes)
  }

  /** Several frames of its own, in one write. */
  sendAll (frames: Buffer[]): void {
    if (frames.length === 0 || !this.#takes()) return
    if (this.#direct !== undefined) this.#writeOwn(this.#direct, Buffer.concat(frames))
    else this.#sendEach(frames)
  }

  /** Settles when the operating system has taken what waits; rejects when the connection closes first. */
  drained (): Promise<void> {
    this.#drained ??= this.#nextDrained().finally(() => { this.#drained = undefined })
    return this.#drained
  }

  #nextDrained (): Promise<void> {
    const direct = this.#direct
    // A stream that has ended takes no write, not even an empty one.
    if (direct === undefined || !this.isOpen) return this.#pollDrained()
    return direct.writableNeedDrain ? nextDrain(direct) : nextWritten(direct)
  }

  /** No event says when it has none: something above the stream holds bytes back. */
  async #pollDrained (): Promise<void> {
    while (this.bufferedBytes > 0) {
      await setTimeout(pollEvery, undefined, { ref: false })
      // Nothing waits in a stream that was destroyed, and yet it has not left.
      if (!this.isOpen) throw new Error('the connection has closed')
    }
  }

  /** Before each write. After the close frame, and after the verdict to close it as slow, nothing leaves any more. */
  #takes (): boolean {
    return this.isOpen && !this.condemned
  }

  /** What nobody else gets. */
  #writeOwn (direct: Socket, bytes: Buffer): void {
    this.#write(direct.writableLength > 0 ? kept(bytes) : bytes)
  }

  /** A stream of Node.js does not throw, but one that the host has wrapped may: that ends this connection, and no fan-out. */
  #write (bytes: Buffer, taken?: () => void): void {
    const direct = this.#direct!
    try {
      direct.write(bytes, taken)
    } catch (error) {
      direct.destroy(asError(error))
    }
  }

  #sendEach (frames: Buffer[]): void {
    for (const frame of frames) this.#socket.send(payloadOf(frame), TEXT)
  }

  ping (now: number): void {
    this.pingedAt = now
    this.awaitsPong = true
    this.#socket.ping(NO_BYTES)
  }

  pause (): void {
    // The answer to a close frame has to be read.
    if (this.closingAt !== 0 || this.#socket.isPaused) return
    this.#pausedAt = performance.now()
    this.#socket.pause()
  }

  resume (): void {
    // While reading was paused the peer could not be heard: its silence starts anew.
    const now = performance.now()
    this.heard(now)
    this.keptWaiting(this.#pausedAt, now)
    if (this.unfinishedAt !== 0) this.unfinishedAt += now - this.#pausedAt
    this.#read()
  }

  #read (): void {
    this.#socket.resume()
    const { onResume } = this
    this.onResume = undefined
    onResume?.()
  }

  /** This process has stood still: what the peer sent meanwhile was left waiting, and what is timed has so much longer. */
  stalledFor (milliseconds: number, now: number): void {
    this.keptWaiting(now - milliseconds, now)
    this.stalled += milliseconds
    if (this.unfinishedAt !== 0) this.unfinishedAt += milliseconds
    if (this.closingAt !== 0) this.closingAt += milliseconds
  }

  /** What the peer sent in between was left waiting, and can be read from now on. */
  keptWaiting (from: number, now: number): void {
    this.withheld += now - from
    this.withheldAt = now
  }

  /** The peer lives. */
  heard (now: number): void {
    this.seenAt = now
    this.pingedAt = 0
  }

  /** A close frame is on its way, whoever sends it. */
  closes (): void {
    this.closingAt = performance.now()
  }

  close (code: number, reason: string): void {
    if (this.closingAt !== 0) return
    this.closes()
    this.closeSocket(code, reason)
    // The peer's answer has to be read, or closing would wait for its time-out.
    if (this.#socket.isPaused) this.#read()
  }

  /** The socket's own close, whoever calls it. */
  closeSocket (code: number, reason: string): void {
    this.#close.call(this.#socket, code, reason)
  }

  terminate (): void { this.#socket.terminate() }
}
