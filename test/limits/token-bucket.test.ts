import t from 'tap'
import { credit, draw, level, type Bucket } from '../../lib/limits/token-bucket.ts'

const rate = { capacity: 10, per: 1_000 }
const full = (): Bucket => ({ tokens: 10, filledAt: 0, creditedUntil: 0 })

/** The number of served draws out of `count`. */
const served = (bucket: Bucket, count: number, now: number): number => Array.from({ length: count }, () => draw(bucket, rate, now)).filter(left => left >= 0).length

t.test('a full bucket serves its capacity at once, and not one more', async t => {
  t.equal(served(full(), 10, 0), 10)
  t.equal(served(full(), 11, 0), 10)
})

t.test('a bucket fills steadily, and not above its capacity', async t => {
  const bucket = full()
  served(bucket, 10, 0)
  t.equal(level(bucket, rate, 99), 0.99)
  t.equal(served(bucket, 1, 100), 1)
  t.equal(served(bucket, 1, 199), 0)
  t.equal(level(bucket, rate, 1_000_000), 10)
  t.equal(served(bucket, 11, 1_000_000), 10)
})

t.test('a refused draw takes a token as well, so that a sender that continues waits longer', async t => {
  const bucket = full()
  served(bucket, 15, 0)
  t.equal(bucket.tokens, -5)
  t.equal(level(bucket, rate, 500), 0)
  t.equal(served(bucket, 1, 600), 1)
})

t.test('a bucket falls to one below its negative capacity, and no further', async t => {
  const bucket = full()
  for (let n = 0; n < 20; n++) draw(bucket, rate, 0)
  t.equal(bucket.tokens, -10)
  t.equal(draw(bucket, rate, 0), -11)
  t.equal(draw(bucket, rate, 0), -11)
  t.equal(served(bucket, 1, 1_200), 1)
})

t.test('an even pace at the rate is always served', async t => {
  const bucket = full()
  for (let now = 0; now < 100_000; now += 100) t.ok(draw(bucket, rate, now) >= 0)
})

t.test('held frames are credited with the inflow of the time that they waited', async t => {
  const bucket = full()
  served(bucket, 10, 0)
  t.equal(credit(bucket, rate, 5_000, 3_000), 30, 'the other two seconds fill the bucket to its capacity')
  t.equal(level(bucket, rate, 5_000), 40)
  t.equal(served(bucket, 50, 5_000), 40)
})

t.test('a credit is at most the time since the last draw', async t => {
  const bucket = full()
  served(bucket, 10, 0)
  t.equal(credit(bucket, rate, 500, 60_000), 0)
  t.equal(level(bucket, rate, 500), 5)
  t.equal(credit(bucket, rate, 500, 60_000), 0)
  t.equal(level(bucket, rate, 500), 5, 'a second credit adds nothing')
})

t.test('a credit lapses after five seconds, or after the time of waiting if that is longer, and further credit does not add to it meanwhile', async t => {
  const bucket = full()
  t.equal(credit(bucket, rate, 1_000, 1_000), 10)
  t.equal(level(bucket, rate, 5_900), 20)
  t.equal(credit(bucket, rate, 5_900, 1_000), 10)
  t.equal(level(bucket, rate, 10_800), 30)
  t.equal(level(bucket, rate, 10_900), 10)
  t.equal(credit(bucket, rate, 70_000, 20_000), 200, 'a lapsed credit is lost')
  t.equal(level(bucket, rate, 89_900), 210)
  t.equal(served(bucket, 12, 90_000), 10)
})

t.test('credits of several waits add up to five seconds, or to the longest wait', async t => {
  const bucket = full()
  let now = 0
  for (let n = 0; n < 20; n++) {
    now += 1_000
    credit(bucket, rate, now, 1_000)
  }
  t.equal(level(bucket, rate, now), 60)
  t.equal(credit(bucket, rate, now + 8_000, 8_000), 80)
  t.equal(level(bucket, rate, now + 8_000), 90)
  t.equal(credit(bucket, rate, now + 9_000, 1_000), 0)
  t.equal(level(bucket, rate, now + 9_000), 90)
})
