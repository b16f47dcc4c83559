import { connect, type Socket } from 'node:net'
import type { Protocol } from './job.ts'

const host = '127.0.0.1'

/** All sockets read into this buffer, and are done with it inside the callback. */
const shared = Buffer.allocUnsafe(256 * 1024)

const endOfHead = Buffer.from('\r\n\r\n')
const stampKey = Buffer.from('"t":')
const TEXT = 1
const CLOSE = 8
const PING = 9

/** Frames that were received, of all members that share it. */
export class Tally {
  received = 0
  compressed = 0
  /** Frames that may have come by now; -1 if any number may come. */
  target = -1
  reached: () => void = () => {}
  failed: (error: Error) => void = () => {}
  /** Microseconds from the stamp in a message to its arrival, if latencies are measured. */
  latencies: Float64Array | undefined
  timed = 0

  add (frames: number): void {
    this.received += frames
    if (this.target === -1 || this.received < this.target) return
    if (this.received === this.target) this.reached()
    else this.failed(new Error(`${this.received} frames instead of ${this.target}`))
  }

  /** Settles when exactly this many further frames have come. */
  expect (frames: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.target = Math.max(this.target, 0) + frames
      this.reached = resolve
      this.failed = reject
      // More frames came before than were expected.
      if (this.received >= this.target) reject(new Error('more frames than expected'))
    })
  }
}

/** Microseconds of this process's clock, whole ones. */
export const now = (): number => Math.round(performance.now() * 1000)

/** Returns a frame of a client: final, masked, text unless the opcode says otherwise. */
export function clientFrame (text: string, opcode = TEXT): Buffer {
  const payload = Buffer.from(text)
  const mask = Buffer.from([0x12, 0x34, 0x56, 0x78])
  const long = payload.length > 125
  const frame = Buffer.alloc(2 + (long ? 2 : 0) + 4 + payload.length)
  frame[0] = 0x80 | opcode
  frame[1] = 0x80 | (long ? 126 : payload.length)
  if (long) frame.writeUInt16BE(payload.length, 2)
  const start = frame.length - payload.length
  mask.copy(frame, start - 4)
  for (let i = 0; i < payload.length; i++) frame[start + i] = payload[i]! ^ mask[i & 3]!
  return frame
}

/** Returns the frame with which a member publishes a message. */
export function publication (protocol: Protocol, message: object, ref: boolean): Buffer {
  if (protocol === 'socket.io') return clientFrame(`42${JSON.stringify(['m', message])}`)
  if (protocol === 'rooms') return clientFrame(JSON.stringify({ type: 'message', data: message, ...(ref ? { ref: 1 } : {}) }))
  return clientFrame(JSON.stringify(message))
}

function pathOf (protocol: Protocol, room: string): string {
  return protocol === 'socket.io' ? `/socket.io/?EIO=4&transport=websocket&room=${room}` : `/r/${room}`
}

/** The number of text frames from the server until a member is in its room: hello of rooms.v1; two frames of Engine.IO and socket.io. */
const greetings: Record<Protocol, number> = { plain: 0, rooms: 1, 'socket.io': 2, sse: 1 }

export interface MemberOptions {
  protocol: Protocol
  port: number
  room: string
  tally: Tally
  deflate?: boolean
  /** The position from which it resumes. */
  since?: string
}

/** A client that receives messages, as the load generator uses it. */
export interface Receiver {
  readonly socket: Socket
  /** Called when the connection has ended, if the server is expected to close it. */
  left: (() => void) | undefined
  /** Settles when the TCP connection is open. */
  connected (): Promise<void>
  /** Settles when this is a member of its room. */
  join (): Promise<void>
  destroy (): void
}

const endOfEvent = Buffer.from('\n\n')

/** The last bytes in which events were counted. A server sends the same bytes to all members, and comparing them costs less than counting again. */
let countedBytes = Buffer.alloc(0)
let countedEvents = 0

function eventsIn (bytes: Buffer): number {
  if (bytes.length === countedBytes.length && bytes.equals(countedBytes)) return countedEvents
  countedEvents = 0
  for (let at = bytes.indexOf(endOfEvent); at !== -1; at = bytes.indexOf(endOfEvent, at + endOfEvent.length)) countedEvents++
  countedBytes = Buffer.from(bytes)
  return countedEvents
}

/**
 * A client of an event stream that costs little: it counts the ends of events, which is possible without reading the chunks of HTTP/1.1, because these begin and end
 * with CRLF. Its first event with data tells that it is a member.
 */
export class EventStreamMember implements Receiver {
  readonly socket: Socket
  readonly #options: MemberOptions
  #head = ''
  #isReady = false
  /** The last byte was the first one of an end of an event. */
  #endsHalf = false
  #ready: () => void = () => {}
  #failed: (error: Error) => void
  #gone = false
  left: (() => void) | undefined

  constructor (options: MemberOptions) {
    this.#options = options
    this.#failed = error => { options.tally.failed(error) }
    this.socket = connect({ host, port: options.port, onread: { buffer: shared, callback: length => { this.#read(shared.subarray(0, length)); return true } } })
    this.socket.setNoDelay(true)
    this.socket.on('error', error => { this.#end(error) })
    this.socket.on('close', () => { this.#end(new Error('the server closed a connection')) })
  }

  connected (): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#failed = reject
      this.socket.once('connect', resolve)
    })
  }

  join (): Promise<void> {
    const { room, port } = this.#options
    return new Promise((resolve, reject) => {
      this.#ready = resolve
      this.#failed = reject
      this.socket.write(`GET /r/${room} HTTP/1.1\r\nHost: ${host}:${port}\r\nAccept: text/event-stream\r\n\r\n`)
    })
  }

  destroy (): void {
    this.#gone = true
    this.socket.destroy()
  }

  #end (error: Error): void {
    if (this.#gone) return
    this.#gone = true
    if (this.left !== undefined) {
      this.left()
      return
    }
    this.#failed(error)
    this.#options.tally.failed(error)
  }

  #read (bytes: Buffer): void {
    if (!this.#isReady) {
      this.#readHead(bytes)
      return
    }
    let count = eventsIn(bytes)
    if (this.#endsHalf && bytes[0] === 0x0a) count++
    const { length } = bytes
    this.#endsHalf = bytes[length - 1] === 0x0a && bytes[length - 2] !== 0x0a && bytes[length - 2] !== 0x0d
    if (count > 0) this.#options.tally.add(count)
  }

  #readHead (bytes: Buffer): void {
    this.#head += bytes.toString('latin1')
    const data = this.#head.indexOf('data:')
    if (data !== -1 && this.#head.includes('\n\n', data)) {
      if (/^HTTP\/1\.1 200 [^]*content-type: text\/event-stream/i.test(this.#head)) {
        this.#isReady = true
        this.#ready()
      } else this.#refused()
    } else if (!this.#head.startsWith('HTTP/1.1 200'.slice(0, this.#head.length))) this.#refused()
  }

  #refused (): void {
    this.#end(new Error(`no event stream: ${this.#head.split('\r\n')[0]}`))
    this.socket.destroy()
  }
}

/** A WebSocket client that costs little: it reads the headers of frames and skips their payloads. */
export class Member implements Receiver {
  readonly socket: Socket
  readonly #options: MemberOptions
  readonly #tally: Tally
  #upgraded = false
  #greetings: number
  #ready: () => void = () => {}
  #failed: (error: Error) => void
  /** The bytes of an incomplete head, of HTTP or of a frame. */
  #rest: Buffer | undefined
  /** Bytes of a payload that have not come yet, and the number of frames it counts as. */
  #missing = 0
  #counts = 0
  #gone = false
  /** Called when the connection has ended, if the server is expected to close it. */
  left: (() => void) | undefined

  constructor (options: MemberOptions) {
    this.#options = options
    this.#tally = options.tally
    this.#greetings = greetings[options.protocol]
    this.#failed = error => { this.#tally.failed(error) }
    this.socket = connect({ host, port: options.port, onread: { buffer: shared, callback: length => { this.#read(length); return true } } })
    this.socket.setNoDelay(true)
    this.socket.on('error', error => { this.#end(error) })
    this.socket.on('close', () => { this.#end(new Error('the server closed a connection')) })
  }

  /** Settles when the TCP connection is open. */
  connected (): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#failed = reject
      this.socket.once('connect', resolve)
    })
  }

  /** Upgrades, and settles when this is a member of its room. */
  join (): Promise<void> {
    const { protocol, room, deflate, port, since } = this.#options
    return new Promise((resolve, reject) => {
      this.#ready = resolve
      this.#failed = reject
      this.socket.write(`GET ${pathOf(protocol, room)}${since === undefined ? '' : `?since=${since}`} HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${deflate === true ? 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n' : ''}\r\n`)
    })
  }

  destroy (): void {
    this.#gone = true
    this.socket.destroy()
  }

  #end (error: Error): void {
    if (this.#gone) return
    this.#gone = true
    if (this.left !== undefined) {
      this.left()
      return
    }
    this.#failed(error)
    this.#tally.failed(error)
  }

  #read (length: number): void {
    if (this.#rest === undefined && this.#upgraded) {
      this.#frames(shared, length)
      return
    }
    const chunk = shared.subarray(0, length)
    const bytes = this.#rest === undefined ? chunk : Buffer.concat([this.#rest, chunk])
    this.#rest = undefined
    if (this.#upgraded) {
      this.#frames(bytes, bytes.length)
      return
    }
    const end = bytes.indexOf(endOfHead)
    if (end === -1) {
      this.#rest = Buffer.from(bytes)
      return
    }
    const head = bytes.toString('latin1', 0, end)
    if (!head.startsWith('HTTP/1.1 101')) {
      this.#end(new Error(`the upgrade was refused: ${head.split('\r\n')[0]}`))
      this.socket.destroy()
      return
    }
    if (this.#options.deflate === true && !/permessage-deflate/i.test(head)) {
      this.#end(new Error('permessage-deflate was not negotiated'))
      this.socket.destroy()
      return
    }
    this.#upgraded = true
    if (this.#greetings === 0) this.#ready()
    const frames = Buffer.from(bytes.subarray(end + endOfHead.length))
    this.#frames(frames, frames.length)
  }

  #frames (bytes: Buffer, length: number): void {
    let at = 0
    let count = 0
    const { latencies } = this.#tally
    while (at < length) {
      if (this.#missing > 0) {
        const taken = Math.min(this.#missing, length - at)
        at += taken
        this.#missing -= taken
        if (this.#missing === 0) count += this.#counts
        continue
      }
      const first = bytes[at]!
      let size = at + 1 < length ? bytes[at + 1]! & 0x7f : 0
      const head = size < 126 ? 2 : size === 126 ? 4 : 10
      if (at + head > length) {
        this.#rest = Buffer.from(bytes.subarray(at, length))
        break
      }
      if (size === 126) size = bytes.readUInt16BE(at + 2)
      else if (size === 127) size = Number(bytes.readBigUInt64BE(at + 2))
      at += head
      let counts = 0
      if ((first & 0x0f) <= 2) {
        // One byte of text is a ping of Engine.IO.
        if (size === 1) this.socket.write(clientFrame('3'))
        else if (this.#greetings > 0) this.#greeted()
        else counts = 1
        if ((first & 0x40) !== 0) this.#tally.compressed += counts
      } else if ((first & 0x0f) === PING) {
        this.socket.write(clientFrame('', 10))
      } else if ((first & 0x0f) === CLOSE) {
        if (this.left === undefined) this.#end(new Error('the server sent a close frame'))
        else this.socket.write(clientFrame('', CLOSE))
      }
      if (at + size > length) {
        this.#missing = size - (length - at)
        this.#counts = counts
        break
      }
      if (latencies !== undefined && counts === 1) {
        let digits = bytes.indexOf(stampKey, at) + stampKey.length
        let stamp = 0
        for (let code = bytes[digits]!; code >= 48 && code <= 57; code = bytes[++digits]!) stamp = stamp * 10 + code - 48
        if (stamp > 0) latencies[this.#tally.timed++] = now() - stamp
      }
      count += counts
      at += size
    }
    if (count > 0) this.#tally.add(count)
  }

  #greeted (): void {
    this.#greetings--
    if (this.#options.protocol === 'socket.io' && this.#greetings === 1) this.socket.write(clientFrame('40'))
    if (this.#greetings === 0) this.#ready()
  }
}

/** Joins members, `atOnce` at a time. */
export async function joinAll<M extends Receiver> (count: number, make: (index: number) => M, atOnce = 64): Promise<M[]> {
  const members: M[] = []
  const worker = async (): Promise<void> => {
    while (members.length < count) {
      const member = make(members.length)
      members.push(member)
      await member.connected()
      await member.join()
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, count) }, worker))
  return members
}

/** Sends the commands of peers/control.js. */
export class Control {
  readonly #socket: Socket
  #answered: (text: string) => void = () => {}

  constructor (port: number) {
    this.#socket = connect({ host, port })
    this.#socket.setNoDelay(true)
    this.#socket.on('data', bytes => { this.#answered(bytes.toString()) })
    this.#socket.on('error', () => {})
  }

  send (command: string): void { this.#socket.write(`${command}\n`) }

  /** Collects garbage in the server. */
  async collect (): Promise<void> { await this.#ask('g') }

  /**
   * Drains the server.
   *
   * @returns the longest stall of the server's event loop meanwhile, in milliseconds
   */
  async drain (): Promise<number> { return Number(await this.#ask('d')) }

  /**
   * Broadcasts a message to the first room, and then so many more.
   *
   * @returns the id of the first one
   */
  async publish (count: number): Promise<string> { return (await this.#ask(`p ${count}`)).trim() }

  /** Settles when so many requests wait in the server. */
  async waiting (count: number): Promise<void> { await this.#ask(`w ${count}`) }

  /**
   * Broadcasts so many messages to each room, all of which are kept.
   *
   * @returns the bytes by which the heap and the memory outside it have grown, and those of the payloads
   */
  async fill (rooms: number, count: number): Promise<[number, number]> { return (await this.#ask(`m ${rooms} ${count}`)).split(' ').map(Number) as [number, number] }

  #ask (command: string): Promise<string> {
    return new Promise(resolve => {
      this.#answered = resolve
      this.send(command)
    })
  }

  close (): void { this.#socket.destroy() }
}

/** Sends requests in a closed loop, one at a time on each connection, and counts the answers, which must all have the given status. */
export function requests (port: number, connections: number, body: string, tally: Tally): { stop: () => void } {
  const request = Buffer.from(`POST /r/news HTTP/1.1\r\nHost: ${host}:${port}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`)
  const ok = Buffer.from('HTTP/1.1 200')
  let stopped = false
  const sockets = Array.from({ length: connections }, () => {
    let left = 0
    const socket = connect({
      host,
      port,
      onread: {
        buffer: shared,
        callback: length => {
          if (left > 0) {
            left -= length
          } else {
            const bytes = shared.subarray(0, length)
            const end = bytes.indexOf(endOfHead)
            const size = /content-length: (\d+)/i.exec(bytes.toString('latin1', 0, end))
            if (bytes.indexOf(ok) !== 0 || end === -1 || size === null) {
              tally.failed(new Error(`an answer that is no 200: ${bytes.toString('latin1', 0, 200)}`))
              return true
            }
            left = end + endOfHead.length + Number(size[1]) - length
          }
          if (left === 0) {
            tally.add(1)
            if (!stopped) socket.write(request)
          }
          return true
        }
      }
    })
    socket.setNoDelay(true)
    socket.on('error', error => { tally.failed(error) })
    socket.on('connect', () => { socket.write(request) })
    return socket
  })
  return {
    stop: () => {
      stopped = true
      for (const socket of sockets) socket.destroy()
    }
  }
}

/** Long polls: each connection waits for the next message of a room, on and on. */
export class Polls {
  readonly #sockets: Socket[]
  readonly #tally: Tally
  readonly #port: number
  /** The id in the last answer, which is the same in all of them. */
  id = '0'

  constructor (port: number, connections: number, tally: Tally) {
    this.#port = port
    this.#tally = tally
    this.#sockets = Array.from({ length: connections }, () => this.#connect())
  }

  async connected (): Promise<void> {
    await Promise.all(this.#sockets.map(socket => new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))))
  }

  /** Sends one request on each connection, which waits. */
  wait (): void {
    const request = Buffer.from(`GET /r/room:0?since=${this.id}&wait=60000 HTTP/1.1\r\nHost: ${host}:${this.#port}\r\n\r\n`)
    for (const socket of this.#sockets) socket.write(request)
  }

  stop (): void {
    for (const socket of this.#sockets) socket.destroy()
  }

  #connect (): Socket {
    let left = 0
    const socket = connect({
      host,
      port: this.#port,
      onread: {
        buffer: shared,
        callback: length => {
          if (left === 0) {
            const bytes = shared.subarray(0, length)
            const end = bytes.indexOf(endOfHead)
            const head = bytes.toString('latin1', 0, end)
            const size = Number(/content-length: (\d+)/i.exec(head)?.[1])
            if (!head.startsWith('HTTP/1.1 200') || !(size > 0)) {
              this.#tally.failed(new Error(`an answer that is no 200: ${bytes.toString('latin1', 0, 300)}`))
              return true
            }
            // The answers to one message are alike, so one of them is read.
            if (socket === this.#sockets[0]) this.id = /"id":"([^"]+)"/.exec(bytes.toString('latin1', end, length))![1]!
            left = end + endOfHead.length + size
          }
          left -= length
          if (left === 0) this.#tally.add(1)
          else if (left < 0) this.#tally.failed(new Error('an answer is longer than it says'))
          return true
        }
      }
    })
    socket.setNoDelay(true)
    socket.on('error', error => { this.#tally.failed(error) })
    return socket
  }
}
