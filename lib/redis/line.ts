import type { EntryPosition, Position, Publication, Retention, Skip } from '../../types/index.ts'
import { isSkipped } from '../history/skips.ts'
import type { ChannelMessage, Entry } from './codec.ts'

/** Most publications that wait for others, and their bytes. What is over it is read from the kept messages later. */
const mostHeld = 1_024
const mostHeldBytes = 4_194_304
/** Messages that are read at once to fill a hole. */
const pageSize = 200
/** Milliseconds after which a reading that failed is repeated. */
const retryAfter = 500

/** A kept message; without its publication if that cannot be read. */
export interface ReadMessage { readonly offset: number, readonly publication: Publication | undefined }

/** Kept messages behind an offset. */
export interface ReadPage {
  readonly top: Position
  /** The offset at which the epoch began: everything up to it is of an older one. */
  readonly base: number
  /** Offsets that were left out, because the server may have lost publications. */
  readonly skips: readonly Skip[]
  readonly messages: readonly ReadMessage[]
}

export interface LinePorts {
  /** This node: it has delivered its publications of topics that keep nothing. */
  readonly node: string
  entry (topic: string, publication: Publication, position: EntryPosition | undefined): void
  /** Publications of the topic may have been missed. */
  lost (line: Line): void
  /** Entries of the topic will not come: another epoch has begun. */
  skipped (line: Line): void
  /** Reads messages behind an offset. */
  read (topic: string, after: number, limit: number, retention: Retention): Promise<ReadPage>
  /** The server has lost publications that were delivered here: begins a new epoch. */
  renew (line: Line, isDifferent: boolean): Promise<void>
  /** Bytes cannot be read. @param what - names them */
  unreadable (what: string): void
  readonly stats: { mended: number, holes: number, resets: number, dropped: number }
}

/** A publication of the channel that is not delivered yet. `after`: the offset of the one before it; `entry`: `undefined` if it cannot be read. */
interface Held { readonly epoch: string, readonly offset: number, readonly after: number, readonly entry: Entry | undefined }

function bytesOf (entry: Entry | undefined): number {
  return entry?.publication.tail.length ?? 0
}

/** The publications of a topic that is subscribed to, delivered without a hole: a publication behind one is held until the kept messages have filled it. */
export class Line {
  readonly topic: string
  readonly channel: string
  readonly partition: number
  readonly #ports: LinePorts
  retention: Retention | undefined
  isAttached = false
  isSubscribed = false
  /** The subscription has broken, and the node has not recovered since. */
  isCut = false
  /** When the subscription ends, unless the topic is attached again; on the clock of `performance`. */
  lingersUntil = Infinity
  /** The last publication that was delivered. `undefined` until the position of the topic was read. */
  position: Position | undefined
  /** Its uid, by which another one at the same position is recognised. */
  uid: string | undefined
  /** Losses so far: own publications from before need not wait for their entries. */
  losses = 0
  readonly #held: Held[] = []
  #heldBytes = 0
  /** Publications were dropped because too many waited. */
  #isBehind = false
  /** The reading that publications wait for; `undefined`: none. */
  #work: object | undefined
  #timer: NodeJS.Timeout | undefined

  constructor (topic: string, channel: string, partition: number, ports: LinePorts) {
    this.topic = topic
    this.channel = channel
    this.partition = partition
    this.#ports = ports
  }

  /** Takes a message of the channel, while the topic is attached. @param message - `undefined`: it cannot be read */
  receive (message: ChannelMessage | undefined): void {
    if (message === undefined) {
      this.#unreadable('a message')
      // Kept messages tell whether something is missing.
      if (this.retention === undefined) this.lost()
      else if (this.#work === undefined) this.mend()
      else this.#isBehind = true
      return
    }
    const { position, entries, after } = message
    if (position === undefined || this.retention === undefined) {
      for (const entry of entries) this.#passOn(entry)
      return
    }
    entries.forEach((entry, i) => {
      const offset = position.offset + i
      this.#hold({ epoch: position.epoch, offset, after: i === 0 && after !== undefined ? after : offset - 1, entry })
    })
    if (this.#work === undefined) this.#drain()
  }

  /** Holds publications until `attachedAt` or `mend`. */
  hold (): void {
    clearTimeout(this.#timer)
    this.#work = {}
  }

  /** Begins delivery behind a position that was read after the subscription was confirmed. */
  attachedAt (position: Position): void {
    this.position = position
    this.uid = undefined
    this.#work = undefined
    this.#drain()
  }

  /** Ends delivery. */
  detach (): void {
    this.hold()
    this.isAttached = this.isCut = false
    this.position = undefined
    this.#held.length = this.#heldBytes = 0
    this.losses++
  }

  /** Tells a loss that cannot be mended, since the topic keeps nothing. */
  lost (): void {
    this.losses++
    this.#ports.lost(this)
  }

  /** Reads what is missing behind the last publication, and then delivers those that wait. */
  mend (): void {
    this.hold()
    this.#mend(this.#work!).catch(() => {
      // The connection has broken, and then the topic is mended when it is back; or the server did not answer in time.
      this.#timer = setTimeout(() => { this.mend() }, retryAfter)
      this.#timer.unref()
    })
  }

  async #mend (work: object): Promise<void> {
    const { stats, read, renew } = this.#ports
    const isStale = (): boolean => this.#work !== work
    this.#isBehind = false
    let isReset = false
    let delivered = 0
    let last: Held | undefined
    for (;;) {
      const { epoch, offset } = this.position!
      last = this.#held.at(-1)
      const { top, base, skips, messages } = await read(this.topic, offset, pageSize, this.retention!)
      if (isStale()) return
      if (top.epoch !== epoch) {
        // The feed tells a reset with the first publication of the new epoch.
        this.losses++
        stats.resets++
        this.#ports.skipped(this)
        isReset = true
        this.position = { epoch: top.epoch, offset: base }
        this.uid = undefined
        continue
      }
      const isForgotten = isSkipped(skips, offset)
      if (top.offset < offset || isForgotten) {
        await renew(this, isForgotten)
        if (isStale()) return
        continue
      }
      const contiguous = this.#behindHoles(messages, top, skips)
      for (const { offset, publication } of contiguous) {
        delivered++
        this.#deliver(publication, { epoch, offset }, this.position!.offset)
        if (isStale()) return
      }
      if (this.position!.offset >= top.offset) break
    }
    if (delivered > 0) stats.mended++
    else if (isReset) this.lost()
    this.#dropUpTo(last)
    this.#work = undefined
    if (this.#isBehind) this.mend()
    else this.#drain()
  }

  /** Drops publications that were here before the last reading. Those that the server has were delivered; it knows nothing of the others, and they must not be waited for. */
  #dropUpTo (last: Held | undefined): void {
    const dropped = this.#held.splice(0, last === undefined ? 0 : this.#held.indexOf(last) + 1)
    for (const { epoch, offset, entry } of dropped) {
      this.#heldBytes -= bytesOf(entry)
      if (epoch === this.position!.epoch && offset > this.position!.offset) this.#unreadable('a publication without a kept message')
    }
  }

  #unreadable (what: string): void {
    this.#ports.unreadable(`${what} of topic "${this.topic}"`)
  }

  /** The messages behind the last hole. The holes are told as one loss. */
  #behindHoles (messages: readonly ReadMessage[], top: Position, skips: readonly Skip[]): readonly ReadMessage[] {
    const { offset } = this.position!
    if (messages.length === 0 && offset === top.offset) return messages
    const follows = (offset: number, before: number): boolean => offset === before + 1 || skips.some(({ after, to }) => after === before && to === offset - 1)
    const first = messages.findLastIndex((message, i) => !follows(message.offset, i === 0 ? offset : messages[i - 1]!.offset))
    if (first === -1 && messages.length > 0) return messages
    this.#ports.stats.holes++
    this.lost()
    this.position = { epoch: top.epoch, offset: first === -1 ? top.offset : messages[first]!.offset - 1 }
    return messages.slice(Math.max(0, first))
  }

  #hold (held: Held): void {
    const bytes = bytesOf(held.entry)
    if (this.#held.length >= mostHeld || this.#heldBytes + bytes > mostHeldBytes) {
      this.#ports.stats.dropped++
      this.#isBehind = true
      return
    }
    this.#held.push(held)
    this.#heldBytes += bytes
  }

  #drain (): void {
    let at = 0
    let isHole = false
    for (; at < this.#held.length && this.#work === undefined; at++) {
      const { epoch, offset, after, entry } = this.#held[at]!
      const { position } = this
      if (position === undefined) break
      if (position.epoch === epoch && offset <= position.offset) continue
      if (position.epoch !== epoch || (position.offset !== after && position.offset !== offset - 1)) {
        // A hole, or another epoch: it waits, with all behind it.
        isHole = true
        break
      }
      this.#deliver(entry?.publication, { epoch, offset }, position.offset)
    }
    this.#held.splice(0, at)
    this.#heldBytes = this.#held.reduce((sum, { entry }) => sum + bytesOf(entry), 0)
    if (isHole) this.mend()
  }

  /** @param after - the offset of the publication before it */
  #deliver (publication: Publication | undefined, position: Position, after: number): void {
    this.position = position
    this.uid = publication?.uid
    if (publication === undefined) {
      this.#unreadable('a publication')
      this.lost()
    } else this.#ports.entry(this.topic, publication, after === position.offset - 1 ? position : { ...position, after })
  }

  /** Delivers a publication of a topic that keeps nothing, unless this node has done so when it published it. */
  #passOn (entry: Entry | undefined): void {
    if (entry === undefined) {
      this.#unreadable('a publication')
      this.lost()
    } else if (entry.isRelayed || entry.publication.node !== this.#ports.node) this.#ports.entry(this.topic, entry.publication, undefined)
  }
}
