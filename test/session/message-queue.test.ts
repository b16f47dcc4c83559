import t from 'tap'
import { Inbox } from '../../lib/session/message-queue.ts'
import { Workload } from '../../lib/session/in-flight.ts'

/** Work that the test finishes, and the calls that pause and resume reading. */
function create (limit: number) {
  const started: string[] = []
  const flow: string[] = []
  const finish = new Map<string, () => void>()
  const workload = new Workload()
  const work = (item: string): void | Promise<void> => {
    started.push(item)
    if (item.startsWith('sync')) return
    return new Promise<void>(resolve => { finish.set(item, resolve) })
  }
  const inbox = new Inbox({ work }, limit, { pause: () => { flow.push('pause') }, resume: () => { flow.push('resume') } }, workload)
  const end = async (item: string): Promise<void> => {
    finish.get(item)!()
    await new Promise(resolve => setImmediate(resolve))
  }
  return { inbox, workload, started, flow, end }
}

t.test('work that finishes synchronously is done within the call and never pauses reading', async t => {
  const { inbox, started, flow } = create(1)
  inbox.push('sync 1')
  inbox.push('sync 2')
  t.same(started, ['sync 1', 'sync 2'])
  t.same(flow, [])
})

t.test('one piece of work runs at a time, in the order of arrival', async t => {
  const { inbox, started, end } = create(10)
  inbox.push('a')
  inbox.push('sync b')
  inbox.push('c')
  inbox.push('d')
  t.same(started, ['a'])
  await end('a')
  t.same(started, ['a', 'sync b', 'c'], 'synchronous work does not delay the work behind it')
  await end('c')
  t.same(started, ['a', 'sync b', 'c', 'd'])
})

t.test('reading pauses at the bound and resumes once below it, once each', async t => {
  const { inbox, flow, end } = create(2)
  inbox.push('a')
  t.same(flow, [])
  inbox.push('b')
  t.same(flow, ['pause'])
  inbox.push('c')
  t.same(flow, ['pause'], 'messages of a completed read are still accepted')
  await end('a')
  t.same(flow, ['pause'], 'two are unfinished')
  await end('b')
  t.same(flow, ['pause', 'resume'])
  inbox.push('d')
  t.same(flow, ['pause', 'resume', 'pause'])
  await end('c')
  await end('d')
  t.same(flow, ['pause', 'resume', 'pause', 'resume'])
})

t.test('a bound of one pauses for every unfinished message', async t => {
  const { inbox, flow, end } = create(1)
  inbox.push('a')
  t.same(flow, ['pause'])
  await end('a')
  t.same(flow, ['pause', 'resume'])
})

t.test('finish calls back at once if nothing is unfinished, otherwise after the last piece', async t => {
  const { inbox, started, end } = create(10)
  let done = 0
  inbox.whenIdle(() => { done++ })
  t.equal(done, 1)
  inbox.push('a')
  inbox.push('b')
  inbox.whenIdle(() => { done++ })
  await end('a')
  t.equal(done, 1, 'b is not finished')
  await end('b')
  t.equal(done, 2)
  t.same(started, ['a', 'b'])
})

t.test('clear drops queued work and lets running work finish', async t => {
  const { inbox, started, flow, end } = create(2)
  inbox.push('a')
  inbox.push('b')
  inbox.push('c')
  inbox.clear()
  await end('a')
  t.same(started, ['a'])
  t.same(flow, ['pause', 'resume'])
  inbox.push('d')
  t.same(started, ['a', 'd'])
})

t.test('whenDone calls back when no work is running, with queued, dropped or synchronous work', async t => {
  const { inbox, workload, end } = create(9)
  let done = 0
  const ask = (): void => { workload.whenDone(() => { done++ }) }
  ask()
  inbox.push('sync')
  ask()
  t.equal(done, 2, 'at once')
  for (const item of ['a', 'sync b', 'c', 'd']) inbox.push(item)
  ask()
  await end('a')
  t.equal(done, 2, 'one after the other')
  inbox.clear()
  t.equal(done, 2)
  await end('c')
  t.equal(done, 3, 'queued work was dropped')
  inbox.push('e')
  ask()
  await end('e')
  t.equal(done, 4, 'the next calls work as before')
})
