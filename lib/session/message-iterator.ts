import { FST_ROOMS_SESSION_CLOSED } from '../errors.ts'

/**
 * The messages of one member as an async iterator. One message is handed over at a time: `offer` settles when it was taken,
 * so that the member's inbox keeps order and bound.
 */
export class Claim implements AsyncIterableIterator<unknown, void, undefined> {
  readonly #session: string
  readonly #abandon: () => void
  #offered: { payload: unknown, taken: () => void, dropped: (error: Error) => void } | undefined
  #waiting: ((result: IteratorResult<unknown, void>) => void)[] = []
  #ended = false

  /** @param abandon - the reader has left its loop. */
  constructor (session: string, abandon: () => void) {
    this.#session = session
    this.#abandon = abandon
  }

  /** @throws FST_ROOMS_SESSION_CLOSED where nobody reads any more */
  offer (payload: unknown): void | Promise<void> {
    if (this.#ended) throw new FST_ROOMS_SESSION_CLOSED(this.#session)
    const reader = this.#waiting.shift()
    if (reader !== undefined) {
      reader({ done: false, value: payload })
      return
    }
    return new Promise((resolve, reject) => { this.#offered = { payload, taken: resolve, dropped: reject } })
  }

  /** The member has gone; what was offered can still be taken. */
  end (): void {
    this.#ended = true
    for (const reader of this.#waiting.splice(0)) reader({ done: true, value: undefined })
  }

  next (): Promise<IteratorResult<unknown, void>> {
    const offered = this.#offered
    if (offered !== undefined) {
      this.#offered = undefined
      offered.taken()
      return Promise.resolve({ done: false, value: offered.payload })
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    return new Promise(resolve => { this.#waiting.push(resolve) })
  }

  async return (): Promise<IteratorResult<unknown, void>> {
    this.end()
    this.#offered?.dropped(new FST_ROOMS_SESSION_CLOSED(this.#session))
    this.#offered = undefined
    this.#abandon()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator] (): this { return this }
}
