import t from 'tap'
import { Drain } from '../../lib/hub/drain.ts'
import type { MemberSession } from '../../lib/hub/session.ts'

/** Sessions as far as a drain looks at them. */
function create (count: number, timeout: number) {
  let cut = 0
  const links = new Set(Array.from({ length: count }, () => ({ connection: { terminate: () => { cut++ } } } as unknown as MemberSession)))
  return { links, drain: new Drain(links, timeout), cut: () => cut }
}

t.test('where nobody is connected there is nothing to wait for', async t => {
  const { drain, cut } = create(0, 60_000)
  await drain.wait()
  t.equal(cut(), 0)
})

t.test('it is over when the last connection has closed, for everybody who waits', async t => {
  const { links, drain, cut } = create(2, 60_000)
  let over = 0
  const waits = [drain.wait(), drain.wait()].map(wait => wait.then(() => { over++ }))
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
  const { drain, cut } = create(3, 10)
  await drain.wait()
  t.equal(cut(), 3)
  drain.check()
})
