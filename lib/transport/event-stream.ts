import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Connection } from '../connection/connection.ts'
import { unsentOf } from '../internals.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'
import type { BatchView } from '../room/batch.ts'
import type { Membership } from '../session/membership.ts'
import { kConnection } from '../symbols.ts'
import { chunkedEventEncoding, eventEncoding, type Encoding } from './encoding.ts'
import { chunked } from './event.ts'
import { drainOf, isClear, writeTo } from './socket-writes.ts'
import { Transport, type FrameRun } from './transport.ts'
import { unpooled } from './ws/frame.ts'

type Peer = Connection<Membership>

/** A response of HTTP/1, or of HTTP/2, which has a stream. */
export type StreamedResponse = ServerResponse & { readonly stream?: { readonly destroyed: boolean, destroy (): void } }
type MemberResponse = StreamedResponse & { [kConnection]?: Peer }

/** A comment, so that proxies pass the head of the response on at once. */
const comment = ':\n\n'
/** The heartbeat. An event without data would not reach the listeners of an EventSource. */
const ping = 'event: ping\ndata: {}\n\n'

/** Peers of event streams do not say why they leave: RFC 6455 has 1005 for a close without a code. */
const noCode = 1005

// Field names of HTTP/1.1 that describe the bytes of one connection (RFC 9110 7.6.1), and the fields that an event stream sets itself.
const replaced = ['connection', 'content-length', 'keep-alive', 'transfer-encoding', 'upgrade']

/**
 * The transport of an event stream (Server-Sent Events): a response that goes on until the membership ends. Nothing comes from the peer, so its frames need no
 * rate, and the heartbeat goes by the bytes that the operating system takes.
 *
 * The head is sent with the first frame, or by `begin`. Until then a refusal after which the peer should not come back is the status 204, because an EventSource
 * comes back after each other end of a response.
 */
abstract class EventStream extends Transport {
  protected readonly response: StreamedResponse
  readonly #headers: OutgoingHttpHeaders
  #hasBegun = false
  #draining: Promise<void> | undefined = undefined

  constructor (response: StreamedResponse, headers: OutgoingHttpHeaders, encoding: Encoding) {
    super(encoding)
    this.response = response
    this.#headers = { ...headers, 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store, no-transform', 'x-accel-buffering': 'no' }
    for (const name of replaced) delete this.#headers[name]
  }

  get isOpen (): boolean { return !this.response.writableEnded && !this.isGone }
  get isPaused (): boolean { return false }
  get isReceiving (): boolean { return false }
  get isFragmented (): boolean { return false }
  override get canReceive (): boolean { return false }

  protected get isWritable (): boolean { return this.isOpen && !this.isClosing }
  /** The stream below has closed, or takes no more bytes. */
  protected abstract get isGone (): boolean
  /** The head that belongs to the framing. */
  protected abstract get framing (): OutgoingHttpHeaders
  /** Writes lines that are no frame. */
  protected abstract writeLines (lines: string): void
  protected abstract nextDrained (): Promise<void>

  /** The head of the response was sent. */
  get hasBegun (): boolean { return this.#hasBegun }

  /** Sends the head of the response. */
  begin (): void {
    if (this.#hasBegun || !this.isOpen) return
    this.#hasBegun = true
    this.response.writeHead(200, { ...this.#headers, ...this.framing })
    this.response.flushHeaders()
    this.writeLines(comment)
  }

  override tellsByStatus (code: number): boolean {
    return !this.#hasBegun && closeBehaviour(code) === 'stop'
  }

  override comeBack ({ min, max }: { min: number, max: number }): void {
    this.begin()
    if (this.isWritable) this.writeLines(`retry: ${Math.round(min + Math.random() * (max - min))}\n\n`)
  }

  hasTaken (): boolean { return false }
  pause (): void {}
  resume (): void {}

  keepAlive (): void {
    this.begin()
    if (this.isWritable) this.writeLines(ping)
  }

  drained (): Promise<void> {
    this.#draining ??= this.nextDrained().finally(() => { this.#draining = undefined })
    return this.#draining
  }

  close (code: number): void {
    if (!this.isOpen) return
    if (this.tellsByStatus(code)) {
      const { 'content-type': _type, ...headers } = this.#headers
      this.#hasBegun = true
      this.response.writeHead(204, headers)
    } else this.begin()
    this.response.end()
  }
}

/** An event stream whose bytes go straight to the TCP or TLS socket, in chunks of HTTP/1.1 that are made once for all members. */
class SocketEventStream extends EventStream {
  readonly #direct: Socket
  #onWritten: (() => void) | undefined = undefined

  constructor (response: StreamedResponse, direct: Socket, headers: OutgoingHttpHeaders) {
    super(response, headers, chunkedEventEncoding)
    this.#direct = direct
  }

  get bufferedBytes (): number { return this.#direct.writableLength }
  get activity (): number { return this.#direct.bytesWritten - this.#direct.writableLength - unsentOf(this.#direct) }

  writeFrame (frame: Buffer): void {
    this.begin()
    if (!this.isWritable) return
    const direct = this.#direct
    if (isClear(direct)) writeTo(direct, frame)
    else {
      this.bufferedFrames++
      this.#onWritten ??= () => { this.bufferedFrames-- }
      writeTo(direct, unpooled(frame), this.#onWritten)
    }
  }

  writeBatch (batch: FrameRun, isBehind: boolean): void {
    if (this.isWritable) writeTo(this.#direct, isBehind ? batch.unpooled : batch.whole)
  }

  writeView (view: BatchView): void {
    if (!this.isWritable) return
    const bytes = view.bytes()
    if (bytes !== undefined) this.#writeOwn(bytes)
  }

  writeAll (frames: Buffer[]): void {
    if (frames.length > 0 && this.isWritable) this.#writeOwn(Buffer.concat(frames))
  }

  terminate (): void { this.#direct.destroy() }

  protected get isGone (): boolean { return this.#direct.writableEnded || this.#direct.destroyed }
  protected get framing (): OutgoingHttpHeaders { return { 'transfer-encoding': 'chunked' } }
  protected writeLines (lines: string): void { writeTo(this.#direct, Buffer.from(chunked(lines))) }

  protected async nextDrained (): Promise<void> {
    if (!this.isOpen) throw new Error('the connection has closed')
    await drainOf(this.#direct)
  }

  #writeOwn (bytes: Buffer): void {
    writeTo(this.#direct, this.#direct.writableLength > 0 ? unpooled(bytes) : bytes)
  }
}

/** An event stream whose bytes go through the response: of HTTP/2 or HTTP/1.0, of an injected request, or of one that came before an earlier one was answered. */
class ResponseEventStream extends EventStream {
  readonly #stream: { destroy (): void }
  #written = 0

  constructor (response: StreamedResponse, stream: { destroy (): void }, headers: OutgoingHttpHeaders) {
    super(response, headers, eventEncoding)
    this.#stream = stream
  }

  get bufferedBytes (): number { return this.response.writableLength }
  get activity (): number { return this.#written - this.response.writableLength }

  writeFrame (frame: Buffer): void {
    this.begin()
    this.#write(frame)
  }

  writeBatch (batch: FrameRun, _isBehind: boolean): void {
    this.#write(batch.unpooled)
  }

  writeView (view: BatchView): void {
    const bytes = view.bytes()
    if (bytes !== undefined) this.#write(bytes)
  }

  writeAll (frames: Buffer[]): void {
    if (frames.length > 0) this.#write(Buffer.concat(frames))
  }

  terminate (): void { this.#stream.destroy() }

  protected get isGone (): boolean { return this.response.destroyed || this.response.stream?.destroyed === true }
  protected get framing (): OutgoingHttpHeaders { return {} }
  protected writeLines (lines: string): void { this.#write(Buffer.from(lines)) }

  protected nextDrained (): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!this.isOpen) reject(new Error('the connection has closed'))
      // An empty write ends after all before it.
      else this.response.write('', error => { error == null ? resolve() : reject(error) })
    })
  }

  #write (bytes: Buffer): void {
    if (!this.isWritable) return
    this.#written += bytes.length
    this.response.write(unpooled(bytes))
  }
}

// All responses share these functions.

function close (this: MemberResponse): void {
  const connection = this[kConnection]!
  connection.hub.disconnected(connection, noCode, '')
}

function error (this: MemberResponse, err: Error): void {
  this[kConnection]!.failed(err)
}

/**
 * Makes a member's transport of a response that has no head yet.
 * @param socket - of the request
 * @param isChunked - the request is one of HTTP/1.1
 * @param headers - those that the host has put on the response
 */
export function eventStream (response: StreamedResponse, socket: Socket, isChunked: boolean, headers: OutgoingHttpHeaders): EventStream {
  // The response has no socket while an earlier one of the same connection is not finished.
  const isDirect = isChunked && socket instanceof Socket && response.socket === socket
  return isDirect ? new SocketEventStream(response, socket, headers) : new ResponseEventStream(response, response.stream ?? socket, headers)
}

/** Leads the events of a response to its connection. */
export function listenToResponse (response: StreamedResponse, connection: Peer): void {
  (response as MemberResponse)[kConnection] = connection
  response.on('close', close)
  response.on('error', error)
}
