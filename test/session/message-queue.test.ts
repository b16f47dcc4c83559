import t from 'tap'
import { MessageQueue } from '../../lib/session/message-queue.ts'
import { InFlight } from '../../lib/session/in-flight.ts'

/** Work that the test finishes, and the calls that pause and resume reading. */
function create (limit: number) {
  const started: string[] = []
  const flow: string[] = []
  const finish = new Map<string, () => void>()
  const inFlight = new InFlight()
  const work = (item: string): void | Promise<void> => {
    started.push(item)
    if (item.startsWith('sync')) return
    return new Promise<void>(resolve => { finish.set(item, resolve) })
  }
  const queue = new MessageQueue({ handle: ({ ref }) => work(String(ref)), connection: { holdReading: () => { flow.push('pause') }, releaseReading: () => { flow.push('resume') } } }, limit, inFlight)
  const end = async (item: string): Promise<void> => {
    finish.get(item)!()
    await new Promise(resolve => setImmediate(resolve))
  }
  return { queue, inFlight, started, flow, end }
}

t.test('work that finishes synchronously is done within the call and never pauses reading', async t => {
  const { queue, started, flow } = create(1)
  queue.push({ type: 'ping', ref: 'sync 1' })
  queue.push({ type: 'ping', ref: 'sync 2' })
  t.same(started, ['sync 1', 'sync 2'])
  t.same(flow, [])
})

t.test('one piece of work runs at a time, in the order of arrival', async t => {
  const { queue, started, end } = create(10)
  queue.push({ type: 'ping', ref: 'a' })
  queue.push({ type: 'ping', ref: 'sync b' })
  queue.push({ type: 'ping', ref: 'c' })
  queue.push({ type: 'ping', ref: 'd' })
  t.same(started, ['a'])
  await end('a')
  t.same(started, ['a', 'sync b', 'c'], 'synchronous work does not delay the work behind it')
  await end('c')
  t.same(started, ['a', 'sync b', 'c', 'd'])
})

t.test('reading pauses at the bound and resumes once below it, once each', async t => {
  const { queue, flow, end } = create(2)
  queue.push({ type: 'ping', ref: 'a' })
  t.same(flow, [])
  queue.push({ type: 'ping', ref: 'b' })
  t.same(flow, ['pause'])
  queue.push({ type: 'ping', ref: 'c' })
  t.same(flow, ['pause'], 'messages of a completed read are still accepted')
  await end('a')
  t.same(flow, ['pause'], 'two are unfinished')
  await end('b')
  t.same(flow, ['pause', 'resume'])
  queue.push({ type: 'ping', ref: 'd' })
  t.same(flow, ['pause', 'resume', 'pause'])
  await end('c')
  await end('d')
  t.same(flow, ['pause', 'resume', 'pause', 'resume'])
})

t.test('a bound of one pauses for every unfinished message', async t => {
  const { queue, flow, end } = create(1)
  queue.push({ type: 'ping', ref: 'a' })
  t.same(flow, ['pause'])
  await end('a')
  t.same(flow, ['pause', 'resume'])
})

t.test('finish calls back at once if nothing is unfinished, otherwise after the last piece', async t => {
  const { queue, started, end } = create(10)
  let done = 0
  queue.whenIdle(() => { done++ })
  t.equal(done, 1)
  queue.push({ type: 'ping', ref: 'a' })
  queue.push({ type: 'ping', ref: 'b' })
  queue.whenIdle(() => { done++ })
  await end('a')
  t.equal(done, 1, 'b is not finished')
  await end('b')
  t.equal(done, 2)
  t.same(started, ['a', 'b'])
})

t.test('clear drops queued work and lets running work finish', async t => {
  const { queue, started, flow, end } = create(2)
  queue.push({ type: 'ping', ref: 'a' })
  queue.push({ type: 'ping', ref: 'b' })
  queue.push({ type: 'ping', ref: 'c' })
  queue.clear()
  await end('a')
  t.same(started, ['a'])
  t.same(flow, ['pause', 'resume'])
  queue.push({ type: 'ping', ref: 'd' })
  t.same(started, ['a', 'd'])
})

t.test('whenDone calls back when no work is running, with queued, dropped or synchronous work', async t => {
  const { queue, inFlight, end } = create(9)
  let done = 0
  const ask = (): void => { inFlight.whenDone(() => { done++ }) }
  ask()
  queue.push({ type: 'ping', ref: 'sync' })
  ask()
  t.equal(done, 2, 'at once')
  for (const item of ['a', 'sync b', 'c', 'd']) queue.push({ type: 'ping', ref: item })
  ask()
  await end('a')
  t.equal(done, 2, 'one after the other')
  queue.clear()
  t.equal(done, 2)
  await end('c')
  t.equal(done, 3, 'queued work was dropped')
  queue.push({ type: 'ping', ref: 'e' })
  ask()
  await end('e')
  t.equal(done, 4, 'the next calls work as before')
})
