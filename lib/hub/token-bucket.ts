/** So many in so much time, and all of them at once where nothing came before. */
export interface Rate {
  readonly capacity: number
  /** Milliseconds in which an empty bucket is full again. */
  readonly per: number
}

/** A bucket is two numbers, and needs no timer: what was in it, and when that was. */
export interface Bucket {
  /** Below zero: how much was asked for that was not there. Above the capacity: what was credited. */
  tokens: number
  /** On the clock of `performance`, in milliseconds. */
  filledAt: number
}

/** What is in it now. It fills steadily up to its capacity; what is there above that stays until it is used. */
export function level ({ tokens, filledAt }: Bucket, { capacity, per }: Rate, now: number): number {
  return Math.min(Math.max(capacity, tokens), tokens + (now - filledAt) * capacity / per)
}

/**
 * Takes one, whether it is there or not, and returns what is left: below zero it was not there. Who goes on all the same goes on
 * to fall, and has to wait the longer; but no further than to one below the capacity's negative, from where it is back in little
 * more than the time of the rate.
 */
export function draw (bucket: Bucket, rate: Rate, now: number): number {
  bucket.tokens = Math.max(level(bucket, rate, now), -rate.capacity) - 1
  bucket.filledAt = now
  return bucket.tokens
}

/**
 * Before what was kept waiting is drawn for: of the last milliseconds so many fill the bucket beyond its capacity, since it was not
 * for want of asking that nothing was taken then. Returns how far beyond.
 */
export function credit (bucket: Bucket, rate: Rate, now: number, milliseconds: number): number {
  const { tokens, filledAt } = bucket
  const gained = (now - filledAt) * rate.capacity / rate.per
  const ceiling = Math.max(rate.capacity, tokens)
  bucket.tokens = Math.min(ceiling + milliseconds * rate.capacity / rate.per, tokens + gained)
  bucket.filledAt = now
  return Math.max(0, bucket.tokens - ceiling)
}
