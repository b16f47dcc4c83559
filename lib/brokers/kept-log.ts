import type { HistoryQuery, KeptMessage, Publication, Retention } from '../../types/index.ts'

/** The kept messages of one topic. */
export interface Kept {
  readonly count: number
  /** Bytes of all tails; for values with those of their keys and objects. */
  readonly bytes: number
  /** The least offset behind which every message is kept. */
  readonly from: number
  /** Whether a newer version of a value is kept. */
  isStale (publication: Publication): boolean
  /** Drops what is over other bounds, which count from now on. */
  retain (retention: Retention): void
  /** Appends the message of the next offset, and drops what is over the bounds of the topic. */
  append (offset: number, publication: Publication): void
  /** Drops the oldest message. */
  dropOldest (): void
  read (query: HistoryQuery): KeptMessage[]
}

/** A record before its key and its tail: the lengths of tail, payload and key, in bytes. */
const recordHead = 12
/** The key length of a record without a key. No key is as long. */
const noKey = 0xffff_ffff

/** Records are kept in slabs of an eighth of what the topic keeps, within these bounds, so that little of them is empty. */
const leastSlab = 1_024
const mostSlab = 65_536
const slabsPerTopic = 8

interface Slab {
  readonly bytes: Buffer
  /** Offsets in the slab, in bytes, at which its first and its next record begin. */
  start: number
  end: number
  /** Its records, and the bytes of their tails. */
  count: number
  tails: number
}

/**
 * The newest messages of a topic. An object for each message would cost as much memory as a short message, so the messages stand in slabs, one record behind the
 * other.
 */
export class KeptLog implements Kept {
  #retention: Retention
  readonly #slabs: Slab[] = []
  #first: number
  #next: number
  bytes = 0

  /** @param top - the offset of the topic's last publication */
  constructor (retention: Retention, top: number) {
    this.#retention = retention
    this.#first = this.#next = top + 1
  }

  get count (): number { return this.#next - this.#first }
  get from (): number { return this.#first - 1 }

  isStale (): boolean { return false }

  append (offset: number, { tail, payloadLength, key }: Publication): void {
    const keyBytes = key === undefined ? 0 : Buffer.byteLength(key)
    const slab = this.#slabFor(recordHead + keyBytes + tail.length)
    const { bytes, end } = slab
    bytes.writeUInt32LE(tail.length, end)
    bytes.writeUInt32LE(payloadLength, end + 4)
    bytes.writeUInt32LE(key === undefined ? noKey : keyBytes, end + 8)
    if (key !== undefined) bytes.write(key, end + recordHead)
    bytes.set(tail, end + recordHead + keyBytes)
    slab.end += recordHead + keyBytes + tail.length
    slab.count++
    slab.tails += tail.length
    this.#next = offset + 1
    this.bytes += tail.length
    this.retain(this.#retention)
  }

  retain (retention: Retention): void {
    this.#retention = retention
    while (this.count > retention.size || (this.bytes > retention.bytes && this.count > 0)) this.dropOldest()
  }

  dropOldest (): void {
    const slab = this.#slabs[0]!
    const length = slab.bytes.readUInt32LE(slab.start)
    slab.start = recordEnd(slab.bytes, slab.start)
    slab.count--
    slab.tails -= length
    if (slab.count === 0) this.#slabs.shift()
    this.#first++
    this.bytes -= length
  }

  read ({ after, limit, bytes: mostBytes }: HistoryQuery): KeptMessage[] {
    if (after !== undefined && after + 1 >= this.#next) return []
    const messages: KeptMessage[] = []
    const begin = after === undefined ? this.#beginOfNewest(limit, mostBytes) : after + 1
    let offset = this.#first
    let read = 0
    for (const { bytes, start, end, count } of this.#slabs) {
      if (offset + count <= begin) {
        offset += count
        continue
      }
      for (let at = start; at < end; at = recordEnd(bytes, at), offset++) {
        if (offset < begin) continue
        read += bytes.readUInt32LE(at)
        if (messages.length === limit || read > mostBytes) return messages
        messages.push(messageAt(bytes, at, offset))
      }
    }
    return messages
  }

  /** The offset from which on the newest messages are within the bounds. */
  #beginOfNewest (limit: number, mostBytes: number): number {
    const begin = Math.max(this.#first, this.#next - limit)
    let offset = this.#first
    let read = this.bytes
    for (const { bytes, start, end, count, tails } of this.#slabs) {
      if (read <= mostBytes) break
      // None of its records is within the bound.
      if (read - tails > mostBytes) {
        read -= tails
        offset += count
        continue
      }
      for (let at = start; at < end && read > mostBytes; at = recordEnd(bytes, at), offset++) read -= bytes.readUInt32LE(at)
    }
    return Math.max(begin, offset)
  }

  /** The slab that has space for the next record. */
  #slabFor (size: number): Slab {
    const last = this.#slabs.at(-1)
    if (last !== undefined && last.bytes.length - last.end >= size) return last
    const usual = Math.min(mostSlab, Math.max(leastSlab, Math.ceil(this.bytes / slabsPerTopic)))
    // Messages of one topic are often alike in size. A whole number of them leaves no rest.
    const slab = { bytes: Buffer.allocUnsafeSlow(Math.ceil(usual / size) * size), start: 0, end: 0, count: 0, tails: 0 }
    this.#slabs.push(slab)
    return slab
  }
}

function keyLengthAt (bytes: Buffer, at: number): number {
  const length = bytes.readUInt32LE(at + 8)
  return length === noKey ? 0 : length
}

function recordEnd (bytes: Buffer, at: number): number {
  return at + recordHead + keyLengthAt(bytes, at) + bytes.readUInt32LE(at)
}

function messageAt (bytes: Buffer, at: number, offset: number): KeptMessage {
  const tailAt = at + recordHead + keyLengthAt(bytes, at)
  const hasKey = bytes.readUInt32LE(at + 8) !== noKey
  return {
    offset,
    tail: bytes.subarray(tailAt, recordEnd(bytes, at)),
    payloadLength: bytes.readUInt32LE(at + 4),
    ...(hasKey ? { key: bytes.toString('utf8', at + recordHead, tailAt) } : {})
  }
}
