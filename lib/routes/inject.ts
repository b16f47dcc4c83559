import type { FastifyInstance } from 'fastify'
import type { WebSocket } from 'ws'
import type { InjectedClient, InjectOptions, Mode, ServerFrame } from '../../types/index.ts'
import { FST_ROOMS_INJECT_CLOSED, FST_ROOMS_INJECT_REFUSED } from '../errors.ts'
import { kInjected } from '../symbols.ts'
import { rootOf } from './siblings.ts'

type Received = ServerFrame | string
interface Reader { resolve (frame: Received): void, reject (error: Error): void }

/** A client inside the process: frames queue until they are asked for. */
class TestClient implements InjectedClient {
  readonly mode: Mode
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #socket: WebSocket
  readonly #frames: Received[] = []
  readonly #readers: Reader[] = []
  #end: { code: number, reason: string } | undefined
  /** Stays open where the path is none of ours. */
  #server: WebSocket | undefined
  #serverClosed: Promise<void> = Promise.resolve()

  constructor (socket: WebSocket, mode: Mode) {
    this.mode = mode
    this.#socket = socket
    socket.on('message', (data: Buffer) => {
      const text = data.toString()
      const frame = mode === 'rooms.v1' ? JSON.parse(text) as ServerFrame : text
      const reader = this.#readers.shift()
      if (reader === undefined) this.#frames.push(frame)
      else reader.resolve(frame)
    })
    // The close that follows says that the connection broke.
    socket.on('error', () => {})
    this.closed = new Promise(resolve => {
      socket.on('close', (code: number, reason: Buffer) => {
        const end = this.#end = { code, reason: reason.toString() }
        for (const reader of this.#readers.splice(0)) reader.reject(this.#ended(end))
        // Streams inside the process do not tell the one end that the other has gone.
        this.#server?.terminate()
        this.#serverClosed.then(() => { resolve(end) })
      })
    })
  }

  /** The other end of the connection, before it opens. */
  meet (server: WebSocket): void {
    this.#server = server
    this.#serverClosed = new Promise(resolve => { server.once('close', () => { resolve() }) })
  }

  async next (type?: string): Promise<any> {
    for (;;) {
      const frame = await this.#next()
      if (type === undefined || typeof frame === 'string' || frame.type === type) return frame
    }
  }

  send (frame: unknown): void {
    this.#socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
  }

  async close (code = 1000, reason = ''): Promise<void> {
    this.#socket.close(code, reason)
    await this.closed
  }

  #next (): Promise<Received> {
    const frame = this.#frames.shift()
    if (frame !== undefined) return Promise.resolve(frame)
    if (this.#end !== undefined) return Promise.reject(this.#ended(this.#end))
    return new Promise((resolve, reject) => { this.#readers.push({ resolve, reject }) })
  }

  #ended ({ code, reason }: { code: number, reason: string }): Error {
    return new FST_ROOMS_INJECT_CLOSED(code, reason)
  }
}

/** Connects through the app's own router, hooks and all, without a port. @throws FST_ROOMS_INJECT_REFUSED */
export async function injectClient (scope: FastifyInstance, path: string, { headers, since, mode = 'rooms.v1' }: InjectOptions): Promise<InjectedClient> {
  await rootOf(scope).ready() // the root's alone runs the hooks, and may be called when all is ready
  // A host's @fastify/websocket has stopped listening by then, and nobody would answer.
  if (scope.rooms.health().state !== 'open') throw new FST_ROOMS_INJECT_REFUSED(503)
  const url = since === undefined ? path : `${path}${path.includes('?') ? '&' : '?'}since=${encodeURIComponent(since)}`
  const given = Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]))
  const nothing = (): void => {}
  let client: TestClient | undefined
  try {
    await scope.injectWS(url, {
      // What Fastify and its trustProxy read of a request that came from nowhere.
      socket: { remoteAddress: '127.0.0.1' },
      headers: { host: 'localhost', 'sec-websocket-protocol': mode, ...given },
      on: nothing,
      once: nothing,
      off: nothing,
      removeListener: nothing,
      [kInjected]: (socket: WebSocket) => { client!.meet(socket) }
    } as never, { onInit: (socket) => { client = new TestClient(socket as unknown as WebSocket, mode) } })
  } catch (error) {
    const status = /\d{3}$/.exec((error as Error).message)
    throw status === null ? error : new FST_ROOMS_INJECT_REFUSED(Number(status[0]))
  }
  return client!
}
