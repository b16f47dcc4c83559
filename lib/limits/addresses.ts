import { loopback } from './address-key.ts'
import { level, type Bucket, type Rate } from './token-bucket.ts'

/** Connections of one address by default: enough for an office behind one address, and too few for a botnet's share. */
const defaultConnections = 100

/** A rate that is never reached. */
const unbounded: Rate = { capacity: Number.MAX_SAFE_INTEGER, per: 1 }

/** One address: its connections, and the bucket that they share. */
export interface AddressBucket extends Bucket {
  readonly key: string
  readonly rate: Rate
  connections: number
}

/** Bounds of one address, and whether they hold for this machine. */
export interface AddressLimits {
  /** The most connections; `undefined`: the default, from which this machine is exempt. */
  readonly connections: number | undefined
  /** Frames of all its connections. */
  readonly rate: Rate
  /** The host has set the rate, so it holds for this machine too. */
  readonly rateIsGiven: boolean
}

/**
 * Counts connections by address. Unless the host sets the bounds, the machine's own addresses are not bounded, because a proxy on it
 * brings all clients, and without `trustProxy` they cannot be told apart.
 */
export class Addresses {
  readonly #buckets = new Map<string, AddressBucket>()
  /** Addresses without connections. They are remembered until their buckets are full, because a new bucket would be full at once. */
  readonly #empty = new Set<AddressBucket>()
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
  get size (): number { return this.#buckets.size }

  isFull (key: string): boolean {
    const bucket = this.#buckets.get(key)
    return bucket !== undefined && bucket.connections >= (key === loopback ? this.#localConnections : this.#connections)
  }

  enter (key: string, now: number): AddressBucket {
    let bucket = this.#buckets.get(key)
    if (bucket === undefined) {
      const rate = key === loopback ? this.#localRate : this.#rate
      bucket = { key, rate, connections: 0, tokens: rate.capacity, filledAt: now, creditedUntil: 0 }
      this.#buckets.set(key, bucket)
    } else this.#empty.delete(bucket)
    bucket.connections++
    return bucket
  }

  leave (bucket: AddressBucket, now: number): void {
    if (--bucket.connections > 0) return
    this.#empty.add(bucket)
    this.#forget(bucket, now)
  }

  /** Forgets addresses without connections whose buckets are full again. */
  sweep (now: number): void {
    for (const bucket of this.#empty) this.#forget(bucket, now)
  }

  #forget (bucket: AddressBucket, now: number): void {
    if (level(bucket, bucket.rate, now) < bucket.rate.capacity) return
    this.#buckets.delete(bucket.key)
    this.#empty.delete(bucket)
  }
}
