import { setImmediate as nextTurn } from 'node:timers/promises'
import type { HistoryPage, HistoryQuery, KeptMessage, Position, Skip } from '../../types/index.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import { encodings, type Encoding } from '../transport/encoding.ts'
import type { MessageContent } from '../transport/envelope.ts'
import { tailStart } from '../protocol/server-frames.ts'
import type { IdleReplays } from './idle-replays.ts'
import { endKey, isEnd, keyOf, type KeptKey } from './end.ts'
import { KeptFrames } from './kept-frames.ts'
import { isSkipped } from './skips.ts'
import { Readings, type ReadingsMark } from './readings.ts'
import type { HistoryRule } from './rule.ts'

/** The kept messages of all topics, as rooms read them. */
export interface HistorySource {
  /** A broker of this process answers at once. */
  readonly isInProcess: boolean
  /** The broker cannot be asked. */
  readonly isDown: boolean
  /** Reads kept messages. `undefined` if they cannot be read. */
  read (topic: string, query: HistoryQuery): HistoryPage | undefined | Promise<HistoryPage | undefined>
}

/** The start of a join: what hello says, and the messages that follow it before live ones. */
export interface ReplayPlan {
  /** The position that the next message continues; `undefined` if the topic has none. */
  readonly id: string | undefined
  /** Whether the member gets every message since its position; `undefined` if it named none. */
  readonly recovered: boolean | undefined
  /** Messages that follow; `undefined` if none were asked for. */
  readonly replayed: number | undefined
  /** The frames of these messages, behind an offset; `undefined` if there are none. */
  readonly frames: KeptFrames | undefined
  readonly behind: number
}

/** A room's place in its topic, as a join compares it with its own position. */
export interface RoomPlace {
  readonly position: Position | undefined
  hasReached (position: Position): boolean
}

/** A message that has just been delivered. */
export interface Delivered {
  readonly isEnd: boolean
  readonly tail: { readonly length: number }
  readonly publication: { readonly key?: string | undefined }
  frame (encoding: Encoding): Buffer
}

/** A message that was delivered while kept messages were read. */
interface Arrival {
  readonly position: Position
  readonly delivery: Delivered
}

/** Space for messages that are published while the frames are in use. */
const spare = 4_096

/** Frames that are made in one turn of the event loop. The first join after a quiet time may need tens of thousands. */
const perTurn = 500

/** A kept message as an envelope needs it. */
function contentOf ({ tail, payloadLength, offset }: KeptMessage, topic: string, epoch: string, isUntyped: boolean): MessageContent {
  return {
    topic,
    id: formatPosition({ epoch, offset }),
    get json () { return tail.toString('utf8', tailStart.length, tailStart.length + payloadLength) },
    tail,
    isUntyped,
    isEnd: isEnd({ payloadLength })
  }
}

/** The kept messages of one room, ready to be sent: made when the first member asks for them, and shared by all that ask. */
export class Replay {
  readonly rule: HistoryRule
  readonly #topic: string
  readonly #isUntyped: boolean
  readonly #source: HistorySource
  readonly #idle: IdleReplays
  /** By plain encoding. */
  readonly #frames = new Map<Encoding, KeptFrames>()
  /** The newest message of each key, of a topic that keeps more, by plain encoding. */
  readonly #values = new Map<Encoding, KeptFrames>()
  /** The making of frames that takes several turns, by plain encoding. */
  readonly #preparing = new Map<Encoding, Promise<void>>()
  /** Readings from a broker of other processes. */
  readonly #readings: Readings
  /** Messages that were delivered during a reading, the newest in a row: they continue what is read. */
  #arrivals: Arrival[] = []
  #arrivedBytes = 0
  /** The offset behind which the reading under way asks for messages; `undefined`: for all. */
  #readAfter: number | undefined
  /** Members that are being sent frames. */
  readers = 0
  /** When it was last used, on the clock of `performance`. */
  usedAt = 0

  constructor (topic: string, rule: HistoryRule, isUntyped: boolean, source: HistorySource, idle: IdleReplays) {
    this.#topic = topic
    this.rule = rule
    this.#isUntyped = isUntyped
    this.#source = source
    this.#idle = idle
    this.#readings = new Readings({
      get isDown () { return source.isDown },
      read: encodings => this.#readFor(encodings),
      take: (page, encodings) => { this.#take(page, encodings) }
    })
  }

  get isInProcess (): boolean { return this.#source.isInProcess }

  /** Whether it holds no frames. */
  get isEmpty (): boolean { return this.#frames.size === 0 && this.#values.size === 0 }

  /** Drops the frames, because no member has asked for them for some time. Members that are being sent some keep these. */
  drop (): void {
    this.#frames.clear()
    this.#values.clear()
  }

  /**
   * Makes the frames for a join in as many turns of the event loop as they need, for a broker of this process. `undefined` if they are so few that the join can make
   * them itself.
   * @param since - as in the URL
   * @param top - the position up to which the room has delivered
   */
  prepare (since: string | undefined, encoding: Encoding, top: Position | undefined): Promise<void> | undefined {
    const { plain } = encodings[encoding]
    // The newest messages of each key are few, and change places with each message.
    if (this.rule.latest || since === undefined || since === 'latest' || top === undefined || !needsFrames(since, top)) return undefined
    const known = this.#frames.get(plain)
    const missing = top.offset - (known?.epoch === top.epoch ? known.top : this.#keptFrom(top))
    if (missing <= perTurn) return undefined
    let preparing = this.#preparing.get(plain)
    if (preparing === undefined) {
      preparing = this.#prepare(plain, top).finally(() => { this.#preparing.delete(plain) })
      this.#preparing.set(plain, preparing)
    }
    return preparing
  }

  /** Notes when a join begins, for `needs`. */
  mark (): ReadingsMark {
    return this.#readings.mark()
  }

  /**
   * The event for which a join has to wait, if the broker is not one of this process: an answer of the broker, or that its room gets as far as the member.
   * `undefined` if there is nothing to wait for, because `plan` has all that it needs, or the position is lost.
   * @param position - the member's; `null` if it has none
   * @param mark - noted when the join began
   */
  needs (position: Position | null, encoding: Encoding, room: RoomPlace, mark: ReadingsMark): 'answer' | 'room' | undefined {
    const { position: top } = room
    if (top !== undefined) this.#readings.entered(top.epoch)
    // The member has all that the room has delivered, and gets the rest as it comes.
    if (position !== null && position.epoch === top?.epoch && position.offset === top.offset) return undefined
    if (position !== null && !room.hasReached(position)) {
      if (this.#readings.knows(position, mark)) return 'room'
      return this.#readings.isLost(position, mark) ? undefined : 'answer'
    }
    if (top !== undefined && this.reaches(encoding, top) && this.#readings.isFresh(mark)) {
      this.#use()
      return undefined
    }
    // No reading leads up to a room whose position is not known, or that the broker's next entry resets.
    return this.#readings.hasAnswered(mark) && (top === undefined || !this.#readings.isIn(top.epoch)) ? undefined : 'answer'
  }

  /** Calls back once, when a reading has brought the frames of an encoding up to date. Joins share it. Returns a function that ends the wait. */
  onAnswer (encoding: Encoding, done: () => void): () => void {
    return this.#readings.onAnswer(encodings[encoding].plain, done)
  }

  /** Whether the frames of an encoding reach up to a position, so that a join can begin there. */
  reaches (encoding: Encoding, { epoch, offset }: Position): boolean {
    const frames = this.#frames.get(encodings[encoding].plain)
    return frames?.epoch === epoch && frames.top >= offset
  }

  /** Appends a message that was just delivered, because a broker of other processes cannot be asked again at once. */
  delivered (position: Position, delivery: Delivered): void {
    this.#readings.entered(position.epoch)
    for (const [encoding, known] of this.#frames) {
      if (known.epoch !== position.epoch) this.#frames.delete(encoding)
      else if (continues(position, known)) this.#appendDelivered(encoding, known, position.offset, delivery)
    }
    if (this.#readings.isUnderWay) this.#arrived(position, delivery)
  }

  /**
   * Decides how a join begins.
   * @param since - as in the URL
   * @param top - the position up to which the room has delivered
   */
  plan (since: string | undefined, encoding: Encoding, top: Position | undefined): ReplayPlan {
    const id = top === undefined ? undefined : formatPosition(top)
    const position = since === undefined ? null : parsePosition(since)
    // Messages may have been published since the frames were made, while the host's onJoin ran.
    const isValues = since === 'latest' && !this.rule.latest
    if (this.#source.isInProcess && top !== undefined && !isValues && (since === undefined ? this.rule.latest : needsFrames(since, top))) this.#refresh(encodings[encoding].plain)
    const frames = this.#framesOf(encodings[encoding].plain)
    const isCurrent = frames !== undefined && top !== undefined && this.reaches(encoding, top)
    if (position === null) {
      const nothing = { id, recovered: undefined, replayed: since === undefined ? undefined : 0, frames: undefined, behind: 0 }
      if (top === undefined || (since === undefined && !this.rule.latest)) return nothing
      const source = isValues ? this.#valuesAt(encoding, top) : isCurrent ? frames : undefined
      if (source === undefined) return nothing
      const behind = source.beforeNewest(this.rule.replay, this.rule.latest ? 0 : source.from)
      const replayed = countTo(source, behind, top.offset)
      if (replayed === 0) return nothing
      return { id: formatPosition({ epoch: top.epoch, offset: behind }), recovered: undefined, replayed, frames: source, behind }
    }
    const lost = { id, recovered: false, replayed: 0, frames: undefined, behind: 0 }
    if (top === undefined || position.epoch !== top.epoch || position.offset > top.offset) return lost
    if (position.offset === top.offset) return { ...lost, recovered: true }
    if (!isCurrent || position.offset < frames.from || isSkipped(frames.skips, position.offset) || frames.bytesBehind(position.offset) > this.rule.replay) return lost
    return { id: since, recovered: true, replayed: countTo(frames, position.offset, top.offset), frames, behind: position.offset }
  }

  /**
   * The frames of messages behind a position of this topic; `undefined` if some of these are no longer kept. A topic of values has the newest ones in any case.
   * @param to - the offset up to which the room has delivered
   */
  framesBehind (encoding: Encoding, { epoch, offset }: Position, to: number): KeptFrames | undefined {
    const { plain } = encodings[encoding]
    const { isInProcess } = this.#source
    const shared = this.#frames.get(plain)
    if (isInProcess && (this.rule.latest || (shared?.epoch === epoch && to - shared.top <= perTurn))) this.#refresh(plain)
    const frames = this.#framesOf(plain)
    if (frames?.epoch === epoch && (this.rule.latest || (frames.from <= offset && offset < frames.top))) return frames
    return isInProcess && !this.rule.latest ? this.#someBehind(plain, epoch, offset) : undefined
  }

  /** Frames for a member alone, which is far behind the others. */
  #someBehind (encoding: Encoding, epoch: string, offset: number): KeptFrames | undefined {
    const page = this.#readNow({ after: offset, limit: perTurn, bytes: Infinity })
    if (page?.position.epoch !== epoch || page.from > offset || page.messages.length === 0) return undefined
    return this.#make(encoding, { messages: page.messages, position: { epoch, offset: page.messages.at(-1)!.offset }, from: offset })
  }

  /** Reads from a broker of this process. */
  #readNow (query: Omit<HistoryQuery, 'retention'>): HistoryPage | undefined {
    return this.#source.read(this.#topic, { ...query, retention: this.rule }) as HistoryPage | undefined
  }

  /** The least offset behind which every message is kept. */
  #keptFrom ({ epoch, offset }: Position): number {
    const page = this.#readNow({ after: offset, limit: 1, bytes: 0 })
    return page?.position.epoch === epoch ? page.from : offset
  }

  /** Makes the frames of the newest messages, backwards, until they are more than may be replayed. */
  async #prepare (encoding: Encoding, { epoch, offset: top }: Position): Promise<void> {
    const parts: [KeptMessage, Buffer | undefined][][] = []
    let from = this.#keptFrom({ epoch, offset: top })
    let behind = top
    let bytes = 0
    while (behind > from && bytes <= this.rule.replay) {
      const after = Math.max(from, behind - perTurn)
      const page = this.#readNow({ after, limit: behind - after, bytes: Infinity })
      if (page?.position.epoch !== epoch) return
      from = Math.max(from, page.from) // messages may be dropped meanwhile
      parts.push(page.messages.map(message => [message, this.#encode(encoding, message, epoch)]))
      bytes += bytesOf(parts.at(-1)!)
      behind = after
      await nextTurn()
    }
    this.#frames.set(encoding, framesOf(parts.reverse().flat(), epoch, Math.max(from, behind), top))
  }

  /** Brings the frames of an encoding up to date, from a broker of this process. */
  #refresh (encoding: Encoding): void {
    this.#use()
    const known = this.#frames.get(encoding)
    const page = this.#readNow({ ...(known === undefined ? {} : { after: known.top }), limit: Infinity, bytes: Infinity })
    if (page === undefined) this.#frames.delete(encoding)
    else if (known === undefined) this.#frames.set(encoding, this.#make(encoding, page))
    else if (!this.#continue(encoding, known.top, page)) {
      this.#frames.delete(encoding)
      this.#refresh(encoding)
    }
  }

  /** Reads for joins that wait: what follows the frames, or all that is kept if one of the encodings has none. Which values are left is known from all of them alone. */
  #readFor (encodings: ReadonlySet<Encoding>): HistoryPage | undefined | Promise<HistoryPage | undefined> {
    this.#use()
    this.#arrivals = []
    this.#arrivedBytes = 0
    const tops = Array.from(encodings, encoding => this.#frames.get(encoding)?.top)
    const after = this.rule.latest || tops.includes(undefined) ? undefined : Math.min(...tops as number[])
    this.#readAfter = after
    return this.#source.read(this.#topic, { ...(after === undefined ? {} : { after }), limit: Infinity, bytes: Infinity, retention: this.rule })
  }

  /** Brings all frames up to date, and makes those of the encodings for which joins wait. */
  #take (page: HistoryPage, encodings: ReadonlySet<Encoding>): void {
    const after = this.#readAfter
    for (const encoding of new Set([...this.#frames.keys(), ...encodings])) {
      const known = this.#frames.get(encoding)
      if (after === undefined) this.#frames.set(encoding, this.#make(encoding, page))
      // The next reading is of all that is kept.
      else if (!this.#continue(encoding, after, page)) this.#frames.delete(encoding)
      for (const { position, delivery } of this.#arrivals) {
        const frames = this.#frames.get(encoding)
        if (frames !== undefined && continues(position, frames)) this.#appendDelivered(encoding, frames, position.offset, delivery)
      }
      // More was delivered during the reading than is kept of it here.
      const frames = this.#frames.get(encoding)
      if (frames !== undefined && frames.epoch === known?.epoch && frames.top < known.top) this.#frames.set(encoding, known)
    }
    this.#arrivals = []
    if (!this.isEmpty) this.#use()
  }

  /** Keeps a message that is delivered during a reading, as long as they are no more than the topic keeps. */
  #arrived (position: Position, delivery: Delivered): void {
    const last = this.#arrivals.at(-1)?.position
    if (last !== undefined && !continues(position, { epoch: last.epoch, top: last.offset })) {
      this.#arrivals = []
      this.#arrivedBytes = 0
    }
    this.#arrivals.push({ position, delivery })
    this.#arrivedBytes += delivery.tail.length
    while (this.#arrivals.length > this.rule.size || this.#arrivedBytes > this.rule.bytes) this.#arrivedBytes -= this.#arrivals.shift()!.delivery.tail.length
  }

  #appendDelivered (encoding: Encoding, known: KeptFrames, offset: number, delivery: Delivered): void {
    const { isEnd: isLast, publication: { key }, tail } = delivery
    const frame = isLast && !encodings[encoding].envelope.canBeAnswered ? undefined : delivery.frame(encoding)
    const frames = this.#append(encoding, known, offset, frame, isLast ? endKey : key, tail.length)
    if (this.rule.latest) frames.hasReplaced = true
    else frames.bound(this.rule)
  }

  /**
   * Appends a page to the frames before it, which may have grown, or been read anew, meanwhile. Returns `false` if it does not continue them.
   * @param after - the page has every message behind this offset that is kept
   */
  #continue (encoding: Encoding, after: number, { position: { epoch, offset }, messages, from, skips = [] }: HistoryPage): boolean {
    let frames = this.#frames.get(encoding)
    if (frames?.epoch !== epoch) return false
    frames.skips = skips
    // Values are read anew if any of them was replaced or dropped.
    if (this.rule.latest) return frames.top === offset && frames.from === from
    frames.from = Math.max(frames.from, from)
    if (frames.top >= offset) return true
    if (Math.max(after, from) > frames.top) return false
    for (const message of messages) {
      if (message.offset > frames.top) frames = this.#append(encoding, frames, message.offset, this.#encode(encoding, message, epoch), keyOf(message), message.tail.length)
    }
    return true
  }

  #append (encoding: Encoding, known: KeptFrames, offset: number, frame: Buffer | undefined, key: KeptKey, weight: number): KeptFrames {
    if (frame === undefined) {
      known.top = offset
      return known
    }
    if (known.append(offset, frame, key, weight)) return known
    const frames = this.rule.latest ? known.compacted(this.rule.size, frame.length) : known.grown(frame.length)
    frames.append(offset, frame, key, weight)
    this.#frames.set(encoding, frames)
    return frames
  }

  /** The frames of an encoding. Those of a topic of values are without values that newer ones have replaced. */
  #framesOf (encoding: Encoding): KeptFrames | undefined {
    const frames = this.#frames.get(encoding)
    if (!this.rule.latest || frames === undefined || !frames.hasReplaced) return frames
    const compacted = frames.compacted(this.rule.size, 0)
    this.#frames.set(encoding, compacted)
    return compacted
  }

  #use (): void {
    this.usedAt = performance.now()
    this.#idle.used(this)
  }

  #make (encoding: Encoding, { position: { epoch, offset }, messages, from, skips }: HistoryPage): KeptFrames {
    return framesOf(messages.map(message => [message, this.#encode(encoding, message, epoch)]), epoch, from, offset, skips)
  }

  /** The newest message of each key, of a topic that keeps more. Made once for each position of the topic. */
  #valuesAt (encoding: Encoding, top: Position): KeptFrames | undefined {
    const { plain } = encodings[encoding]
    if (!this.#source.isInProcess) return this.reaches(plain, top) ? this.#valuesOf(plain, this.#frames.get(plain)!) : undefined
    const from = this.#keptFrom(top)
    const known = this.#values.get(plain)
    if (known?.epoch === top.epoch && known.top === top.offset && known.from === from) return known
    const page = this.#readNow({ limit: Infinity, bytes: Infinity })
    if (page === undefined) return undefined
    const values = this.#make(plain, { messages: newestOfEachKey(page.messages), position: top, from })
    this.#values.set(plain, values)
    return values
  }

  #valuesOf (encoding: Encoding, frames: KeptFrames): KeptFrames {
    const known = this.#values.get(encoding)
    if (known?.epoch === frames.epoch && known.top === frames.top && known.from === frames.from) return known
    const values = frames.newestOfEachKey()
    this.#values.set(encoding, values)
    return values
  }

  /** The frame of a kept message; `undefined` for the end of a stream, if the peers of this encoding are not sent it. */
  #encode (encoding: Encoding, message: KeptMessage, epoch: string): Buffer | undefined {
    const { envelope, encode } = encodings[encoding]
    if (!envelope.canBeAnswered && isEnd(message)) return undefined
    return envelope.message(contentOf(message, this.#topic, epoch, this.#isUntyped), encode)
  }
}

/** Whether a message at this position is the next one behind some frames. */
function continues ({ epoch, offset }: Position, frames: Pick<KeptFrames, 'epoch' | 'top'>): boolean {
  return frames.epoch === epoch && frames.top + 1 === offset
}

/** Whether a join with this `since` may be sent messages. */
function needsFrames (since: string, { epoch, offset }: Position): boolean {
  const position = parsePosition(since)
  return position === null || (position.epoch === epoch && position.offset < offset)
}

/** Kept messages with their frames. The end of a stream has no frame for peers that cannot be answered. */
type Made = readonly (readonly [KeptMessage, Buffer | undefined])[]

function bytesOf (made: Made): number {
  return made.reduce((sum, [, frame]) => sum + (frame?.length ?? 0), 0)
}

function framesOf (made: Made, epoch: string, from: number, top: number, skips?: readonly Skip[]): KeptFrames {
  const bytes = bytesOf(made)
  const frames = new KeptFrames(epoch, from, bytes + Math.min(bytes, spare), skips)
  for (const [message, frame] of made) if (frame !== undefined) frames.append(message.offset, frame, keyOf(message), message.tail.length)
  frames.top = top
  return frames
}

/** The newest message of each key, in order. Messages without a key are one value. */
export function newestOfEachKey (messages: readonly KeptMessage[]): KeptMessage[] {
  const newest = new Map<KeptKey, KeptMessage>()
  for (const message of messages) {
    const key = keyOf(message)
    newest.delete(key)
    newest.set(key, message)
  }
  return [...newest.values()]
}

function countTo (frames: KeptFrames, behind: number, to: number): number {
  return frames.countBehind(behind) - frames.countBehind(to)
}
