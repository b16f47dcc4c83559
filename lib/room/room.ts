import type { Position, Publication, SlowPolicy } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { Feed, type FeedPorts, type FeedReceiver, type Gap } from '../feed/feed.ts'
import type { IdleReplays } from '../history/idle-replays.ts'
import { Replay, type HistorySource, type ReplayPlan } from '../history/replay.ts'
import type { Losses } from '../feed/loss.ts'
import type { Counters } from '../hub/counters.ts'
import type { RemoteMembers } from '../presence/remote-members.ts'
import { Roster, type PresentMember, type PresentRoom } from '../presence/roster.ts'
import { formatPosition } from '../protocol/position.ts'
import { endTail, gap as gapFrame } from '../protocol/server-frames.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { allEncodings, answerable, encodings, frameOf, perEncoding, type Encoding } from '../transport/encoding.ts'
import type { Transport } from '../transport/transport.ts'
import type { Deflate } from '../transport/ws/deflate.ts'
import { Batch, BatchView } from './batch.ts'
import { Delivery } from './delivery.ts'
import type { EndedRoom } from './ended-rooms.ts'
import { HeldMembers, OtherFrame } from './held-members.ts'
import { Lag } from './lag.ts'
import { LaggingMembers } from './lagging-members.ts'
import type { LatestValue } from './latest-values.ts'
import type { RoomMember, SessionRoom } from './member.ts'
import type { RoomReader } from './reader.ts'
import type { Flushable, Turn } from './turn.ts'

/** A batch of this many frames or bytes is flushed before the turn ends. */
const fullFrames = 256
const fullBytes = 262_144

/** Most bytes of kept messages that are buffered for a member at a time. */
const replayBytes = 65_536

const none: never[] = []

/** The parts that all rooms of a hub share. */
export interface RoomPorts<M extends RoomMember> {
  readonly feed: FeedPorts
  readonly counters: Pick<Counters, 'deliveries' | 'sentBytes' | 'dropped' | 'conflated' | 'replayed'>
  readonly deflate: Deflate | undefined
  readonly losses: Pick<Losses, 'tell'>
  readonly turn: Pick<Turn<Flushable>, 'queued'>
  readonly history: HistorySource
  readonly replays: IdleReplays
  /** The open member of a topic with this session id. */
  member (topic: string, session: string): M | undefined
  /** Ends the memberships of a room whose topic has ended, when all members have been sent the end. */
  ended (room: EndedRoom): void
  /** Members of a topic that have left and are still shown. */
  held (topic: string): ReadonlySet<PresentMember>
  /** Makes the list of members on other nodes; `undefined` if the broker has none. */
  readonly remote: ((topic: string, roster: Roster) => RemoteMembers) | undefined
}

/** Whether the room's frames wait for a member with this lag. */
function isHeld ({ hold }: Lag): boolean {
  return hold !== undefined && !hold.isExceeded
}

/** Hands a message to a reader. If the reader fails, it ends alone. */
function push (reader: RoomReader, delivery: Delivery): void {
  try {
    reader.push(delivery)
  } catch (error) {
    reader.end(asError(error))
  }
}

/**
 * The members of one topic on this node. A room appears with its first member or reader, and goes with its last.
 *
 * A slow member is taken out of the fan-out, and comes back when it has caught up (see lag.ts). So is a member for which `onJoined` runs, until that has settled
 * (see held-members.ts).
 */
export class Room<M extends RoomMember = RoomMember> implements FeedReceiver, Flushable, PresentRoom, SessionRoom {
  readonly topic: string
  readonly definition: TopicDefinition
  readonly feed: Feed
  readonly roster: Roster | undefined
  /** Its members on other nodes; `undefined` if the topic has no presence, or the broker does not note members. */
  readonly remote: RemoteMembers | undefined
  readonly replay: Replay | undefined
  /** Members that keep up, dense and unordered. */
  readonly members: M[] = []
  /** Their transports, same indices. The fan-out loop touches only these objects, because each further object costs a cache miss. */
  readonly #transports: Transport[] = []
  /** Their views of this turn's batch, same indices; `undefined` for a member that gets the whole batch. */
  readonly #views: (BatchView | undefined)[] = []
  /** Readers that are not members. */
  readonly readers = new Set<RoomReader>()
  joining = 0
  isDirty = false
  isFull = false
  readonly #ports: RoomPorts<M>
  readonly #lagging: LaggingMembers<M>
  /** Made when the first member waits for `onJoined`. */
  #held: HeldMembers<M> | undefined
  /** Members for which more frames were held than may be. The next flush returns them as slow. */
  #exceeded: M[] = []
  /** This turn's frames, by encoding. One flush empties all. */
  #batches = perEncoding<Batch | undefined>(undefined)
  /** Members that keep up, by encoding. */
  readonly #counts = perEncoding(0)
  /** While the loop runs, members keep their places. */
  #isFlushing = false
  /** Members that have left during the loop. */
  #departed: M[] = []
  /** Sequence numbers of the last message and presence frame queued here. */
  #message = 0
  #announcement = 0
  /** The number of the last presence frame, and the position of the last message, at the last flush. */
  #flushed: { announcement: number, position: Position | undefined } = { announcement: 0, position: undefined }
  /** The first gap frame of a loss in this turn's batch. */
  #loss: string | undefined
  /** The end of the topic, if the room was here when it came. */
  #end: Delivery | undefined

  constructor (topic: string, definition: TopicDefinition, ports: RoomPorts<M>) {
    this.topic = topic
    this.definition = definition
    this.#ports = ports
    this.#lagging = new LaggingMembers(definition.slow.policy !== 'close' && definition.slow.policy !== 'drop', ports.counters)
    this.roster = definition.presence === null ? undefined : new Roster(this)
    this.remote = this.roster === undefined ? undefined : ports.remote?.(topic, this.roster)
    this.feed = new Feed(topic, this, ports.feed, definition.history ?? undefined)
    this.replay = definition.history === null ? undefined : new Replay(topic, definition.history, definition.message.schema === null, ports.history, ports.replays)
  }

  get size (): number { return this.members.length - this.#departed.length + this.#lagging.members.size + (this.#held?.members.size ?? 0) }
  get isEmpty (): boolean { return this.size === 0 && this.joining === 0 && this.readers.size === 0 }
  get held (): ReadonlySet<PresentMember> { return this.#ports.held(this.topic) }
  /** Members that are not in the fan-out. */
  get lagging (): ReadonlySet<M> { return this.#lagging.members }
  /** Whether the topic has ended: no message follows. */
  get isEnded (): boolean { return this.feed.ended !== undefined }
  /** How many members have fallen behind. */
  get slow (): number { return this.#lagging.slow }

  /** All open members. */
  * open (): Generator<M> {
    for (const member of this.members) if (member.state === 'open') yield member
    yield * this.#lagging.members
    if (this.#held !== undefined) yield * this.#held.members
  }

  add (member: M): void {
    this.#place(member)
    this.feed.receiverCame()
    this.roster?.outdate()
  }

  addReplaying (member: M, { frames, behind }: ReplayPlan): void {
    const lag = new Lag(this.#message, this.#announcement, this.feed.position, 0, [], { frames: frames!, behind })
    this.#lagging.addReplaying(member, lag)
    this.replay!.readers++
    this.feed.receiverCame()
    this.roster?.outdate()
  }

  sendKept (member: M, turn: number): 'more' | 'done' | 'lost' {
    const { transport, lag } = member
    const cursor = lag!.replay!
    const { counters } = this.#ports
    // Half of what makes a member slow, so that this turn's messages do not make it slow as soon as it gets them.
    const most = Math.min(replayBytes, Math.min(this.definition.slow.bytes, transport.leastSlowBytes) / 2)
    transport.emptyTurn = turn
    for (;;) {
      const { position } = this.feed
      // After a reset or a loss nothing continues these messages. `lag.loss` tells that behind them.
      // A peer that cannot be answered is not sent the end of a stream, which is at the last position.
      const to = position?.epoch === cursor.frames.epoch ? position.offset - (this.isEnded && !transport.envelope.canBeAnswered ? 1 : 0) : cursor.frames.top
      if (cursor.behind >= to) break
      if (transport.bufferedBytes >= most) return 'more'
      const run = cursor.frames.run(cursor.behind, to, most)
      if (run === undefined) {
        const frames = this.replay!.framesBehind(transport.encoding, { epoch: cursor.frames.epoch, offset: cursor.behind }, to)
        if (frames?.run(cursor.behind, to, most) === undefined) return 'lost'
        cursor.frames = frames
        continue
      }
      transport.writeBatch(run, true)
      cursor.behind = run.last
      counters.deliveries += run.count
      counters.replayed += run.count
      counters.sentBytes += run.whole.length
    }
    if (transport.bufferedBytes > most) return 'more'
    const frames: Buffer[] = []
    const { canBeAnswered } = transport.envelope
    if (canBeAnswered && lag!.loss !== undefined) frames.push(this.#frame(transport, lag!.loss))
    if (canBeAnswered && lag!.announcement !== this.#announcement) frames.push(this.#frame(transport, this.roster!.snapshot()))
    this.#lagging.remove(member, lag!, 0)
    this.replay!.readers--
    this.#place(member)
    for (const frame of frames) counters.sentBytes += frame.length
    transport.writeAll(frames)
    return 'done'
  }

  remove (member: M): void {
    const { lag } = member
    if (lag === undefined) this.#leaveFanOut(member)
    else if (isHeld(lag)) {
      this.#ports.counters.deliveries -= this.#missed(lag)
      this.#held!.remove(member)
      member.lag = undefined
    } else {
      if (lag.policy === 'replay') this.replay!.readers--
      this.#lagging.remove(member, lag, this.#missed(lag))
    }
  }

  hold (member: M): void {
    this.flushMember(member)
    this.#leaveFanOut(member)
    this.#held ??= new HeldMembers()
    this.#held.add(member, new Lag(this.#message, this.#announcement, this.feed.position, 0, []))
  }

  /**
   * Sends a member what has waited for `onJoined`, and takes it into the fan-out. Returns `false` if that is too much: then the member is slow.
   * @param turn - the turn's number
   */
  release (member: M, turn: number): boolean {
    const { transport } = member
    const lag = member.lag!
    const hold = lag.hold!
    if (hold.isExceeded) {
      lag.hold = undefined
      return false
    }
    const frames = this.#held!.framesFor(member, hold)
    const bytes = frames.reduce((sum, frame) => sum + frame.length, 0)
    const buffered = transport.bufferedBytes
    if (buffered === 0) transport.emptyTurn = turn
    else if (transport.emptyTurn !== turn && frames.length > 0 && buffered + bytes > this.definition.slow.bytes) {
      this.#exceed(member, lag)
      lag.hold = undefined
      this.#ports.turn.queued(this)
      return false
    }
    this.#held!.remove(member)
    member.lag = undefined
    this.#place(member)
    this.#ports.counters.sentBytes += bytes
    transport.writeAll(frames)
    return true
  }

  receive (publication: Publication, position: Position | undefined): number {
    const { counters, deflate, turn } = this.#ports
    const delivery = new Delivery(publication, position, this.definition.message.schema === null, deflate)
    if (delivery.isEnd) return this.#receiveEnd(delivery, position)
    const excepted = publication.except === undefined ? undefined : this.#ports.member(this.topic, publication.except)
    const count = this.deliver(delivery, excepted)
    if (position !== undefined && this.replay?.isInProcess === false) this.replay.delivered(position, delivery)
    turn.queued(this)
    counters.deliveries += count
    return count
  }

  /** Queues the end of the topic to all members that can be answered, and ends all readers. Members that are not in the fan-out are sent it when they have caught up. */
  #receiveEnd (delivery: Delivery, position: Position | undefined): number {
    const count = this.size
    for (const encoding of answerable) {
      if (this.#counts[encoding]! > 0) delivery.frame(encoding)
    }
    this.#end = delivery
    this.#pushToAnswerable(delivery.tail.length, encoding => delivery.frame(encoding))
    if (position !== undefined && this.replay?.isInProcess === false) this.replay.delivered(position, delivery)
    for (const reader of [...this.readers]) reader.ended()
    this.#ports.turn.queued(this)
    this.#ports.ended(this)
    return count
  }

  sendEnd (member: M): void {
    const frame = this.#endFrame(member.transport.encoding)
    this.#ports.counters.sentBytes += frame.length
    this.sendTo(member, frame)
  }

  /** The frame of the end: with its data, if the room was here when it came or it is kept. */
  #endFrame (encoding: Encoding): Buffer {
    if (this.#end !== undefined) return this.#end.frame(encoding)
    const { epoch, offset } = this.feed.position!
    const kept = this.replay?.framesBehind(encoding, { epoch, offset: offset - 1 }, offset)?.run(offset - 1, offset, 0)
    if (kept !== undefined) return kept.whole
    const { envelope, encode } = encodings[encoding]
    return envelope.message({ topic: this.topic, id: formatPosition({ epoch, offset }), json: '', tail: endTail(this.feed.ended!), isUntyped: true, isEnd: true }, encode)
  }

  attached (position: Position | undefined): void {
    this.#flushed.position ??= position
    this.remote?.attached()
  }

  tellLoss (gap: Gap): void {
    this.#ports.losses.tell(this, gap)
    this.#ports.turn.queued(this)
  }

  /** Queues a message to all members but one and to all readers. Returns to how many members. */
  deliver (delivery: Delivery, excepted?: M): number {
    // Makes all frames before the first is queued, so that a failure leaves all members alike.
    for (const encoding of allEncodings) {
      if (this.#counts[encoding]! > 0) delivery.frame(encoding)
    }
    for (const encoding of allEncodings) {
      if (this.#counts[encoding]! > 0) this.#push(encoding, delivery.frame(encoding))
    }
    this.#message++
    if (this.#lagging.mayConflate) this.#note({ delivery, message: this.#message, except: excepted?.id })
    for (const reader of this.readers) push(reader, delivery)
    if (excepted?.lag !== undefined) excepted.lag.excepted++
    let count = this.members.length - this.#departed.length
    if (this.#held !== undefined && this.#held.members.size > 0) count += this.#holdMessage(delivery, excepted)
    if (excepted === undefined || excepted.lag !== undefined) return count
    this.#view(excepted).skipLast()
    this.#ports.counters.sentBytes -= delivery.frame(excepted.transport.encoding).length
    return count - 1
  }

  announce (text: string): void {
    this.#announcement++
    this.#pushOther(text)
    this.#ports.turn.queued(this)
  }

  /** Queues the gap frame of a loss to all members that can be answered. A slow member is sent it when it has caught up. */
  tellGap (gap: Gap): void {
    const text = gapFrame(gap)
    this.#pushOther(text)
    this.#loss ??= text
    for (const { lag } of this.#lagging.members) lag!.loss ??= text
    for (const { lag } of this.#held?.members ?? none) lag!.loss ??= text
  }

  sendTo (member: M, frame: Buffer, passesHold = false): void {
    const { transport, lag } = member
    if (lag?.hold !== undefined) {
      if (passesHold) transport.writeFrame(frame)
      else this.#held!.pushOwn(lag.hold, frame)
      return
    }
    if (lag !== undefined && lag.policy === undefined) {
      lag.owed.push(frame) // keeps its place behind the frames that wait for the decision
      return
    }
    const batch = this.#batches[transport.encoding]
    if (batch === undefined || lag !== undefined) {
      transport.writeFrame(frame)
      return
    }
    const view = this.#view(member)
    view.add(frame)
    if (view.ownBytes < fullBytes) return
    // A sender that awaits each send would never let the turn end, and frames in a view do not count as buffered.
    transport.writeView(view)
    this.#views[member.index] = new BatchView(batch, batch.length)
  }

  /**
   * Writes this turn's frames to all members, except those for which more than `slow.bytes` would be buffered, some of it from an earlier turn. Returns these:
   * they have been taken out of the fan-out, and the caller applies the policy (see slow-members.ts).
   * @param turn - the turn's number
   */
  flush (turn: number): readonly M[] {
    if (!this.isDirty || this.#isFlushing) return none
    const { bytes: bound } = this.definition.slow
    const transports = this.#transports
    const views = this.#views
    const batches = this.#batches
    const message = this.#message
    const announcement = this.#announcement
    const { position } = this.feed
    const recent = this.#lagging.takeRecent()
    const loss = this.#loss
    this.#batches = perEncoding<Batch | undefined>(undefined)
    this.#loss = undefined
    this.isDirty = false
    this.isFull = false
    this.#isFlushing = true
    let behind: M[] = none
    try {
      for (let i = 0, length = transports.length; i < length; i++) {
        const transport = transports[i]!
        const batch = batches[transport.encoding]
        if (batch === undefined) continue
        const view = views[i]
        view?.catchUp()
        const buffered = transport.bufferedBytes
        if (buffered === 0) transport.emptyTurn = turn
        else if (transport.emptyTurn !== turn && buffered + (view?.size ?? batch.bytes) > bound) {
          if (behind === none) behind = []
          behind.push(this.members[i]!)
          continue
        }
        if (view === undefined) transport.writeBatch(batch, buffered > 0)
        else {
          views[i] = undefined
          transport.writeView(view)
        }
      }
    } finally {
      this.#isFlushing = false
      if (this.#departed.length > 0) for (const member of this.#departed.splice(0)) this.#take(member)
    }
    for (const member of behind) {
      if (member.state === 'open') this.#fallBehind(member, batches[member.transport.encoding]!, message, recent, loss)
    }
    this.#flushed = { announcement, position }
    if (this.#exceeded.length > 0) behind = [...behind, ...this.#exceeded.splice(0)]
    if (this.#lagging.latestBytes > bound) return [...behind, ...this.#lagging.exceed()]
    return behind
  }

  /** Sets the policy of a slow member that stays. */
  decide (lag: Lag, policy: SlowPolicy): void {
    this.#lagging.decide(lag, policy)
  }

  /** Tells a slow member that has read everything what it has missed, and takes it back into the fan-out. */
  caughtUp (member: M, turn: number): void {
    const { lag, transport } = member
    if (lag === undefined) return // it has left meanwhile
    const { counters } = this.#ports
    const { canBeAnswered } = transport.envelope
    const frames: Buffer[] = []
    let values = 0
    if (canBeAnswered && lag.loss !== undefined) frames.push(this.#frame(transport, lag.loss))
    if (lag.policy === 'latest') {
      for (const delivery of this.#lagging.latestFor(member, lag)) {
        frames.push(delivery.frame(transport.encoding))
        values++
      }
    } else if (canBeAnswered && this.#missed(lag) > 0) {
      frames.push(this.#frame(transport, gapFrame({
        count: this.#missed(lag),
        reason: 'slow',
        ...(lag.position === undefined ? {} : { from: formatPosition(lag.position) }),
        ...(this.feed.position === undefined ? {} : { to: formatPosition(this.#lastMessage(this.feed.position)) })
      })))
    }
    if (canBeAnswered && this.isEnded) frames.push(this.#endFrame(transport.encoding))
    counters.deliveries += values
    this.#lagging.remove(member, lag, this.#missed(lag) - values)
    this.#place(member)
    // Differences cannot be applied to a list that has missed some of them.
    if (canBeAnswered && lag.announcement !== this.#announcement) frames.push(this.#frame(transport, this.roster!.snapshot()))
    transport.emptyTurn = turn
    for (const frame of frames) counters.sentBytes += frame.length
    transport.writeAll(frames)
  }

  flushMember (member: M): void {
    const { transport, lag } = member
    if (lag !== undefined) {
      transport.writeAll(lag.owed.splice(0))
      return
    }
    if (this.#batches[transport.encoding] === undefined) return
    const view = this.#view(member)
    view.catchUp()
    this.#views[member.index] = undefined
    transport.writeView(view)
  }

  ownBytes ({ index, lag }: M): number | undefined {
    return lag === undefined ? this.#views[index]?.ownBytes : undefined
  }

  #push (encoding: Encoding, frame: Buffer): void {
    const batch = this.#batches[encoding]
    this.isDirty = true
    this.#ports.counters.sentBytes += frame.length * this.#counts[encoding]!
    if (batch === undefined) {
      this.#batches[encoding] = new Batch(frame)
      this.isFull ||= frame.length >= fullBytes
      return
    }
    batch.push(frame)
    if (batch.length >= fullFrames || batch.bytes >= fullBytes) this.isFull = true
  }

  /** Queues a frame that is not a message to all members that can be answered. */
  #pushOther (text: string): void {
    this.#pushToAnswerable(text.length, encoding => frameOf(encoding, this.topic, text))
  }

  #frame ({ encoding }: Transport, text: string): Buffer {
    return frameOf(encoding, this.topic, text)
  }

  /** @param length - characters of the frame */
  #pushToAnswerable (length: number, frame: (encoding: Encoding) => Buffer): void {
    for (const encoding of answerable) {
      if (this.#counts[encoding]! > 0) {
        this.#push(encoding, frame(encoding))
        this.#batches[encoding]!.markOther()
      }
    }
    if (this.#held === undefined || this.#held.members.size === 0) return
    this.#held.pushOther(new OtherFrame(length, frame))
    this.#boundHeld()
  }

  #view ({ index, transport }: M): BatchView {
    this.#views[index] ??= new BatchView(this.#batches[transport.encoding]!, 0)
    return this.#views[index]
  }

  #place (member: M): void {
    const { transport } = member
    const { encoding } = transport
    member.index = this.members.push(member) - 1
    this.#transports.push(transport)
    this.#counts[encoding]!++
    // Frames that were queued before the member came are not for it.
    const batch = this.#batches[encoding]
    this.#views.push(batch === undefined ? undefined : new BatchView(batch, batch.length))
  }

  #leaveFanOut (member: M): void {
    this.#counts[member.transport.encoding]!--
    if (this.#isFlushing) this.#departed.push(member)
    else this.#take(member)
  }

  #take (member: M): void {
    const { index } = member
    const last = this.members.pop()!
    const transport = this.#transports.pop()!
    const view = this.#views.pop()
    if (last === member) return
    this.members[index] = last
    this.#transports[index] = transport
    this.#views[index] = view
    last.index = index
  }

  /** @param message - the last message of the batch that the member is not sent */
  #fallBehind (member: M, batch: Batch, message: number, recent: readonly LatestValue[], loss: string | undefined): void {
    const { counters } = this.#ports
    const view = this.#views[member.index] ?? new BatchView(batch, 0)
    view.catchUp()
    const { span } = view
    const lag = new Lag(message - span, this.#flushed.announcement, this.#flushed.position, span - view.messages, view.own())
    lag.loss = loss
    // The whole view was counted as sent, and the member gets its own frames alone.
    counters.sentBytes -= view.size - view.ownBytes
    counters.deliveries -= view.messages
    this.#counts[member.transport.encoding]!--
    this.#take(member)
    this.#lagging.add(member, lag, recent)
  }

  /** Queues a message to the members that are held. Returns to how many. */
  #holdMessage (delivery: Delivery, excepted: M | undefined): number {
    const { members } = this.#held!
    const count = excepted !== undefined && members.has(excepted) ? members.size - 1 : members.size
    this.#held!.pushMessage({ delivery, message: this.#message, except: excepted?.id })
    this.#boundHeld()
    return count
  }

  /** Makes held members slow if more than `slow.bytes` of the room wait for them. */
  #boundHeld (): void {
    for (const member of this.#held!.over(this.definition.slow.bytes)) this.#exceed(member, member.lag!)
  }

  /** Makes a held member slow: it is a place again, and nothing of the room waits for it. */
  #exceed (member: M, lag: Lag): void {
    const hold = lag.hold!
    const messages = this.#lagging.mayConflate ? this.#held!.messages(hold) : none
    this.#held!.remove(member)
    hold.isExceeded = true
    lag.waited = this.#held!.bytesFor(hold)
    this.#ports.counters.deliveries -= this.#missed(lag)
    this.#lagging.addHeld(member, lag, messages)
    this.#exceeded.push(member)
    this.isDirty = true
  }

  /** The position of the last message, which is the one before the end of a stream. */
  #lastMessage ({ epoch, offset }: Position): Position {
    return { epoch, offset: this.isEnded ? offset - 1 : offset }
  }

  #missed (lag: Lag): number {
    return this.#message - lag.message - lag.excepted
  }

  #note (value: LatestValue): void {
    this.#lagging.note(value, this.members.length > 0)
    const { latestBytes } = this.#lagging
    if (latestBytes === 0) return
    this.isDirty = true // so that the flush looks at the bytes
    // Flushes at once only if the values may be too many: while a member is slow, the others would lose the one write per turn.
    if (latestBytes > Math.max(fullBytes, this.definition.slow.bytes)) this.isFull = true
  }
}
