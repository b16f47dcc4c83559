import { setImmediate as nextTurn } from 'node:timers/promises'
import type { HistoryPage, HistoryQuery, KeptMessage, Position } from '../../types/index.ts'
import { proceed } from '../proceed.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import { encodings, type Encoding } from '../transport/encoding.ts'
import type { MessageContent } from '../transport/envelope.ts'
import { tailStart } from '../protocol/server-frames.ts'
import type { IdleReplays } from './idle-replays.ts'
import { isEnd, keyOf, type KeptKey } from './end.ts'
import { KeptFrames } from './kept-frames.ts'
import type { HistoryRule } from './rule.ts'

/** The kept messages of all topics, as rooms read them. */
export interface HistorySource {
  /** A broker of this process answers at once. */
  readonly isInProcess: boolean
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

  /** Brings the frames of an encoding up to date. Returns whether they could be read: a promise if the broker does not answer at once. */
  refresh (encoding: Encoding): boolean | Promise<boolean> {
    const { plain } = encodings[encoding]
    this.usedAt = performance.now()
    this.#idle.used(this)
    const known = this.#frames.get(plain)
    if (known === undefined) return this.#readAll(plain)
    const after = known.top
    return proceed<HistoryPage | undefined, boolean>(this.#source.read(this.#topic, { after, limit: Infinity, bytes: Infinity, retention: this.rule }), page => {
      if (page !== undefined) return this.#continue(plain, after, page) || this.#readAll(plain)
      this.#frames.delete(plain)
      return false
    })
  }

  /** Whether the frames of an encoding reach up to a position, so that a join can begin there. */
  reaches (encoding: Encoding, { epoch, offset }: Position): boolean {
    const frames = this.#frames.get(encodings[encoding].plain)
    return frames?.epoch === epoch && frames.top >= offset
  }

  /** Appends a message that was just delivered, for a broker that cannot be asked again at once. */
  delivered (position: Position, key: KeptKey, frame: (encoding: Encoding) => Buffer | undefined): void {
    for (const [encoding, known] of this.#frames) {
      if (known.epoch !== position.epoch || this.rule.latest) this.#frames.delete(encoding)
      else if (known.top + 1 === position.offset) this.#append(encoding, known, position.offset, frame(encoding), key)
    }
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
    if (this.#source.isInProcess && top !== undefined && !isValues && (since === undefined ? this.rule.latest : needsFrames(since, top))) this.refresh(encoding)
    const frames = this.#frames.get(encodings[encoding].plain)
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
    if (!isCurrent || position.offset < frames.from || frames.bytesBehind(position.offset) > this.rule.replay) return lost
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
    if (isInProcess && (this.rule.latest || (shared?.epoch === epoch && to - shared.top <= perTurn))) this.refresh(encoding)
    const frames = this.#frames.get(plain)
    if (frames?.epoch === epoch && (this.rule.latest || (frames.from <= offset && offset < frames.top))) return frames
    return isInProcess && !this.rule.latest ? this.#someBehind(plain, epoch, offset) : undefined
  }

  /** Frames for a member alone, which is far behind the others. */
  #someBehind (encoding: Encoding, epoch: string, offset: number): KeptFrames | undefined {
    const page = this.#readNow({ after: offset, limit: perTurn, bytes: Infinity })
    if (page?.position.epoch !== epoch || page.from > offset || page.messages.length === 0) return undefined
    return this.#make(encoding, page.messages, epoch, offset, page.messages.at(-1)!.offset)
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

  #readAll (encoding: Encoding): boolean | Promise<boolean> {
    return proceed<HistoryPage | undefined, boolean>(this.#source.read(this.#topic, { limit: Infinity, bytes: Infinity, retention: this.rule }), page => {
      if (page === undefined) {
        this.#frames.delete(encoding)
        return false
      }
      const { position: { epoch, offset }, messages, from } = page
      const known = this.#frames.get(encoding)
      // A broker that is slow may answer after a later reading, or after messages that it has delivered since.
      if (known?.epoch !== epoch || known.top <= offset) this.#frames.set(encoding, this.#make(encoding, messages, epoch, from, offset))
      return true
    })
  }

  /**
   * Appends a page to the frames before it, which may have grown, or been read anew, meanwhile. Returns `false` if it does not continue them.
   * @param after - the page has every message behind this offset that is kept
   */
  #continue (encoding: Encoding, after: number, { position: { epoch, offset }, messages, from }: HistoryPage): boolean {
    let frames = this.#frames.get(encoding)
    if (frames?.epoch !== epoch) return false
    // Values are read anew if any of them was replaced or dropped.
    if (this.rule.latest) return frames.top === offset && frames.from === from
    frames.from = Math.max(frames.from, from)
    if (frames.top >= offset) return true
    if (Math.max(after, from) > frames.top) return false
    for (const message of messages) {
      if (message.offset > frames.top) frames = this.#append(encoding, frames, message.offset, this.#encode(encoding, message, epoch), keyOf(message))
    }
    return true
  }

  #append (encoding: Encoding, known: KeptFrames, offset: number, frame: Buffer | undefined, key: KeptKey): KeptFrames {
    if (frame === undefined) {
      known.top = offset
      return known
    }
    if (known.append(offset, frame, key)) return known
    const frames = known.grown(frame.length)
    frames.append(offset, frame, key)
    this.#frames.set(encoding, frames)
    return frames
  }

  #make (encoding: Encoding, messages: readonly KeptMessage[], epoch: string, from: number, top: number): KeptFrames {
    return framesOf(messages.map(message => [message, this.#encode(encoding, message, epoch)]), epoch, from, top)
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
    const values = this.#make(plain, newestOfEachKey(page.messages), top.epoch, from, top.offset)
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

function framesOf (made: Made, epoch: string, from: number, top: number): KeptFrames {
  const bytes = bytesOf(made)
  const frames = new KeptFrames(epoch, from, bytes + Math.min(bytes, spare))
  for (const [message, frame] of made) if (frame !== undefined) frames.append(message.offset, frame, keyOf(message))
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
