import type { Position, SlowPolicy } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { gap } from '../protocol/server-frames.ts'
import { formatPosition } from '../protocol/position.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { Counters } from '../hub/counters.ts'
import { Feed } from '../feed/feed.ts'
import { Batch, View } from './batch.ts'
import type { Delivery } from './delivery.ts'
import { encodings, type Encoding } from '../transport/encoding.ts'
import { Lag, Newest, type Value } from './lag.ts'
import { textFrameOf } from '../transport/ws/frame.ts'
import { RoomPresence } from '../presence/roster.ts'
import type { MemberSession } from '../session/session.ts'
import type { Connection } from '../connection/connection.ts'
import type { Subscription } from './reader.ts'

/** A batch that has grown so far leaves before the turn ends: frames, and bytes. */
const fullFrames = 256
const fullBytes = 262_144

/** All encodings, and those that know frames other than messages. */
const all = [0, 1, 2, 3] as const satisfies Encoding[]
const v1 = all.filter(encoding => encodings[encoding].mode === 'rooms.v1')

const nobody: MemberSession[] = []

/** What a room counts itself. */
type RoomCounters = Pick<Counters, 'deliveries' | 'sentBytes' | 'dropped' | 'conflated'>

/** Hands a message to a subscription. A failure ends that subscription alone. */
function push (subscription: Subscription, delivery: Delivery): void {
  try {
    subscription.push(delivery)
  } catch (error) {
    subscription.end(asError(error))
  }
}

/** Sends a member all that it is to get until here. */
function sendView (connection: Connection, view: View): void {
  connection.view = undefined
  connection.sendView(view)
}

/**
 * The members of one topic on this node. It appears with its first member, or subscriber, and goes with its last.
 *
 * A member that reads too slowly is taken out of the fan-out, and comes back when it has read (see lag.ts).
 */
export class Room {
  readonly topic: string
  readonly definition: TopicDefinition
  /** Those who read fast enough. Dense, in no order. */
  readonly members: MemberSession[] = []
  /** The same, as the fan-out goes through them: in a large room each object that it looks at costs it as much as the rest. */
  readonly #connections: Connection[] = []
  /** Those who do not. */
  readonly laggards = new Set<MemberSession>()
  readonly subscriptions = new Set<Subscription>()
  readonly presence: RoomPresence | undefined
  /** Joins under way. */
  joining = 0
  /** How far the broker's entries of this topic have come. */
  readonly feed = new Feed()
  /** Something waits for the end of the turn, */
  isDirty = false
  /** or so much that it should not wait. */
  isFull = false
  readonly #counters: RoomCounters
  /** What this turn's members are to get, by encoding; one flush empties all. */
  #batches: (Batch | undefined)[] = [undefined, undefined, undefined, undefined]
  /** Members, by encoding. */
  readonly #counts = [0, 0, 0, 0]
  /** Until a fan-out is over nobody is moved in the array. */
  #isFlushing = false
  #departed: MemberSession[] = []
  /** Messages, and announcements, so far, */
  #message = 0
  #announcement = 0
  /** and so far as they have left. */
  #left: { announcement: number, position: Position | undefined } = { announcement: 0, position: undefined }
  /** The first gap frame of a loss in this turn's batch. */
  #loss: Buffer | undefined
  /** Members that fall behind may be owed the newest values. */
  readonly #mayConflate: boolean
  /** The messages of this turn, where members that fall behind in it may be owed them. */
  #recent: Value[] = []
  #newest: Newest | undefined
  /** How many laggards are, or may be, owed the newest values. */
  #owed = 0

  constructor (topic: string, definition: TopicDefinition, counters: RoomCounters) {
    this.topic = topic
    this.definition = definition
    this.#counters = counters
    this.#mayConflate = definition.slow.policy !== 'close' && definition.slow.policy !== 'drop'
    this.presence = definition.presence === null ? undefined : new RoomPresence(this)
  }

  get size (): number { return this.members.length - this.#departed.length + this.laggards.size }
  get isEmpty (): boolean { return this.size === 0 && this.joining === 0 && this.subscriptions.size === 0 }

  /** The broker delivers this topic here from now on, beginning after this position. */
  attachedAt (position: Position | undefined): void {
    this.feed.attachedAt(position)
    this.#left.position ??= this.feed.position
  }

  /** Everybody whose membership is open. */
  * open (): Generator<MemberSession> {
    for (const session of this.members) if (session.state === 'open') yield session
    yield * this.laggards
  }

  add (session: MemberSession): void {
    this.#place(session)
    this.presence?.outdate()
  }

  remove (session: MemberSession): void {
    if (session.lag !== undefined) this.#forget(session, session.lag, 0)
    else {
      this.#counts[session.connection.encoding]!--
      if (this.#isFlushing) this.#departed.push(session)
      else this.#take(session)
    }
  }

  /** Queues one publication to everybody but one, and those who are behind; returns to how many members. */
  deliver (delivery: Delivery, excepted?: MemberSession): number {
    // All are made before the first is queued: what fails, fails for everybody.
    for (const encoding of all) {
      if (this.#counts[encoding]! > 0) delivery.frame(encoding)
    }
    for (const encoding of all) {
      if (this.#counts[encoding]! > 0) this.#push(encoding, delivery.frame(encoding))
    }
    this.#message++
    if (this.#mayConflate) this.#remember({ delivery, message: this.#message, except: excepted?.id })
    for (const subscription of this.subscriptions) push(subscription, delivery)
    const count = this.members.length - this.#departed.length
    if (excepted === undefined) return count
    if (excepted.lag !== undefined) {
      excepted.lag.excepted++
      return count
    }
    this.#view(excepted.connection).skipLast()
    this.#counters.sentBytes -= delivery.frame(excepted.connection.encoding).length
    return count - 1
  }

  /** Queues a presence frame to all members that speak `rooms.v1`. */
  announce (text: string): void {
    this.#announcement++
    this.#pushOther(textFrameOf(text))
  }

  /** Queues the gap frame of a loss to all members that speak `rooms.v1`. A slow member gets it when it has read. */
  tellLoss (text: string): void {
    const frame = textFrameOf(text)
    this.#pushOther(frame)
    this.#loss ??= frame
    for (const { lag } of this.laggards) lag!.loss ??= frame
  }

  /** Sends one member a frame of its own, after what the room has sent so far: at once where nothing waits. */
  sendTo (session: MemberSession, frame: Buffer): void {
    const { connection, lag } = session
    if (lag !== undefined && lag.policy === undefined) {
      lag.owed.push(frame) // it keeps its place behind those that wait for the decision
      return
    }
    const batch = this.#batches[connection.encoding]
    if (batch === undefined || lag !== undefined) {
      connection.send(frame)
      return
    }
    const view = this.#view(connection)
    view.add(frame)
    if (view.ownBytes < fullBytes) return
    // Whoever awaits each send would never let the turn end, and what waits here counts nowhere as buffered.
    connection.sendView(view)
    connection.view = new View(batch, batch.length)
  }

  /**
   * Sends everybody what waits, but for those for whom more than the bound would wait with it, from an earlier turn than this one: they are
   * out of the fan-out, and whoever calls decides what becomes of them (see `settle`).
   */
  flush (turn: number): readonly MemberSession[] {
    if (!this.isDirty || this.#isFlushing) return nobody
    const { bytes: bound } = this.definition.slow
    const connections = this.#connections
    const batches = this.#batches
    const message = this.#message
    const announcement = this.#announcement
    const { position } = this.feed
    const recent = this.#recent
    const loss = this.#loss
    this.#batches = [undefined, undefined, undefined, undefined]
    this.#recent = []
    this.#loss = undefined
    this.isDirty = false
    this.isFull = false
    this.#isFlushing = true
    let behind = nobody
    try {
      for (let i = 0, length = connections.length; i < length; i++) {
        const connection = connections[i]!
        const batch = batches[connection.encoding]
        if (batch === undefined) continue
        const { view } = connection
        view?.catchUp()
        const waiting = connection.bufferedBytes
        if (waiting === 0) connection.emptyTurn = turn
        else if (connection.emptyTurn !== turn && waiting + (view ?? batch).size > bound) {
          if (behind === nobody) behind = []
          behind.push(this.members[i]!)
          continue
        }
        if (view === undefined) connection.sendBatch(batch, waiting > 0)
        else sendView(connection, view)
      }
    } finally {
      this.#isFlushing = false
      if (this.#departed.length > 0) for (const session of this.#departed.splice(0)) this.#take(session)
    }
    for (const session of behind) {
      if (session.state === 'open') {
        this.#fallBehind(session, batches[session.connection.encoding]!, message, recent)
        session.lag!.loss = loss
      }
    }
    this.#left = { announcement, position }
    if (this.#newest !== undefined && this.#newest.bytes > bound) return [...behind, ...this.#lose()]
    return behind
  }

  /** What becomes of a member that has fallen behind, and stays. */
  settle (lag: Lag, policy: SlowPolicy): void {
    lag.policy = policy
    if (this.#mayConflate && policy !== 'latest') this.#release()
  }

  /** A laggard has read all that waited for it: it is told what it missed, up to now, and is one of all again. */
  caughtUp (session: MemberSession, turn: number): void {
    const { lag, connection } = session
    if (lag === undefined) return // it has left meanwhile
    const missed = this.#message - lag.message - lag.excepted
    const isV1 = connection.mode === 'rooms.v1'
    const frames: Buffer[] = []
    if (lag.policy === 'latest') {
      for (const delivery of this.#newest!.after(lag.message, session.id)) frames.push(delivery.frame(connection.encoding))
    } else if (missed > 0 && isV1) {
      frames.push(textFrameOf(gap({
        count: missed,
        reason: 'slow',
        ...(lag.position === undefined ? {} : { from: formatPosition(lag.position) }),
        ...(this.feed.position === undefined ? {} : { to: formatPosition(this.feed.position) })
      })))
    }
    const got = lag.policy === 'latest' ? frames.length : 0
    if (isV1 && lag.loss !== undefined) frames.unshift(lag.loss)
    this.#counters.deliveries += got
    this.#forget(session, lag, got)
    this.#place(session)
    // What it missed of presence cannot be made up for by differences.
    if (isV1 && lag.announcement !== this.#announcement) frames.push(textFrameOf(this.presence!.snapshot()))
    connection.emptyTurn = turn
    for (const frame of frames) this.#counters.sentBytes += frame.length
    connection.sendAll(frames)
  }

  /** Sends one member, who is about to leave, what waits for it. */
  flushMember ({ connection, lag }: MemberSession): void {
    if (lag !== undefined) {
      connection.sendAll(lag.owed.splice(0))
      return
    }
    if (this.#batches[connection.encoding] === undefined) return
    const view = this.#view(connection)
    view.catchUp()
    sendView(connection, view)
  }

  #push (encoding: Encoding, frame: Buffer): void {
    const batch = this.#batches[encoding]
    this.isDirty = true
    this.#counters.sentBytes += frame.length * this.#counts[encoding]!
    if (batch === undefined) {
      this.#batches[encoding] = new Batch(frame)
      this.isFull ||= frame.length >= fullBytes
      return
    }
    batch.push(frame)
    if (batch.length >= fullFrames || batch.size >= fullBytes) this.isFull = true
  }

  /** Queues a frame that is not a message to all members that speak `rooms.v1`. */
  #pushOther (frame: Buffer): void {
    for (const encoding of v1) {
      if (this.#counts[encoding]! > 0) {
        this.#push(encoding, frame)
        this.#batches[encoding]!.markOther()
      }
    }
  }

  #view (connection: Connection): View {
    connection.view ??= new View(this.#batches[connection.encoding]!, 0)
    return connection.view
  }

  #place (session: MemberSession): void {
    const { connection } = session
    const { encoding } = connection
    session.index = this.members.push(session) - 1
    this.#connections.push(connection)
    this.#counts[encoding]!++
    // What was sent before it came is not for it.
    const batch = this.#batches[encoding]
    if (batch !== undefined) connection.view = new View(batch, batch.length)
  }

  #take (session: MemberSession): void {
    const last = this.members.pop()!
    this.#connections.pop()
    if (last === session) return
    this.members[session.index] = last
    this.#connections[session.index] = last.connection
    last.index = session.index
  }

  /** @param last - the last message of the batch that it is not sent */
  #fallBehind (session: MemberSession, batch: Batch, last: number, recent: Value[]): void {
    const { connection } = session
    const view = connection.view ?? new View(batch, 0)
    connection.view = undefined
    view.catchUp()
    const { span } = view
    session.lag = new Lag(last - span, this.#left.announcement, this.#left.position, span - view.messages, view.own())
    // Of what was counted as sent it gets its own frames only.
    this.#counters.sentBytes -= view.size - view.ownBytes
    this.#counters.deliveries -= view.messages
    this.#counts[connection.encoding]!--
    this.#take(session)
    this.laggards.add(session)
    if (!this.#mayConflate) return
    this.#owed++
    if (this.#newest !== undefined) return
    this.#newest = new Newest()
    for (const value of recent) this.#newest.put(value)
  }

  /** The newest values are too much, too: who is owed them is to be closed, which says that something is lost. */
  * #lose (): Generator<MemberSession> {
    for (const session of this.laggards) {
      if (session.lag!.policy !== 'latest') continue
      session.lag!.isLost = true
      yield session
    }
  }

  #remember (value: Value): void {
    if (this.members.length > 0) this.#recent.push(value)
    if (this.#newest === undefined) return
    this.#newest.put(value)
    this.isDirty = true // so that somebody looks how much that is,
    // and soon. Not before it may be too much: while a member lags all others would lose what one write per turn saves.
    if (this.#newest.bytes > Math.max(fullBytes, this.definition.slow.bytes)) this.isFull = true
  }

  /** A laggard is none any more. */
  #forget (session: MemberSession, lag: Lag, got: number): void {
    const missed = this.#message - lag.message - lag.excepted - got
    if (lag.policy === 'latest') this.#counters.conflated += missed
    else if (lag.policy === 'drop') this.#counters.dropped += missed
    session.lag = undefined
    this.laggards.delete(session)
    if (this.#mayConflate && (lag.policy === undefined || lag.policy === 'latest')) this.#release()
  }

  #release (): void {
    if (--this.#owed === 0) this.#newest = undefined
  }
}
