import type { OutgoingHttpHeaders, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { Connection } from '../connection/connection.ts'
import { asError } from '../error-utils.ts'
import { endAnswer, freeParser, replaceAnswer, unsentOf } from '../internals.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'
import type { BatchView } from '../room/batch.ts'
import type { Membership } from '../session/membership.ts'
import { kConnection, kWaiting } from '../symbols.ts'
import { chunkedEventEncoding, eventEncoding, type Encoding } from './encoding.ts'
import { chunked } from './event.ts'
import { drainOf, hasTakenSince, writeFrameTo, writeOwnTo, writeTo } from './socket-writes.ts'
import { Transport, type FrameRun, type Look } from './transport.ts'
import { unpooled } from './ws/frame.ts'

type Peer = Connection<Membership>

/** A response of HTTP/1, or of HTTP/2, which has a stream. */
export type StreamedResponse = ServerResponse & { readonly stream?: ClosingStream }
interface ClosingStream {
  readonly destroyed: boolean
  destroy (error?: Error): void
  once (event: 'aborted' | 'close', listener: (this: ClosingStream) => void): unknown
  removeListener (event: 'close', listener: () => void): unknown
}
type MemberStream = (StreamedResponse | Socket) & { [kConnection]?: Peer | undefined }

/** A comment, so that proxies pass the head of the response on at once. */
const comment = ':\n\n'
/** The end of a response in chunks. */
const lastChunk = '0\r\n\r\n'
/** The heartbeat. An event without data would not reach the listeners of an EventSource. */
const ping = 'event: ping\ndata: {}\n\n'

/** Peers of event streams do not say why they leave: RFC 6455 has 1005 for a close without a code. */
const noCode = 1005

/** The fields that each event stream has. */
const ownHeaders: OutgoingHttpHeaders = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store, no-transform', 'x-accel-buffering': 'no' }

/**
 * The transport of an event stream (Server-Sent Events): a response that goes on until the membership ends. Nothing comes from the peer, so its frames need no
 * rate, and the heartbeat goes by the bytes that the operating system takes.
 *
 * The head is sent with the first frame, or by `begin`. Until then a refusal after which the peer should not come back is the status 204, because an EventSource
 * comes back after each other end of a response. The first frame is `hello`, which stands in a view if the room has queued frames in the same turn; a whole batch
 * is never the first.
 */
abstract class EventStream extends Transport {
  /** `undefined` once the bytes go past it. */
  protected response: StreamedResponse | undefined
  #hasBegun = false
  #hasEnded = false
  #draining: Promise<void> | undefined = undefined

  constructor (response: StreamedResponse, encoding: Encoding) {
    super(encoding)
    this.response = response
  }

  get isOpen (): boolean { return !this.#hasEnded && !this.isGone }
  get isPaused (): boolean { return false }
  get isReceiving (): boolean { return false }
  get isFragmented (): boolean { return false }
  override get canReceive (): boolean { return false }

  protected get isWritable (): boolean { return this.isOpen && !this.isClosing }
  /** The stream below has closed, or takes no more bytes. */
  protected abstract get isGone (): boolean
  /** The response to a peer that should not come back. */
  protected abstract refuse (headers: OutgoingHttpHeaders): void
  /** Ends the stream below at once. Its error is told where errors of connections are. */
  protected abstract destroy (error?: Error): void
  protected abstract writeHead (headers: OutgoingHttpHeaders): void
  protected abstract end (): void
  /** Writes lines that are no frame. */
  protected abstract writeLines (lines: string): void
  protected abstract nextDrained (): Promise<void>

  /** The head of the response was sent. */
  get hasBegun (): boolean { return this.#hasBegun }

  /** Sends the head of the response. */
  begin (): void {
    if (this.#hasBegun || !this.isOpen) return
    this.#hasBegun = true
    if (this.#sends(() => { this.writeHead({ ...ownHeaders }) })) this.writeLines(comment)
  }

  override tellsByStatus (code: number): boolean {
    return !this.#hasBegun && closeBehaviour(code) === 'stop'
  }

  override comeBack ({ min, max }: { min: number, max: number }): void {
    this.begin()
    if (this.isWritable) this.writeLines(`retry: ${Math.round(min + Math.random() * (max - min))}\n\n`)
  }

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
      const { 'content-type': _type, ...headers } = ownHeaders
      this.#hasBegun = true
      this.response!.removeHeader('content-type')
      this.#sends(() => { this.refuse(headers) })
    } else {
      this.begin()
      if (this.isOpen) this.end()
    }
    this.#hasEnded = true
  }

  terminate (): void { this.destroy() }

  /** Sends a head. A header of the host that the response cannot send ends the stream, because the request cannot be refused any more. */
  #sends (send: () => void): boolean {
    try {
      send()
      return true
    } catch (error) {
      this.#hasEnded = true
      this.destroy(asError(error))
      return false
    }
  }
}

/**
 * An event stream whose bytes go straight to the TCP or TLS socket, in chunks of HTTP/1.1 that are made once for all members. Once the head is sent, response and
 * parser are taken from the socket, because they would take more memory than the member. So the connection ends with the stream.
 */
class SocketEventStream extends EventStream {
  readonly #direct: Socket

  constructor (response: StreamedResponse, direct: Socket) {
    super(response, chunkedEventEncoding)
    this.#direct = direct
  }

  get bufferedBytes (): number { return this.#direct.writableLength }
  get activity (): number { return this.#direct.bytesWritten - this.#direct.writableLength - unsentOf(this.#direct) }
  hasTaken (last?: Look): boolean { return last !== undefined && hasTakenSince(this.#direct, last) }

  writeFrame (frame: Buffer): void {
    this.begin()
    if (this.isWritable) writeFrameTo(this.#direct, frame, this)
  }

  writeBatch (batch: FrameRun, isBehind: boolean): void {
    if (this.isWritable) writeTo(this.#direct, isBehind ? batch.unpooled : batch.whole)
  }

  writeView (view: BatchView): void {
    this.begin()
    if (!this.isWritable) return
    const bytes = view.bytes()
    if (bytes !== undefined) writeOwnTo(this.#direct, bytes)
  }

  writeAll (frames: Buffer[]): void {
    this.begin()
    if (frames.length > 0 && this.isWritable) writeOwnTo(this.#direct, Buffer.concat(frames))
  }

  protected destroy (error?: Error): void { this.#direct.destroy(error) }

  protected get isGone (): boolean { return this.#direct.writableEnded || this.#direct.destroyed }
  protected writeLines (lines: string): void { writeTo(this.#direct, Buffer.from(chunked(lines))) }

  protected writeHead (headers: OutgoingHttpHeaders): void {
    const response = this.response!
    this.response = undefined
    response.writeHead(200, { ...headers, 'transfer-encoding': 'chunked', connection: 'close' })
    response.flushHeaders()
    replaceAnswer(this.#direct, response)
    setImmediate(freeParser, this.#direct)
  }

  protected refuse (headers: OutgoingHttpHeaders): void {
    this.response!.writeHead(204, { ...headers, connection: 'close' }).end()
  }

  protected end (): void {
    endAnswer(this.#direct)
    this.#direct.end(lastChunk)
  }

  protected async nextDrained (): Promise<void> {
    if (!this.isOpen) throw new Error('the connection has closed')
    await drainOf(this.#direct)
  }
}

/** An event stream whose bytes go through the response: of HTTP/2 or HTTP/1.0, of an injected request, or of one that came before an earlier one was answered. */
class ResponseEventStream extends EventStream {
  readonly #stream: ClosingStream
  declare protected response: StreamedResponse
  #written = 0

  constructor (response: StreamedResponse, stream: ClosingStream) {
    super(response, eventEncoding)
    this.#stream = stream
  }

  get bufferedBytes (): number { return this.response.writableLength }
  get activity (): number { return this.#written - this.response.writableLength }

  hasTaken (last?: Look): boolean {
    const { activity } = this
    if (last === undefined || activity === last.written) return false
    last.written = activity
    return true
  }

  writeFrame (frame: Buffer): void {
    this.begin()
    this.#write(frame)
  }

  writeBatch (batch: FrameRun, _isBehind: boolean): void {
    this.#write(batch.unpooled)
  }

  writeView (view: BatchView): void {
    this.begin()
    const bytes = view.bytes()
    if (bytes !== undefined) this.#write(bytes)
  }

  writeAll (frames: Buffer[]): void {
    this.begin()
    if (frames.length > 0) this.#write(Buffer.concat(frames))
  }

  protected destroy (error?: Error): void { this.#stream.destroy(error) }

  protected get isGone (): boolean { return this.response.writableEnded || this.response.destroyed || this.#stream.destroyed }
  protected refuse (headers: OutgoingHttpHeaders): void { this.response.writeHead(204, headers).end() }
  protected end (): void { this.response.end() }
  protected writeLines (lines: string): void { this.#write(Buffer.from(lines)) }

  protected writeHead (headers: OutgoingHttpHeaders): void {
    this.response.writeHead(200, headers)
    this.response.flushHeaders()
  }

  protected nextDrained (): Promise<void> {
    const { response } = this
    const stream = this.#stream
    return new Promise((resolve, reject) => {
      const gone = (): void => { reject(new Error('the connection has closed')) }
      if (!this.isOpen) {
        gone()
        return
      }
      // A response that waits for an earlier one is not told that its connection closes, and others call back without an error.
      stream.once('close', gone)
      // An empty write ends after all before it.
      response.write('', error => {
        stream.removeListener('close', gone)
        error == null && !stream.destroyed ? resolve() : gone()
      })
    })
  }

  #write (bytes: Buffer): void {
    if (!this.isWritable) return
    this.#written += bytes.length
    this.response.write(unpooled(bytes))
  }
}

// All streams share these functions.

function close (this: MemberStream): void {
  const connection = this[kConnection]
  this[kConnection] = undefined
  connection?.hub.disconnected(connection, noCode, '')
}

function error (this: MemberStream, err: Error): void {
  this[kConnection]?.failed(err)
}

/** A stream of HTTP/2 that its peer has cancelled, without an error, while bytes wait for it never closes by itself. */
function aborted (this: ClosingStream): void {
  setImmediate(() => { this.destroy() })
}

/** The responses of one connection that wait for an earlier one. They are not told that it closes. */
type Waiting = Socket & { [kWaiting]?: Set<StreamedResponse> }

function closeWaiting (this: Waiting): void {
  for (const response of this[kWaiting]!) close.call(response)
}

/** Ends the member of a response when its connection closes. One listener serves all responses of the connection. */
function endWith (socket: Waiting, response: StreamedResponse): void {
  if (socket[kWaiting] === undefined) {
    socket[kWaiting] = new Set()
    socket.on('close', closeWaiting)
  }
  const waiting = socket[kWaiting]
  waiting.add(response)
  response.on('close', () => { waiting.delete(response) })
}

/**
 * Makes a member's transport of a response that has no head yet.
 * @param socket - of the request
 * @param isChunked - the request is one of HTTP/1.1
 */
export function eventStreamPeer (response: StreamedResponse, socket: Socket, isChunked: boolean): { transport: EventStream, listen (connection: Peer): void } {
  // The response has no socket while an earlier one of the same connection is not finished.
  const isDirect = isChunked && socket instanceof Socket && response.socket === socket
  const transport = isDirect ? new SocketEventStream(response, socket) : new ResponseEventStream(response, response.stream ?? socket)
  const stream: MemberStream = isDirect ? socket : response
  const listen = (connection: Peer): void => {
    stream[kConnection] = connection
    stream.on('close', close)
    stream.on('error', error)
    if (response.stream !== undefined) response.stream.once('aborted', aborted)
    else if (!isDirect) endWith(socket, response)
  }
  return { transport, listen }
}
