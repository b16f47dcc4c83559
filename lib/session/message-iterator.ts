import { FST_ROOMS_SESSION_CLOSED } from '../errors.ts'

/**
 * The messages of one member as an async iterator. Hands over one message at a time: `offer` settles when the reader has taken it, so that the member's queue
 * keeps its order and its bound.
 */
export class MessageIterator implements AsyncIterableIterator<unknown, void, undefined> {
  readonly #session: string
  readonly #abandoned: () => void
  #offered: { payload: unknown, taken: () => void, dropped: (error: Error) => void } | undefined
  #readers: ((result: IteratorResult<unknown, void>) => void)[] = []
  #isEnded = false

  /** @param abandoned - called when the reader has left its loop */
  constructor (session: string, abandoned: () => void) {
    this.#session = session
    this.#abandoned = abandoned
  }

  /**
   * Offers a message to the reader.
   * @throws FST_ROOMS_SESSION_CLOSED if the reader has left
   */
  offer (payload: unknown): void | Promise<void> {
    if (this.#isEnded) throw new FST_ROOMS_SESSION_CLOSED(this.#session)
    const reader = this.#readers.shift()
    if (reader !== undefined) {
      reader({ done: false, value: payload })
      return
    }
    return new Promise((resolve, reject) => { this.#offered = { payload, taken: resolve, dropped: reject } })
  }

  /** Ends the iterator, because the member has gone. A message that was offered can still be taken. */
  end (): void {
    this.#isEnded = true
    for (const reader of this.#readers.splice(0)) reader({ done: true, value: undefined })
  }

  next (): Promise<IteratorResult<unknown, void>> {
    const offered = this.#offered
    if (offered !== undefined) {
      this.#offered = undefined
      offered.taken()
      return Promise.resolve({ done: false, value: offered.payload })
    }
    if (this.#isEnded) return Promise.resolve({ done: true, value: undefined })
    return new Promise(resolve => { this.#readers.push(resolve) })
  }

  async return (): Promise<IteratorResult<unknown, void>> {
    this.end()
    this.#offered?.dropped(new FST_ROOMS_SESSION_CLOSED(this.#session))
    this.#offered = undefined
    this.#abandoned()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator] (): this { return this }
}
