import type { HistoryQuery, KeptMessage, Publication, Retention } from '../../types/index.ts'
import type { Kept } from './kept-log.ts'

/** Bytes of the objects that a value needs besides its own: 350 were measured on Node.js 20. */
const overhead = 320

interface Value extends KeptMessage { readonly version: number | undefined }

/** The newest message of each key of a topic. Messages without a key are one value. */
export class KeptValues implements Kept {
  #retention: Retention
  /** In the order of the offsets, because a Map keeps the order of insertion. */
  readonly #values = new Map<string | undefined, Value>()
  from: number
  bytes = 0

  /** @param top - the offset of the topic's last publication */
  constructor (retention: Retention, top: number) {
    this.#retention = retention
    this.from = top
  }

  get count (): number { return this.#values.size }

  isStale ({ key, version }: Publication): boolean {
    const kept = this.#values.get(key)?.version
    return version !== undefined && kept !== undefined && version < kept
  }

  append (offset: number, { tail, payloadLength, key, version }: Publication): void {
    const before = this.#values.get(key)
    if (before !== undefined) this.#drop(key, before)
    this.#values.set(key, { offset, tail: copyOf(tail), payloadLength, key, version })
    this.bytes += sizeOf(tail, key)
    this.retain(this.#retention)
  }

  retain (retention: Retention): void {
    this.#retention = retention
    while (this.count > retention.size || (this.bytes > retention.bytes && this.count > 0)) this.dropOldest()
  }

  dropOldest (): void {
    const [oldest] = this.#values
    this.#drop(...oldest!)
  }

  read ({ after, limit, bytes }: HistoryQuery): KeptMessage[] {
    const values = [...this.#values.values()]
    const behind = after === undefined ? values.reverse() : values.filter(({ offset }) => offset > after)
    const messages: KeptMessage[] = []
    let read = 0
    for (const value of behind) {
      read += value.tail.length
      if (messages.length === limit || read > bytes) break
      messages.push(value)
    }
    return after === undefined ? messages.reverse() : messages
  }

  #drop (key: string | undefined, { offset, tail }: KeptMessage): void {
    this.#values.delete(key)
    this.bytes -= sizeOf(tail, key)
    this.from = Math.max(this.from, offset)
  }
}

/** Bytes that a value counts. Members may choose the keys, and many small values add up. */
function sizeOf (tail: Buffer, key: string | undefined): number {
  return overhead + tail.length + 2 * (key?.length ?? 0)
}

/** Copies bytes into memory of their own, because small Buffers share slabs, and a slab lives as long as any Buffer in it. */
function copyOf (bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}
