import { FST_ROOMS_BROKER_SILENT } from '../errors.ts'

/** Asks the server once a turn of the event loop whether it has processed what was sent. */
export class Flushes {
  readonly #flush: () => Promise<void>
  readonly #patience: number
  #next: Promise<void> | undefined
  /** Rejects the flushes that are under way. */
  readonly #waiting = new Set<(error: Error) => void>()
  /** Bytes that were sent, and those of them that the server has processed. */
  #sent = 0
  #confirmed = 0

  /** @param patience - milliseconds within which the server answers */
  constructor (flush: () => Promise<void>, patience = 5_000) {
    this.#flush = flush
    this.#patience = patience
  }

  /** Bytes that the server has not confirmed. */
  get unconfirmed (): number { return this.#sent - this.#confirmed }

  sent (bytes: number): void {
    this.#sent += bytes
  }

  /**
   * Settles a turn after the server has answered, so that its errors about what was sent have arrived, too.
   * @throws FST_ROOMS_BROKER_SILENT, the error of `cut`, the error of the client
   */
  next (): Promise<void> {
    this.#next ??= new Promise((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined
      const end = (settle: () => void): void => {
        clearTimeout(timer)
        if (this.#waiting.delete(fail)) settle()
      }
      const fail = (error: Error): void => { end(() => { reject(error) }) }
      this.#waiting.add(fail)
      setImmediate(() => {
        this.#next = undefined
        if (!this.#waiting.has(fail)) return
        const sent = this.#sent
        timer = setTimeout(() => { fail(new FST_ROOMS_BROKER_SILENT('a flush', this.#patience)) }, this.#patience)
        this.#flush().then(() => {
          this.#confirmed = Math.max(this.#confirmed, sent)
          setImmediate(() => { end(resolve) })
        }, fail)
      })
    })
    return this.#next
  }

  /** Ends all waiting, because the connection is gone, and with it all that was not confirmed. */
  cut (error: Error): void {
    this.#confirmed = this.#sent
    for (const fail of this.#waiting) fail(error)
  }
}
