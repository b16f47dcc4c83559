import { loopback } from './address-key.ts'
import { level, type Bucket, type Rate } from './token-bucket.ts'

/** Connections of one address, unless the option says otherwise: an office behind one address, and no botnet's share. */
const defaultConnections = 100

/** No bound, by the same arithmetic. */
const unbounded: Rate = { capacity: Number.MAX_SAFE_INTEGER, per: 1 }

/** What is known of one address: how many are connected from it, and the bucket that they share. */
export interface Source extends Bucket {
  readonly key: string
  readonly rate: Rate
  connections: number
}

/** Bounds of one address, and whether they hold for this machine. */
export interface AddressLimits {
  /** Most connections; `undefined`: the default, from which this machine is exempt. */
  readonly connections: number | undefined
  /** Frames of all its connections. */
  readonly rate: Rate
  /** The rate is the host's own word, and holds for this machine, too. */
  readonly rateIsGiven: boolean
}

/**
 * Who is connected from where. Unless the host says how many may be, the machine's own addresses are not bounded: a proxy on it
 * brings all clients, and without `trustProxy` nobody can tell.
 */
export class Addresses {
  readonly #sources = new Map<string, Source>()
  /** Nobody is connected from them, and yet they are remembered: by coming back the bucket would be full. */
  readonly #empty = new Set<Source>()
  readonly #connections: number
  readonly #localConnections: number
  readonly #rate: Rate
  readonly #localRate: Rate

  constructor ({ connections, rate, rateIsGiven }: AddressLimits) {
    this.#connections = connections ?? defaultConnections
    this.#localConnections = connections ?? Infinity
    this.#rate = rate
    this.#localRate = rateIsGiven ? rate : unbounded
  }

  /** Addresses that are remembered. */
  get size (): number { return this.#sources.size }

  isFull (key: string): boolean {
    const source = this.#sources.get(key)
    return source !== undefined && source.connections >= (key === loopback ? this.#localConnections : this.#connections)
  }

  enter (key: string, now: number): Source {
    let source = this.#sources.get(key)
    if (source === undefined) {
      const rate = key === loopback ? this.#localRate : this.#rate
      source = { key, rate, connections: 0, tokens: rate.capacity, filledAt: now, creditedUntil: 0 }
      this.#sources.set(key, source)
    } else this.#empty.delete(source)
    source.connections++
    return source
  }

  leave (source: Source, now: number): void {
    if (--source.connections > 0) return
    this.#empty.add(source)
    this.#forget(source, now)
  }

  /** Forgets those whose bucket is full again. */
  sweep (now: number): void {
    for (const source of this.#empty) this.#forget(source, now)
  }

  #forget (source: Source, now: number): void {
    if (level(source, source.rate, now) < source.rate.capacity) return
    this.#sources.delete(source.key)
    this.#empty.delete(source)
  }
}
