/** So many in so much time, and all of them at once where nothing came before. */
export interface Rate {
  readonly capacity: number
  /** Milliseconds in which an empty bucket is full again. */
  readonly per: number
}

/** A bucket is three numbers, and needs no timer: what was in it, when that was, and how long what was credited is good. */
export interface Bucket {
  /** Below zero: how much was asked for that was not there. Above the capacity: what was credited. */
  tokens: number
  /** On the clock of `performance`, in milliseconds. */
  filledAt: number
  /** Until then it may be above its capacity. */
  creditedUntil: number
}

/** Milliseconds for which credit is good, and of which it adds up, where nothing has waited for longer. */
const goodFor = 5_000

/** What was in it, without credit that has lapsed. */
export function left ({ tokens, creditedUntil }: Bucket, { capacity }: Rate, now: number): number {
  return now < creditedUntil ? tokens : Math.min(capacity, tokens)
}

/** What is in it now. It fills steadily up to its capacity; what was credited above that stays until it is used, or its time is over. */
export function level (bucket: Bucket, rate: Rate, now: number): number {
  const tokens = left(bucket, rate, now)
  return Math.min(Math.max(rate.capacity, tokens), tokens + (now - bucket.filledAt) * rate.capacity / rate.per)
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
 * for want of asking that nothing was taken then. What had waited comes in little time, so that the credit lapses. Returns how far beyond.
 */
export function credit (bucket: Bucket, rate: Rate, now: number, milliseconds: number): number {
  const { capacity } = rate
  const pace = capacity / rate.per
  const good = Math.max(goodFor, milliseconds)
  const tokens = left(bucket, rate, now)
  const ceiling = Math.max(capacity, tokens)
  const most = Math.max(ceiling, capacity + good * pace)
  bucket.tokens = Math.min(most, ceiling + milliseconds * pace, tokens + (now - bucket.filledAt) * pace)
  bucket.filledAt = now
  bucket.creditedUntil = Math.max(bucket.creditedUntil, now + good)
  return Math.max(0, bucket.tokens - ceiling)
}
