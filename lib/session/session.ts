import { randomUUID } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { setImmediate as turnEnd } from 'node:timers/promises'
import { inspect, type InspectOptions } from 'node:util'
import type { ClientFrame, LeaveReason, Ref, Session, SessionState, SessionSummary } from '../../types/index.ts'
import { FST_ROOMS_INVALID_CLOSE, FST_ROOMS_SESSION_CLAIMED, FST_ROOMS_SESSION_CLOSED } from '../errors.ts'
import { asError } from '../error-utils.ts'
import { closeName, isSendable, maxReasonBytes } from '../protocol/close-codes.ts'
import { direct, tailEnd } from '../protocol/server-frames.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { HubContext } from '../hub/context.ts'
import { rawText } from '../room/delivery.ts'
import type { Lag } from '../room/lag.ts'
import { textFrameOf } from '../transport/ws/frame.ts'
import type { Asks } from './requests.ts'
import { Claim } from './message-iterator.ts'
import { Inbox, type Worker } from './message-queue.ts'
import { work } from '../connection/receive.ts'
import type { Source } from '../limits/addresses.ts'
import type { Room } from '../room/room.ts'
import type { Connection } from '../connection/connection.ts'

/** Bytes waiting for a member above which `send` waits: Node's own stream bound on a socket is 64 KiB from version 22. */
const highWaterMark = 65_536

/** A close as the host gave it. @throws FST_ROOMS_INVALID_CLOSE */
export function checkClose (code: number, reason: string = closeName(code)): { code: number, reason: string } {
  if (!isSendable(code)) throw new FST_ROOMS_INVALID_CLOSE('a code of 1000–1014 (not 1004–1006 or 1010) or 3000–4999')
  if (typeof reason !== 'string' || Buffer.byteLength(reason) > maxReasonBytes) throw new FST_ROOMS_INVALID_CLOSE(`a reason of at most ${maxReasonBytes} bytes`)
  return { code, reason }
}

const scratch = Buffer.alloc(36)

/** A UUID as one string: randomUUID joins it from pieces, which would stay with it, 400 bytes of them (Node.js 20). */
export function sessionId (): string {
  scratch.write(randomUUID(), 'latin1')
  return scratch.toString('latin1')
}

/** Who joins, and where. */
export interface Joining {
  definition: TopicDefinition
  topic: string
  user: string | undefined
  info: unknown
  /** When its credentials end, in milliseconds since the epoch. */
  expiresAt?: number | undefined
}

/** One connection in one topic: the public Session, and what the hub keeps of it. */
export class MemberSession implements Session<string, any>, Worker<ClientFrame> {
  readonly id: string
  readonly key: string
  readonly topic: string
  readonly definition: TopicDefinition
  readonly connection: Connection
  readonly user: string | undefined
  info: unknown
  expiresAt: number | undefined
  /** Kept by the wheel of its alarm. */
  slot = 0
  state: SessionState = 'joining'
  room: Room | undefined
  /** Where it comes from; `undefined` where it was not let in. */
  source: Source | undefined
  /** Its place in the room's array. */
  index = -1
  /** Where it stopped, while it reads more slowly than its room speaks. */
  lag: Lag | undefined
  /** A presence frame has named it. */
  announced = false
  /** The bucket that its frames draw from. */
  tokens: number
  filledAt: number
  creditedUntil = 0
  /** Its last frame was refused, for there were too many. */
  tooFast = false
  /** Refused frames since the last good one. */
  badFrames = 0
  /** Its messages are read by the host, as an iterator or a stream. */
  claim: Claim | undefined
  /** What it was asked. */
  asks: Asks | undefined
  /** Its frames, in order. */
  readonly inbox: Inbox<ClientFrame>
  /** What it sent before hello. */
  held: { data: Buffer, isBinary: boolean }[] | undefined = []
  /** What happens when it is accepted; `undefined` before it is asked, and after. */
  onAccept: (() => void) | undefined
  /** onJoin has accepted it, so onLeave is owed. */
  accepted = false
  /** The server has ended it: what it had sent counts no more. */
  dismissed = false
  /** The host looks at new credentials of it. */
  authenticating = false
  /** How it ended; set when it has. */
  ending!: LeaveReason
  readonly #hub: HubContext
  readonly #connectedAt = Date.now()
  /** What onJoin sent: it follows hello. */
  #early: string[] | undefined = []
  /** What all wait for who send to it while it has much to read. */
  #drains: Promise<void> | undefined
  #abort: AbortController | undefined
  #readable: Readable | undefined
  #signature: string | undefined
  #writable: Writable | undefined

  constructor (hub: HubContext, connection: Connection, id: string, joining: Joining) {
    this.#hub = hub
    this.connection = connection
    this.tokens = joining.definition.rate.capacity
    this.filledAt = connection.openedAt
    this.inbox = new Inbox(this, hub.settings.limits.pending, connection, hub.workload)
    this.id = id
    this.key = joining.definition.key
    this.definition = joining.definition
    this.topic = joining.topic
    this.user = joining.user
    this.info = joining.info
    this.expiresAt = joining.expiresAt
  }

  get hub (): HubContext { return this.#hub }

  get connectedAt (): Date { return new Date(this.#connectedAt) }

  /** What ends the frame of each message that it publishes. */
  get signature (): string {
    this.#signature ??= tailEnd(this.id, this.user)
    return this.#signature
  }

  get expires (): Date | undefined { return this.expiresAt === undefined ? undefined : new Date(this.expiresAt) }

  get rooms () { return this.#hub.rooms }

  get signal (): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      // One that is there already is aborted by the hub, in its turn: its listeners may end further sessions.
      if (this.state === 'closed') this.abort()
    }
    return this.#abort.signal
  }

  work (frame: ClientFrame): void | Promise<void> {
    return work(this.#hub, this, frame)
  }

  send (payload: unknown): Promise<void> {
    // Noted before, because onError may be over when its `send` fails.
    const whileHandling = this.#hub.isHandling(this)
    const sent = this.#send(payload)
    // The caller need not await it: a failure is told to onError, and is not an unhandled rejection.
    sent.catch((error: Error & { code?: string }) => {
      if (error.code !== 'FST_ROOMS_SESSION_CLOSED') this.#hub.fail(error, this, whileHandling)
    })
    return sent
  }

  async #send (payload: unknown): Promise<void> {
    const frame = this.privateFrame(this.definition.message.serialise(payload))
    await this.sendPrivate(frame)
  }

  /** A private payload as this member's mode has it. */
  privateFrame (json: string, from?: string, user?: string, ref?: Ref): string {
    if (this.connection.mode === 'rooms.v1') return direct(json, from, user, ref)
    return rawText(json, this.definition.message.schema === null)
  }

  /** Queues a private frame; a promise where its bytes wait above the high-water mark, and nobody has to wait for it. @throws FST_ROOMS_SESSION_CLOSED */
  sendPrivate (frame: string): void | Promise<void> {
    if (this.state === 'closed' || this.connection.condemned) throw new FST_ROOMS_SESSION_CLOSED(this.id)
    if (this.#early !== undefined) {
      this.#early.push(frame)
      this.#hub.counters.directs++
      return
    }
    const queued = this.deliver(frame)
    if (this.connection.condemned) throw new FST_ROOMS_SESSION_CLOSED(this.id) // it did not read, and this was too much
    this.#hub.counters.directs++
    return queued
  }

  /** Queues a frame that only this member gets, in its place among those of the room. */
  queue (frame: Buffer): void {
    this.#hub.counters.sentBytes += frame.length
    if (this.state === 'open') this.room!.sendTo(this, frame)
    else this.connection.send(frame)
  }

  /** The same, where it reads fast enough, and else its end; a promise where more than the high-water mark waits already. */
  deliver (frame: string): void | Promise<void> {
    const bytes = textFrameOf(frame)
    const { backlog } = this.#hub
    if (!backlog.admits(this, bytes.length)) return
    const waits = this.connection.bufferedBytes + (this.connection.view?.ownBytes ?? 0) > highWaterMark
    this.queue(bytes)
    backlog.sent(this)
    if (!waits) return
    if (this.#drains === undefined) {
      this.#drains = this.#drained().finally(() => { this.#drains = undefined })
      this.#drains.catch(() => {})
    }
    return this.#drains
  }

  async #drained (): Promise<void> {
    if (this.connection.view !== undefined) await turnEnd() // then its room has sent it
    try {
      if (this.connection.bufferedBytes > highWaterMark) await this.connection.drained()
    } catch {
      throw new FST_ROOMS_SESSION_CLOSED(this.id)
    }
  }

  /** Sends what waited for hello. */
  release (): void {
    const early = this.#early!
    this.#early = undefined
    for (const frame of early) this.deliver(frame)
  }

  close (code = 1000, reason?: string): void {
    this.#hub.end(this, { ...checkClose(code, reason), by: 'server' })
  }

  toJSON (): SessionSummary {
    const { id, key, topic, user, state, connectedAt, expires } = this
    return { id, key, topic, user, state, connectedAt, expires }
  }

  [inspect.custom] (_depth: number, options: InspectOptions): string {
    return `Session ${inspect(this.toJSON(), options)}`
  }

  abort (): void {
    if (this.#abort?.signal.aborted === false) this.#abort.abort(new FST_ROOMS_SESSION_CLOSED(this.id))
  }

  #open (): Claim {
    if (this.claim !== undefined) throw new FST_ROOMS_SESSION_CLAIMED(this.id)
    this.claim = new Claim(this.id, () => {
      // A loop that is left by a throw rejects in this turn: that close has a better code.
      setImmediate(() => { this.#hub.end(this, { code: 1000, reason: closeName(1000), by: 'server' }) })
    })
    if (this.state === 'closed') this.claim.end()
    if (this.state === 'joining') this.#hub.accept(this)
    return this.claim
  }

  [Symbol.asyncIterator] (): AsyncIterator<never, void, undefined> {
    return this.#open() as AsyncIterator<never, void, undefined>
  }

  get readable (): Readable {
    this.#readable ??= Readable.from(this.#open(), { objectMode: true, highWaterMark: 1 })
    return this.#readable
  }

  get writable (): Writable {
    if (this.#writable !== undefined) return this.#writable
    let whileHandling = false
    const writable = new Writable({
      objectMode: true,
      highWaterMark: 1,
      write: (payload, _encoding, done) => {
        whileHandling = this.#hub.isHandling(this)
        this.#send(payload).then(() => { done() }, error => { done(asError(error)) })
      },
      final: (done) => {
        this.close()
        done()
      }
    })
    // Without another listener, an error of the stream would be one of the process, and a session may close at any time.
    writable.on('error', (error: Error & { code?: string }) => {
      if (writable.listenerCount('error') === 1 && error.code !== 'FST_ROOMS_SESSION_CLOSED') this.#hub.fail(error, this, whileHandling)
    })
    this.#writable = writable
    return writable
  }
}
