import type { HistoryQuery, KeptMessage, Publication, Retention } from '../../types/index.ts'
import { unpooled } from '../transport/ws/frame.ts'
import type { Kept } from './kept-log.ts'

/** The newest message of each key of a topic. Messages without a key are one value. */
export class KeptValues implements Kept {
  readonly #retention: Retention
  /** In the order of the offsets, because a Map keeps the order of insertion. */
  readonly #values = new Map<string | undefined, KeptMessage>()
  from: number
  bytes = 0

  /** @param top - the offset of the topic's last publication */
  constructor (retention: Retention, top: number) {
    this.#retention = retention
    this.from = top
  }

  get count (): number { return this.#values.size }

  append (offset: number, { tail, payloadLength, key }: Publication): void {
    const before = this.#values.get(key)
    if (before !== undefined) this.#drop(key, before)
    this.#values.set(key, { offset, tail: unpooled(tail), payloadLength, key })
    this.bytes += tail.length
    while (this.count > this.#retention.size || (this.bytes > this.#retention.bytes && this.count > 0)) this.dropOldest()
  }

  dropOldest (): void {
    for (const [key, value] of this.#values) {
      this.#drop(key, value)
      return
    }
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
    this.bytes -= tail.length
    this.from = Math.max(this.from, offset)
  }
}
