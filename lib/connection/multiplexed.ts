import type { ClientFrame, JoinFrame, LeaveFrame, Ref, Refusal } from '../../types/index.ts'
import { asError, isForPeer, wireError } from '../error-utils.ts'
import { FST_ROOMS_ALREADY_JOINED, FST_ROOMS_DRAINING, FST_ROOMS_NOT_JOINED, FST_ROOMS_OVERLOADED, FST_ROOMS_TOO_MANY_TOPICS } from '../errors.ts'
import type { Hooks, HubState } from '../hub/ports.ts'
import type { KnownIdentity } from '../identity/identity.ts'
import { refusalOf } from '../limits/refusals.ts'
import type { Bucket } from '../limits/token-bucket.ts'
import { proceed } from '../proceed.ts'
import * as frames from '../protocol/server-frames.ts'
import { isTopicName } from '../protocol/topic-name.ts'
import { byeFrame, isTold, type ByeHub } from '../session/bye.ts'
import { joinCloseCode, refusalError, type Ending } from '../session/ending.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { encodings } from '../transport/encoding.ts'
import { Connection, type ConnectedSession, type ConnectionHub, type ConnectionOptions } from './connection.ts'

/** A topic that a peer may join, as its session needs it. */
export interface PermittedJoin {
  readonly definition: TopicDefinition
  readonly topic: string
  readonly info: unknown
  readonly since: string | undefined
  readonly presence: boolean
  readonly onJoin: ((session: any) => unknown) | undefined
  /** When the `join` arrived, on the clock of `performance`. */
  readonly begunAt: number
}

/** The members of the hub that connections of several topics use. */
export interface MultiplexedHub extends ConnectionHub, ByeHub {
  readonly state: HubState
  readonly hooks: Hooks
  readonly settings: ConnectionHub['settings'] & ByeHub['settings']
  /** Lets a session enter its room. Calls `entered` of the connection. */
  enter (connection: MultiplexedConnection<any>, join: PermittedJoin): void
  /** Tells the host of an error of a hook. */
  fail (error: Error): void
  /** Sends a frame that belongs to no session, or closes the connection if its peer reads too slowly. */
  write (connection: MultiplexedConnection<any>, frame: Buffer): void
  /** Counts a refusal that concerns no session, and publishes it as an event. */
  countRefusal (what: 'join' | 'frame', reason: Refusal, about: { topic: string | undefined, user: string | undefined, address: string }): void
}

/** A session on a connection of several topics. */
export interface MultiplexedSession extends ConnectedSession {
  readonly definition: TopicDefinition
}

export interface MultiplexedOptions extends ConnectionOptions {
  readonly identity: KnownIdentity | null
  /** Largest frame of any topic, in bytes. */
  readonly maxPayload: number
  /** Bytes that may be buffered for frames that belong to no session. */
  readonly slowBytes: number
  /**
   * Asks the host about a join.
   * @throws FST_ROOMS_NO_SUCH_TOPIC, FST_ROOMS_FORBIDDEN, the errors of hooks
   */
  permit (frame: JoinFrame, identity: KnownIdentity | null, begunAt: number): PermittedJoin | Promise<PermittedJoin>
}

/** A frame for a topic that the peer is joining. */
export interface HeldFrame {
  readonly frame: ClientFrame
  readonly bytes: number
}

/** A join that is not committed yet. */
interface PendingJoin<S> {
  readonly topic: string
  readonly ref: Ref | undefined
  /** On the clock of `performance`; later by each stall of this process. */
  startedAt: number
  /** `undefined` while the host is asked whether the peer may join. */
  session: S | undefined
  /** The host is asked; the join has ended meanwhile; the host has answered. */
  state: 'asking' | 'abandoned' | 'answered'
  /** Frames of the peer for this topic, which wait for hello. */
  readonly held: HeldFrame[]
}

/**
 * A connection whose URL names no topic. Its peer joins and leaves topics by frames: each membership is a session of its own. What belongs to the socket (heartbeat,
 * identity, back-pressure, the rate of frames) is shared by all of them.
 */
export class MultiplexedConnection<S extends MultiplexedSession = MultiplexedSession> extends Connection<S> {
  declare readonly hub: MultiplexedHub
  /** The identity of the peer: that of the upgrade, or of its last `auth`. */
  identity: KnownIdentity | null
  readonly maxPayload: number
  readonly slowBytes: number
  readonly #permit: MultiplexedOptions['permit']
  readonly #open = new Map<string, S>()
  /** By topic. */
  readonly #joins = new Map<string, PendingJoin<S>>()
  /** The buckets of topics with a rate of their own; `undefined` if there are none. */
  #buckets: Map<S, Bucket> | undefined = undefined
  /** Joins that have ended while the host was being asked about them. They count until it has answered, because each costs memory. */
  #abandoned = 0
  /** Frames that wait for hello, of all joins. */
  #waiting = 0
  #isEnded = false

  constructor (hub: MultiplexedHub, options: MultiplexedOptions) {
    super(hub, options)
    this.identity = options.identity
    this.maxPayload = options.maxPayload
    this.slowBytes = options.slowBytes
    this.#permit = options.permit
    this.isJoined = true
  }

  override get isMultiplexed (): boolean { return true }
  override get isEnded (): boolean { return this.#isEnded }
  /** Topics that the peer has joined, or is joining, and questions to the host about joins that it has left. */
  get topics (): number { return this.#open.size + this.#joins.size + this.#abandoned }

  override get sessions (): Iterable<S> {
    const joining: S[] = []
    for (const { session } of this.#joins.values()) if (session !== undefined) joining.push(session)
    return [...this.#open.values(), ...joining]
  }

  /** The session in a topic that was sent hello. */
  find (topic: string): S | undefined { return this.#open.get(topic) }

  /** Joins a topic. The answer is hello, or a refusal. */
  join (frame: JoinFrame): void {
    const { topic, ref } = frame
    const { hub } = this
    if (this.#open.has(topic) || this.#joins.has(topic)) {
      this.refuse(new FST_ROOMS_ALREADY_JOINED(topic), ref, topic)
      return
    }
    if (this.topics >= hub.settings.limits.topicsPerConnection) {
      this.#refuseJoin(topic, ref, new FST_ROOMS_TOO_MANY_TOPICS(hub.settings.limits.topicsPerConnection), 'topicsPerConnection')
      return
    }
    if (hub.state !== 'open') {
      this.#refuseJoin(topic, ref, new FST_ROOMS_DRAINING(), 'draining')
      return
    }
    const begunAt = performance.now()
    const join: PendingJoin<S> = { topic, ref, startedAt: begunAt, session: undefined, state: 'asking', held: [] }
    this.#joins.set(topic, join)
    const answered = (): void => {
      if (join.state === 'abandoned') this.#abandoned--
      join.state = 'answered'
    }
    const failed = (thrown: unknown): void => {
      const error = asError(thrown)
      if (!isForPeer(error)) hub.fail(error)
      answered()
      if (this.#takeOut(join)) this.#refuseJoin(topic, ref, error, refusalOf(error))
    }
    try {
      const permitted = proceed(this.#permit(frame, this.identity, begunAt), allowed => {
        answered()
        // The peer may have left meanwhile, or its connection may have ended.
        if (this.#joins.get(topic) === join) hub.enter(this, allowed)
      })
      if (permitted !== undefined) permitted.catch(failed)
    } catch (error) {
      failed(error)
    }
  }

  /** Call this when the session of a join exists. */
  entered (session: S): void {
    this.#joins.get(session.topic)!.session = session
  }

  /** Call this when a session was sent hello. Returns the frames that have waited for it. */
  opened (session: S): readonly HeldFrame[] {
    const join = this.#joins.get(session.topic)
    if (join?.session !== session) return [] // a hook has ended it
    this.#joins.delete(session.topic)
    this.#open.set(session.topic, session)
    const { slow, rate: { capacity, per } } = session.definition
    this.transport.leastSlowBytes = Math.min(this.transport.leastSlowBytes, slow.bytes)
    if (capacity < this.rate.capacity || capacity / per < this.rate.capacity / this.rate.per) {
      this.#buckets ??= new Map()
      this.#buckets.set(session, { tokens: capacity, filledAt: performance.now(), creditedUntil: 0 })
    }
    this.#release(join)
    return join.held
  }

  /** The bucket of a session whose topic has a lower rate than the connection. */
  bucketOf (session: S): Bucket | undefined { return this.#buckets?.get(session) }

  override refOf (session: S): Ref | undefined { return this.#joins.get(session.topic)?.ref }

  /** Leaves a topic. Frames for it that were sent before are still handled, and answered. */
  leave ({ topic, ref }: LeaveFrame): void {
    const join = this.#joins.get(topic)
    const session = this.#open.get(topic) ?? join?.session
    if (join === undefined && session === undefined) {
      this.refuse(new FST_ROOMS_NOT_JOINED(topic), ref, topic)
      return
    }
    session?.flush()
    session?.end({ code: 1000, reason: '', by: 'peer' })
    if (join !== undefined) {
      this.#takeOut(join)
      if (join.ref !== undefined) this.refuse(new FST_ROOMS_NOT_JOINED(topic), join.ref, topic)
    }
    if (ref !== undefined) this.say(frames.withTopic(frames.ackOk(ref), topic))
  }

  /** Keeps a frame for a topic that the peer is joining. Returns `false` if it is not joining it. */
  hold (topic: string, frame: ClientFrame, bytes: number): boolean {
    const join = this.#joins.get(topic)
    if (join === undefined) return false
    join.held.push({ frame, bytes })
    if (++this.#waiting === this.hub.settings.limits.pending) {
      this.holdReading(this.#joins)
      this.hub.counters.paused++
    }
    return true
  }

  override hasLateJoin (now: number, handshake: number): boolean {
    for (const { startedAt } of this.#joins.values()) if (now - startedAt >= handshake) return true
    return false
  }

  /**
   * Ends the joins that have taken at least this many milliseconds.
   * @param end - ends a session
   */
  endLateJoins (now: number, handshake: number, end: (session: S) => void): void {
    for (const join of [...this.#joins.values()]) {
      if (now - join.startedAt < handshake) continue
      if (join.session !== undefined) end(join.session)
      else if (this.#takeOut(join)) this.#refuseJoin(join.topic, join.ref, new FST_ROOMS_OVERLOADED('the join took too long'), 'handshake')
    }
  }

  override stalledFor (milliseconds: number, now: number): void {
    super.stalledFor(milliseconds, now)
    for (const join of this.#joins.values()) join.startedAt += milliseconds
  }

  override say (text: string): void {
    if (!this.#isEnded) this.hub.write(this, encodings[this.transport.encoding].encode(text))
  }

  override countRefusal (reason: Refusal, topic?: string): void {
    this.#count('frame', reason, topic)
  }

  /**
   * Answers a frame that was refused.
   * @param topic - the topic that it named
   */
  refuse (error: Error, ref: Ref | undefined, topic?: string): void {
    const text = ref === undefined ? frames.error(wireError(error)) : frames.ackError(ref, wireError(error))
    // Through the session, so that frames of the topic which wait in its room until the turn ends go before this one.
    const session = topic === undefined ? undefined : this.#open.get(topic)
    if (session !== undefined) session.deliver(text)
    else this.say(topic === undefined ? text : frames.withTopic(text, topic))
  }

  override refuseJoin (session: S, ending: Ending): boolean {
    this.sayRefusal(session.topic, this.refOf(session), ending)
    return true
  }

  /** Tells the peer that a join was refused. */
  sayRefusal (topic: string, ref: Ref | undefined, ending: Ending): void {
    const { code, retry } = byeFrame(this.hub, ending)
    this.say(frames.withTopic(frames.joinRefused(ref, wireError(refusalError(topic, ending)), { close: code, ...(retry === undefined ? {} : { retry }) }), topic))
  }

  protected override logFields (): object { return { address: this.address } }

  override sessionEnded (_session: S, ending: Ending): void {
    // The bytes that a slow peer has not read are those of all its topics.
    if (this.transport.isClosing) this.close(ending)
  }

  override forget (session: S): void {
    const { topic } = session
    const join = this.#joins.get(topic)
    if (join?.session === session) this.#takeOut(join)
    else if (this.#open.get(topic) === session) this.#open.delete(topic)
    this.#buckets?.delete(session)
  }

  override close (ending: Ending): void {
    if (this.#isEnded) return
    this.#isEnded = true
    for (const session of this.sessions) session.end(ending)
    this.#joins.clear()
    if (ending.by === 'peer') return
    if (isTold(ending.code)) this.transport.writeFrame(encodings[this.transport.encoding].encode(frames.bye(byeFrame(this.hub, ending))))
    this.shut(ending)
  }

  #refuseJoin (topic: string, ref: Ref | undefined, error: Error, refusal: Refusal): void {
    this.hub.counters.refused++
    this.#count('join', refusal, topic)
    this.sayRefusal(topic, ref, { code: joinCloseCode(error), reason: '', by: 'server', refusal, error })
  }

  #count (what: 'join' | 'frame', reason: Refusal, topic: string | undefined): void {
    this.hub.countRefusal(what, reason, { topic: isTopicName(topic) ? topic : undefined, user: this.user, address: this.address })
  }

  /** Removes a join that was not committed, and refuses the frames that have waited for it. Returns whether it was still there. */
  #takeOut (join: PendingJoin<S>): boolean {
    if (this.#joins.get(join.topic) !== join) return false
    this.#joins.delete(join.topic)
    if (join.state === 'asking') {
      join.state = 'abandoned'
      this.#abandoned++
    }
    this.#release(join)
    for (const { frame: { type, ref } } of join.held) if (type !== 'ack') this.refuse(new FST_ROOMS_NOT_JOINED(join.topic), ref, join.topic)
    return true
  }

  /** The frames of a join wait no longer. */
  #release ({ held }: PendingJoin<S>): void {
    this.#waiting -= held.length
    if (this.#waiting < this.hub.settings.limits.pending) this.releaseReading(this.#joins)
  }
}
