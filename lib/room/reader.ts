import { FST_ROOMS_SUBSCRIBER_SLOW } from '../errors.ts'
import type { Delivery } from './delivery.ts'

type Result = IteratorResult<unknown, void>
/** Messages that a reader gets in one turn of the event loop. */
const perTurn = 1_000

/** A reader of a topic's messages that is not a member. */
export interface RoomReader {
  push (delivery: Delivery): void
  /** Notes that messages are missing. Returns `true` if the reader is to be ended for it, with the same error. */
  interrupt (error: Error): boolean
  /** Notes that the topic has ended: no message follows. */
  ended (): void
  /** Ends the reader: with an error, or because the app closes. */
  end (error?: Error): void
}

interface Reader { resolve (result: Result): void, reject (error: Error): void }

/**
 * The messages of a topic for a reader on the server that is not a member: bounded. A reader that publishes to the same topic for each message
 * would go on for ever in microtasks, so after `perTurn` messages the next one waits for the event loop to turn.
 */
export class Subscription implements AsyncIterableIterator<unknown, void, undefined>, RoomReader {
  readonly #topic: string
  readonly #bound: number
  readonly #detach: () => void
  #queue: Delivery[] = []
  #readers: Reader[] = []
  /** Messages given out since the event loop was last waited for. */
  #given = 0
  #isWaiting = false
  #ended = false
  #error: Error | undefined
  /** The error with which it ends before it gets another message, because messages are missing. */
  #interruption: Error | undefined

  /**
   * @param bound - messages that wait for the reader
   * @param detach - called once, when it ends
   */
  constructor (topic: string, bound: number, detach: () => void) {
    this.#topic = topic
    this.#bound = bound
    this.#detach = detach
  }

  push (delivery: Delivery): void {
    if (this.#interruption !== undefined) {
      this.end(this.#interruption)
      return
    }
    const reader = this.#isWaiting ? undefined : this.#readers.shift()
    if (reader !== undefined) reader.resolve(this.#give(delivery))
    // A reader that waits for the event loop is not slow.
    else if (this.#queue.length < this.#bound + (this.#isWaiting ? perTurn : 0)) this.#queue.push(delivery)
    else this.end(new FST_ROOMS_SUBSCRIBER_SLOW(this.#topic, this.#bound))
  }

  ended (): void {
    this.end()
  }

  /** Gives it no further message, because it will be ended with this error. Returns `false` if it was interrupted before. */
  interrupt (error: Error): boolean {
    if (this.#interruption !== undefined) return false
    this.#interruption = error
    return true
  }

  /** Ends it. Messages that it has received can still be read; then comes the error. */
  end (error?: Error): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#detach()
    if (!this.#isWaiting) this.#endReaders()
  }

  next (): Promise<Result> {
    if (this.#isWaiting) return this.#later()
    const delivery = this.#queue.shift()
    if (delivery !== undefined) return Promise.resolve(this.#give(delivery))
    const error = this.#error
    if (error !== undefined) {
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return this.#later()
  }

  async return (): Promise<Result> {
    this.end()
    this.#queue = []
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator] (): this { return this }

  #later (): Promise<Result> {
    return new Promise((resolve, reject) => { this.#readers.push({ resolve, reject }) })
  }

  /** Hands a message to a reader, parsed for it alone, so that no reader changes the payload of another. */
  #give (delivery: Delivery): Result {
    if (++this.#given === perTurn) {
      this.#isWaiting = true
      setImmediate(() => { this.#goOn() })
    }
    return { done: false, value: JSON.parse(delivery.json) }
  }

  #goOn (): void {
    this.#given = 0
    this.#isWaiting = false
    while (!this.#isWaiting && this.#readers.length > 0 && this.#queue.length > 0) this.#readers.shift()!.resolve(this.#give(this.#queue.shift()!))
    if (this.#ended && !this.#isWaiting) this.#endReaders()
  }

  #endReaders (): void {
    const error = this.#error
    for (const reader of this.#readers.splice(0)) error === undefined ? reader.resolve({ done: true, value: undefined }) : reader.reject(error)
  }
}
