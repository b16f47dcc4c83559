// Every private member of ws, @fastify/websocket, Node.js, pino, Fastify, node-redis and NATS that lib touches. No other file of lib names one of them:
// docs/internals.md has a row for each, with the reason and the fallback, and test/internals.test.ts holds the three together.

import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { Writable, type Duplex } from 'node:stream'

export type Done = (error?: Error) => void

/** The members of a WebSocket of ws that are read. */
interface WebSocketInside {
  readonly _receiver?: unknown
  readonly _socket?: unknown
  readonly _extensions?: { 'permessage-deflate'?: { params?: DeflateParameters | null } }
}

/** RFC 7692 7.1. Absent bits are the full window of 15. */
export interface DeflateParameters { server_no_context_takeover?: boolean, server_max_window_bits?: number }

/** The receiver of a WebSocket of ws: a Writable that parses frames. */
export interface Receiver {
  readonly errored: Error | null
  readonly writableEnded: boolean
  readonly writable: boolean
  readonly writableLength: number
  readonly writableCorked: number
  write (chunk: Buffer): boolean
  cork (): void
  uncork (): void
  end (): void
  listenerCount (event: string): number
  emit (event: string, ...args: unknown[]): boolean
  on (event: string, listener: (this: any, ...args: any[]) => void): unknown
  _write (chunk: Buffer, encoding: BufferEncoding, done: Done): void
  /** The most bytes of a message; 0: no bound. */
  _maxPayload?: number
  readonly _extensions?: { 'permessage-deflate'?: { _maxPayload?: number } }
  readonly _allowSynchronousEvents?: boolean
  readonly _skipUTF8Validation?: boolean
  readonly _isServer?: boolean
  /** Inflates the payload of one frame, and then parses what follows. */
  decompress? (data: Buffer, done: Done): void
}

/** The part of a receiver that holds a message which has not ended. */
export interface Holder {
  /** Chunks that have been read, and belong to a frame that has not ended. */
  readonly _buffers: Buffer[]
  readonly _bufferedBytes: number
  /** Payloads of the frames of a message that has not ended. */
  readonly _fragments: Buffer[]
  /** Their bytes. */
  readonly _messageLength: number
  /** The opcode of a message that has not ended; 0 between messages. */
  readonly _fragmented: number
  /** 0 between frames. */
  readonly _state: number
}

/** Returns the receiver of a WebSocket; `undefined` if it has none, or one that is not a stream. */
export function receiverOf (socket: object): Receiver | undefined {
  const { _receiver } = socket as WebSocketInside
  return _receiver instanceof Writable ? _receiver as Writable & Receiver : undefined
}

/** Calls the listener when the peer's close frame has come. Its code is 1005 if the frame has none. */
export function onConclude<T extends Receiver> (receiver: T, listener: (this: T, code: number, reason: Buffer) => void): void {
  receiver.on('conclude', listener)
}

/** Hands a message of text on, as the parser of ws does. */
export function emitText (receiver: Receiver, text: Buffer): void {
  receiver.emit('message', text, false)
}

/** Returns the stream below a WebSocket. */
export function streamOf (socket: object): (Duplex & { readonly bytesRead?: number }) | undefined {
  return (socket as WebSocketInside)._socket as Duplex | undefined
}

/** Returns what was negotiated for permessage-deflate. */
export function deflateParameters (socket: object): DeflateParameters {
  return (socket as WebSocketInside)._extensions?.['permessage-deflate']?.params ?? {}
}

/** Puts a function in front of the parser of a receiver. Only this receiver is changed. */
export function interceptChunks (receiver: Receiver, write: (this: Receiver & Holder, chunk: Buffer, encoding: BufferEncoding, done: Done) => void): void {
  receiver._write = write as Receiver['_write']
}

/** Hands a chunk to the parser of ws. */
export function parseChunk (receiver: Receiver, chunk: Buffer, encoding: BufferEncoding, done: Done): void {
  (Object.getPrototypeOf(receiver) as Receiver)._write.call(receiver, chunk, encoding, done)
}

/** Returns the function that inflates; `undefined` if this receiver has none. */
export function inflaterOf ({ decompress }: Receiver): Receiver['decompress'] {
  return typeof decompress === 'function' ? decompress : undefined
}

export function setInflater (receiver: Receiver, inflate: (this: Receiver, data: Buffer, done: Done) => void): void {
  receiver.decompress = inflate
}

/** Lowers the most bytes that a message may have, compressed or inflated. */
export function lowerMaxPayload (receiver: Receiver, bytes: number): void {
  for (const bounded of [receiver, receiver._extensions?.['permessage-deflate']]) {
    if (bounded?._maxPayload === undefined) continue
    bounded._maxPayload = bounded._maxPayload > 0 ? Math.min(bounded._maxPayload, bytes) : bytes
  }
}

/** Whether a receiver has the members of the receiver of ws 8. */
export function isHolder (receiver: object): receiver is Holder {
  const { _buffers, _fragments, _bufferedBytes, _messageLength, _fragmented, _state } = receiver as Partial<Holder>
  return Array.isArray(_buffers) && Array.isArray(_fragments) && [_bufferedBytes, _messageLength, _fragmented, _state].every(Number.isInteger)
}

/** Whether a receiver of a server checks UTF-8, bounds messages, and emits each in the turn in which it was read, to a listener. */
export function isSynchronous (receiver: Receiver): boolean {
  const { _allowSynchronousEvents, _skipUTF8Validation, _isServer, _maxPayload } = receiver
  const isPlain = _allowSynchronousEvents === true && _skipUTF8Validation === false && _isServer === true
  return isPlain && Number.isInteger(_maxPayload) && receiver.listenerCount('message') > 0
}

export function maxPayloadOf (receiver: Receiver): number { return receiver._maxPayload! }
export function chunksOf (holder: Holder): Buffer[] { return holder._buffers }
export function chunkBytesOf (holder: Holder): number { return holder._bufferedBytes }
export function fragmentsOf (holder: Holder): Buffer[] { return holder._fragments }
export function fragmentBytesOf (holder: Holder): number { return holder._messageLength }
/** Whether a message has begun and not ended. */
export function isWithinMessage (holder: Holder): boolean { return holder._fragmented !== 0 }
/** Whether a frame of any kind has begun and not ended. */
export function isWithinFrame (holder: Holder): boolean { return holder._bufferedBytes > 0 || holder._state !== 0 }

type Handled = Socket & { _handle?: { writeQueueSize?: number } | null }
type Layered = Socket & { _parent?: Socket | null }
/** `_httpMessage` is the answer that a connection waits for: from the end of a request's head to the end of its answer. */
type Answering = Duplex & { _httpMessage?: Answer | null }
type Answer = ServerResponse & { detachSocket? (stream: object): void }

/** Returns the socket that TLS is spoken over. */
export function socketBelow (socket: Socket): Socket | undefined {
  return (socket as Layered)._parent ?? undefined
}

/** Returns the bytes of a write under way that the operating system has not taken. Under TLS the socket below knows. */
export function unsentOf (socket: Socket): number {
  return ((socketBelow(socket) ?? socket) as Handled)._handle?.writeQueueSize ?? 0
}

/** Returns the answer that a connection waits for. */
export function answerOn (stream: Duplex): ServerResponse | undefined {
  return (stream as Answering)._httpMessage ?? undefined
}

/** Frees the answer that a connection waits for, and that will never be written. */
export function detachAnswer (stream: Duplex): void {
  (stream as Answering)._httpMessage?.detachSocket?.(stream)
}

/** The answer that stands on all connections whose own was replaced. It is never sent. */
const standIn = new ServerResponse(new IncomingMessage(new Socket()))

/**
 * Replaces the answer on its connection, so that request and answer need not live as long as the connection, of which the caller writes all further bytes. Node.js
 * goes on to hold back the answers to further requests. Does nothing if the connection does not show the answer.
 */
export function replaceAnswer (stream: Duplex, answer: Answer): void {
  if (answerOn(stream) !== answer || typeof answer.detachSocket !== 'function') return
  answer.detachSocket(stream);
  (stream as Answering)._httpMessage = standIn
}

/** Call this when the last byte of an answer that was replaced is written: the connection waits for no answer any more. */
export function endAnswer (stream: Duplex): void {
  if (answerOn(stream) === standIn) (stream as Answering)._httpMessage = null
}

/** The parser of a connection's requests. */
interface RequestParser {
  socket: unknown
  incoming: unknown
  outgoing: unknown
  onIncoming: unknown
  /** Takes no more bytes from the connection's handle. */
  unconsume (): void
  /** Leaves the server's list of connections. */
  remove (): void
  /** Frees the memory outside the heap. */
  close (): void
}

/** The listeners of Node.js that hand a connection's bytes, and their end, to its parser. */
const parserListeners = { data: 'bound socketOnData', end: 'bound socketOnEnd' } as const

function isParser (parser: unknown): parser is RequestParser {
  return typeof parser === 'object' && parser !== null && (['unconsume', 'remove', 'close'] as const).every(method => typeof (parser as Partial<RequestParser>)[method] === 'function')
}

/**
 * Frees the parser of a connection that brings no further request, 2.8 kB outside the heap. Its further bytes are discarded, and it ends when its peer has ended it.
 * Call this from a turn of its own, because the parser must not be running. Does nothing if the parser, or how it gets its bytes, is not known.
 */
export function freeParser (socket: Socket): void {
  const holder = socket as Socket & { parser?: unknown }
  const { parser } = holder
  if (!isParser(parser) || socket.destroyed) return
  const listeners = Object.entries(parserListeners).map(([event, name]) => ({ event, found: socket.listeners(event).filter(listener => listener.name === name) }))
  if (listeners.some(({ found }) => found.length !== 1)) return
  parser.unconsume()
  for (const { event, found } of listeners) socket.removeListener(event, found[0] as () => void)
  parser.remove()
  parser.socket = parser.incoming = parser.outgoing = parser.onIncoming = null
  holder.parser = null
  parser.close()
  socket.on('end', endToo)
  socket.resume()
}

function endToo (this: Socket): void { this.end() }

/** Whether `answerOn` can be relied on: tries it with an answer that belongs to no connection. */
export function showsAnswers (): boolean {
  const socket = new Socket()
  const answer: Answer = new ServerResponse(new IncomingMessage(socket))
  if (typeof answer.assignSocket !== 'function') return false
  answer.assignSocket(socket)
  const shown = answerOn(socket) === answer
  detachAnswer(socket)
  return shown
}

/** Returns what an object, or one that it inherits from, has under a symbol that its package does not export. */
function bySymbol (object: object, name: string): unknown {
  for (let at: object | null = object; at !== null; at = Object.getPrototypeOf(at) as object | null) {
    const symbol = Object.getOwnPropertySymbols(at).find(({ description }) => description === name)
    if (symbol !== undefined) return (at as Record<symbol, unknown>)[symbol]
  }
  return undefined
}

/** Returns the options that the host gave to Fastify. */
export function fastifyOptions (app: object): unknown {
  return bySymbol(app, 'fastify.options')
}

/** Returns the http servers of an app besides `app.server`. */
export function fastifyServers (root: object): unknown {
  return bySymbol(root, 'fastify.serverBindings')
}

/** Whether an @fastify/websocket answers this upgrade: it notes the socket on the request. */
export function isTakenUpgrade (request: IncomingMessage): boolean {
  return bySymbol(request, 'ws-socket') !== undefined
}

/** Returns the serializers of a logger of pino. */
export function pinoSerializers (log: object): unknown {
  return (log as Record<symbol, unknown>)[Symbol.for('pino.serializers')]
}

/** Returns the name under which a logger of pino writes the message of a line. */
export function pinoMessageKey (log: object): string | undefined {
  return bySymbol(log, 'pino.messageKey') as string | undefined
}

/** Returns the client of the primary that a connected Sentinel client of node-redis uses; `undefined` if this version has no way to reach it. */
export async function sentinelPrimary (sentinel: object): Promise<object | undefined> {
  const { _execute } = sentinel as { _execute?: (isReadonly: boolean, use: (client: object) => Promise<object>) => Promise<object> }
  return typeof _execute === 'function' ? _execute.call(sentinel, false, async client => client) : undefined
}

/** The part of a NATS connection that ends its socket. */
interface NatsInside {
  readonly protocol: { readonly transport: { readonly socket: { readonly writableEnded: boolean, resetAndDestroy (): void, destroy (): void } } }
}

/**
 * Ends the socket of a NATS connection at once, so that the client connects again. Its own `reconnect` waits until the socket has taken all that was written,
 * which never happens if the peer is gone and the buffers are full. The bytes that wait in the socket are dropped: they could arrive behind messages of the next
 * connection. A socket of TLS cannot be reset: it is destroyed, and the system may still send what it has taken.
 */
export function endNatsSocket (connection: object): void {
  try {
    const { protocol } = connection as NatsInside
    const socket = protocol.transport.socket
    try {
      // If the socket is ending, Node.js cannot reset it, and neither closes it nor ends its process: it spins in the clean-up of the handle.
      if (!socket.writableEnded) socket.resetAndDestroy()
    } finally {
      socket.destroy()
    }
  } catch {}
}
