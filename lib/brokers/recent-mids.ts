import type { Position } from '../../types/index.ts'

/** Milliseconds for which a `mid` is remembered. */
const rememberedFor = 300_000

interface Remembered { readonly position: Position | undefined, readonly expiresAt: number }

/** The publications of the last 5 minutes that were sent with a `mid`, so that none is accepted twice. Each costs some 250 bytes. */
export class RecentMids {
  readonly #most: number
  /** By topic and `mid`. The oldest come first. */
  readonly #remembered = new Map<string, Remembered>()

  /** @param most - if there are more, the oldest are forgotten early */
  constructor (most = 1_000_000) {
    this.#most = most
  }

  get size (): number { return this.#remembered.size }

  /** The publication that was accepted with this `mid`; `undefined` if there was none. */
  find (topic: string, mid: string): Pick<Remembered, 'position'> | undefined {
    const found = this.#remembered.get(`${topic} ${mid}`)
    return found === undefined || found.expiresAt <= performance.now() ? undefined : found
  }

  /** Notes a publication that was accepted. */
  add (topic: string, mid: string, position: Position | undefined): void {
    const now = performance.now()
    const key = `${topic} ${mid}`
    this.#remembered.delete(key)
    this.#remembered.set(key, { position, expiresAt: now + rememberedFor })
    for (const [oldest, { expiresAt }] of this.#remembered) {
      if (expiresAt > now && this.#remembered.size <= this.#most) break
      this.#remembered.delete(oldest)
    }
  }

  clear (): void {
    this.#remembered.clear()
  }
}
