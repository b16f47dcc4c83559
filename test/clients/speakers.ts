/** Clients of other projects behind one interface, so that one test can run with each. */
import { spawn, spawnSync } from 'node:child_process'
import diagnostics from 'node:diagnostics_channel'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { WebSocket as UndiciWebSocket, ping as undiciPing } from 'undici'
import { WebSocket } from 'ws'
import type { ServerFrame } from '../../types/index.ts'

export interface Opening {
  protocols?: string[]
  /** Keeps the client from offering permessage-deflate, if it has such an option. */
  compression?: false
}

/** Queues frames of a client until a test reads them. */
class Log<T> {
  readonly #items: T[] = []
  #read = 0
  #over: string | undefined
  #wake: (() => void)[] = []

  push (item: T): void {
    this.#items.push(item)
    this.#notify()
  }

  end (why: string): void {
    this.#over ??= why
    this.#notify()
  }

  async next (): Promise<T> {
    while (this.#read === this.#items.length) {
      if (this.#over !== undefined) throw new Error(this.#over)
      await new Promise<void>(resolve => { this.#wake.push(resolve) })
    }
    return this.#items[this.#read++]!
  }

  #notify (): void {
    for (const wake of this.#wake.splice(0)) wake()
  }
}

export abstract class Speaker {
  /** The subprotocol as the client reports it; empty if none was selected. */
  protocol = ''
  /** The extensions in use, as the client reports them. */
  extensions = ''
  readonly closed: Promise<{ code: number, reason: string }>
  protected readonly texts = new Log<string>()
  protected readonly pongs = new Log<true>()
  protected settle!: (end: { code: number, reason: string }) => void

  constructor () {
    this.closed = new Promise(resolve => { this.settle = resolve })
    this.closed.then(({ code }) => {
      this.texts.end(`closed with ${code}`)
      this.pongs.end(`closed with ${code}`)
    })
  }

  abstract sendText (text: string): void
  abstract sendBinary (data: Buffer): void
  abstract close (code: number, reason: string): void
  protected abstract sendPing (): void

  /** Sends a frame. */
  send (frame: Record<string, unknown>): void {
    this.sendText(JSON.stringify(frame))
  }

  /** The next message, as text. Rejects if the connection closes before it comes. */
  text (): Promise<string> {
    return this.texts.next()
  }

  /** The next `rooms.v1` frame, or the next of the given type; frames before it are skipped. */
  async next<K extends ServerFrame['type'] = ServerFrame['type']> (type?: K): Promise<Extract<ServerFrame, { type: K }>> {
    for (;;) {
      const frame = JSON.parse(await this.text()) as ServerFrame
      if (type === undefined || frame.type === type) return frame as Extract<ServerFrame, { type: K }>
    }
  }

  /** Pings the server and waits for its pong. */
  async ping (): Promise<void> {
    this.sendPing()
    await this.pongs.next()
  }
}

/** The error of a refused upgrade; `status` if the client reports it. */
export class Refused extends Error {
  readonly status: number | undefined

  constructor (status?: number) {
    super(`refused with ${status}`)
    this.status = status
  }
}

class WsSpeaker extends Speaker {
  readonly socket: WebSocket

  constructor (socket: WebSocket) {
    super()
    this.socket = socket
    socket.on('message', data => { this.texts.push(data.toString()) })
    socket.on('pong', () => { this.pongs.push(true) })
    socket.on('error', () => {})
    socket.on('close', (code, reason) => { this.settle({ code, reason: reason.toString() }) })
  }

  sendText (text: string): void { this.socket.send(text) }
  sendBinary (data: Buffer): void { this.socket.send(data) }
  close (code: number, reason: string): void { this.socket.close(code, reason) }
  protected sendPing (): void { this.socket.ping() }
}

export async function openWs (t: Test, url: string, { protocols = [], compression }: Opening = {}): Promise<WsSpeaker> {
  const socket = new WebSocket(`ws://${url}`, protocols, { perMessageDeflate: compression !== false })
  t.teardown(() => { socket.terminate() })
  const speaker = new WsSpeaker(socket)
  await new Promise<void>((resolve, reject) => {
    socket.on('open', resolve)
    socket.on('unexpected-response', (_request, response) => {
      response.resume()
      reject(new Refused(response.statusCode))
    })
    socket.on('error', reject)
  })
  speaker.protocol = socket.protocol
  speaker.extensions = socket.extensions
  return speaker
}

class UndiciSpeaker extends Speaker {
  readonly socket: UndiciWebSocket

  constructor (socket: UndiciWebSocket) {
    super()
    this.socket = socket
    const pong = (message: unknown): void => {
      if ((message as { websocket: unknown }).websocket === socket) this.pongs.push(true)
    }
    diagnostics.subscribe('undici:websocket:pong', pong)
    socket.addEventListener('message', ({ data }) => { this.texts.push(String(data)) })
    socket.addEventListener('error', () => {})
    socket.addEventListener('close', ({ code, reason }) => {
      diagnostics.unsubscribe('undici:websocket:pong', pong)
      this.settle({ code, reason })
    })
  }

  sendText (text: string): void { this.socket.send(text) }
  sendBinary (data: Buffer): void { this.socket.send(new Uint8Array(data)) }
  close (code: number, reason: string): void { this.socket.close(code, reason) }
  protected sendPing (): void { undiciPing(this.socket) }
}

export async function openUndici (t: Test, url: string, { protocols = [] }: Opening = {}): Promise<UndiciSpeaker> {
  const socket = new UndiciWebSocket(`ws://${url}`, protocols)
  t.teardown(() => { socket.close() })
  const speaker = new UndiciSpeaker(socket)
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => { resolve() })
    // The standard WebSocket does not report the reason.
    socket.addEventListener('error', () => { reject(new Refused()) })
  })
  speaker.protocol = socket.protocol
  speaker.extensions = socket.extensions
  return speaker
}

type PythonEvent =
  | { event: 'open', protocol: string, extensions: string }
  | { event: 'refused', status: number }
  | { event: 'text', text: string }
  | { event: 'binary' }
  | { event: 'pong' }
  | { event: 'in' | 'out', kind: 'PING' | 'PONG' }
  | { event: 'closed', code: number, reason: string }

const python = '/usr/bin/python3'
const script = join(fileURLToPath(new URL('.', import.meta.url)), 'client.py')

/** The reason why Python's client is missing on this machine, or `false`. */
export const pythonMissing: string | false = spawnSync(python, ['-c', 'import websockets']).status === 0
  ? false
  : `${python} has no websockets module (apt-get install python3-websockets)`

class PythonSpeaker extends Speaker {
  /** Control frames in the words of the library's log: `in PING`, `out PONG`, … */
  readonly control: string[] = []
  readonly #command: (command: Record<string, unknown>) => void

  constructor (command: (command: Record<string, unknown>) => void) {
    super()
    this.#command = command
  }

  take (event: PythonEvent): void {
    if (event.event === 'text') this.texts.push(event.text)
    else if (event.event === 'pong') this.pongs.push(true)
    else if (event.event === 'in' || event.event === 'out') this.control.push(`${event.event} ${event.kind}`)
    else if (event.event === 'closed') this.settle({ code: event.code, reason: event.reason })
  }

  sendText (text: string): void { this.#command({ do: 'send', text }) }
  sendBinary (data: Buffer): void { this.#command({ do: 'binary', data: data.toString('base64') }) }
  sendFragments (parts: string[]): void { this.#command({ do: 'fragments', parts }) }
  close (code: number, reason: string): void { this.#command({ do: 'close', code, reason }) }
  /** Ends the process at once, without a close. */
  die (): void { this.#command({ do: 'die' }) }
  protected sendPing (): void { this.#command({ do: 'ping' }) }
}

export async function openPython (t: Test, url: string, { protocols = [], compression }: Opening = {}): Promise<PythonSpeaker> {
  const child = spawn(python, [script, `ws://${url}`, ...protocols.flatMap(name => ['--protocol', name]), ...(compression === false ? ['--no-compression'] : [])], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.on('error', () => {}) // the process has ended already
  const ended = new Promise<void>(resolve => { child.on('close', () => { resolve() }) })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const speaker = new PythonSpeaker(command => { child.stdin.write(`${JSON.stringify(command)}\n`) })
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on('line', line => {
      const event = JSON.parse(line) as PythonEvent
      if (event.event === 'open') {
        Object.assign(speaker, { protocol: event.protocol, extensions: event.extensions })
        resolve()
      } else if (event.event === 'refused') {
        reject(new Refused(event.status))
      } else {
        speaker.take(event)
      }
    })
    ended.then(() => { reject(new Error('the Python client has ended')) })
  })
  return speaker
}
