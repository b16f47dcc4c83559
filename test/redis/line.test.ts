import t from 'tap'
import { Line, type ReadPage } from '../../lib/redis/line.ts'
import type { Position } from '../../types/index.ts'
import { publication } from '../brokers/start.ts'
import { until } from '../helpers/redis-node.ts'

const retention = { size: 10_000, bytes: 1e9, ttl: 60_000, latest: false }
const epoch = 'epochepoch1'

/** A line of topic `a` whose kept messages are those of a list; its entries are `offset`s, and `'lost'`. */
function createLine () {
  const log = { epoch, base: 0, from: 0, top: 0 }
  const entries: (number | 'lost')[] = []
  const positions: (Position | undefined)[] = []
  const stats = { mended: 0, holes: 0, resets: 0, dropped: 0 }
  const unreadable: string[] = []
  let readings = 0
  const control: { renew: () => Promise<void>, gate: Promise<unknown> | undefined, skips: number } = { renew: async () => {}, gate: undefined, skips: 0 }
  const line: Line = new Line('a', 'channel', 0, {
    node: 'own',
    entry: (_topic, { uid }, position) => {
      entries.push(Number(uid))
      positions.push(position)
    },
    lost: () => { entries.push('lost') },
    skipped: () => { control.skips++ },
    read: async (_topic, after, limit): Promise<ReadPage> => {
      readings++
      const { gate } = control
      control.gate = undefined
      await gate
      const { epoch, base, from, top } = log
      const first = Math.max(after, from) + 1
      return { top: { epoch, offset: top }, base, skips: [], messages: Array.from({ length: Math.max(0, Math.min(limit, top - first + 1)) }, (_, i) => ({ offset: first + i, publication: { ...publication('a'), uid: String(first + i) } })) }
    },
    renew: () => control.renew(),
    unreadable: what => { unreadable.push(what) },
    stats
  })
  line.retention = retention
  line.isAttached = true
  const receive = (offset: number, count = 1, of = epoch): void => {
    line.receive({ position: { epoch: of, offset }, entries: Array.from({ length: count }, (_, i) => ({ isRelayed: false, publication: { ...publication('a'), uid: String(offset + i) } })) })
  }
  line.attachedAt({ epoch, offset: 0 })
  return { line, log, entries, positions, stats, unreadable, control, receive, readings: () => readings }
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i)

t.test('what comes behind a hole waits for it; repetitions are dropped', async t => {
  const { log, entries, stats, receive } = createLine()
  receive(1)
  log.top = 5
  receive(4)
  receive(5)
  t.same(entries, [1])
  await until(() => entries.length === 5)
  receive(3)
  receive(6)
  t.same(entries, range(1, 6))
  t.match(stats, { mended: 1, holes: 0 })
})

t.test('a hole that grows faster than it is read drops, counts, and reads again', async t => {
  const { log, entries, stats, control, receive, readings } = createLine()
  let open = (): void => {}
  control.gate = new Promise<void>(resolve => { open = resolve })
  log.top = 2
  receive(2)
  receive(3, 1_200)
  log.top = 1_202
  open()
  await until(() => entries.length === 1_202)
  t.same(entries, range(1, 1_202))
  t.ok(stats.dropped > 100)
  t.ok(readings() >= 7)
})

t.test('publications that nothing keeps any longer are one loss', async t => {
  const { line, log, entries, stats, receive } = createLine()
  log.top = log.from = 7
  receive(7)
  await until(() => entries.length > 0)
  t.same([entries, line.position], [['lost'], { epoch, offset: 7 }])
  receive(8)
  log.top = 12
  log.from = 9
  receive(12)
  await until(() => entries.length >= 6)
  t.same(entries, ['lost', 8, 'lost', 10, 11, 12])
  t.match(stats, { holes: 2 })
})

t.test('a new epoch is read from its beginning; one without messages is told as a loss', async t => {
  const { line, log, entries, positions, receive } = createLine()
  receive(1)
  Object.assign(log, { epoch: 'epochepoch2', base: 3, top: 5 })
  receive(5, 1, 'epochepoch2')
  await until(() => entries.length === 3)
  t.same([entries, positions.at(-1)], [[1, 4, 5], { epoch: 'epochepoch2', offset: 5 }])
  Object.assign(log, { epoch: 'epochepoch3', base: 5, top: 5 })
  line.mend()
  await until(() => entries.length === 4)
  t.same([entries, line.position], [[1, 4, 5, 'lost'], { epoch: 'epochepoch3', offset: 5 }])
})

t.test('a top that went back begins a new epoch', async t => {
  const { line, log, entries, control, receive } = createLine()
  receive(1, 5)
  log.top = 3
  control.renew = async () => { Object.assign(log, { epoch: 'epochepoch2', base: 3 }) }
  line.mend()
  await until(() => entries.length === 6)
  t.same([entries, line.position], [[1, 2, 3, 4, 5, 'lost'], { epoch: 'epochepoch2', offset: 3 }])
})

t.test('a line that is detached in the meantime delivers nothing', async t => {
  for (const at of ['read', 'renew', 'entry'] as const) {
    const { line, log, entries, control, receive } = createLine()
    receive(1, 5)
    log.top = at === 'renew' ? 3 : 9
    const detached = new Promise<void>(resolve => {
      const detach = async (): Promise<void> => {
        line.detach()
        resolve()
      }
      if (at === 'read') control.gate = Promise.resolve().then(detach)
      if (at === 'renew') control.renew = detach
      if (at === 'entry') {
        const { push } = entries
        entries.push = (...more) => {
          const length = push.apply(entries, more)
          if (length === 6) detach().catch(() => {})
          return length
        }
      }
    })
    line.mend()
    await detached
    await until(() => false, 5)
    t.same(entries, range(1, at === 'entry' ? 6 : 5), at)
  }
})

t.test('a reading that fails is repeated', async t => {
  const { log, entries, control, receive, readings } = createLine()
  log.top = 2
  control.gate = Promise.reject(new Error('no answer'))
  receive(2)
  await until(() => entries.length === 2)
  t.same([entries, readings()], [[1, 2], 2])
})

t.test('publications wait until the position was read', async t => {
  const { line, log, entries, receive } = createLine()
  line.detach()
  line.isAttached = true
  line.hold()
  log.top = 3
  receive(2, 2)
  t.same(entries, [])
  line.attachedAt({ epoch, offset: 2 })
  t.same(entries, [3])
})

t.test('a publication that comes before the position of a topic that has begun to keep messages waits for it', async t => {
  const { line, entries, receive, readings } = createLine()
  line.position = undefined
  receive(2, 2)
  t.same(entries, [])
  line.attachedAt({ epoch, offset: 2 })
  t.same([entries, readings()], [[3], 0])
})

t.test('a publication behind a hole that cannot be read is taken from the kept messages', async t => {
  const { line, log, entries, stats, unreadable, receive } = createLine()
  receive(1)
  log.top = 3
  line.receive({ position: { epoch, offset: 3 }, entries: [undefined] })
  t.same(entries, [1])
  await until(() => entries.length === 3)
  receive(4)
  t.same(entries, range(1, 4))
  t.match(stats, { mended: 1, holes: 0 })
  t.same(unreadable, [])
})

t.test('a publication that no kept message stands behind is dropped after one reading, and not waited for', async t => {
  const { line, log, entries, unreadable, receive, readings } = createLine()
  receive(1)
  log.top = 1
  receive(999)
  receive(1, 1, 'otherepoch1')
  await until(() => unreadable.length === 1)
  await new Promise(resolve => setTimeout(resolve, 20))
  t.same([entries, readings(), unreadable.length], [[1], 2, 1])
  log.top = 2
  receive(2)
  t.same([entries, line.position], [[1, 2], { epoch, offset: 2 }])
})

t.test('a message that cannot be read lets the kept messages be read, once more if it comes during a reading', async t => {
  const { line, log, entries, unreadable, control, readings } = createLine()
  log.top = 2
  let open!: () => void
  control.gate = new Promise<void>(resolve => { open = resolve })
  line.receive(undefined)
  line.receive(undefined)
  line.receive(undefined)
  log.top = 3
  open()
  await until(() => entries.length === 3)
  t.same([entries, unreadable.length], [[1, 2, 3], 3])
  await until(() => readings() === 2)
  line.retention = undefined
  line.receive(undefined)
  t.equal(entries.at(-1), 'lost')
})

t.test('when another epoch begins, publications no longer wait for entries of the old one', async t => {
  const { line, log, entries, control, receive } = createLine()
  receive(1)
  Object.assign(log, { epoch: 'anotherone', top: 1 })
  line.mend()
  for (let n = 0; n < 100 && entries.length < 2; n++) await new Promise(resolve => setImmediate(resolve))
  t.same([entries, control.skips], [[1, 1], 1])
})
