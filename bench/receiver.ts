import { connect, type Socket } from 'node:net'
import type { Protocol } from './job.ts'

export const host = '127.0.0.1'

/** All sockets read into this buffer, and are done with it inside the callback. */
export const shared = Buffer.allocUnsafe(256 * 1024)

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

export interface MemberOptions {
  protocol: Protocol
  port: number
  room: string
  tally: Tally
  deflate?: boolean
  /** The position from which it resumes. */
  since?: string
  /** The member joins these topics by frames, on one connection. */
  topics?: string[]
}

/** A client that receives messages, over one connection. */
export abstract class Receiver {
  readonly socket: Socket
  protected readonly options: MemberOptions
  protected readonly tally: Tally
  /** Settles `join`. */
  protected joined: () => void = () => {}
  #failed: (error: Error) => void
  #gone = false
  /** Called when the connection has ended, if the server is expected to close it. */
  left: (() => void) | undefined

  constructor (options: MemberOptions) {
    this.options = options
    this.tally = options.tally
    this.#failed = error => { this.tally.failed(error) }
    this.socket = connect({ host, port: options.port, onread: { buffer: shared, callback: length => { this.read(length); return true } } })
    this.socket.setNoDelay(true)
    this.socket.on('error', error => { this.end(error) })
    this.socket.on('close', () => { this.end(new Error('the server closed a connection')) })
  }

  /** Takes the first bytes of `shared`. */
  protected abstract read (length: number): void
  /** The request that joins a room. */
  protected abstract get request (): string

  /** Settles when the TCP connection is open. */
  connected (): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#failed = reject
      this.socket.once('connect', resolve)
    })
  }

  /** Sends the request, and settles when this is a member of its room. */
  join (): Promise<void> {
    return new Promise((resolve, reject) => {
      this.joined = resolve
      this.#failed = reject
      this.socket.write(this.request)
    })
  }

  destroy (): void {
    this.#gone = true
    this.socket.destroy()
  }

  protected end (error: Error): void {
    if (this.#gone) return
    this.#gone = true
    if (this.left !== undefined) {
      this.left()
      return
    }
    this.#failed(error)
    this.tally.failed(error)
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
