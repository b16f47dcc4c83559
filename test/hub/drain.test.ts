import t from 'tap'
import { Inbox } from '../../lib/hub/inbox.ts'
import { Drain } from '../../lib/hub/drain.ts'
import type { MemberSession } from '../../lib/hub/session.ts'

/** Sessions as far as a drain looks at them. */
function create (count: number, timeout: number) {
  let cut = 0
  const links = new Set(Array.from({ length: count }, () => ({ connection: { terminate: () => { cut++ } } } as unknown as MemberSession)))
  return { links, drain: new Drain(links, timeout), cut: () => cut }
}

t.test('where nobody is connected there is nothing to wait for', async t => {
  const timeout = 60_000
  const { drain, cut } = create(0, timeout)
  await drain.wait(performance.now() + timeout)
  t.equal(cut(), 0)
})

t.test('it is over when the last connection has closed, for everybody who waits', async t => {
  const timeout = 60_000
  const { links, drain, cut } = create(2, timeout)
  let over = 0
  const waits = [drain.wait(performance.now() + timeout), drain.wait(performance.now() + timeout)].map(wait => wait.then(() => { over++ }))
  const [one, two] = [...links]
  links.delete(one!)
  drain.check()
  await new Promise(resolve => setImmediate(resolve))
  t.equal(over, 0, 'one is left')
  links.delete(two!)
  drain.check()
  await Promise.all(waits)
  t.equal(over, 2)
  t.equal(cut(), 0)
})

t.test('what is left at the deadline is cut, and the wait is over though nothing closes', async t => {
  const timeout = 10
  const { drain, cut } = create(3, timeout)
  await drain.wait(performance.now() + timeout)
  t.equal(cut(), 3)
  drain.check()
})

t.test('unfinished work is waited for, but not for more than half of the time', async t => {
  const inboxes = [new Inbox<() => Promise<void>>(run => run(), 9, { pause () {}, resume () {} }), new Inbox<() => Promise<void>>(run => run(), 9, { pause () {}, resume () {} })]
  const links = new Set(inboxes.map(inbox => ({ inbox }) as unknown as MemberSession))
  const drain = new Drain(links, 60_000)
  const began = performance.now()
  t.ok(await drain.settle() >= began + 60_000, 'nothing to wait for; the deadline counts from here')

  let finish = (): void => {}
  let over = false
  inboxes[0]!.push(() => new Promise(resolve => { finish = resolve }))
  const settled = drain.settle().then(() => { over = true })
  await new Promise(resolve => setImmediate(resolve))
  t.notOk(over)
  finish()
  await settled

  inboxes[1]!.push(() => new Promise(() => {}))
  const deadline = await new Drain(links, 20).settle()
  t.ok(deadline - performance.now() < 15, 'half of the time has passed')
})
