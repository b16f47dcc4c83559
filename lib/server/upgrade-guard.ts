import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { answerOn, isTakenUpgrade } from '../internals.ts'
import { kUpgradeGuard } from '../symbols.ts'
import { Stragglers } from './shutdown-guard.ts'

/** What stands as the time-out of a socket that is watched; no timer goes with it. */
const unset = -1
/** Listeners that the guard itself has on the server. */
const own = 2
/** What is said where nobody else would say anything. */
const unavailable = 'HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'
/** Looks within the time that an upgrade may take. */
const sweeps = 8

type Upgrade = (request: IncomingMessage, socket: Socket, head: Buffer) => void
/** An upgrade that goes on, or that was refused and whose peer has not gone. */
interface Pending { readonly deadline: number, readonly foreign: boolean, answered: boolean }
type Guarded = EventEmitter & { [kUpgradeGuard]?: UpgradeGuard }

function isForeign ({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() !== 'websocket'
}

/** Node.js takes its own listener away before an upgrade. Without another one, a peer that resets its connection ends the process. */
function ignore (): void {}

/**
 * Watches over the upgrades of one http server, for all hubs on it.
 *
 * @fastify/websocket leaves some refused upgrades open for ever: one whose URL does not parse, one that a hook refused before it
 * was registered, one to a route outside its scope. Here one that was answered is ended, and every upgrade that has not become a
 * WebSocket in time is cut; of one to another protocol it is the host's to say when it is over, but where nobody has taken it, it
 * was refused. And one that nobody listens for is answered: the host's own @fastify/websocket stops to when the app begins to close.
 */
export class UpgradeGuard {
  /** Who else would hold this server up. */
  readonly stragglers: Stragglers
  /** Milliseconds that an upgrade may take. */
  readonly timeout: number
  readonly #server: Guarded
  readonly #cut: () => void
  /** Sockets that asked for an upgrade and have not got it, and until when they may. */
  readonly #pending = new Map<Socket, Pending>()
  readonly #others = new WeakSet<EventEmitter>()
  /** Until when each socket may become a WebSocket, also after a look has taken it for one: a hook of the host may set its time-out. */
  readonly #deadlines = new WeakMap<Socket, number>()
  #timer: NodeJS.Timeout | undefined
  #hubs = 0
  #route: EventEmitter | undefined

  /** The guard of a server, shared by its hubs; the first sets the times, and counts. @param timeout - milliseconds; patience - those of a closing server with a peer that takes nothing; cut - called for each that is cut without an answer */
  static of (server: EventEmitter, timeout: number, patience: number, cut: () => void): UpgradeGuard {
    const guarded = server as Guarded
    guarded[kUpgradeGuard] ??= new UpgradeGuard(guarded, timeout, patience, cut)
    guarded[kUpgradeGuard].#hubs++
    return guarded[kUpgradeGuard]
  }

  private constructor (server: Guarded, timeout: number, patience: number, cut: () => void) {
    this.#server = server
    this.timeout = timeout
    this.#cut = cut
    this.stragglers = new Stragglers(server, timeout, patience)
    server.prependListener('upgrade', this.#watch)
  }

  /**
   * Watches over another server of the same app. It hands its upgrades to the first one, until it closes, which is after that. Those that
   * come in between are answered here.
   */
  join (server: EventEmitter): void {
    if (this.#others.has(server)) return
    this.#others.add(server)
    this.stragglers.watch(server)
    server.on('upgrade', (_request: IncomingMessage, socket: Socket) => {
      if (this.#server.listenerCount('upgrade') > 0) return
      socket.on('error', ignore)
      socket.end(unavailable)
      socket.resume()
    })
  }

  /**
   * Upgrades go to this emitter, unless another @fastify/websocket of this server has taken them. One emitter is enough for all
   * hubs: whichever routes a request, it finds the right handler. To be called when no more plugins can come, to be the last.
   */
  routeTo (emitter: EventEmitter): void {
    if (this.#route !== undefined) return
    this.#route = emitter
    this.#server.on('upgrade', this.#forward)
  }

  /**
   * The socket has become a WebSocket, and is watched over by the heartbeat. Returns when it asked for that, on the clock of
   * `performance`; `undefined` where that was too long ago, though no look has found it yet: then it is cut.
   */
  release (socket: Socket): number | undefined {
    const now = performance.now()
    const deadline = this.#deadlines.get(socket) ?? now + this.timeout
    this.#pending.delete(socket)
    if (this.#deadlines.delete(socket)) socket.removeListener('error', ignore) // ws listens now
    if (deadline > now) return deadline - this.timeout
    socket.destroy()
    this.#cut()
    return undefined
  }

  /** A hub has closed; with the last one nothing is left behind. */
  leave (): void {
    if (--this.#hubs > 0) return
    this.#server.removeListener('upgrade', this.#watch)
    this.#server.removeListener('upgrade', this.#forward)
    this.#cutBefore(Infinity)
    this.stragglers.close()
    delete this.#server[kUpgradeGuard]
  }

  readonly #watch: Upgrade = (request, socket) => {
    this.stragglers.forget(socket)
    // A stream inside the process has no clock.
    if (typeof socket.setTimeout !== 'function') return
    socket.on('error', ignore)
    const foreign = isForeign(request)
    // Not the socket's own timer, which counts idle time alone: whoever goes on sending would put it off.
    const pending: Pending = { deadline: performance.now() + this.timeout, foreign, answered: false }
    this.#pending.set(socket, pending)
    this.#deadlines.set(socket, pending.deadline)
    if (!foreign) (socket as { timeout?: number }).timeout = unset
    this.#timer ??= setInterval(() => { this.#cutBefore(performance.now()) }, this.timeout / sweeps).unref()
    const answered = (): void => {
      pending.answered = true
      socket.end()
      socket.resume() // what comes after it is nothing, and its end has to be read
    }
    if (this.#server.listenerCount('upgrade') > 1) {
      // Once those who listen after us have made their answer.
      process.nextTick(() => { answerOn(socket)?.once('finish', answered) })
    } else {
      socket.write(unavailable)
      answered()
    }
  }

  #cutBefore (now: number): void {
    for (const [socket, { deadline, foreign, answered }] of this.#pending) {
      // ws sets the socket's own time-out to 0 where it makes a WebSocket of it, for a route of the host, say.
      const unfinished = answered || (foreign ? answerOn(socket) !== undefined : socket.timeout === unset)
      if (deadline <= now && unfinished && !socket.destroyed) {
        socket.destroy()
        if (!answered) this.#cut()
      }
      if (deadline <= now || socket.destroyed) this.#pending.delete(socket)
    }
    if (this.#pending.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  readonly #forward: Upgrade = (request, socket, head) => {
    // Two that answer would write into each other: what another @fastify/websocket has taken, and another protocol where somebody
    // listens besides us, is theirs.
    const shared = this.#server.listenerCount('upgrade') > own
    if (shared && (isForeign(request) || isTakenUpgrade(request))) return
    try {
      this.#route!.emit('upgrade', request, socket, head)
    } catch {
      // An upgrade behind a request that is still being answered, say, which a logger of the host cannot write.
      socket.destroy()
    }
  }
}
