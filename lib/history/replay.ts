import type { HistoryPage, HistoryQuery, KeptMessage, Position } from '../../types/index.ts'
import { proceed } from '../proceed.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import { encodings, type Encoding } from '../transport/encoding.ts'
import type { MessageContent } from '../transport/envelope.ts'
import { tailStart } from '../protocol/server-frames.ts'
import type { IdleReplays } from './idle-replays.ts'
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

/** A kept message as an envelope needs it. */
function contentOf ({ tail, payloadLength, offset }: KeptMessage, epoch: string, isUntyped: boolean): MessageContent {
  return {
    id: formatPosition({ epoch, offset }),
    get json () { return tail.toString('utf8', tailStart.length, tailStart.length + payloadLength) },
    tail,
    isUntyped
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
  delivered (position: Position, key: string | undefined, frame: (encoding: Encoding) => Buffer): void {
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
    if (this.#source.isInProcess && (position === null ? since !== undefined || this.rule.latest : position.offset !== top?.offset)) this.refresh(encoding)
    const frames = this.#frames.get(encodings[encoding].plain)
    const isCurrent = frames !== undefined && top !== undefined && this.reaches(encoding, top)
    if (position === null) {
      const nothing = { id, recovered: undefined, replayed: since === undefined ? undefined : 0, frames: undefined, behind: 0 }
      if (!isCurrent || (since === undefined && !this.rule.latest)) return nothing
      const source = since === 'latest' && !this.rule.latest ? this.#valuesOf(encoding, frames) : frames
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

  /** The frames with every message behind a position of this topic; `undefined` if some of these are no longer kept. A topic of values has the newest ones in any case. */
  framesBehind (encoding: Encoding, { epoch, offset }: Position): KeptFrames | undefined {
    if (this.#source.isInProcess) this.refresh(encoding)
    const frames = this.#frames.get(encodings[encoding].plain)
    return frames !== undefined && frames.epoch === epoch && (this.rule.latest || frames.from <= offset) ? frames : undefined
  }

  #readAll (encoding: Encoding): boolean | Promise<boolean> {
    return proceed<HistoryPage | undefined, boolean>(this.#source.read(this.#topic, { limit: Infinity, bytes: Infinity, retention: this.rule }), page => {
      if (page === undefined) {
        this.#frames.delete(encoding)
        return false
      }
      const { position: { epoch, offset }, messages, from } = page
      this.#frames.set(encoding, this.#make(encoding, messages, epoch, from, offset))
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
      if (message.offset > frames.top) frames = this.#append(encoding, frames, message.offset, this.#encode(encoding, message, epoch), message.key)
    }
    return true
  }

  #append (encoding: Encoding, known: KeptFrames, offset: number, frame: Buffer, key: string | undefined): KeptFrames {
    if (known.append(offset, frame, key)) return known
    const frames = known.grown(frame.length)
    frames.append(offset, frame, key)
    this.#frames.set(encoding, frames)
    return frames
  }

  #make (encoding: Encoding, messages: readonly KeptMessage[], epoch: string, from: number, top: number): KeptFrames {
    const made = messages.map(message => this.#encode(encoding, message, epoch))
    const bytes = made.reduce((sum, frame) => sum + frame.length, 0)
    const frames = new KeptFrames(epoch, from, bytes + Math.min(bytes, spare))
    messages.forEach(({ offset, key }, index) => { frames.append(offset, made[index]!, key) })
    frames.top = top
    return frames
  }

  /** The newest message of each key. Made once for each position of the topic. */
  #valuesOf (encoding: Encoding, frames: KeptFrames): KeptFrames {
    const { plain } = encodings[encoding]
    const known = this.#values.get(plain)
    if (known?.epoch === frames.epoch && known.top === frames.top && known.from === frames.from) return known
    const values = frames.newestOfEachKey()
    this.#values.set(plain, values)
    return values
  }

  #encode (encoding: Encoding, message: KeptMessage, epoch: string): Buffer {
    const { envelope, encode } = encodings[encoding]
    return envelope.message(contentOf(message, epoch, this.#isUntyped), encode)
  }
}

function countTo (frames: KeptFrames, behind: number, to: number): number {
  return frames.countBehind(behind) - frames.countBehind(to)
}
