import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import { WebSocket, type ClientOptions } from 'ws'
import fastifyRooms from '../../lib/index.ts'
import type { RoomsOptions, ServerFrame } from '../../types/index.ts'

/** Options as loosely typed as in JavaScript. */
export type AnyOptions = Omit<RoomsOptions<any>, 'onMessage' | 'onDirect'> & { onMessage?: Handlers, onDirect?: Handlers }

type Handlers = Record<string, (session: any, payload: any, details: any) => unknown>

/** A line of the log. */
export interface LogLine { level: number, msg: string, [member: string]: unknown }

/** An app that is closed with its test. `logs` collects its log lines. */
export function createApp (t: Test, options: FastifyServerOptions = {}, logs: LogLine[] = []): FastifyInstance {
  const stream = { write: (line: string) => { logs.push(JSON.parse(line)) } }
  const app = Fastify({ logger: { level: 'debug', stream }, ...options } as FastifyServerOptions) as FastifyInstance
  t.teardown(() => app.close())
  return app
}

/** An app with the plugin, under `/rooms` unless the options say otherwise. */
export async function createRooms (t: Test, options: AnyOptions = {}, logs: LogLine[] = []): Promise<FastifyInstance> {
  const app = createApp(t, {}, logs)
  await app.register(fastifyRooms as any, { prefix: '/rooms', ...options })
  return app
}

/** Listens on a free port of the loopback. Returns `127.0.0.1:<port>`. */
export async function listen (app: FastifyInstance): Promise<string> {
  await app.listen({ host: '127.0.0.1', port: 0 })
  return `127.0.0.1:${(app.server.address() as AddressInfo).port}`
}

/** A `ws` client that queues frames until they are read. */
export class Client {
  readonly socket: WebSocket
  readonly closed: Promise<{ code: number, reason: string }>
  /** All received frames, as text. */
  readonly received: string[] = []
  #read = 0
  #wake: (() => void)[] = []
  #over = false

  constructor (socket: WebSocket) {
    this.socket = socket
    socket.on('message', data => {
      this.received.push(data.toString())
      for (const wake of this.#wake.splice(0)) wake()
    })
    socket.on('error', () => {})
    this.closed = new Promise(resolve => {
      socket.on('close', (code, reason) => {
        this.#over = true
        for (const wake of this.#wake.splice(0)) wake()
        resolve({ code, reason: reason.toString() })
      })
    })
  }

  /** The next frame as text. Rejects if the connection closes before it comes. */
  async text (): Promise<string> {
    while (this.#read === this.received.length) {
      if (this.#over) throw new Error('closed')
      await new Promise<void>(resolve => { this.#wake.push(resolve) })
    }
    return this.received[this.#read++]!
  }

  /** The next `rooms.v1` frame, or the next of the given type; frames before it are skipped. */
  async next<K extends ServerFrame['type'] = ServerFrame['type']> (type?: K): Promise<Extract<ServerFrame, { type: K }>> {
    for (;;) {
      const frame = JSON.parse(await this.text()) as ServerFrame
      if (type === undefined || frame.type === type) return frame as Extract<ServerFrame, { type: K }>
    }
  }

  send (frame: unknown): void {
    this.socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
  }

  /** Sends a frame with a ref and returns its ack. */
  async ask (frame: Record<string, unknown>, ref: string | number = `r${Math.random()}`): Promise<Extract<ServerFrame, { type: 'ack' }>> {
    this.send({ ...frame, ref })
    for (;;) {
      const ack = await this.next('ack')
      if (ack.ref === ref) return ack
    }
  }

  async close (): Promise<{ code: number, reason: string }> {
    this.socket.close()
    return this.closed
  }
}

/** Connects. In `rooms.v1`, hello is left to be read with `next('hello')`. The connection is cut with its test. */
export async function connect (t: Test, url: string, protocols: string | string[] = [], options: ClientOptions = {}): Promise<Client> {
  const socket = new WebSocket(`ws://${url}`, protocols, options)
  const client = new Client(socket)
  t.teardown(() => { socket.terminate() })
  await Promise.race([once(socket, 'open'), once(socket, 'error').then(([error]) => { throw error })])
  return client
}

/** Connects and reads hello. */
export async function join (t: Test, url: string, options: ClientOptions = {}): Promise<Client & { hello: Extract<ServerFrame, { type: 'hello' }> }> {
  const client = await connect(t, url, [], options)
  return Object.assign(client, { hello: await client.next('hello') })
}

/** The HTTP response to a refused upgrade: status and JSON body. */
export async function refused (url: string, protocols: string | string[] = [], options: ClientOptions = {}): Promise<{ status: number, body: any }> {
  const socket = new WebSocket(`ws://${url}`, protocols, options)
  return new Promise((resolve, reject) => {
    socket.on('unexpected-response', (_request, response) => {
      let text = ''
      response.on('data', chunk => { text += chunk })
      response.on('end', () => {
        let body: unknown = text
        try { body = JSON.parse(text) } catch {}
        resolve({ status: response.statusCode!, body })
        socket.terminate()
      })
    })
    socket.on('open', () => {
      socket.terminate()
      reject(new Error('it was not refused'))
    })
    socket.on('error', () => {})
  })
}

/** Waits until a condition holds. Rejects after 20 seconds by default, which fails the test. */
export async function until (holds: () => boolean | Promise<boolean>, milliseconds = 20_000): Promise<void> {
  const deadline = Date.now() + milliseconds
  while (!await holds()) {
    if (Date.now() > deadline) throw new Error(`it does not hold within ${milliseconds} ms: ${holds}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}
