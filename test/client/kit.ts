import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { createClient, type Client, type ClientOptions, type ClientRoom, type LogEntry, type RoomState } from '../../lib/client/index.ts'
import { until } from '../helpers/app.ts'

export type AnyRoom = ClientRoom<any, any, any, any>

/** A client with the WebSocket of `ws`, which is closed with its test. */
export function connect (t: Test, host: string, options: Partial<ClientOptions> = {}): Client {
  const client = createClient({ url: `http://${host}/rooms`, WebSocket: WebSocket as any, ...options })
  t.teardown(() => client.close())
  return client
}

/** Collects the numbers of the messages that a room gets. */
export function numbers (room: AnyRoom): number[] {
  const got: number[] = []
  room.on('message', ({ data }) => { got.push(data.n) })
  return got
}

/** Waits until the state of a room has the given members. */
export const has = (room: AnyRoom, state: Partial<RoomState>): Promise<void> => until(() => Object.entries(state).every(([name, value]) => (room.getSnapshot() as any)[name] === value), 8_000)
export const open = (room: AnyRoom): Promise<void> => has(room, { status: 'open' })

/** Waits for the next status of that name, even if another follows at once. */
export const next = (room: AnyRoom, status: RoomState['status']): Promise<void> => new Promise(resolve => {
  const stop = room.on('status', state => {
    if (state.status !== status) return
    stop()
    resolve()
  })
})

/** Waits until an attempt has failed. Returns the row of the log that says so. */
export async function failure (room: AnyRoom): Promise<LogEntry | undefined> {
  const find = (): LogEntry | undefined => room.log().find(({ error }) => error !== null)
  await until(() => find() !== undefined)
  return find()
}

/** Lets the client make each attempt at the beginning of its range of random times. */
export function atOnce (t: Test): void {
  const { random } = Math
  Math.random = () => 0
  t.teardown(() => { Math.random = random })
}

/** Sets a global for a test. */
export function setGlobal (t: Test, name: string, value: unknown): void {
  const old = Object.getOwnPropertyDescriptor(globalThis, name)
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true })
  t.teardown(() => {
    if (old) Object.defineProperty(globalThis, name, old)
    else delete (globalThis as any)[name]
  })
}

/** Holds back the timers of a test that are as long as the given time or longer: they run only by `fire`. */
export function holdTimers (t: Test, shortest: number): { readonly times: number[], fire (): void } {
  const { setTimeout, clearTimeout } = globalThis
  const held = new Map<object, { milliseconds: number, act: () => void }>()
  setGlobal(t, 'setTimeout', (act: (...values: unknown[]) => void, milliseconds: number, ...values: unknown[]) => {
    if (!(milliseconds >= shortest)) return setTimeout(act, milliseconds, ...values)
    const timer = { unref: () => timer, ref: () => timer }
    held.set(timer, { milliseconds, act: () => act(...values) })
    return timer
  })
  setGlobal(t, 'clearTimeout', (timer: any) => { if (!held.delete(timer)) clearTimeout(timer) })
  return {
    get times () { return [...held.values()].map(({ milliseconds }) => milliseconds) },
    fire () {
      const all = [...held.values()]
      held.clear()
      for (const { act } of all) act()
    }
  }
}

/** Gives the process the events of a page. */
export function fakePage (t: Test, visibilityState = 'visible') {
  const listeners = new Map<() => void, string>()
  const document = { visibilityState }
  setGlobal(t, 'document', document)
  setGlobal(t, 'addEventListener', (type: string, listener: () => void, { signal }: { signal: AbortSignal }): void => {
    listeners.set(listener, type)
    signal.addEventListener('abort', () => listeners.delete(listener))
  })
  return {
    document,
    listeners,
    dispatch (type: string) { for (const [listener, name] of listeners) if (name === type) listener() }
  }
}

/** The connection of a client to a fake server. */
export interface Peer {
  readonly socket: WebSocket
  readonly request: IncomingMessage
  /** The frames of the client. */
  readonly frames: any[]
  send (frame: unknown): void
}

/** A server that does to its clients what a test says. */
export interface Fake {
  readonly host: string
  readonly peers: Peer[]
  /** The paths of all upgrades and requests, those of upgrades with `ws` before them. */
  readonly asked: string[]
  /** Is called when a connection has opened. Default: `hello`. */
  connected: (peer: Peer) => void
  /** Is called with each frame of a client. Default: pings are answered. */
  received: (peer: Peer, frame: any) => void
  /** The HTTP status that upgrades are refused with; `0`: cut. Default: none. */
  refusal: number | undefined
  /** Answers requests. Default: an empty snapshot. */
  respond: (request: IncomingMessage, response: ServerResponse) => void
}

let sessions = 0

/** The `hello` of a topic. */
export const hello = (topic: string, more: object = {}): object => ({ type: 'hello', v: 1, session: `s${++sessions}`, topic, heartbeat: 25_000, maxPayload: 1_000, ...more })

/** Answers with JSON. */
export function json (response: ServerResponse, body: unknown, status = 200, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(typeof body === 'string' ? body : JSON.stringify(body))
}

/** Starts a fake server of `rooms.v1`. */
export async function startFake (t: Test, more: Partial<Fake> = {}): Promise<Fake> {
  const server = createServer((request, response) => {
    fake.asked.push(request.url!)
    fake.respond(request, response)
  })
  // A connection that a test leaves half open does not keep its process.
  server.on('connection', socket => { socket.unref() })
  server.unref()
  const sockets = new WebSocketServer({ noServer: true, handleProtocols: protocols => [...protocols][0] ?? false })
  server.on('upgrade', (request, socket, head) => {
    fake.asked.push(`ws ${request.url}`)
    socket.on('error', () => {})
    if (fake.refusal !== undefined) {
      if (fake.refusal > 0) socket.write(`HTTP/1.1 ${fake.refusal} No\r\ncontent-length: 0\r\n\r\n`)
      socket.destroy()
      return
    }
    sockets.handleUpgrade(request, socket, head, socket => {
      const peer: Peer = { socket, request, frames: [], send (frame) { socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame)) } }
      fake.peers.push(peer)
      socket.on('error', () => {})
      socket.on('message', data => {
        const frame = JSON.parse(data.toString())
        peer.frames.push(frame)
        fake.received(peer, frame)
      })
      fake.connected(peer)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const fake: Fake = {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    peers: [],
    asked: [],
    refusal: undefined,
    connected: peer => peer.send(hello('chat:1')),
    received (peer, { type, ref }) { if (type === 'ping') peer.send({ type: 'ack', ref, ok: true }) },
    respond: (_request, response) => json(response, { topic: 'chat:1', messages: [], complete: true, count: 0 }),
    ...more
  }
  t.teardown(() => {
    for (const { socket } of fake.peers) socket.terminate()
    server.closeAllConnections()
    server.close()
  })
  return fake
}
