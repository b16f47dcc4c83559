import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

/** The direction of bytes: to the server, or to the node. */
export type Direction = 'up' | 'down'

/** One direction of a connection. Bytes leave in their order, each after its delay. */
class Pipe {
  readonly direction: Direction
  readonly from: Socket
  readonly to: Socket
  readonly #proxy: NetworkProxy
  readonly #queue: { readonly chunk: Buffer, readonly due: number }[] = []
  #timer: NodeJS.Timeout | undefined

  constructor (proxy: NetworkProxy, direction: Direction, from: Socket, to: Socket) {
    this.#proxy = proxy
    this.direction = direction
    this.from = from
    this.to = to
    from.on('data', (chunk: Buffer) => { this.#take(chunk) })
    from.on('error', () => {})
    from.on('close', () => {
      clearTimeout(this.#timer)
      proxy.pipes.delete(this)
      // A black hole lets no end of a connection through, either.
      if (!proxy.holds(direction)) to.destroy()
    })
    if (proxy.holds(direction)) from.pause()
  }

  #take (chunk: Buffer): void {
    const { delay } = this.#proxy
    const left = this.#proxy.cutsAfter
    if (this.direction === 'down' && left !== undefined) {
      this.#proxy.cutsAfter = left - chunk.length
      if (chunk.length >= left) {
        this.#proxy.cutsAfter = undefined
        this.to.write(chunk.subarray(0, left))
        this.to.end()
        this.from.destroy()
        return
      }
    }
    if (delay === 0 && this.#queue.length === 0) {
      this.to.write(chunk)
      return
    }
    this.#queue.push({ chunk, due: performance.now() + delay })
    this.#timer ??= setTimeout(this.#send, delay)
  }

  readonly #send = (): void => {
    this.#timer = undefined
    const now = performance.now()
    while (this.#queue.length > 0 && this.#queue[0]!.due <= now + 1) this.to.write(this.#queue.shift()!.chunk)
    if (this.#queue.length > 0) this.#timer = setTimeout(this.#send, this.#queue[0]!.due - now)
  }
}

/** The network between one node and its broker: a TCP proxy that cuts, refuses, delays, and falls silent. */
export class NetworkProxy {
  readonly pipes = new Set<Pipe>()
  /** Milliseconds for each chunk, in both directions. */
  delay = 0
  /** Bytes to nodes until a connection is cut, wherever in a message that is; `undefined`: it is not. */
  cutsAfter: number | undefined
  port = 0
  /** The port of the server on this machine; a change is for new connections. */
  target: number
  readonly #held = new Set<Direction>()
  #server: Server | undefined

  constructor (target: number) {
    this.target = target
  }

  /** Listens: on the port that it had before, if there was one. */
  async start (): Promise<void> {
    const server = this.#server = createServer(near => {
      const far = connect(this.target, '127.0.0.1')
      near.unref()
      far.unref()
      this.pipes.add(new Pipe(this, 'up', near, far))
      this.pipes.add(new Pipe(this, 'down', far, near))
    })
    server.unref()
    server.listen(this.port, '127.0.0.1')
    await once(server, 'listening')
    this.port = (server.address() as AddressInfo).port
  }

  holds (direction: Direction): boolean { return this.#held.has(direction) }

  /** Ends all connections. @param how - `fin`: in order; `rst`: at once, whatever is on its way */
  cut (how: 'fin' | 'rst'): void {
    for (const { from } of [...this.pipes]) {
      // A reset of a socket that is about to end fails, leaves it open, and keeps the process from ending (libuv: UV_EINVAL).
      if (how === 'rst' && !from.writableEnded) from.resetAndDestroy()
      else from.destroy()
    }
  }

  /** Refuses new connections, until `start`. */
  async refuse (): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    this.#server = undefined
    const closed = once(server, 'close')
    server.close()
    this.cut('rst')
    await closed
  }

  /** Lets no byte through in these directions. They wait where they are, and connections stay open. */
  hold (...directions: Direction[]): void {
    for (const direction of directions) this.#held.add(direction)
    for (const { direction, from } of this.pipes) if (this.holds(direction)) from.pause()
  }

  /** Lets bytes through again, those that have waited first. */
  release (): void {
    this.#held.clear()
    for (const { from, to } of this.pipes) {
      // The end of a connection was held, too.
      if (to.destroyed) from.destroy()
      else from.resume()
    }
  }

  /** Makes the network whole. */
  async heal (): Promise<void> {
    this.delay = 0
    this.cutsAfter = undefined
    this.release()
    if (this.#server === undefined) await this.start()
  }

  close (): void {
    this.release()
    this.cut('rst')
    this.#server?.close()
  }
}
