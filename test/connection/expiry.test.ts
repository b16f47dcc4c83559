import t from 'tap'
import { Expiry } from '../../lib/connection/expiry.ts'
import type { Connection } from '../../lib/connection/connection.ts'
import { tick } from '../../lib/connection/timing-wheel.ts'
import { fakeMember, type FakeSession } from '../helpers/fakes.ts'

/** An Expiry with a clock and a timer under the control of the test. */
function clock (notice: number) {
  const { now: realNow } = Date
  const { setInterval: realSet, clearInterval: realClear } = globalThis
  let now = 1_000_000
  const timers = new Set<() => void>()
  let started = 0
  const unrefs: unknown[] = []
  const log: string[] = []

  /** Runs a function at this time. */
  const inside = <T>(call: () => T): T => {
    Date.now = () => now
    globalThis.setInterval = ((callback: () => void, every: number) => {
      if (every !== tick) throw new Error(`every ${every} ms`)
      started++
      timers.add(callback)
      return { callback, unref () { unrefs.push(this); return this } }
    }) as never
    globalThis.clearInterval = ((timer?: { callback: () => void }) => { if (timer !== undefined) timers.delete(timer.callback) }) as never
    try {
      return call()
    } finally {
      Date.now = realNow
      globalThis.setInterval = realSet
      globalThis.clearInterval = realClear
    }
  }
  const expiry = new Expiry<Connection<FakeSession>>(notice, connection => {
    log.push(`${connection.session.id} ended at ${now}`)
    connection.session.state = 'closed'
    expiry.remove(connection)
  })
  const member = (id: string, expiresAt: number | undefined, mode: 'rooms.v1' | 'rooms.raw' = 'rooms.v1'): Connection<FakeSession> => {
    const { connection, session } = fakeMember(id, mode)
    session.deliver = frame => { log.push(`${id} told ${frame} at ${now}`) }
    return Object.assign(connection as Connection<FakeSession>, { expiresAt })
  }
  /** Fires the timer once, at this time. */
  const fire = (at: number): void => {
    now = at
    inside(() => { for (const timer of timers) timer() })
  }
  /** Lets time pass as it would on a real clock. */
  const pass = (until: number): void => {
    for (let at = now + tick; at < until + tick; at += tick) fire(at)
  }
  return { expiry, member, inside, fire, pass, log, timers, unrefs, started: () => started }
}

t.test('a member is notified before its end, and then ended', async t => {
  const { expiry, member, inside, pass, log } = clock(5_000)
  const ann = member('ann', 1_060_000)
  inside(() => { expiry.watch(ann); expiry.opened(ann) })
  pass(1_054_900)
  t.same(log, [])
  pass(1_059_900)
  t.same(log, ['ann told {"type":"expiring","in":5000} at 1055000'])
  pass(1_070_000)
  t.same(log.slice(1), ['ann ended at 1060000'])
})

t.test('a lifetime shorter than the notice is notified at once, with the remaining time', async t => {
  const { expiry, member, inside, pass, log } = clock(5_000)
  const ann = member('ann', 1_003_000)
  inside(() => { expiry.watch(ann); expiry.opened(ann) })
  t.same(log, ['ann told {"type":"expiring","in":3000} at 1000000'])
  pass(1_010_000)
  t.same(log.slice(1), ['ann ended at 1003000'])
})

t.test('no notice without expiry.notice, before hello, or in raw mode; sessions without an end are not watched', async t => {
  for (const [notice, mode, opens] of [[0, 'rooms.v1', true], [5_000, 'rooms.v1', false], [5_000, 'rooms.raw', true]] as const) {
    const { expiry, member, inside, pass, log } = clock(notice)
    const ann = member('ann', 1_010_000, mode)
    inside(() => { expiry.watch(ann); if (opens) expiry.opened(ann) })
    pass(1_020_000)
    t.same(log, ['ann ended at 1010000'])
  }
  const { expiry, member, inside, started } = clock(5_000)
  const ann = member('ann', undefined)
  inside(() => { expiry.watch(ann); expiry.opened(ann); expiry.remove(ann) })
  t.equal(started(), 0)
})

t.test('one timer serves all sessions, runs only if one has an end, and does not keep the process alive', async t => {
  const { expiry, member, inside, pass, log, timers, unrefs, started } = clock(0)
  const members = Array.from({ length: 50 }, (_, index) => member(`m${index}`, 1_001_000 + 100 * index))
  for (const one of members) inside(() => { expiry.watch(one) })
  t.equal(started(), 1)
  t.equal(unrefs.length, 1)
  pass(1_003_000)
  t.equal(log.length, 21)
  t.equal(timers.size, 1)
  for (const one of members) inside(() => { expiry.remove(one) })
  t.equal(timers.size, 0)
  inside(() => { expiry.watch(member('late', 1_004_000)) })
  t.equal(started(), 2)
  pass(1_004_000)
  t.equal(timers.size, 0, 'the session ended by itself')
})

t.test('a stalled event loop or a jump of the clock does not let a session outlive its credentials', async t => {
  const { expiry, member, inside, fire, log } = clock(5_000)
  for (const [id, at] of [['ann', 1_030_000], ['ben', 1_060_000], ['far', 1_000_000 + 2 ** 33]] as const) {
    const one = member(id, at)
    inside(() => { expiry.watch(one); expiry.opened(one) })
  }
  fire(1_040_000)
  t.same(log.splice(0), ['ann ended at 1040000'], 'one check is past the notice and the end')
  fire(900_000) // set back
  fire(1_058_000)
  t.same(log.splice(0), ['ben told {"type":"expiring","in":2000} at 1058000'])
  fire(1_000_000 + 2 ** 33)
  t.same(log.sort(), [`ben ended at ${1_000_000 + 2 ** 33}`, `far ended at ${1_000_000 + 2 ** 33}`])
})

t.test('a clock that goes back delays the end', async t => {
  const { expiry, member, inside, fire, log } = clock(0)
  const ann = member('ann', 1_010_000)
  inside(() => { expiry.watch(ann) })
  fire(1_009_900)
  fire(1_000_000)
  fire(1_009_999)
  t.same(log, [])
  fire(1_010_000)
  t.same(log, ['ann ended at 1010000'])
})

t.test('a session that a hook of another ended in the same tick is skipped', async t => {
  const { expiry, member, inside, fire, log } = clock(0)
  const [ann, ben] = [member('ann', 1_001_000), member('ben', 1_001_000)]
  inside(() => { expiry.watch(ann); expiry.watch(ben) })
  ben.session.state = 'closed'
  fire(1_001_000)
  t.same(log, ['ann ended at 1001000'])
})

t.test('new credentials replace the end and the notice, or remove both', async t => {
  const { expiry, member, inside, pass, log, timers } = clock(5_000)
  const ann = member('ann', 1_010_000)
  inside(() => { expiry.watch(ann); expiry.opened(ann) })
  pass(1_006_000)
  inside(() => { expiry.renew(ann, 1_030_000) })
  pass(1_026_000)
  t.same(log.splice(0), ['ann told {"type":"expiring","in":5000} at 1005000', 'ann told {"type":"expiring","in":5000} at 1025000'])
  inside(() => { expiry.renew(ann, 1_028_000) })
  t.same(log, [], 'halfway, not at once')
  pass(1_027_000)
  t.same(log.splice(0), ['ann told {"type":"expiring","in":1000} at 1027000'])
  inside(() => { expiry.renew(ann, undefined) })
  t.equal(timers.size, 0)
  t.equal(ann.expiresAt, undefined)

  const silent = clock(0)
  const ben = silent.member('ben', undefined)
  silent.inside(() => { silent.expiry.renew(ben, 1_001_000) })
  silent.pass(1_002_000)
  t.same(silent.log, ['ben ended at 1001000'])
})

t.test('a check ends an expired session before the timer does', async t => {
  const { expiry, member, inside, log, timers } = clock(0)
  const [now, later, never] = [member('now', 1_000_000), member('later', 1_000_001), member('never', undefined)]
  t.same(inside(() => [now, later, never].map(one => expiry.check(one))), [true, false, false])
  t.same(log, ['now ended at 1000000'])
  t.equal(timers.size, 0)
})
