import { setImmediate as turn } from 'node:timers/promises'
import t from 'tap'
import { JoinWaits } from '../../lib/session/join-waits.ts'

t.test('waits of joins: each ends with its event, at its deadline or with its session, and few joins go on in a turn', async t => {
  const waits = new JoinWaits()
  const events: (() => void)[] = []
  const stopped: number[] = []
  const soon = performance.now() + 60_000
  const listen = (n: number) => (done: () => void) => {
    events.push(done)
    return () => { stopped.push(n) }
  }
  const sessions = Array.from({ length: 250 }, (_, n) => ({ n }))
  let over = 0
  for (const session of sessions) waits.until(session, soon, listen(session.n)).then(isOver => { if (isOver) over++ })
  t.equal(waits.size, 250)
  waits.end(sessions[0]!)
  waits.end({})
  t.notOk(waits.has(sessions[0]!))
  for (const event of events) event()
  t.ok(waits.has(sessions[1]!), 'it waits until it goes on')
  await turn()
  t.equal(over, 24, 'twenty-five, and one of them has gone')
  waits.end(sessions[200]!)
  for (let n = 0; n < 10; n++) await turn()
  t.equal(over, 248)
  t.equal(waits.size, 0)
  t.same([...new Set(stopped)].length, 250)
  t.equal(await waits.until({}, performance.now() + 20, listen(250)), false, 'the deadline')
  t.equal(await waits.until({}, performance.now() - 20, listen(251)), false, 'a deadline that has passed')
  t.equal(waits.size, 0)
})
