import type { Delivery } from './delivery.ts'

/** The latest value of one key. */
export interface LatestValue {
  readonly delivery: Delivery
  /** Its sequence number among the room's messages. */
  readonly message: number
  /** The id of the session that is excepted from it. */
  readonly except: string | undefined
}

/** Bytes that a value counts besides its payload and its key: the rest of its frame, and what a small object costs more than its bytes. */
export const overhead = 128

/** Bytes that a message counts while it is kept. */
export function sizeOf ({ publication }: Delivery): number {
  return overhead + publication.payloadLength + (publication.key?.length ?? 0)
}

/** The latest value of each key of a room, kept while a slow member may be sent them. A message without a key is a value of the whole topic. */
export class LatestValues {
  // In the order of the messages, because a Map keeps the order of insertion.
  readonly #values = new Map<string | undefined, LatestValue>()
  /** Bytes of all values. Members choose the keys, and many small values add up. */
  bytes = 0

  put (value: LatestValue): void {
    const { key } = value.delivery.publication
    value.delivery.retain()
    const before = this.#values.get(key)
    if (before !== undefined) {
      this.bytes -= sizeOf(before.delivery)
      this.#values.delete(key)
    }
    this.#values.set(key, value)
    this.bytes += sizeOf(value.delivery)
  }

  /** All values, in order. */
  all (): Iterable<LatestValue> { return this.#values.values() }

  /** The values behind a message, for one session, in order. */
  * after (message: number, session: string): Generator<Delivery> {
    for (const value of this.#values.values()) {
      if (value.message > message && value.except !== session) yield value.delivery
    }
  }
}
