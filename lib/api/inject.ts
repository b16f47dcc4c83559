import type { EventEmitter } from 'node:events'
import { STATUS_CODES } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { WebSocket } from 'ws'
import type { InjectedClient, InjectOptions, Mode, NextOptions, ServerFrame } from '../../types/index.ts'
import { FST_ROOMS_DRAINING, FST_ROOMS_INJECT_CLOSED, FST_ROOMS_INJECT_REFUSED, FST_ROOMS_INJECT_TIMEOUT } from '../errors.ts'
import { wholeNumber } from './rooms.ts'
import { kInjected } from '../symbols.ts'
import { UpgradeAnswer } from './http-answer.ts'
import { rootOf } from '../server/shared-drain.ts'

type Received = ServerFrame | string
interface Reader { readonly type: string | undefined, resolve (frame: Received): void, reject (error: Error): void }

/** Milliseconds that `next` waits for a frame by default, and that `inject` waits for the end of a refusal. */
const defaultTimeout = 5_000
/** Most dropped frames that an error lists, and most characters of each. */
const listedFrames = 10
const listedLength = 100

function excerpt (frame: Received): string {
  const text = JSON.stringify(frame)
  return text.length > listedLength ? `${text.slice(0, listedLength)}…` : text
}

/** A client inside the process. Frames are queued until `next` takes them. */
class TestClient implements InjectedClient {
  readonly mode: Mode
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #socket: WebSocket
  readonly #frames: Received[] = []
  /** Pending calls of `next`, in order. No frame is queued while there is one. */
  readonly #readers: Reader[] = []
  /** The last frames that did not match a reader. */
  readonly #dropped: Received[] = []
  #end: { code: number, reason: string } | undefined
  /** The server's WebSocket; `undefined` if the path is not one of the plugin's. */
  #server: WebSocket | undefined
  #serverClosed: Promise<void> = Promise.resolve()

  constructor (socket: WebSocket, mode: Mode) {
    this.mode = mode
    this.#socket = socket
    socket.on('message', (data: Buffer) => {
      const text = data.toString()
      const frame = mode === 'rooms.v1' ? JSON.parse(text) as ServerFrame : text
      const [reader] = this.#readers
      if (reader === undefined) this.#frames.push(frame)
      else if (this.#matches(frame, reader.type)) reader.resolve(frame)
    })
    // Ignored, because the close event that follows reports the end of the connection.
    socket.on('error', () => {})
    this.closed = new Promise(resolve => {
      socket.on('close', (code: number, reason: Buffer) => {
        const end = this.#end = { code, reason: reason.toString() }
        for (const reader of [...this.#readers]) reader.reject(this.#ended(end))
        // Needed because one end of an injected stream is not told that the other has closed.
        this.#server?.terminate()
        this.#serverClosed.then(() => { resolve(end) })
      })
    })
  }

  /** Sets the server's WebSocket of this connection. Called before the client opens. */
  setServer (server: WebSocket): void {
    this.#server = server
    this.#serverClosed = new Promise(resolve => { server.once('close', () => { resolve() }) })
  }

  async next (first?: string | NextOptions, second?: NextOptions): Promise<any> {
    const [type, options] = typeof first === 'string' ? [first, second] : [undefined, first]
    const timeout = wholeNumber('timeout', options?.timeout, defaultTimeout)
    for (let frame = this.#frames.shift(); frame !== undefined; frame = this.#frames.shift()) if (this.#matches(frame, type)) return frame
    if (this.#end !== undefined) throw this.#ended(this.#end)
    return this.#wait(type, timeout)
  }

  send (frame: unknown): void {
    this.#socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
  }

  async close (code = 1000, reason = ''): Promise<void> {
    this.#socket.close(code, reason)
    await this.closed
  }

  #wait (type: string | undefined, timeout: number): Promise<Received> {
    return new Promise((resolve, reject) => {
      const remove = (): void => {
        clearTimeout(timer)
        this.#readers.splice(this.#readers.indexOf(reader), 1)
      }
      const reader: Reader = {
        type,
        resolve: frame => { remove(); resolve(frame) },
        reject: error => { remove(); reject(error) }
      }
      const timer = setTimeout(() => {
        const dropped = this.#dropped.length === 0 ? 'none was dropped' : `dropped were ${this.#dropped.map(excerpt).join(', ')}`
        reader.reject(new FST_ROOMS_INJECT_TIMEOUT(type === undefined ? '' : ` "${type}"`, timeout, dropped))
      }, timeout)
      this.#readers.push(reader)
    })
  }

  /** Whether a frame has the type that a reader waits for. If not, the frame is dropped. */
  #matches (frame: Received, type: string | undefined): boolean {
    if (type === undefined || typeof frame === 'string' || frame.type === type) return true
    this.#dropped.push(frame)
    if (this.#dropped.length > listedFrames) this.#dropped.shift()
    return false
  }

  #ended ({ code, reason }: { code: number, reason: string }): Error {
    return new FST_ROOMS_INJECT_CLOSED(code, reason)
  }
}

/** Returns the error of a refused upgrade, with `statusCode` and `body`. */
function refused (statusCode: number, body: unknown): Error {
  const code = (body as { code?: unknown } | null | undefined)?.code
  return Object.assign(new FST_ROOMS_INJECT_REFUSED(statusCode, typeof code === 'string' ? ` (${code})` : ''), { statusCode, body })
}

/**
 * Connects a client without a port, through the app's router and hooks.
 * @param emitter - the emitter that the plugin's own @fastify/websocket listens to; `undefined` if the host has registered it
 * @throws FST_ROOMS_INJECT_REFUSED with `statusCode` and `body`
 */
export async function injectClient (scope: FastifyInstance, emitter: EventEmitter | undefined, path: string, { headers, since, mode = 'rooms.v1' }: InjectOptions): Promise<InjectedClient> {
  await rootOf(scope).ready() // of the root, because only its `ready` runs the hooks, and may be called again
  // Refused here, because the host's @fastify/websocket no longer listens then, and nothing would answer.
  if (scope.rooms.health().state !== 'open') {
    const { statusCode, code, message } = new FST_ROOMS_DRAINING()
    throw refused(statusCode!, { statusCode, code, error: STATUS_CODES[statusCode!], message })
  }
  const url = since === undefined ? path : `${path}${path.includes('?') ? '&' : '?'}since=${encodeURIComponent(since)}`
  const given = Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]))
  const noop = (): void => {}
  let client: TestClient | undefined
  const receiveServer = (socket: WebSocket): void => { client!.setServer(socket) }
  const answer = new UpgradeAnswer()
  const isIt = (request: object): boolean => (request as { [kInjected]?: unknown })[kInjected] === receiveServer
  try {
    await answer.watch([scope.server, ...emitter === undefined ? [] : [emitter]], isIt, () => scope.injectWS(url, {
      // Fastify and its `trustProxy` read this address.
      socket: { remoteAddress: '127.0.0.1' },
      headers: { host: 'localhost', 'sec-websocket-protocol': mode, ...given },
      on: noop,
      once: noop,
      off: noop,
      removeListener: noop,
      [kInjected]: receiveServer
    } as never, { onInit: (socket) => { client = new TestClient(socket as unknown as WebSocket, mode) } }))
  } catch (error) {
    const status = /\d{3}$/.exec((error as Error).message)
    throw status === null ? error : refused(Number(status[0]), await answer.body(defaultTimeout))
  }
  return client!
}
