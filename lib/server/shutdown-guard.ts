import type { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2Session, Http2Stream } from 'node:http2'
import type { Server, Socket } from 'node:net'
import { Server as TlsServer, type TLSSocket } from 'node:tls'
import { FST_ROOMS_BODY_TIMEOUT } from '../errors.ts'
import { answerOn, showsAnswers, socketBelow, unsentOf } from '../internals.ts'

/** Milliseconds between two checks. */
const interval = 100
/** Least milliseconds without progress after which a peer counts as stalled, because a network may stall for less. */
const leastPatience = 1_000

type HttpServer = EventEmitter & Partial<Pick<Server, 'listening'>>
/** Bytes that a peer has taken, unsent bytes of the write in flight, and the number of checks since either changed. */
interface Progress { readonly written: number, readonly unsent: number, readonly checks: number }
/** The open requests of an HTTP/2 session, its socket, and the progress of its peer while the server closes, and responses wait or the session has ended. */
interface SessionState { readonly streams: Set<Http2Stream>, socket: Socket | undefined, progress: Progress | undefined }
type Answer = Pick<ServerResponse, 'headersSent'>

function nextProgress (last: Progress | undefined, written: number, unsent: number): Progress {
  return { written, unsent, checks: last?.written === written && last.unsent === unsent ? last.checks + 1 : 0 }
}

/**
 * Ends connections that would keep a closing http server open.
 *
 * When a server closes, Node.js stops its request timeouts. It closes connections that are idle after a request, but not those that have sent
 * no request, or a part of one; each of them would keep the server, and `app.close()`, open for ever. A peer that does not read its responses
 * would, too, because a response in flight keeps its connection open. The same holds for HTTP/2 sessions that their peers do not end, or whose
 * responses they do not read, even after the session has ended, because Node.js waits for the peer to close the connection; and for two minutes for connections that do not finish their TLS handshake. A request body may take any time
 * unless the host sets Fastify's `requestTimeout`; bodies of the plugin's routes have a timeout here.
 */
export class ShutdownGuard {
  /** Servers that may still have connections. */
  readonly #servers = new Set<HttpServer>()
  /** Whether responses in flight can be seen. If not, Node.js has to close the connections without one. */
  readonly #showsAnswers = showsAnswers()
  readonly #timeout: number
  /** Checks, not milliseconds, because a clock goes on while the process is blocked and cannot see progress. */
  readonly #patience: number
  /** HTTP/1 sockets, and the progress of their peers while the server closes and responses wait. */
  readonly #sockets = new Map<Socket, Progress | undefined>()
  /** TCP sockets whose TLS handshake is not finished. */
  readonly #handshakes = new Set<Socket>()
  readonly #sessions = new Map<Http2Session, SessionState>()
  /** The session that began last, until its socket is known: Node.js hands the socket to the listeners that follow its own. */
  #unpaired: SessionState | undefined
  /** Requests with an unfinished body, with their response and the deadline of the body. */
  readonly #bodies = new Map<IncomingMessage, { readonly answer: Answer, readonly deadline: number }>()
  readonly #onSocketClose: (this: Socket) => void
  #timer: NodeJS.Timeout | undefined
  #closing = false

  /**
   * @param timeout - milliseconds for a body
   * @param patience - milliseconds without progress after which a peer is disconnected while the server closes
   */
  constructor (server: HttpServer, timeout: number, patience: number) {
    const sockets = this.#sockets
    const handshakes = this.#handshakes
    this.#timeout = timeout
    this.#patience = Math.ceil(Math.max(patience, leastPatience) / interval)
    this.#onSocketClose = function () {
      sockets.delete(this)
      handshakes.delete(this)
    }
    this.addServer(server)
  }

  /** Guards one more server. */
  addServer (server: HttpServer): void {
    this.#servers.add(server)
    server.on('session', this.#onSession)
    if (server instanceof TlsServer) server.on('connection', this.#onTlsConnection).on('secureConnection', this.#onSecureConnection)
    else server.on('connection', 'updateSettings' in server ? this.#onHttp2Connection : this.#onConnection) // only an HTTP/2 server has `updateSettings`
  }

  /** Stops guarding a socket, because it has been upgraded. */
  removeSocket (socket: Socket): void {
    if (this.#sockets.delete(socket)) socket.removeListener('close', this.#onSocketClose)
  }

  /** Starts the timeout of a request body, or of its rest if the request has been answered already. */
  beginBody (request: IncomingMessage, answer: Answer): void {
    if (this.#bodies.has(request)) return
    this.#bodies.set(request, { answer, deadline: performance.now() + this.#timeout })
    this.#startTimer()
  }

  /** Stops the timeout of a request body. Most bodies end in the turn in which they begin. */
  endBody (request: IncomingMessage): void {
    this.#bodies.delete(request)
  }

  /** Call before the servers close. From then on connections without a response in flight are closed. */
  beginShutdown (): void {
    this.#closing = true
    this.#startTimer()
    for (const server of this.#servers) {
      if (server.listening === true) server.once('close', () => { this.#removeServer(server) })
      else this.#removeServer(server)
    }
  }

  readonly #onConnection = (socket: Socket): void => {
    this.#sockets.set(socket, undefined)
    socket.on('close', this.#onSocketClose)
  }

  readonly #onTlsConnection = (socket: Socket): void => {
    this.#handshakes.add(socket)
    socket.on('close', this.#onSocketClose)
  }

  readonly #onSecureConnection = (socket: TLSSocket): void => {
    const tcpSocket = socketBelow(socket)
    if (tcpSocket === undefined) this.#ignoreHandshakes()
    else {
      this.#handshakes.delete(tcpSocket)
      tcpSocket.removeListener('close', this.#onSocketClose)
    }
    if (socket.alpnProtocol === 'h2') this.#onHttp2Connection(socket)
    else this.#onConnection(socket)
  }

  readonly #onHttp2Connection = (socket: Socket): void => {
    if (this.#unpaired !== undefined) this.#unpaired.socket = socket
    this.#unpaired = undefined
  }

  /** Stops guarding handshakes, because finished ones cannot be told from unfinished ones. */
  #ignoreHandshakes (): void {
    for (const server of this.#servers) server.removeListener('connection', this.#onTlsConnection)
    this.#handshakes.clear()
  }

  readonly #onSession = (session: Http2Session): void => {
    const streams = new Set<Http2Stream>()
    this.#unpaired = { streams, socket: undefined, progress: undefined }
    this.#sessions.set(session, this.#unpaired)
    session.on('stream', (stream: Http2Stream) => {
      streams.add(stream)
      stream.once('close', () => { streams.delete(stream) })
    })
    session.once('close', () => { this.#sessions.delete(session) })
  }

  #removeServer (server: HttpServer): void {
    server.removeListener('session', this.#onSession)
    server.removeListener('connection', this.#onConnection)
    server.removeListener('connection', this.#onHttp2Connection)
    server.removeListener('connection', this.#onTlsConnection)
    server.removeListener('secureConnection', this.#onSecureConnection)
    this.#servers.delete(server)
    if (this.#servers.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #startTimer (): void {
    this.#timer ??= setInterval(() => { this.#check(performance.now()) }, interval).unref()
  }

  #check (now: number): void {
    for (const [request, { answer, deadline }] of this.#bodies) {
      if (deadline <= now && !request.complete) {
        this.#bodies.delete(request)
        // An error makes Fastify answer and close the connection, because it listens for one while it reads the body. The request is destroyed
        // instead if a hook reads in its place, so that nothing may listen, or if it has been answered (by handlerTimeout), because Fastify
        // would only log a second answer.
        if (request.listenerCount('error') > 0 && !answer.headersSent) request.emit('error', new FST_ROOMS_BODY_TIMEOUT(this.#timeout))
        else request.destroy()
      }
      // A request that was refused before its body was read ends without a call of `endBody`.
      if (request.complete || request.destroyed) this.#bodies.delete(request)
    }
    if (this.#closing) {
      for (const [socket, progress] of this.#sockets) if (this.#isFinished(socket, progress)) socket.destroy()
      for (const socket of this.#handshakes) socket.destroy()
      for (const [session, state] of this.#sessions) {
        session.close() // ends the session when its requests are answered
        if (session.destroyed) this.#endSocket(state)
        else if (this.#isStalled(session, state)) session.destroy()
      }
    } else if (this.#bodies.size === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
  }

  /** Whether a connection has no response in flight and its peer has taken all bytes, or its peer has stalled, even in the middle of a stream. */
  #isFinished (socket: Socket, last: Progress | undefined): boolean {
    const answer = answerOn(socket)
    if (socket.writableLength === 0) {
      if (answer === undefined && this.#showsAnswers) return true
      if (answer?.writableEnded !== true) {
        this.#sockets.set(socket, undefined)
        return false
      }
    }
    const progress = nextProgress(last, socket.bytesWritten - socket.writableLength, unsentOf(socket))
    this.#sockets.set(socket, progress)
    return progress.checks >= this.#patience
  }

  /** Destroys the socket of a session that has ended, if the peer neither closes it nor takes bytes. */
  #endSocket (state: SessionState): void {
    const { socket } = state
    if (socket === undefined) return
    state.progress = nextProgress(state.progress, socket.bytesWritten - socket.writableLength, unsentOf(socket))
    if (state.progress.checks >= this.#patience) socket.destroy()
  }

  /** Whether a peer has stalled on every stream of its session. A stream without buffered bytes is still being answered. */
  #isStalled (session: Http2Session, state: SessionState): boolean {
    const { streams, progress } = state
    const waits = streams.size > 0 && [...streams].every(({ bufferSize }) => bufferSize > 0)
    state.progress = waits ? nextProgress(progress, session.socket.bytesWritten, 0) : undefined
    return state.progress !== undefined && state.progress.checks >= this.#patience
  }
}
