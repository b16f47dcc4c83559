import { request as httpRequest, type IncomingMessage, type Server } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { WebSocket } from 'ws'
import type { FetchLike, FetchResponse, WebSocketClass } from '../../types/client.ts'
import { cutAfterBytes } from '../helpers/cut-socket.ts'

/** One end of a connection inside the process. What one end writes, the other reads. */
class End extends Duplex {
  readonly remoteAddress = '127.0.0.1'
  other!: End
  /** Bytes that may still be written before the connection is cut, as a network cuts it: in the middle of anything. */
  left = Infinity
  #next: (() => void) | undefined

  override _read (): void {
    const next = this.#next
    this.#next = undefined
    next?.()
  }

  /** The other end gets the bytes in a later turn, because a socket never answers while it is written to. */
  override _write (chunk: Buffer, _encoding: string, done: () => void): void {
    setImmediate(() => {
      const { other } = this
      const isCut = chunk.length > this.left
      const part = isCut ? chunk.subarray(0, this.left) : chunk
      this.left -= part.length
      const isFull = part.length > 0 && !other.destroyed && !other.push(part)
      if (isCut) this.cut()
      if (isFull) other.#next = done
      else done()
    })
  }

  override _final (done: () => void): void {
    if (!this.other.destroyed) this.other.push(null)
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    this._read()
    // The other end learns of it later, as over a network.
    setImmediate(() => { if (!this.other.destroyed) this.other.destroy() })
    done(error)
  }

  /** Cuts the connection. The other end may read what was written before. */
  cut (): void { setImmediate(() => { this.destroy() }) }

  setTimeout (): this { return this }
  setNoDelay (): this { return this }
  setKeepAlive (): this { return this }
  ref (): this { return this }
  unref (): this { return this }
}

/** The ways between the clients and the server, which may be cut at any byte, and at which there may be no server. */
export class Network {
  /** Absent: connections are refused. */
  server: Server | undefined
  /** Connections are cut after a random number of bytes. */
  isStormy = true
  readonly #ends = new Set<End>()
  readonly #random: () => number

  constructor (random: () => number) {
    this.#random = random
  }

  /** Bytes after which a connection is cut: few for most that are cut at all. */
  #limit (): number {
    return this.isStormy && this.#random() < 0.3 ? Math.floor(50 * 200 ** this.#random()) : Infinity
  }

  /** Cuts all connections inside the process, as the end of a server's process does. */
  cut (): void { for (const end of this.#ends) end.destroy() }

  /** Opens a connection. @param isTcp - through the loopback, not inside the process */
  connect (isTcp: boolean): Duplex {
    const { server } = this
    const limits = [this.#limit(), this.#limit()] as const
    if (isTcp && server !== undefined) return cutAfter(connect({ host: '127.0.0.1', port: (server.address() as AddressInfo).port }), ...limits)
    const near = new End()
    const far = new End()
    near.other = far
    far.other = near;
    [far.left, near.left] = limits
    far.on('error', () => {})
    if (server === undefined) setImmediate(() => { near.destroy(new Error('ECONNREFUSED')) })
    else {
      this.#ends.add(far)
      far.on('close', () => { this.#ends.delete(far) })
      setImmediate(() => {
        if (this.server === server) server.emit('connection', far)
        else far.destroy()
      })
    }
    return near
  }
}

/** Cuts a TCP connection after so many bytes have come, or have been written. */
function cutAfter (socket: Socket, incoming: number, outgoing: number): Socket {
  const { write } = socket
  cutAfterBytes(socket, incoming)
  let free = outgoing
  socket.write = function (this: Socket, chunk: Buffer | string, ...more: never[]): boolean {
    free -= chunk.length
    if (free < 0) this.destroy()
    return write.call(this, chunk, ...more)
  } as Socket['write']
  return socket
}

/** The network as one client sees it. */
export class Access {
  /** WebSockets do not come through; requests do. */
  isBlocked = false
  readonly WebSocket: WebSocketClass
  readonly #network: Network
  readonly #isTcp: boolean
  readonly #connections = new Set<Duplex>()

  constructor (network: Network, isTcp: boolean) {
    this.#network = network
    this.#isTcp = isTcp
    const createConnection = (): Duplex => {
      const connection = this.#connect()
      if (this.isBlocked) setImmediate(() => { connection.destroy(new Error('blocked')) })
      return connection
    }
    this.WebSocket = class extends WebSocket {
      constructor (url: string, protocols: string[]) {
        super(url, protocols, { createConnection: createConnection as never })
        this.on('error', () => {})
      }
    } as unknown as WebSocketClass
  }

  readonly fetch: FetchLike = (url, { method = 'GET', headers, body, signal }) => new Promise((resolve, reject) => {
    const { host, pathname, search } = new URL(url)
    const request = httpRequest({ host, path: pathname + search, method, headers: { ...headers, connection: 'close', ...body === undefined ? {} : { 'content-length': Buffer.byteLength(body) } }, createConnection: () => this.#connect() as Socket })
    const abort = (): void => { request.destroy(new Error('aborted')) }
    signal?.addEventListener('abort', abort, { once: true })
    request.on('error', reject)
    request.on('close', () => {
      signal?.removeEventListener('abort', abort)
      reject(new Error('closed')) // if there was no answer
    })
    request.on('response', response => {
      response.on('error', () => {})
      resolve(responseOf(response))
    })
    request.end(body)
  })

  #connect (): Duplex {
    const connection = this.#network.connect(this.#isTcp)
    connection.on('error', () => {})
    this.#connections.add(connection)
    connection.on('close', () => { this.#connections.delete(connection) })
    return connection
  }

  /** Cuts all connections of the client. */
  cut (): void { for (const connection of this.#connections) connection.destroy() }
}

function responseOf (response: IncomingMessage): FetchResponse {
  const status = response.statusCode!
  const chunks = response[Symbol.asyncIterator]()
  return {
    ok: status >= 200 && status < 300,
    status,
    headers: { get: name => response.headers[name] as string | undefined ?? null },
    body: { getReader: () => ({ read: () => chunks.next() }) },
    async text () {
      let text = ''
      for (let chunk = await chunks.next(); chunk.done !== true; chunk = await chunks.next()) text += String(chunk.value)
      return text
    }
  }
}
