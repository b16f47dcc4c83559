import { randomUUID } from 'node:crypto'
import { Readable, Writable } from 'node:stream'
import { setImmediate as turnEnd } from 'node:timers/promises'
import { inspect, type InspectOptions } from 'node:util'
import type { ClientFrame, LeaveReason, Ref, SessionState, SessionSummary } from '../../types/index.ts'
import type { Connection } from '../connection/connection.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_SESSION_CLAIMED, FST_ROOMS_SESSION_CLOSED } from '../errors.ts'
import { handle, take } from '../frames/handle.ts'
import type { SessionHub, SlowConsumers } from '../hub/ports.ts'
import { tailEnd } from '../protocol/server-frames.ts'
import type { Lag } from '../room/lag.ts'
import type { SessionRoom } from '../room/member.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { frameOf } from '../transport/encoding.ts'
import type { Transport } from '../transport/transport.ts'
import { checkClose } from './check-close.ts'
import { serverEnding, type Ending } from './ending.ts'
import type { Lifecycle, LifecycleState } from './lifecycle.ts'
import type { Membership } from './membership.ts'
import { MessageIterator } from './message-iterator.ts'
import { MessageQueue, type QueueOwner } from './message-queue.ts'
import { PendingRequests } from './requests.ts'

/** Buffered bytes above which `send` waits: Node's own stream bound on a socket is 64 KiB from version 22. */
const highWaterMark = 65_536

const scratch = Buffer.alloc(64)

/**
 * Returns a UUID, behind a prefix, as one flat string. `randomUUID` joins its string from pieces, which would stay with it: 400 bytes on Node.js 20.
 * @param prefix - at most 28 characters of ASCII
 */
export function sessionId (prefix = ''): string {
  return scratch.toString('latin1', 0, scratch.write(prefix + randomUUID(), 'latin1'))
}

/** The members of the hub that a session uses, those of its frames included. */
export interface SessionPorts extends SessionHub {
  /** The beginning of the ids of sessions: the id of this node and a hyphen, or `''` if there is no other node. */
  readonly idPrefix: string
  readonly lifecycle: Lifecycle
  readonly slowConsumers: SlowConsumers<Membership>
}

/** The topic that a session joins. */
export interface Joining {
  readonly definition: TopicDefinition
  readonly topic: string
  readonly info: unknown
}

/** One connection in one topic: the public Session, and its state. */
export class MemberSession implements Membership, LifecycleState, QueueOwner {
  readonly hub: SessionPorts
  readonly id: string
  readonly topic: string
  readonly definition: TopicDefinition
  readonly connection: Connection<Membership>
  info: any

  // lifecycle.ts
  state: SessionState = 'joining'
  ending!: LeaveReason
  isAccepted = false
  isEndedByServer = false
  onAccept: (() => void) | undefined = undefined

  // room.ts
  room: SessionRoom | undefined = undefined
  index = -1
  lag: Lag | undefined = undefined

  // roster.ts
  isAnnounced = false

  queue: MessageQueue | undefined = undefined
  iterator: MessageIterator | undefined = undefined
  requests: PendingRequests | undefined = undefined
  readonly #connectedAt = Date.now()
  /** Frames that the host has sent before hello. */
  #early: string[] | undefined = undefined
  /** The promise that all senders share while more than the high-water mark is buffered. */
  #draining: Promise<void> | undefined = undefined
  #abort: AbortController | undefined = undefined
  #readable: Readable | undefined = undefined
  #writable: Writable | undefined = undefined
  #senderFields: string | undefined = undefined

  constructor (hub: SessionPorts, connection: Connection<Membership>, { definition, topic, info }: Joining) {
    this.hub = hub
    this.id = sessionId(hub.idPrefix)
    this.connection = connection
    this.definition = definition
    this.topic = topic
    this.info = info
  }

  get key (): string { return this.definition.key }
  get user (): string | undefined { return this.connection.user }
  get transport (): Transport { return this.connection.transport }
  get canBeAnswered (): boolean { return this.connection.transport.envelope.canBeAnswered }
  get canBeAsked (): boolean { return this.canBeAnswered && this.transport.canReceive }
  get rooms () { return this.hub.rooms }
  get connectedAt (): Date { return new Date(this.#connectedAt) }

  get expires (): Date | undefined {
    const { expiresAt } = this.connection
    return expiresAt === undefined ? undefined : new Date(expiresAt)
  }

  get senderFields (): string {
    this.#senderFields ??= tailEnd(this.id, this.user)
    return this.#senderFields
  }

  get signal (): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      // A signal that exists when the session ends is aborted by the lifecycle, in its turn, because its listeners may end further sessions.
      if (this.state === 'closed') this.abort()
    }
    return this.#abort.signal
  }

  take (frame: ClientFrame): void { take(this, frame) }

  enqueue (frame: ClientFrame): boolean {
    this.queue ??= new MessageQueue(this, this.hub.settings.limits.pending, this.hub.inFlight)
    return this.queue.push(frame)
  }

  handle (frame: ClientFrame): void | Promise<void> { return handle(this, frame) }
  end (ending: Ending): void { this.hub.lifecycle.end(this, ending) }
  fail (error: Error): void { this.hub.fail(error, this) }
  setInfo (info: unknown): void { this.info = info }

  flush (): void {
    if (this.state === 'open') this.room!.flushMember(this)
  }

  send (payload: unknown): Promise<void> {
    // Read before the send, because onError may have returned when the send fails.
    const whileHandling = this.hub.isHandling(this)
    const sent = this.#send(payload)
    // The caller need not await the promise: its rejection goes to onError and is not unhandled.
    sent.catch((error: Error & { code?: string }) => {
      if (error.code !== 'FST_ROOMS_SESSION_CLOSED') this.hub.fail(error, this, whileHandling)
    })
    return sent
  }

  async #send (payload: unknown): Promise<void> {
    const text = this.privateText(this.definition.message.serialise(payload))
    await this.sendPrivate(text, true)
  }

  privateText (json: string, from?: string, user?: string, ref?: Ref): string {
    return this.transport.envelope.direct(json, this.definition.message.schema === null, from, user, ref)
  }

  /** Returns a promise if more than the high-water mark is buffered. The caller need not await it. */
  sendPrivate (text: string, passesHold = false): void | Promise<void> {
    if (this.state === 'closed' || this.transport.isClosing) throw new FST_ROOMS_SESSION_CLOSED(this.id)
    if (this.state === 'joining') {
      (this.#early ??= []).push(text)
      this.hub.counters.directs++
      return
    }
    const sent = this.deliver(text, passesHold)
    if (this.transport.isClosing) throw new FST_ROOMS_SESSION_CLOSED(this.id) // this frame was too much for a slow peer
    this.hub.counters.directs++
    return sent
  }

  sendEarly (): void {
    const early = this.#early
    this.#early = undefined
    if (early !== undefined) for (const text of early) this.deliver(text)
  }

  write (text: string): void {
    this.#write(this.#encode(text))
  }

  /**
   * Writes a frame if the member reads fast enough, otherwise ends the session. Returns a promise if more than the high-water mark was buffered before.
   * @param id - the position that the member has reached with it
   */
  deliver (text: string, passesHold = false, id?: string): void | Promise<void> {
    const frame = this.#encode(text, id)
    const { slowConsumers } = this.hub
    if (!slowConsumers.admits(this, frame.length)) return
    const waits = this.transport.bufferedBytes + (this.room?.ownBytes(this) ?? 0) > highWaterMark
    this.#write(frame, passesHold)
    slowConsumers.sent(this)
    if (!waits) return
    if (this.#draining === undefined) {
      this.#draining = this.#drained().finally(() => { this.#draining = undefined })
      this.#draining.catch(() => {})
    }
    return this.#draining
  }

  #encode (text: string, id?: string): Buffer {
    return frameOf(this.transport.encoding, this.topic, text, id)
  }

  #write (frame: Buffer, passesHold = false): void {
    this.hub.counters.sentBytes += frame.length
    if (this.state === 'open') this.room!.sendTo(this, frame, passesHold)
    else this.transport.writeFrame(frame)
  }

  async #drained (): Promise<void> {
    if (this.room?.ownBytes(this) !== undefined) await turnEnd() // by then the room has written them
    try {
      if (this.transport.bufferedBytes > highWaterMark) await this.transport.drained()
    } catch {
      throw new FST_ROOMS_SESSION_CLOSED(this.id)
    }
  }

  ask (payload: unknown, timeout: number, signal?: AbortSignal): Promise<unknown> {
    this.requests ??= new PendingRequests(this)
    return this.requests.ask(payload, timeout, signal)
  }

  close (code = 1000, reason?: string): void {
    this.end({ ...checkClose(code, reason), by: 'server' })
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

  #iterate (): MessageIterator {
    if (this.iterator !== undefined) throw new FST_ROOMS_SESSION_CLAIMED(this.id)
    this.iterator = new MessageIterator(this.id, () => {
      // If a throw leaves the loop, the hook rejects in this turn, and its close code says more.
      setImmediate(() => { this.end(serverEnding(1000)) })
    })
    if (this.state === 'closed') this.iterator.end()
    if (this.state === 'joining') this.hub.lifecycle.accept(this)
    else this.hub.release(this)
    return this.iterator
  }

  [Symbol.asyncIterator] (): AsyncIterator<never, void, undefined> {
    return this.#iterate() as AsyncIterator<never, void, undefined>
  }

  get readable (): Readable {
    this.#readable ??= Readable.from(this.#iterate(), { objectMode: true, highWaterMark: 1 })
    return this.#readable
  }

  get writable (): Writable {
    if (this.#writable !== undefined) return this.#writable
    let whileHandling = false
    const writable = new Writable({
      objectMode: true,
      highWaterMark: 1,
      write: (payload, _encoding, done) => {
        whileHandling = this.hub.isHandling(this)
        this.#send(payload).then(() => { done() }, error => { done(asError(error)) })
      },
      final: (done) => {
        this.close()
        done()
      }
    })
    // An error of a stream without a listener ends the process, and a session may close at any time.
    writable.on('error', (error: Error & { code?: string }) => {
      if (writable.listenerCount('error') === 1 && error.code !== 'FST_ROOMS_SESSION_CLOSED') this.hub.fail(error, this, whileHandling)
    })
    this.#writable = writable
    return writable
  }
}
