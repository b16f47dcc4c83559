import fc from 'fast-check'
import t from 'tap'
import { TimingWheel, tick, type Timed } from '../../lib/connection/timing-wheel.ts'

interface Item extends Timed { name: string }

const item = (name: string): Item => ({ name, slot: 0 })
const names = (items: Item[]): string[] => items.map(({ name }) => name).sort()

t.test('an item is due once, after its time and never before', async t => {
  const wheel = new TimingWheel<Item>()
  wheel.set(item('a'), 1_000)
  wheel.set(item('b'), 1_001)
  t.same(names(wheel.due(999)), [])
  t.same(names(wheel.due(1_000)), ['a'])
  t.same(names(wheel.due(1_001)), [], 'within a tick')
  t.same(names(wheel.due(1_000 + tick)), ['b'])
  t.same(names(wheel.due(10_000)), [])
  t.ok(wheel.isEmpty)
})

t.test('an item has one alarm, the last one set, or none', async t => {
  const wheel = new TimingWheel<Item>()
  const [a, b] = [item('a'), item('b')]
  wheel.set(a, 1_000)
  wheel.set(b, 1_000)
  wheel.set(a, 2_000)
  wheel.clear(b)
  wheel.clear(b)
  t.same(names(wheel.due(1_500)), [])
  t.same(names(wheel.due(2_000)), ['a'])
  wheel.clear(a)
  t.ok(wheel.isEmpty)
})

t.test('an item with a time in the past is due now', async t => {
  const wheel = new TimingWheel<Item>()
  t.same(wheel.due(1_000_000), [])
  for (const at of [999_000, 0, -5]) wheel.set(item(String(at)), at)
  t.same(names(wheel.due(1_000_000)), ['-5', '0', '999000'])
})

t.test('a time thousands of years away costs nothing, and neither does a clock that jumps there', async t => {
  const wheel = new TimingWheel<Item>()
  const end = 8.64e15 // the last time of a Date
  wheel.set(item('near'), Date.now() + 2 ** 31)
  wheel.set(item('far'), end)
  t.same(wheel.due(Date.now()), [])
  const begin = performance.now()
  t.same(names(wheel.due(end - 1)), ['near'])
  t.same(names(wheel.due(end)), ['far'])
  t.ok(performance.now() - begin < 1_000, 'a walk through all slots would take days')
})

t.test('a clock that goes back delays alarms, and loses none', async t => {
  const wheel = new TimingWheel<Item>()
  wheel.set(item('old'), 100_000)
  t.same(wheel.due(90_000), [])
  t.same(wheel.due(20_000), [])
  wheel.set(item('new'), 30_000)
  t.same(names(wheel.due(30_000)), ['new'])
  t.same(names(wheel.due(100_000)), ['old'])
})

t.test('in each sequence of set, clear and clock changes, exactly the due items are reported', async t => {
  const time = fc.integer({ min: 0, max: 20_000 })
  const step = fc.oneof(
    fc.record({ do: fc.constant('set' as const), item: fc.nat(9), at: time }),
    fc.record({ do: fc.constant('clear' as const), item: fc.nat(9), at: time }),
    fc.record({ do: fc.constant('due' as const), item: fc.nat(9), at: time })
  )
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), steps => {
    const wheel = new TimingWheel<Item>()
    const items = Array.from({ length: 10 }, (_, index) => item(String(index)))
    const model = new Map<Item, number>()
    for (const { do: action, item: index, at } of steps) {
      const one = items[index]!
      if (action === 'set') {
        wheel.set(one, at)
        model.set(one, at)
      } else if (action === 'clear') {
        wheel.clear(one)
        model.delete(one)
      } else {
        // Less than a tick late, never early.
        const due = wheel.due(at)
        for (const one of due) {
          if (!(model.get(one)! <= at)) return false
          model.delete(one)
        }
        if ([...model.values()].some(time => time <= at - tick)) return false
      }
      if (wheel.isEmpty !== (model.size === 0)) return false
    }
    return true
  }))
})
