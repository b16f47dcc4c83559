import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { kUpgradeGuard } from '../symbols.ts'

type Upgrade = (request: IncomingMessage, socket: Socket, head: Buffer) => void
type Guarded = EventEmitter & { [kUpgradeGuard]?: UpgradeGuard }

/**
 * Watches over the upgrades of one http server, for all hubs on it.
 *
 * @fastify/websocket leaves some refused upgrades open for ever: one whose URL does not parse, one that a hook refused before it
 * was registered, one to a route outside its scope. Here every upgrade that has not become a WebSocket in time is cut.
 */
export class UpgradeGuard {
  readonly #server: Guarded
  readonly #timeout: number
  /** Sockets that asked for an upgrade and have not got it. */
  readonly #pending = new Map<Socket, () => void>()
  #hubs = 0
  #route: EventEmitter | undefined

  /** The guard of a server, shared by its hubs; the first sets the time. @param timeout - milliseconds */
  static of (server: EventEmitter, timeout: number): UpgradeGuard {
    const guarded = server as Guarded
    guarded[kUpgradeGuard] ??= new UpgradeGuard(guarded, timeout)
    guarded[kUpgradeGuard].#hubs++
    return guarded[kUpgradeGuard]
  }

  private constructor (server: Guarded, timeout: number) {
    this.#server = server
    this.#timeout = timeout
    server.prependListener('upgrade', this.#watch)
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

  /** The socket has become a WebSocket, and is watched over by the heartbeat. */
  release (socket: Socket): void {
    this.#pending.get(socket)?.()
  }

  /** A hub has closed; with the last one nothing is left behind. */
  leave (): void {
    if (--this.#hubs > 0) return
    this.#server.removeListener('upgrade', this.#watch)
    this.#server.removeListener('upgrade', this.#forward)
    for (const [socket, forget] of this.#pending) {
      this.#cut(socket)
      forget()
    }
    delete this.#server[kUpgradeGuard]
  }

  readonly #watch: Upgrade = (request, socket) => {
    // Other protocols are not ours to time; a stream inside the process has no clock.
    if (request.headers.upgrade?.toLowerCase() !== 'websocket' || typeof socket.setTimeout !== 'function') return
    const forget = (): void => {
      this.#pending.delete(socket)
      clearTimeout(deadline)
      socket.removeListener('close', forget)
    }
    // Not the socket's own timer, which counts idle time alone: whoever goes on sending would put it off.
    const deadline = setTimeout(() => {
      this.#cut(socket)
      forget()
    }, this.#timeout).unref()
    this.#pending.set(socket, forget)
    socket.setTimeout(this.#timeout)
    socket.on('close', forget)
  }

  /** A socket that is not a WebSocket yet. ws sets the socket's own timer to 0 where it makes one, for a route of the host, say. */
  #cut (socket: Socket): void {
    if (socket.timeout !== 0) socket.destroy()
  }

  readonly #forward: Upgrade = (request, socket, head) => {
    const taken = Object.getOwnPropertySymbols(request).some(symbol => symbol.description === 'ws-socket')
    if (!taken) this.#route!.emit('upgrade', request, socket, head)
  }
}
