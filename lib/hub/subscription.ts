import { FST_ROOMS_SUBSCRIBER_SLOW } from '../errors.ts'
import type { Delivery } from './fan-out/delivery.ts'

type Result = IteratorResult<unknown, void>
interface Reader { resolve (result: Result): void, reject (error: Error): void }

/** The messages of a topic for a reader on the server: no member, and bounded. */
export class Subscription implements AsyncIterableIterator<unknown, void, undefined> {
  readonly #topic: string
  readonly #bound: number
  readonly #detach: () => void
  #queue: Delivery[] = []
  #readers: Reader[] = []
  #ended = false
  #error: Error | undefined

  /** @param detach - called once, when it ends. */
  constructor (topic: string, bound: number, detach: () => void) {
    this.#topic = topic
    this.#bound = bound
    this.#detach = detach
  }

  push (delivery: Delivery): void {
    const reader = this.#readers.shift()
    if (reader !== undefined) reader.resolve(read(delivery))
    else if (this.#queue.length < this.#bound) this.#queue.push(delivery)
    else this.end(new FST_ROOMS_SUBSCRIBER_SLOW(this.#topic, this.#bound))
  }

  /** Ends it; what was received can still be read, then comes the error. */
  end (error?: Error): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#detach()
    for (const reader of this.#readers.splice(0)) error === undefined ? reader.resolve({ done: true, value: undefined }) : reader.reject(error)
  }

  next (): Promise<Result> {
    const delivery = this.#queue.shift()
    if (delivery !== undefined) return Promise.resolve(read(delivery))
    const error = this.#error
    if (error !== undefined) {
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve, reject) => { this.#readers.push({ resolve, reject }) })
  }

  async return (): Promise<Result> {
    this.end()
    this.#queue = []
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator] (): this { return this }
}

// Parsed once per reader, so that no reader changes what another gets.
function read (delivery: Delivery): Result {
  return { done: false, value: JSON.parse(delivery.json) }
}
