import { mock } from 'node:test'
import t from 'tap'
import { IdleReplays } from '../../lib/history/idle-replays.ts'
import { Replay } from '../../lib/history/replay.ts'
import { historyRule } from '../../lib/history/rule.ts'
import type { HistoryPage } from '../../types/index.ts'

const [one, two] = ['a'.repeat(16), 'b'.repeat(16)] as const

function page (epoch: string, from: number, ...offsets: number[]): HistoryPage {
  return { position: { epoch, offset: offsets.at(-1) ?? from }, from, messages: offsets.map(offset => ({ offset, tail: Buffer.from(`"data":${offset}}`), payloadLength: String(offset).length, key: undefined })) }
}

t.test('the frames follow the broker: another epoch, a hole, messages that are dropped meanwhile', async t => {
  let pages: (HistoryPage | undefined)[] = []
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: false, read: () => pages.shift() }, new IdleReplays())
  t.ok(replay.isEmpty)
  const plan = (since: string, epoch: string, offset: number) => {
    const { recovered, replayed } = replay.plan(since, 0, { epoch, offset })
    return [recovered, replayed]
  }
  pages = [page(one, 0, 1, 2, 3)]
  t.equal(replay.refresh(0), true)
  t.notOk(replay.isEmpty)
  t.same(plan(`${one}-1`, one, 3), [true, 2])
  t.same(plan(`${one}-1`, one, 4), [false, 0], 'frames that do not reach the room\'s position are not used')
  t.same(plan('latest', one, 3), [undefined, 1])
  pages = [page(two, 4, 5), page(two, 4, 5)]
  t.equal(replay.refresh(0), true)
  t.same(plan(`${one}-3`, two, 5), [false, 0])
  t.same(plan(`${two}-4`, two, 5), [true, 1])
  t.same(plan('latest', two, 5), [undefined, 1])
  pages = [page(two, 8, 9, 10), page(two, 8, 9, 10)]
  replay.refresh(0)
  t.same(plan(`${two}-4`, two, 10), [false, 0], 'there is a hole')
  t.same(plan(`${two}-8`, two, 10), [true, 2])
  pages = [{ ...page(two, 10), position: { epoch: two, offset: 10 } }]
  replay.refresh(0)
  t.same(plan(`${two}-8`, two, 10), [false, 0], 'they are no longer kept')
  t.same(plan('0', two, 10), [undefined, 0])
  t.equal(replay.plan(`${two}-8`, 0, undefined).recovered, false)
  pages = [undefined]
  t.equal(replay.refresh(0), false)
  t.equal(replay.framesBehind(0, { epoch: two, offset: 10 }), undefined)
})

t.test('a page that was asked for behind newer frames does not continue older ones', async t => {
  const answers: ((page: HistoryPage) => void)[] = []
  const read = (): Promise<HistoryPage> => new Promise(resolve => { answers.push(resolve) })
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: false, read }, new IdleReplays())
  const answer = (page: HistoryPage): void => { answers.shift()!(page) }
  const first = replay.refresh(0)
  const second = replay.refresh(0) // the frames of the first are not there yet: reads all messages as well
  answer(page(one, 0, 1))
  await first
  replay.delivered({ epoch: one, offset: 2 }, undefined, () => Buffer.from('2'))
  const third = replay.refresh(0) // asks for what comes after 2
  answer(page(one, 0, 1))
  await second
  answer(page(one, 0, 3))
  await new Promise(resolve => setImmediate(resolve))
  t.equal(answers.length, 1, 'all messages are read again')
  answer(page(one, 0, 1, 2, 3))
  t.equal(await third, true)
  t.match(replay.plan(`${one}-0`, 0, { epoch: one, offset: 3 }), { recovered: true, replayed: 3 })
})

t.test('a broker of this process is asked when a join is planned, and when frames are not enough', async t => {
  const pages = [page(one, 0, 1), page(one, 0, 2), page(one, 0, 3)]
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: true, read: () => pages.shift() }, new IdleReplays())
  t.match(replay.plan('0', 0, { epoch: one, offset: 1 }), { replayed: 1 })
  t.match(replay.plan(`${one}-1`, 0, { epoch: one, offset: 2 }), { recovered: true, replayed: 1 })
  t.equal(replay.framesBehind(0, { epoch: one, offset: 1 })?.top, 3)
})

t.test('frames that no member asks for are dropped after five seconds', async t => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => { mock.timers.reset() })
  const replays = new IdleReplays()
  const dropped: string[] = []
  const idle = { usedAt: -10_000, readers: 0, drop: () => { dropped.push('idle') } }
  const used = { usedAt: performance.now() + 60_000, readers: 0, drop: () => { dropped.push('used') } }
  replays.used(idle)
  replays.used(used)
  mock.timers.tick(4_000)
  t.same(dropped, [])
  mock.timers.tick(1_000)
  t.same(dropped, ['idle'])
  replays.close()
  t.same(dropped, ['idle', 'used'])
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: true, read: () => page(one, 0, 1) }, replays)
  replay.refresh(0)
  replay.drop()
  t.ok(replay.isEmpty)
})
