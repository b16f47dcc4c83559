import t from 'tap'
import { drainRetry } from '../../lib/session/bye.ts'

const bounds = { min: 100, max: 15_000 }

/** The retry ranges of this many members: the lowest and the highest `min`, and the common `max`. */
function ranges (members: number, retry = bounds) {
  const all = Array.from({ length: members }, () => drainRetry(members, retry))
  const mins = all.map(({ min }) => min)
  t.equal(new Set(all.map(({ max }) => max)).size, 1)
  t.ok(all.every(({ min, max }) => Number.isInteger(min) && Number.isInteger(max) && retry.min <= min && min <= max && max <= retry.max))
  return { lowest: Math.min(...mins), highest: Math.max(...mins), max: all[0]!.max, different: new Set(mins).size }
}

t.test('issue 8: a few members reconnect within a second', async t => {
  for (const members of [1, 5, 100, 600]) {
    const { highest, max } = ranges(members)
    t.equal(max, 1_000)
    t.ok(highest <= 400)
  }
})

t.test('thousands of members reconnect in a period that grows with their number, each at another moment', async t => {
  t.match(ranges(2_000), { max: 3_100 })
  const { lowest, highest, max, different } = ranges(10_000)
  t.equal(max, 15_000)
  t.ok(lowest < 200 && highest > 4_800 && highest <= 5_067, `${lowest} to ${highest}`)
  t.ok(different > 3_000)
  t.equal(ranges(50_000).max, 15_000, 'bounded')
})

t.test('the host\'s bounds apply for any number of members', async t => {
  t.match(ranges(3, { min: 5_000, max: 60_000 }), { max: 5_900 })
  t.match(ranges(20_000, { min: 5_000, max: 60_000 }), { max: 35_000 })
  t.match(ranges(20_000, { min: 5_000, max: 5_000 }), { lowest: 5_000, highest: 5_000, max: 5_000 })
  t.match(ranges(3, { min: 0, max: 0 }), { max: 0 })
})
