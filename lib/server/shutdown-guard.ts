import type { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2Session, Http2Stream } from 'node:http2'
import type { Server, Socket } from 'node:net'
import { Server as TlsServer, type TLSSocket } from 'node:tls'
import { FST_ROOMS_BODY_TIMEOUT } from '../errors.ts'
import { answerOn, showsAnswers, socketBelow, unsentOf } from '../internals.ts'

/** Milliseconds between two looks. */
const every = 100
/** Milliseconds without a byte taken before a peer has stopped, at least: a network may stall for less. */
const leastPatience = 1_000

type HttpServer = EventEmitter & Partial<Pick<Server, 'listening'>>
/** Bytes of its answers that a peer had taken, those that were left of a write under way, and for how many looks that has not changed. */
interface Taken { readonly written: number, readonly unsent: number, readonly looks: number }
/** The requests on a session of HTTP/2 that go on, and what its peer has taken where answers wait for it while the server closes. */
interface Multiplexed { readonly streams: Set<Http2Stream>, taken: Taken | undefined }
/** Whether it is out is all that is asked of it. */
type Answer = Pick<ServerResponse, 'headersSent'>

/** What a look finds after another. */
function next (taken: Taken | undefined, written: number, unsent: number): Taken {
  return { written, unsent, looks: taken?.written === written && taken.unsent === unsent ? taken.looks + 1 : 0 }
}

/**
 * Peers that would hold up the closing of an http server for as long as they like.
 *
 * Node.js stops to time requests when its server closes, and closes then connections that are idle after a request, but none that
 * has not sent one, or only half of it: each of those would keep the server, and `app.close()`, open for ever. So would one that asks
 * and does not read the answers: what it has not taken of them counts as an answer under way. So would sessions of
 * HTTP/2 that their peers do not end, or whose answers they do not read, and for two minutes connections that never finish their TLS handshake. And a body may take any
 * time unless the host sets Fastify's `requestTimeout`; those of our routes are cut in ours.
 */
export class Stragglers {
  /** Servers that may still have connections. */
  readonly #servers = new Set<HttpServer>()
  /** If not, a connection on which nothing is being answered is left to Node.js. */
  readonly #showsAnswers = showsAnswers()
  readonly #timeout: number
  /** Looks; a clock would go on while this process stands still, and cannot hear of what was taken. */
  readonly #patience: number
  /** Of HTTP/1; what their peers have taken, where answers wait for them while the server closes. */
  readonly #sockets = new Map<Socket, Taken | undefined>()
  /** Those on which TLS has not begun to speak. */
  readonly #handshakes = new Set<Socket>()
  readonly #sessions = new Map<Http2Session, Multiplexed>()
  /** Requests whose body has not ended, their answers, and until when it may. */
  readonly #bodies = new Map<IncomingMessage, { readonly answer: Answer, readonly deadline: number }>()
  readonly #gone: (this: Socket) => void
  #timer: NodeJS.Timeout | undefined
  #closing = false

  /** @param timeout - milliseconds for a body; patience - those for a peer to take some of its answers, once the server closes */
  constructor (server: HttpServer, timeout: number, patience: number) {
    const sockets = this.#sockets
    const handshakes = this.#handshakes
    this.#timeout = timeout
    this.#patience = Math.ceil(Math.max(patience, leastPatience) / every)
    this.#gone = function () {
      sockets.delete(this)
      handshakes.delete(this)
    }
    this.watch(server)
  }

  /** Watches over one more server. */
  watch (server: HttpServer): void {
    this.#servers.add(server)
    server.on('session', this.#began)
    if (server instanceof TlsServer) server.on('connection', this.#dialled).on('secureConnection', this.#secured)
    else if (!('updateSettings' in server)) server.on('connection', this.#connected) // which an HTTP/2 server has, and no other
  }

  /** It has become something else than a connection of requests. */
  forget (socket: Socket): void {
    if (this.#sockets.delete(socket)) socket.removeListener('close', this.#gone)
  }

  /** The body of a request of ours begins, or goes on when there was an answer already. */
  begin (request: IncomingMessage, answer: Answer): void {
    if (this.#bodies.has(request)) return
    this.#bodies.set(request, { answer, deadline: performance.now() + this.#timeout })
    this.#watch()
  }

  /** It has ended, as most do within the turn. */
  end (request: IncomingMessage): void {
    this.#bodies.delete(request)
  }

  /** The servers are about to close: a connection on which nothing is being answered has no more to wait for. */
  close (): void {
    this.#closing = true
    this.#watch()
    for (const server of this.#servers) {
      if (server.listening === true) server.once('close', () => { this.#stop(server) })
      else this.#stop(server)
    }
  }

  readonly #connected = (socket: Socket): void => {
    this.#sockets.set(socket, undefined)
    socket.on('close', this.#gone)
  }

  readonly #dialled = (socket: Socket): void => {
    this.#handshakes.add(socket)
    socket.on('close', this.#gone)
  }

  readonly #secured = (socket: TLSSocket): void => {
    const below = socketBelow(socket)
    if (below === undefined) this.#ignoreHandshakes()
    else {
      this.#handshakes.delete(below)
      below.removeListener('close', this.#gone)
    }
    if (socket.alpnProtocol !== 'h2') this.#connected(socket)
  }

  /** Handshakes that end are not told from those that do not: none is cut. */
  #ignoreHandshakes (): void {
    for (const server of this.#servers) server.removeListener('connection', this.#dialled)
    this.#handshakes.clear()
  }

  readonly #began = (session: Http2Session): void => {
    const streams = new Set<Http2Stream>()
    this.#sessions.set(session, { streams, taken: undefined })
    session.on('stream', (stream: Http2Stream) => {
      streams.add(stream)
      stream.once('close', () => { streams.delete(stream) })
    })
    session.once('close', () => { this.#sessions.delete(session) })
  }

  #stop (server: HttpServer): void {
    server.removeListener('session', this.#began)
    server.removeListener('connection', this.#connected)
    server.removeListener('connection', this.#dialled)
    server.removeListener('secureConnection', this.#secured)
    this.#servers.delete(server)
    if (this.#servers.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #watch (): void {
    this.#timer ??= setInterval(() => { this.#look(performance.now()) }, every).unref()
  }

  #look (now: number): void {
    for (const [request, { answer, deadline }] of this.#bodies) {
      if (deadline <= now && !request.complete) {
        this.#bodies.delete(request)
        // Fastify listens while it reads, answers, and closes the connection. Where a hook reads in its place nobody may be left to
        // answer, and where its handlerTimeout has, another answer would be a line in the log and no more.
        if (request.listenerCount('error') > 0 && !answer.headersSent) request.emit('error', new FST_ROOMS_BODY_TIMEOUT(this.#timeout))
        else request.destroy()
      }
      // What was refused before it was read ends without a word to us.
      if (request.complete || request.destroyed) this.#bodies.delete(request)
    }
    if (this.#closing) {
      for (const [socket, taken] of this.#sockets) if (this.#isOver(socket, taken)) socket.destroy()
      for (const socket of this.#handshakes) socket.destroy()
      for (const [session, multiplexed] of this.#sessions) {
        session.close() // once its requests are answered
        if (this.#isStuck(session, multiplexed)) session.destroy()
      }
    } else if (this.#bodies.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
  }

  /** Whether nothing is being answered and the peer has all its answers, or it has stopped to take what waits for it, a stream included. */
  #isOver (socket: Socket, taken: Taken | undefined): boolean {
    const answer = answerOn(socket)
    if (socket.writableLength === 0) {
      if (answer === undefined && this.#showsAnswers) return true
      if (answer?.writableEnded !== true) {
        this.#sockets.set(socket, undefined)
        return false
      }
    }
    const now = next(taken, socket.bytesWritten - socket.writableLength, unsentOf(socket))
    this.#sockets.set(socket, now)
    return now.looks >= this.#patience
  }

  /** Whether its peer has stopped to take what waits for it on every stream. A stream on which nothing waits is still being answered. */
  #isStuck (session: Http2Session, multiplexed: Multiplexed): boolean {
    const { streams, taken } = multiplexed
    const waits = !session.destroyed && streams.size > 0 && [...streams].every(({ bufferSize }) => bufferSize > 0)
    multiplexed.taken = waits ? next(taken, session.socket.bytesWritten, 0) : undefined
    return multiplexed.taken !== undefined && multiplexed.taken.looks >= this.#patience
  }
}
