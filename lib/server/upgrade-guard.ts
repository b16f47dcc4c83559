import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { answerOn, isTakenUpgrade } from '../internals.ts'
import { kUpgradeGuard } from '../symbols.ts'
import { ShutdownGuard } from './shutdown-guard.ts'
import { UpgradePacer } from './upgrade-pacer.ts'

/** The `timeout` of a guarded socket. It marks the socket and starts no timer. */
const guardedTimeout = -1
/** Listeners for `upgrade` that the guard has on the server. */
const ownListeners = 2
/** The response to an upgrade that has no other listener. */
const unavailable = 'HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'
/** Checks within the time that an upgrade may take. */
const checksPerTimeout = 8

type Upgrade = (request: IncomingMessage, socket: Socket, head: Buffer) => void
/**
 * An unfinished upgrade, or a refused one whose peer has not closed the connection. `foreign`: to another protocol than WebSocket; `hasAnswer`: its response
 * exists; `answered`: its response was sent.
 */
interface Pending { readonly deadline: number, readonly foreign: boolean, hasAnswer: boolean, answered: boolean }
type GuardedServer = EventEmitter & { [kUpgradeGuard]?: UpgradeGuard }

function isForeign ({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() !== 'websocket'
}

/** Ends an upgrade that was answered with an HTTP response. */
function endAnswered (socket: Socket, pending: Pending): void {
  pending.answered = true
  socket.end()
  socket.resume() // discards further bytes, so that the end of the stream is read
}

function endOnceAnswered (socket: Socket, pending: Pending): void {
  if (pending.hasAnswer) return
  const answer = answerOn(socket)
  if (answer === undefined) return
  pending.hasAnswer = true
  answer.once('finish', () => { endAnswered(socket, pending) })
}

/** A listener for errors. Node.js removes its own before an upgrade, so that without this one a peer that resets its connection would end the process. */
function ignoreError (): void {}

/**
 * Ends unfinished upgrades of one http server, for all hubs on it.
 *
 * @fastify/websocket leaves some refused upgrades open for ever: those whose URL does not parse, those that a hook refused before it was
 * registered, and those to a route outside its scope. The guard ends upgrades that have been answered, and destroys those that have not become
 * a WebSocket in time. An upgrade to another protocol is left to the host, unless it has an HTTP response, which means that it was refused.
 * Upgrades without a listener are answered with 503, because the host's @fastify/websocket stops listening when the app begins to close.
 */
export class UpgradeGuard {
  /** Ends other connections that would keep this server open. */
  readonly shutdown: ShutdownGuard
  /** Milliseconds that an upgrade may take. */
  readonly timeout: number
  readonly #server: GuardedServer
  readonly #onTimeout: () => void
  /** Sockets with an unfinished upgrade. */
  readonly #pending = new Map<Socket, Pending>()
  readonly #otherServers = new WeakSet<EventEmitter>()
  /** Past deadlines of sockets that a check took for a WebSocket. They are kept because a hook of the host may have set the `timeout` of a socket whose upgrade is unfinished. */
  readonly #pastDeadlines = new WeakMap<Socket, number>()
  readonly #pacer = new UpgradePacer((request, socket, head) => { this.#emit(request, socket, head) })
  #timer: NodeJS.Timeout | undefined
  #hubs = 0
  #route: EventEmitter | undefined

  /**
   * Returns the guard of a server, which its hubs share. The parameters of the first hub apply.
   * @param timeout - milliseconds for an upgrade, and for a request body
   * @param patience - milliseconds without progress after which a peer is disconnected while the server closes
   * @param onTimeout - called for each upgrade that is destroyed without an answer
   */
  static of (server: EventEmitter, timeout: number, patience: number, onTimeout: () => void): UpgradeGuard {
    const guarded = server as GuardedServer
    guarded[kUpgradeGuard] ??= new UpgradeGuard(guarded, timeout, patience, onTimeout)
    guarded[kUpgradeGuard].#hubs++
    return guarded[kUpgradeGuard]
  }

  private constructor (server: GuardedServer, timeout: number, patience: number, onTimeout: () => void) {
    this.#server = server
    this.timeout = timeout
    this.#onTimeout = onTimeout
    this.shutdown = new ShutdownGuard(server, timeout, patience)
    server.prependListener('upgrade', this.#onUpgrade)
  }

  /**
   * Guards another server of the same app. Fastify forwards its upgrades to the first server. The first server closes earlier; upgrades after
   * that are answered here.
   */
  addServer (server: EventEmitter): void {
    if (this.#otherServers.has(server)) return
    this.#otherServers.add(server)
    this.shutdown.addServer(server)
    server.on('upgrade', (_request: IncomingMessage, socket: Socket) => {
      if (this.#server.listenerCount('upgrade') > 0) return
      socket.on('error', ignoreError)
      socket.end(unavailable)
      socket.resume()
    })
  }

  /**
   * Forwards upgrades to an emitter, unless another @fastify/websocket of this server handles them. The emitter of one hub is enough, because
   * its router finds the routes of all hubs. Call when all plugins are registered, so that the listener is the last one.
   */
  routeTo (emitter: EventEmitter): void {
    if (this.#route !== undefined) return
    this.#route = emitter
    this.#server.on('upgrade', this.#forward)
  }

  /**
   * Stops guarding a socket, because it has become a WebSocket and the heartbeat watches it from now on. Destroys the socket if its deadline
   * is past, and no check has found that yet.
   * @returns the time of the upgrade request, on the clock of `performance`; `undefined` if the socket was destroyed
   */
  upgraded (socket: Socket): number | undefined {
    const now = performance.now()
    const known = this.#pending.get(socket)?.deadline ?? this.#pastDeadlines.get(socket)
    if (known !== undefined) {
      this.#pending.delete(socket)
      socket.removeListener('error', ignoreError) // ws has a listener now
    }
    const deadline = known ?? now + this.timeout
    if (deadline > now) return deadline - this.timeout
    socket.destroy()
    this.#onTimeout()
    return undefined
  }

  /** Removes a hub that closes. The last one ends all unfinished upgrades and removes the listeners. */
  removeHub (): void {
    if (--this.#hubs > 0) return
    this.#server.removeListener('upgrade', this.#onUpgrade)
    this.#server.removeListener('upgrade', this.#forward)
    this.#endBefore(Infinity)
    this.#pacer.clear()
    this.shutdown.beginShutdown()
    delete this.#server[kUpgradeGuard]
  }

  readonly #onUpgrade: Upgrade = (request, socket) => {
    this.shutdown.removeSocket(socket)
    // Streams of injected clients have no timeouts.
    if (typeof socket.setTimeout !== 'function') return
    socket.on('error', ignoreError)
    const foreign = isForeign(request)
    // A deadline and not the socket's own timer, because that counts idle time only, and a peer that goes on sending would reset it.
    const pending: Pending = { deadline: performance.now() + this.timeout, foreign, hasAnswer: false, answered: false }
    this.#pending.set(socket, pending)
    if (!foreign) (socket as { timeout?: number }).timeout = guardedTimeout
    this.#timer ??= setInterval(() => { this.#endBefore(performance.now()) }, this.timeout / checksPerTimeout).unref()
    if (this.#server.listenerCount('upgrade') > 1) {
      // In the next tick, when the listeners after this one have made their response.
      process.nextTick(endOnceAnswered, socket, pending)
    } else {
      socket.write(unavailable)
      endAnswered(socket, pending)
    }
  }

  #endBefore (now: number): void {
    for (const [socket, { deadline, foreign, answered }] of this.#pending) {
      // ws sets the socket's own `timeout` to 0 when it becomes a WebSocket, for example on a route of the host.
      const unfinished = answered || (foreign ? answerOn(socket) !== undefined : socket.timeout === guardedTimeout)
      if (deadline <= now && unfinished && !socket.destroyed) {
        socket.destroy()
        if (!answered) this.#onTimeout()
      }
      if (deadline > now && !socket.destroyed) continue
      this.#pending.delete(socket)
      if (!unfinished) this.#pastDeadlines.set(socket, deadline)
    }
    if (this.#pending.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  readonly #forward: Upgrade = (request, socket, head) => {
    // Upgrades that another @fastify/websocket handles, and those to another protocol if the server has other listeners, are left to them,
    // because two responses would be mixed up.
    const shared = this.#server.listenerCount('upgrade') > ownListeners
    if (shared && (isForeign(request) || isTakenUpgrade(request))) return
    this.#pacer.add(request, socket, head)
  }

  #emit (request: IncomingMessage, socket: Socket, head: Buffer): void {
    try {
      this.#route!.emit('upgrade', request, socket, head)
      const pending = this.#pending.get(socket)
      if (pending !== undefined) process.nextTick(endOnceAnswered, socket, pending)
    } catch {
      // Thrown for example if a logger of the host cannot log an upgrade that follows a request still being answered.
      socket.destroy()
    }
  }
}
