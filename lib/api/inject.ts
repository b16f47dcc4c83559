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

/** Milliseconds that `next` waits for a frame, unless told otherwise; also those that `inject` waits for the end of a refusal. */
const defaultTimeout = 5_000
/** The dropped frames that an error lists, and the characters of each. */
const listedFrames = 10
const listedLength = 100

function excerpt (frame: Received): string {
  const text = JSON.stringify(frame)
  return text.length > listedLength ? `${text.slice(0, listedLength)}…` : text
}

/** A client inside the process: frames queue until they are asked for. */
class TestClient implements InjectedClient {
  readonly mode: Mode
  readonly closed: Promise<{ code: number, reason: string }>
  readonly #socket: WebSocket
  readonly #frames: Received[] = []
  /** They wait in order; while one does, no frame is queued. */
  readonly #readers: Reader[] = []
  /** The last frames that no reader wanted. */
  readonly #dropped: Received[] = []
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
      const [reader] = this.#readers
      if (reader === undefined) this.#frames.push(frame)
      else if (this.#suits(frame, reader.type)) reader.resolve(frame)
    })
    // The close that follows says that the connection broke.
    socket.on('error', () => {})
    this.closed = new Promise(resolve => {
      socket.on('close', (code: number, reason: Buffer) => {
        const end = this.#end = { code, reason: reason.toString() }
        for (const reader of [...this.#readers]) reader.reject(this.#ended(end))
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

  async next (first?: string | NextOptions, second?: NextOptions): Promise<any> {
    const [type, options] = typeof first === 'string' ? [first, second] : [undefined, first]
    const timeout = wholeNumber('timeout', options?.timeout, defaultTimeout)
    for (let frame = this.#frames.shift(); frame !== undefined; frame = this.#frames.shift()) if (this.#suits(frame, type)) return frame
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
      const leave = (): void => {
        clearTimeout(timer)
        this.#readers.splice(this.#readers.indexOf(reader), 1)
      }
      const reader: Reader = {
        type,
        resolve: frame => { leave(); resolve(frame) },
        reject: error => { leave(); reject(error) }
      }
      const timer = setTimeout(() => {
        const dropped = this.#dropped.length === 0 ? 'none was dropped' : `dropped were ${this.#dropped.map(excerpt).join(', ')}`
        reader.reject(new FST_ROOMS_INJECT_TIMEOUT(type === undefined ? '' : ` "${type}"`, timeout, dropped))
      }, timeout)
      this.#readers.push(reader)
    })
  }

  /** Whether a frame is what a reader waits for; if it is not, the frame is dropped. */
  #suits (frame: Received, type: string | undefined): boolean {
    if (type === undefined || typeof frame === 'string' || frame.type === type) return true
    this.#dropped.push(frame)
    if (this.#dropped.length > listedFrames) this.#dropped.shift()
    return false
  }

  #ended ({ code, reason }: { code: number, reason: string }): Error {
    return new FST_ROOMS_INJECT_CLOSED(code, reason)
  }
}

/** @param body - the answer's, as JSON if it is JSON */
function refused (statusCode: number, body: unknown): Error {
  const code = (body as { code?: unknown } | null | undefined)?.code
  return Object.assign(new FST_ROOMS_INJECT_REFUSED(statusCode, typeof code === 'string' ? ` (${code})` : ''), { statusCode, body })
}

/**
 * Connects through the app's own router, hooks and all, without a port.
 * @param emitter - what the plugin's own @fastify/websocket listens to, if it has one
 * @throws FST_ROOMS_INJECT_REFUSED with `statusCode` and `body`
 */
export async function injectClient (scope: FastifyInstance, emitter: EventEmitter | undefined, path: string, { headers, since, mode = 'rooms.v1' }: InjectOptions): Promise<InjectedClient> {
  await rootOf(scope).ready() // the root's alone runs the hooks, and may be called when all is ready
  // The host's @fastify/websocket has stopped listening by then, so that nothing would answer.
  if (scope.rooms.health().state !== 'open') {
    const { statusCode, code, message } = new FST_ROOMS_DRAINING()
    throw refused(statusCode!, { statusCode, code, error: STATUS_CODES[statusCode!], message })
  }
  const url = since === undefined ? path : `${path}${path.includes('?') ? '&' : '?'}since=${encodeURIComponent(since)}`
  const given = Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]))
  const nothing = (): void => {}
  let client: TestClient | undefined
  const meet = (socket: WebSocket): void => { client!.meet(socket) }
  const answer = new UpgradeAnswer()
  const isIt = (request: object): boolean => (request as { [kInjected]?: unknown })[kInjected] === meet
  try {
    await answer.watch([scope.server, ...emitter === undefined ? [] : [emitter]], isIt, () => scope.injectWS(url, {
      // What Fastify and its trustProxy read of a request that came from nowhere.
      socket: { remoteAddress: '127.0.0.1' },
      headers: { host: 'localhost', 'sec-websocket-protocol': mode, ...given },
      on: nothing,
      once: nothing,
      off: nothing,
      removeListener: nothing,
      [kInjected]: meet
    } as never, { onInit: (socket) => { client = new TestClient(socket as unknown as WebSocket, mode) } }))
  } catch (error) {
    const status = /\d{3}$/.exec((error as Error).message)
    throw status === null ? error : refused(Number(status[0]), await answer.body(defaultTimeout))
  }
  return client!
}
