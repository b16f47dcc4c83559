import t from 'tap'
import { BrokerWatch } from '../../lib/hub/broker-watch.ts'
import type { Log } from '../../lib/hub/ports.ts'

/** A watch on a clock of its own, and its lines without what follows the colon. */
function createWatch () {
  const lines: unknown[][] = []
  const write = (level: string) => ({ milliseconds, err, state }: any, message: string): void => { lines.push([level, message.split(':')[0], ...[state, err?.message, milliseconds].filter(value => value !== undefined)]) }
  const log: Log = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }
  const begin = performance.now()
  const watch = new BrokerWatch(log)
  const seconds = (at: number): number => begin + at * 1_000 + 0.1
  /** The lines since the last call, with their times in seconds. */
  const take = (): unknown[][] => lines.splice(0).map(line => line.map(value => typeof value === 'number' ? Math.round(value / 1_000) : value))
  return {
    watch,
    take,
    seconds,
    report: (at: number, state: 'up' | 'degraded' | 'down', cause?: string) => {
      const { milliseconds, ...report } = watch.report(state, cause === undefined ? undefined : new Error(cause), seconds(at))
      return { ...report, milliseconds: Math.round(milliseconds) }
    }
  }
}

t.test('a broker whose client connects in the background is not an error', t => {
  const { take, report } = createWatch()
  t.match(report(0, 'down'), { state: 'down', before: undefined })
  t.match(report(2, 'up'), { state: 'up', before: 'down' })
  t.same(take(), [['info', 'the broker connects'], ['info', 'the broker is up', 2]])
  t.end()
})

t.test('a broker that is down at the start is an error, and no outage', t => {
  const { watch, take, report } = createWatch()
  report(1, 'down', 'refused')
  report(3, 'up')
  t.same(take(), [['error', 'the broker is down', 'refused', 1], ['info', 'the broker is up', 3]])
  t.equal(watch.outages, 0)
  t.end()
})

t.test('an outage has one line for its beginning, for its end, and for a change of its kind; its length is that of the whole', t => {
  const { watch, take, report } = createWatch()
  report(0, 'up')
  t.match(report(10, 'degraded', 'silent'), { before: 'up', milliseconds: 10_000 })
  t.match(report(15, 'down', 'cut'), { before: 'degraded', milliseconds: 5_000 })
  t.match(report(40, 'up'), { before: 'down', milliseconds: 25_000 })
  t.same(take(), [['info', 'the broker is up', 0], ['warn', 'the broker is degraded', 'silent', 0], ['error', 'the broker is down', 'cut', 5], ['info', 'the broker is up again', 30]])
  t.equal(watch.outages, 1)
  report(50, 'down')
  t.same(take(), [['error', 'the broker is down', 0]])
  t.equal(watch.outages, 2)
  t.end()
})

t.test('another cause of an outage is logged at most every 10 s, and an outage that goes on after 1, 2, 4 minutes, with the latest cause', t => {
  const { watch, take, seconds, report } = createWatch()
  watch.remind(seconds(100))
  report(100, 'up')
  watch.remind(seconds(1_000))
  report(1_000, 'down', 'cut')
  take()
  report(1_001, 'down', 'refused')
  report(1_002, 'down')
  t.equal(watch.health('open').cause, 'refused', 'a report without a cause keeps it')
  report(1_011, 'down', 'refused')
  t.same(take(), [])
  report(1_012, 'down', 'loading')
  t.same(take(), [['warn', 'the broker is not up yet', 'down', 'loading', 12]])
  report(1_013, 'down', 'busy')
  for (let at = 1_014; at < 1_500; at += 2) watch.remind(seconds(at) + 1)
  t.same(take(), [60, 120, 240, 480].map(at => ['warn', 'the broker is not up yet', 'down', 'busy', at]))
  report(1_600, 'up')
  report(1_700, 'down', 'cut')
  take()
  watch.remind(seconds(1_759))
  watch.remind(seconds(1_761))
  t.same(take(), [['warn', 'the broker is not up yet', 'down', 'cut', 61]], 'the next outage is counted from its beginning')
  t.end()
})

t.test('a fault of a broker that is up is logged, and the first one stays in health until the state changes', t => {
  const { watch, take, report } = createWatch()
  report(0, 'up', 'allkeys-lru')
  t.same(take(), [['info', 'the broker is up', 0], ['warn', 'the broker is up, and reports a fault', 'allkeys-lru']])
  report(1, 'up')
  for (const at of [2, 3, 11, 13]) t.match(report(at, 'up', 'unreadable'), { state: 'up', before: 'up' })
  report(14, 'up', 'too large')
  t.same(take(), ['unreadable', 'unreadable', 'too large'].map(cause => ['warn', 'the broker is up, and reports a fault', cause]), 'the same one at most every 10 s')
  t.match(watch.health('open'), { ok: true, broker: 'up', cause: 'allkeys-lru' })
  report(15, 'down', 'cut')
  report(16, 'up')
  t.notOk('cause' in watch.health('open'))
  report(17, 'up', 'unreadable')
  t.equal(watch.health('open').cause, 'unreadable')
  t.end()
})

t.test('health says in words what the state means, for how long it has been so, and why', t => {
  const { watch, report } = createWatch()
  report(-90, 'down', 'connect ECONNREFUSED 127.0.0.1:6379')
  const { brokerFor, detail, ...health } = watch.health('draining')
  t.same(health, { ok: false, state: 'draining', broker: 'down', cause: 'connect ECONNREFUSED 127.0.0.1:6379' })
  t.ok(brokerFor >= 89_999 && brokerFor < 100_000)
  t.match(detail, /^The app lets its members go, and refuses joins; the broker is down: .*\. This has been so for 9\d s\. Cause: connect ECONNREFUSED 127\.0\.0\.1:6379$/)
  t.end()
})
