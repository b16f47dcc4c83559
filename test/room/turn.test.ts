import t, { type Test } from 'tap'
import { Turn, type Flushable } from '../../lib/room/turn.ts'

/** Counts the callbacks that a turn schedules. */
function counting (t: Test): { count: number } {
  const own = globalThis.setImmediate
  const calls = { count: 0 }
  t.teardown(() => { globalThis.setImmediate = own })
  globalThis.setImmediate = ((callback: () => void) => {
    calls.count++
    return own(callback)
  }) as typeof setImmediate
  return calls
}

const own = globalThis.setImmediate
const next = (): Promise<void> => new Promise(resolve => { own(resolve) })
interface Named extends Flushable { topic: string }
const room = (topic: string): Named => ({ topic, isDirty: true, isFull: false })

t.test('rooms of a turn are flushed at its end, in order, by one setImmediate', async t => {
  const calls = counting(t)
  const flushed: string[] = []
  const turn = new Turn<Named>(({ topic }) => { flushed.push(topic) })
  turn.add(room('a'))
  turn.add(room('b'))
  await Promise.resolve()
  turn.add(room('c'))
  t.equal(calls.count, 1)
  t.same(flushed, [], 'a microtask is not the end of a turn')
  await next()
  t.same(flushed, ['a', 'b', 'c'])
  await next()
  t.equal(calls.count, 1, 'without a dirty room nothing is scheduled')
  t.equal(flushed.length, 3)
})

t.test('a room that becomes dirty during the flush is flushed in the next turn', async t => {
  const calls = counting(t)
  const flushed: string[] = []
  const turn = new Turn<Named>(({ topic }) => {
    flushed.push(topic)
    if (topic === 'a') turn.add(room('b'))
  })
  turn.add(room('a'))
  turn.add(room('c'))
  await next()
  t.same(flushed, ['a', 'c'])
  t.equal(calls.count, 2)
  await next()
  t.same(flushed, ['a', 'c', 'b'])
})

t.test('a flush that fails does not affect other rooms', async t => {
  const flushed: string[] = []
  const failures: unknown[] = []
  const turn = new Turn<Named>(({ topic }) => {
    if (topic === 'b') throw new Error('b')
    flushed.push(topic)
  })
  const hear = (error: unknown): void => { failures.push(error) }
  const others = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException')
  process.on('uncaughtException', hear)
  t.teardown(() => {
    process.removeListener('uncaughtException', hear)
    for (const other of others) process.on('uncaughtException', other)
  })
  for (const name of ['a', 'b', 'c', 'd']) turn.add(room(name))
  for (let n = 0; n < 4; n++) await next()
  t.same(flushed, ['a', 'c', 'd'])
  t.match(failures, [{ message: 'b' }])
})
