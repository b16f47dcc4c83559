import type { AttachedPosition, EndReason, HistoryPage, HistoryQuery, KeptMessage, Retention, Skip } from '../../types/index.ts'
import type { RedisReply } from '../../types/redis.ts'
import { decodePublication } from './codec.ts'
import type { Epochs } from './epochs.ts'
import type { Keys } from './keys.ts'
import type { ReadPage } from './line.ts'
import type { Link } from './link.ts'
import { historyScript, positionsScript } from './script.ts'

/** Milliseconds that metadata outlive the messages, so that a client which comes back in a month learns that it has missed some. */
const positionFor = 30 * 86_400_000

/** The position of a topic, and the offset at which its epoch began. */
export interface BasedPosition extends AttachedPosition { readonly base: number }

/** Milliseconds that the metadata of a topic are kept after its last publication. */
export function metaTtl ({ ttl }: Retention): string {
  return String(Math.ceil(ttl) + positionFor)
}

/** Reads positions and kept messages. */
export class Reader {
  readonly #keys: Keys
  readonly #epochs: Epochs
  readonly #linkOf: (partition: number) => Link
  readonly #unreadable: (what: string) => void

  /** @param unreadable - a kept message cannot be read */
  constructor (keys: Keys, epochs: Epochs, linkOf: (partition: number) => Link, unreadable: (what: string) => void) {
    this.#keys = keys
    this.#epochs = epochs
    this.#linkOf = linkOf
    this.#unreadable = unreadable
  }

  /** Reads the positions of topics of one partition, in one step. Those that have none get their first one. */
  async positions (partition: number, topics: readonly string[], retention: Retention): Promise<BasedPosition[]> {
    const reply = await this.#linkOf(partition).call(positionsScript, topics.flatMap(topic => this.#keys.topic(topic)), [metaTtl(retention), this.#linkOf(partition).serverRun, ...topics.map(() => this.#epochs.next())]) as RedisReply[]
    return topics.map((_topic, i) => {
      const [epoch, offset, ended, base] = reply.slice(4 * i, 4 * i + 4).map(String) as [string, string, string, string]
      return { epoch, offset: Number(offset), base: Number(base), ...(ended === '' ? {} : { ended: ended as EndReason }) }
    })
  }

  /** Reads kept messages for the hub. One whose bytes cannot be read is as one that is no longer kept, and with it those before it. */
  async page (topic: string, query: HistoryQuery): Promise<HistoryPage> {
    const { epoch, offset, ended, from: keptFrom, skips, messages } = await this.#read(topic, query)
    let from = keptFrom
    const page: KeptMessage[] = []
    for (const [at, bytes] of messages) {
      const publication = decodePublication(topic, bytes)?.publication
      if (publication === undefined) {
        from = Math.max(from, at)
        this.#unreadable(`a kept message of topic "${topic}"`)
        // Values are kept one by one, and not in a row.
        if (!query.retention.latest) page.length = 0
      } else page.push({ offset: at, tail: publication.tail, payloadLength: publication.payloadLength, key: publication.key })
    }
    return { position: { epoch, offset }, messages: page, from, ...(skips.length === 0 ? {} : { skips }), ...(ended === '' ? {} : { ended: ended as EndReason }) }
  }

  /** Reads kept messages behind an offset, as publications. */
  async behind (topic: string, after: number, limit: number, retention: Retention): Promise<ReadPage> {
    const { epoch, offset, base, skips, messages } = await this.#read(topic, { after, limit, bytes: Infinity, retention })
    return { top: { epoch, offset }, base, skips, messages: messages.map(([at, bytes]) => ({ offset: at, publication: decodePublication(topic, bytes)?.publication })) }
  }

  async #read (topic: string, { after, limit, bytes, retention }: HistoryQuery) {
    const link = this.#linkOf(this.#keys.partitionOf(topic))
    const args = [this.#epochs.next(), after === undefined ? '' : String(after), String(limit), bounded(bytes), retention.latest ? 'v' : 'l', link.serverRun, sizeOf(retention)]
    const [epoch, offset, ended, base, from, skipped, ...rest] = await link.call(historyScript, this.#keys.topic(topic), args) as RedisReply[]
    const messages: [number, Buffer][] = []
    for (let i = 0; i < rest.length; i += 2) {
      // Another program may have written behind the top.
      if (Number(rest[i]) <= Number(offset)) messages.push([Number(rest[i]), rest[i + 1] as Buffer])
    }
    if (after === undefined) messages.reverse()
    const skips = skipsOf(String(skipped))
    return { epoch: String(epoch), offset: Number(offset), ended: String(ended), base: Number(base), from: fromOf(Number(from), skips), skips, messages }
  }
}

/** Reads skips as the scripts write them. Another program may have written there: the rest is ignored. */
function skipsOf (text: string): Skip[] {
  return Array.from(text.matchAll(/(\d{1,15}):(\d{1,15})/g), ([, after, to]) => ({ after: Number(after), to: Number(to) }))
}

/** Moves an offset behind which everything is kept before the skips that end there. */
function fromOf (from: number, skips: readonly Skip[]): number {
  return skips.reduceRight((least, { after, to }) => least === to ? after : least, from)
}

/** The number of messages that a topic keeps, for a script; -1 if only bytes and time bound it. */
export function sizeOf ({ size }: Retention): string {
  return Number.isFinite(size) ? String(size) : '-1'
}

/** A number for a script, which has no infinity. */
export function bounded (number: number): string {
  return String(Math.min(Math.floor(number), Number.MAX_SAFE_INTEGER))
}
