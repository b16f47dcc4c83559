import type { Connection as PublicConnection, Mode } from '../../types/index.ts'

/** What is used of a `ws` WebSocket. */
export interface WebSocketLike {
  readonly readyState: number
  readonly bufferedAmount: number
  readonly isPaused: boolean
  send (data: Buffer | string, options: { binary: false }, done?: (error?: Error | null) => void): void
  ping (data?: Buffer): void
  close (code: number, reason: string): void
  terminate (): void
  pause (): void
  resume (): void
  on (event: 'message', listener: (data: Buffer, isBinary: boolean) => void): unknown
  on (event: 'close', listener: (code: number, reason: Buffer) => void): unknown
  on (event: 'error', listener: (error: Error) => void): unknown
}

/** The bytes that a peer has sent are counted by its TCP socket; other streams have no such number. */
export interface ByteCounter { readonly bytesRead?: number }

/** RFC 6455: the state in which frames may be sent; the same number in every implementation of the WebSocket API. */
const OPEN = 1

const TEXT = { binary: false } as const
const NO_BYTES = Buffer.alloc(0)

/** One WebSocket. Every frame of the server leaves through here, in the order of the calls. */
export class Connection implements PublicConnection {
  readonly mode: Mode
  readonly address: string
  readonly #socket: WebSocketLike
  readonly #transport: ByteCounter
  /** Kept by the heartbeat: `bytesRead` when it last looked, and when that changed. */
  seenBytes = 0
  seenAt: number
  pingedAt = 0
  /** When the close frame was handed over; 0 before. */
  closingAt = 0
  /** The turn in which more than the bound waited for it; 0 where less does. */
  overTurn = 0
  /** It is to be closed for not reading: rule 6, nothing more is queued to it. */
  condemned = false
  readonly openedAt: number

  constructor (socket: WebSocketLike, transport: ByteCounter, mode: Mode, address: string) {
    this.#socket = socket
    this.#transport = transport
    this.mode = mode
    this.address = address
    this.seenAt = this.openedAt = performance.now()
  }

  get bufferedBytes (): number { return this.#socket.bufferedAmount }
  get isOpen (): boolean { return this.#socket.readyState === OPEN }
  get isPaused (): boolean { return this.#socket.isPaused }
  /** Bytes received so far; `undefined` for a stream inside the process, which cannot go silent. */
  get bytesRead (): number | undefined { return this.#transport.bytesRead }

  /** A text frame. After the close frame nothing leaves any more. */
  send (frame: Buffer | string): void {
    if (this.isOpen && !this.condemned) this.#socket.send(frame, TEXT)
  }

  /** A text frame; `done` is called when the operating system has it, or when it never will. */
  sendAnd (frame: Buffer | string, done: (error?: Error | null) => void): void {
    this.#socket.send(frame, TEXT, done)
  }

  ping (now: number): void {
    this.pingedAt = now
    this.#socket.ping(NO_BYTES)
  }

  pause (): void {
    // The answer to a close frame has to be read.
    if (this.closingAt === 0) this.#socket.pause()
  }

  resume (): void {
    // While reading was paused the peer could not be heard: its silence starts anew.
    this.heard(performance.now())
    this.#socket.resume()
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
    this.#socket.close(code, reason)
    // The peer's answer has to be read, or closing would wait for its time-out.
    if (this.#socket.isPaused) this.#socket.resume()
  }

  terminate (): void { this.#socket.terminate() }
}
