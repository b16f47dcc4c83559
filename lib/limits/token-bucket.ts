/** A number of tokens in a time, all of them at once if none was drawn before. */
export interface Rate {
  readonly capacity: number
  /** Milliseconds in which an empty bucket is full again. */
  readonly per: number
}

/** A bucket is three numbers and needs no timer. */
export interface Bucket {
  /** Its balance at `filledAt`. Below zero: tokens that were asked for and refused. Above the capacity: credit. */
  tokens: number
  /** On the clock of `performance`, in milliseconds. */
  filledAt: number
  /** Until then the balance may be above the capacity. */
  creditedUntil: number
}

/** Milliseconds for which credit is good, and over which it adds up, unless frames have waited for longer. */
const goodFor = 5_000

/** The balance at `filledAt`, without credit that has lapsed. */
export function available ({ tokens, creditedUntil }: Bucket, { capacity }: Rate, now: number): number {
  return now < creditedUntil ? tokens : Math.min(capacity, tokens)
}

/** The balance now. The bucket fills steadily up to its capacity; credit above that stays until it is used or lapses. */
export function level (bucket: Bucket, rate: Rate, now: number): number {
  const tokens = available(bucket, rate, now)
  return Math.min(Math.max(rate.capacity, tokens), tokens + (now - bucket.filledAt) * rate.capacity / rate.per)
}

/**
 * Takes one token and returns the balance; below zero means refused. Each further attempt lowers it, to `-capacity - 1` at most, so a sender that ignores refusals
 * waits longer, but bounded.
 */
export function draw (bucket: Bucket, rate: Rate, now: number): number {
  bucket.tokens = Math.max(level(bucket, rate, now), -rate.capacity) - 1
  bucket.filledAt = now
  return bucket.tokens
}

/**
 * Credits the bucket beyond its capacity, before tokens are drawn for frames that the server had left waiting: the peer might have sent them at their time. Frames
 * that had waited arrive within a short time, so the credit lapses.
 * @param milliseconds - the time for which frames were left waiting
 * @returns the tokens beyond the capacity
 */
export function credit (bucket: Bucket, rate: Rate, now: number, milliseconds: number): number {
  const { capacity } = rate
  const pace = capacity / rate.per
  const good = Math.max(goodFor, milliseconds)
  const tokens = available(bucket, rate, now)
  const ceiling = Math.max(capacity, tokens)
  const most = Math.max(ceiling, capacity + good * pace)
  bucket.tokens = Math.min(most, ceiling + milliseconds * pace, tokens + (now - bucket.filledAt) * pace)
  bucket.filledAt = now
  bucket.creditedUntil = Math.max(bucket.creditedUntil, now + good)
  return Math.max(0, bucket.tokens - ceiling)
}
