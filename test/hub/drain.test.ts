import fc from 'fast-check'
import t from 'tap'
import { MessageQueue } from '../../lib/session/message-queue.ts'
import { Drain, shareOf, type DrainSettings } from '../../lib/hub/drain.ts'
import { until } from '../helpers/app.ts'
import { InFlight } from '../../lib/session/in-flight.ts'

const defaults = { timeout: 60_000, batch: 500, interval: 50, retry: { min: 100, max: 15_000 } }

/** Sessions with the fields that a drain reads. An ended batch is closed; `gone` removes its connections. */
function create (count: number, given: Partial<DrainSettings> = {}) {
  const settings = { ...defaults, ...given }
  let cut = 0
  const batches: number[][] = []
  const inFlight = new InFlight()
  const connections = new Set(Array.from({ length: count }, (_member, id) => ({
    id,
    isEnded: false,
    queue: new MessageQueue({ handle: frame => (frame as unknown as () => Promise<void>)(), connection: { holdReading () {}, releaseReading () {} } }, 9, inFlight),
    transport: { terminate: () => { cut++ } }
  })))
  const drain = new Drain(connections, inFlight, settings, closed => {
    batches.push(closed.map(({ id }) => id))
    for (const connection of closed) connection.isEnded = true
    onBatch(batches.length)
  })
  let onBatch: (number: number) => void = () => {}
  const gone = (): void => {
    connections.clear()
    drain.check()
  }
  return { connections, drain, settings, batches, gone, cut: () => cut, onBatch: (listener: typeof onBatch) => { onBatch = listener } }
}

const turn = () => new Promise(resolve => setImmediate(resolve))

t.test('a drain without connections ends at once', async t => {
  const { drain, cut, batches } = create(0)
  await drain.run()
  t.equal(cut(), 0)
  t.same(batches.flat(), [])
})

t.test('a drain ends when the last connection has closed, and concurrent calls await the same end', async t => {
  const { connections, drain, cut, batches, onBatch } = create(2)
  let over = 0
  const told = new Promise<void>(resolve => { onBatch(() => { resolve() }) })
  const waits = [drain.run(), drain.run()].map(wait => wait.then(() => { over++ }))
  await told
  waits.push(drain.run().then(() => { over++ }))
  const [one, two] = [...connections]
  connections.delete(one!)
  drain.check()
  await turn()
  t.equal(over, 0, 'one connection is still open')
  connections.delete(two!)
  drain.check()
  await Promise.all(waits)
  t.equal(over, 3)
  t.equal(cut(), 0)
  t.same(batches, [[0, 1]], 'each member is ended once, in the order of the joins')
  await drain.run()
  t.same(batches.flat(), [0, 1], 'another drain finds no member')
})

t.test('connections that are open at the deadline are terminated, and the drain ends even if none of them closes', async t => {
  for (const timeout of [0, 10]) {
    const { drain, cut, batches } = create(3, { timeout, batch: 1 })
    await drain.run()
    t.equal(cut(), 3)
    t.same(batches.flat(), [0, 1, 2], 'the connections were told first')
    drain.check()
  }
})

t.test('a drain waits for unfinished work, for at most half of the time', async t => {
  const { connections, drain, batches, gone, onBatch } = create(2)
  let finish = (): void => {}
  const [one] = [...connections]
  one!.queue.push((() => new Promise<void>(resolve => { finish = resolve })) as never)
  onBatch(gone)
  const over = drain.run()
  await turn()
  t.same(batches, [], 'no member is ended while a message is handled')
  finish()
  await over
  t.same(batches, [[0, 1]])

  const stuck = create(1, { timeout: 200 })
  const [only] = [...stuck.connections]
  only!.queue.push((() => new Promise(() => {})) as never)
  const began = performance.now()
  let told = 0
  stuck.onBatch(() => { told = performance.now() - began })
  await stuck.drain.run()
  t.ok(told >= 90, 'half of the time')
  t.equal(stuck.cut(), 1)
})

t.test('a drain waits for unfinished work once, and for work of members that left as well', async t => {
  const { connections, drain, batches, gone } = create(1, { timeout: 20_000 })
  let finish = (): void => {}
  const [one] = [...connections]
  one!.queue.push((() => new Promise<void>(resolve => { finish = resolve })) as never)
  one!.isEnded = true
  gone()
  let over = false
  const first = drain.run().then(() => { over = true })
  await new Promise(resolve => setTimeout(resolve, 50))
  t.notOk(over, 'no connection is open, but a message is handled')
  t.same(batches, [])
  finish()
  await first

  const stuck = create(1, { timeout: 20 })
  const [only] = [...stuck.connections]
  only!.queue.push((() => new Promise(() => {})) as never)
  await stuck.drain.run()
  stuck.gone()
  stuck.settings.timeout = 100_000
  over = false
  stuck.drain.run().then(() => { over = true })
  await until(() => over)
})

t.test('terminated connections have closed at the end of a drain', async t => {
  const { connections, drain, gone } = create(1, { timeout: 10 })
  const [only] = [...connections]
  Object.assign(only!.transport, { terminate: () => { setTimeout(gone, 5) } })
  await drain.run()
  t.equal(connections.size, 0)
})

t.test('members are ended in batches at an interval, and members that left by themselves do not count', async t => {
  const { connections, drain, batches, gone, onBatch } = create(10, { batch: 3, interval: 20 })
  const all = [...connections]
  const times: number[] = []
  onBatch(number => {
    times.push(performance.now())
    if (number === 1) for (const connection of all.slice(3, 5)) connection.isEnded = true
    if (number === 3) gone()
  })
  await drain.run()
  t.same(batches, [[0, 1, 2], [5, 6, 7], [8, 9]])
  t.ok(times.every((time, index) => index === 0 || time - times[index - 1]! >= 15), 'timers may be a little early, and may be late')
})

t.test('batches are larger if time is short, so that all members are told within half of it', async t => {
  const { drain, batches, cut } = create(1_000, { timeout: 400, batch: 1, interval: 20 })
  await drain.run()
  t.same(batches.flat(), Array.from({ length: 1_000 }, (_member, id) => id))
  t.ok(batches.length > 1 && batches.length <= 11, `${batches.length} batches`)
  t.equal(cut(), 1_000)
})

t.test('all members are ended, in batches that fit into the time, for each combination of numbers', async t => {
  const settings = fc.record({ timeout: fc.constant(0), batch: fc.integer({ min: 1, max: 2_000 }), interval: fc.integer({ min: 0, max: 5_000 }) })
  fc.assert(fc.property(settings, fc.integer({ min: 0, max: 200_000 }), fc.integer({ min: -100, max: 10_000 }), fc.integer({ min: 1, max: 3 }), (settings, members, milliseconds, late) => {
    let [left, now] = [members, 0]
    for (let rounds = 0; left > 0; rounds++) {
      const share = shareOf(left, milliseconds - now, settings)
      if (share < Math.min(settings.batch, left) || rounds > 20_000) return false
      left -= share
      if (left > 0 && now >= milliseconds) return false
      // Timers are late on a busy event loop; on time, the last batch is within the time.
      now += Math.max(1, settings.interval) * late
      if (left > 0 && now > milliseconds && late === 1) return false
    }
    return true
  }), { numRuns: 2_000 })
  t.equal(shareOf(10_000, 2_500, defaults), 500, 'ten thousand members with the defaults take a second')
  t.equal(shareOf(100_000, 2_500, defaults), 1_961)
  t.equal(shareOf(7, 0, { ...defaults, batch: 1 }), 7)
  t.equal(shareOf(7, -1, { ...defaults, batch: 1 }), 7)
})
