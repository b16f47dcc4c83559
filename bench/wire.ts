import { connect, type Socket } from 'node:net'
import type { Protocol } from './job.ts'
import { host, Receiver, shared, type MemberOptions } from './receiver.ts'

const endOfHead = Buffer.from('\r\n\r\n')
const stampKey = Buffer.from('"t":')
const TEXT = 1
const CLOSE = 8
const PING = 9

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

/** A WebSocket client that costs little: it reads the headers of frames and skips their payloads. */
export class Member extends Receiver {
  #upgraded = false
  #greetings: number
  /** The bytes of an incomplete head, of HTTP or of a frame. */
  #rest: Buffer | undefined
  /** Bytes of a payload that have not come yet, and the number of frames it counts as. */
  #missing = 0
  #counts = 0

  constructor (options: MemberOptions) {
    super(options)
    // Hello of the connection, and of each topic.
    this.#greetings = options.topics === undefined ? greetings[options.protocol] : 1 + options.topics.length
  }

  protected override get request (): string {
    const { protocol, room, deflate, port, since, topics } = this.options
    return `GET ${topics === undefined ? pathOf(protocol, room) : '/r'}${since === undefined ? '' : `?since=${since}`} HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${deflate === true ? 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n' : ''}\r\n`
  }

  protected override read (length: number): void {
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
      this.end(new Error(`the upgrade was refused: ${head.split('\r\n')[0]}`))
      this.socket.destroy()
      return
    }
    if (this.options.deflate === true && !/permessage-deflate/i.test(head)) {
      this.end(new Error('permessage-deflate was not negotiated'))
      this.socket.destroy()
      return
    }
    this.#upgraded = true
    if (this.#greetings === 0) this.joined()
    for (const topic of this.options.topics ?? []) this.send({ type: 'join', topic })
    const frames = Buffer.from(bytes.subarray(end + endOfHead.length))
    this.#frames(frames, frames.length)
  }

  #frames (bytes: Buffer, length: number): void {
    let at = 0
    let count = 0
    const { latencies } = this.tally
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
        if ((first & 0x40) !== 0) this.tally.compressed += counts
      } else if ((first & 0x0f) === PING) {
        this.socket.write(clientFrame('', 10))
      } else if ((first & 0x0f) === CLOSE) {
        if (this.left === undefined) this.end(new Error('the server sent a close frame'))
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
        if (stamp > 0) latencies[this.tally.timed++] = now() - stamp
      }
      count += counts
      at += size
    }
    if (count > 0) this.tally.add(count)
  }

  send (frame: object): void { this.socket.write(clientFrame(JSON.stringify(frame))) }

  #greeted (): void {
    this.#greetings--
    if (this.options.protocol === 'socket.io' && this.#greetings === 1) this.socket.write(clientFrame('40'))
    if (this.#greetings === 0) this.joined()
  }
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
