import type { Position, SlowPolicy } from '../../types/index.ts'
import type { Delivery } from './delivery.ts'

/**
 * Where a member stopped that reads more slowly than its room speaks: places, never a queue, so that it costs the same however
 * far it falls behind.
 */
export class Lag {
  /** Of the room's messages it has had those up to here. */
  readonly message: number
  /** Of the room's announcements it has had those up to here. */
  readonly announcement: number
  /** The position of the last message that it may have had. */
  readonly position: Position | undefined
  /** Messages since then that it was not to get. */
  excepted: number
  /** Private frames that stood among what it did not get. They are never dropped. */
  owed: Buffer[]
  /** What is done about it; `undefined` until that is decided. */
  policy: SlowPolicy | undefined
  /** The gap frame of the first loss since then, to be sent when it has read. */
  loss: Buffer | undefined
  /** What it was to be told when it reads is no longer known. */
  isLost = false

  constructor (message: number, announcement: number, position: Position | undefined, excepted: number, owed: Buffer[]) {
    this.message = message
    this.announcement = announcement
    this.position = position
    this.excepted = excepted
    this.owed = owed
  }
}

/** The newest value of one key. */
export interface Value {
  delivery: Delivery
  /** Its place among the room's messages. */
  message: number
  /** The session that is not to get it. */
  except: string | undefined
}

/** Bytes that a value is counted as besides its payload and its key: the rest of its frame, and that a small one costs more memory than its bytes. */
const envelope = 128

function sizeOf ({ publication }: Delivery): number {
  return envelope + publication.payloadLength + (publication.key?.length ?? 0)
}

/** The newest value of each key of a room, kept while a member lags that will be told them. A message without a key is a value of the whole topic. */
export class Newest {
  // In the order of the messages: a Map keeps that of insertion.
  readonly #values = new Map<string | undefined, Value>()
  /** What they come to; keys are members' to choose, and many small values are not little. */
  bytes = 0

  put (value: Value): void {
    const { key } = value.delivery.publication
    value.delivery.keep()
    const before = this.#values.get(key)
    if (before !== undefined) {
      this.bytes -= sizeOf(before.delivery)
      this.#values.delete(key)
    }
    this.#values.set(key, value)
    this.bytes += sizeOf(value.delivery)
  }

  /** What came after a place, for one session, in order. */
  * after (message: number, session: string): Generator<Delivery> {
    for (const value of this.#values.values()) {
      if (value.message > message && value.except !== session) yield value.delivery
    }
  }
}
