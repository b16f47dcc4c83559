import { randomBytes } from 'node:crypto'
import { connect as connectTcp, type Socket } from 'node:net'

/** Milliseconds to wait for an expected event: many times its duration on a busy machine. */
const patience = 30_000

/** A frame of the server, which is never masked. */
export interface ServerWireFrame { first: number, payload: Buffer }

export interface FrameShape {
  opcode?: number
  fin?: boolean
  /** The three reserved bits, as a number of 0 to 7. */
  rsv?: number
  masked?: boolean
  /** The length that the header declares. */
  length?: number | bigint
  /** Bytes of the extended length: 0, 2 or 8. */
  form?: 0 | 2 | 8
  mask?: Buffer
}

/** A frame of any shape, however invalid; by default a valid text frame. */
export function shaped (payload: Buffer | string, { opcode = 1, fin = true, rsv = 0, masked = true, length, form, mask = randomBytes(4) }: FrameShape = {}): Buffer {
  const data = Buffer.from(payload)
  const declared = BigInt(length ?? data.length)
  const bytes = form ?? (declared < 126n ? 0 : declared < 65_536n ? 2 : 8)
  const header = Buffer.alloc(2 + bytes)
  header[0] = (fin ? 0x80 : 0) | rsv << 4 | opcode
  header[1] = (masked ? 0x80 : 0) | (bytes === 0 ? Number(declared) : bytes === 2 ? 126 : 127)
  if (bytes === 2) header.writeUInt16BE(Number(declared), 2)
  if (bytes === 8) header.writeBigUInt64BE(declared, 2)
  if (!masked) return Buffer.concat([header, data])
  return Buffer.concat([header, mask, data.map((byte, index) => byte ^ mask[index % 4]!)])
}

/** A hand-made client that does nothing by itself and can make every mistake. */
export class RawPeer {
  readonly socket: Socket
  /** Frames of the server so far. */
  readonly frames: ServerWireFrame[] = []
  /** The status of the response to the upgrade request. */
  status: number | undefined
  /** The head of that response, and its body if it is not a 101. */
  head = ''
  /** Whether the connection has closed, for any reason. */
  over = false
  readonly #port: number
  #rest: Buffer = Buffer.alloc(0)
  #wake: (() => void)[] = []

  private constructor (port: number) {
    this.#port = port
    this.socket = connectTcp(port, '127.0.0.1')
    this.socket.setNoDelay(true)
    this.socket.on('error', () => {})
    this.socket.on('data', chunk => { this.#receive(chunk) })
    this.socket.on('drain', () => { this.#woken() })
    this.socket.on('close', () => {
      this.over = true
      this.#woken()
    })
  }

  /** Connects without sending anything. */
  static async connect (port: number): Promise<RawPeer> {
    const peer = new RawPeer(port)
    peer.socket.once('connect', () => { peer.#woken() })
    await peer.until(() => !peer.socket.connecting, 'connected')
    return peer
  }

  /** Joins, and waits for the 101. */
  static async join (port: number, path: string, headers = ''): Promise<RawPeer> {
    const peer = await RawPeer.connect(port)
    peer.write(peer.upgrade(path, headers))
    await peer.until(() => peer.status !== undefined, 'answered')
    if (peer.status !== 101) throw new Error(`${path}: ${peer.head}`)
    return peer
  }

  /** The head of an upgrade request. */
  upgrade (path: string, headers = ''): string {
    return `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1:${this.#port}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${randomBytes(16).toString('base64')}\r\n${headers}\r\n`
  }

  write (bytes: Buffer | string): void {
    if (this.socket.writable) this.socket.write(bytes)
  }

  /** Text frames of the server as objects, after the first `count` frames. */
  saidSince (count: number): any[] {
    return this.frames.slice(count).filter(({ first }) => (first & 0x0f) === 1).map(({ payload }) => JSON.parse(payload.toString()))
  }

  /** The code of the server's close frame; 1005 if it has none. */
  get closeCode (): number | undefined {
    const close = this.frames.find(({ first }) => (first & 0x0f) === 8)
    if (close === undefined) return undefined
    return close.payload.length < 2 ? 1005 : close.payload.readUInt16BE(0)
  }

  /** Waits until a condition holds that depends on frames of the server or on the connection. */
  async until (holds: () => boolean, what: string): Promise<void> {
    const deadline = Date.now() + patience
    while (!holds()) {
      if (Date.now() > deadline) throw new Error(`never ${what}; ${this.over ? 'closed' : 'open'}, ${this.status}, ${this.frames.length} frames, close code ${this.closeCode}`)
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, 1_000)
        this.#wake.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  /** Disconnects without a close. */
  destroy (): void { this.socket.destroy() }

  #woken (): void {
    for (const wake of this.#wake.splice(0)) wake()
  }

  #receive (chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    if (this.status === undefined) this.#readHead()
    else if (this.status !== 101) this.head += chunk.toString('latin1')
    if (this.status === 101) this.#readFrames()
    this.#woken()
  }

  #readHead (): void {
    const end = this.#rest.indexOf('\r\n\r\n')
    if (end === -1) return
    this.head = this.#rest.toString('latin1', 0, end)
    this.status = Number(this.head.split(' ')[1])
    this.#rest = this.#rest.subarray(end + 4)
    if (this.status !== 101) this.head += `\r\n\r\n${this.#rest.toString('latin1')}`
  }

  #readFrames (): void {
    let rest = this.#rest
    for (;;) {
      if (rest.length < 2) break
      const short = rest[1]!
      const start = short < 126 ? 2 : short === 126 ? 4 : 10
      if (rest.length < start) break
      const length = short < 126 ? short : short === 126 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2))
      if (rest.length < start + length) break
      this.frames.push({ first: rest[0]!, payload: rest.subarray(start, start + length) })
      rest = rest.subarray(start + length)
    }
    this.#rest = rest
  }
}
