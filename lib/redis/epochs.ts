import { randomBytes } from 'node:crypto'

/** Makes epochs: 64 random bits of this broker, and a number. Most of them are not used, because a script begins an epoch only if there is none. */
export class Epochs {
  readonly #random = randomBytes(8).toString('hex')
  #count = 0

  next (): string {
    return `${this.#random}${(++this.#count).toString(36)}`
  }
}
