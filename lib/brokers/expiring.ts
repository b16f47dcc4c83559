interface Remembered<V> { readonly value: V, readonly expiresAt: number }

/** Values by name, each remembered for the same time. */
export class Expiring<V> {
  readonly #milliseconds: number
  readonly #most: number
  /** The oldest come first. */
  readonly #remembered = new Map<string, Remembered<V>>()

  /**
   * @param milliseconds - for which a value is remembered
   * @param most - if there are more, the oldest are forgotten early
   */
  constructor (milliseconds: number, most: number) {
    this.#milliseconds = milliseconds
    this.#most = most
  }

  get size (): number { return this.#remembered.size }

  /** The value of a name; `undefined` if there is none. */
  find (name: string): { readonly value: V } | undefined {
    const found = this.#remembered.get(name)
    return found === undefined || found.expiresAt <= performance.now() ? undefined : found
  }

  add (name: string, value: V): void {
    const now = performance.now()
    this.#remembered.delete(name)
    this.#remembered.set(name, { value, expiresAt: now + this.#milliseconds })
    for (const [oldest, { expiresAt }] of this.#remembered) {
      if (expiresAt > now && this.#remembered.size <= this.#most) break
      this.#remembered.delete(oldest)
    }
  }

  delete (name: string): void {
    this.#remembered.delete(name)
  }

  clear (): void {
    this.#remembered.clear()
  }
}
