import { mock } from 'node:test'
import t from 'tap'
import { KeptLog } from '../../lib/brokers/kept-log.ts'
import { IdleReplays } from '../../lib/history/idle-replays.ts'
import { Replay } from '../../lib/history/replay.ts'
import { historyRule } from '../../lib/history/rule.ts'
import type { HistoryPage, HistoryQuery } from '../../types/index.ts'
import { turnsOf } from '../helpers/turns.ts'

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
  t.same(plan('latest', one, 3), [undefined, 1], 'made once')
  t.same(plan('latest', one, 4), [undefined, 0])
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
  t.equal(replay.framesBehind(0, { epoch: two, offset: 10 }, 10), undefined)
})

t.test('pages of a slow broker: an older one does not replace newer frames, and one behind newer frames does not continue older ones', async t => {
  const answers: ((page: HistoryPage) => void)[] = []
  const read = (): Promise<HistoryPage> => new Promise(resolve => { answers.push(resolve) })
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: false, read }, new IdleReplays())
  const answer = (page: HistoryPage): void => { answers.shift()!(page) }
  const first = replay.refresh(0)
  const second = replay.refresh(0) // the frames of the first are not there yet: reads all messages as well
  answer(page(one, 0, 1))
  await first
  replay.delivered({ epoch: one, offset: 2 }, undefined, () => Buffer.from('2'))
  answer(page(one, 0, 1))
  t.equal(await second, true)
  t.match(replay.plan(`${one}-0`, 0, { epoch: one, offset: 2 }), { recovered: true, replayed: 2 })
  const third = replay.refresh(0) // asks for what comes after 2
  replay.drop()
  const fourth = replay.refresh(0)
  const [afterTwo, all] = answers.splice(0)
  all!(page(one, 0, 1))
  await fourth
  afterTwo!(page(one, 0, 3))
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
  t.equal(replay.framesBehind(0, { epoch: one, offset: 1 }, 3)?.top, 3)
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

/** A broker of this process with one topic of many messages. */
function fullTopic (count: number, replayed = 1_048_576) {
  const rule = historyRule({ size: 1_000_000, bytes: 100_000_000, replay: replayed })!
  const queries: HistoryQuery[] = []
  let largest = 0
  const topic = {
    position: { epoch: one as string, offset: 0 },
    log: new KeptLog(rule, 0),
    isDown: false,
    publish (key?: string) {
      const { offset } = topic.position
      topic.position = { epoch: one, offset: offset + 1 }
      topic.log.append(offset + 1, { tail: Buffer.from(`"data":${offset + 1}}`), payloadLength: String(offset + 1).length, key } as never)
    }
  }
  for (let n = 0; n < count; n++) topic.publish(`k${n % 3}`)
  const read = (_name: string, query: HistoryQuery): HistoryPage | undefined => {
    queries.push(query)
    const messages = topic.log.read(query)
    largest = Math.max(largest, messages.length)
    return topic.isDown ? undefined : { position: topic.position, messages, from: topic.log.from }
  }
  const replay = new Replay('news', rule, true, { isInProcess: true, read }, new IdleReplays())
  const plan = (since: string, encoding: 0 | 1 = 0) => {
    const { id, recovered, replayed, frames, behind } = replay.plan(since, encoding, topic.position)
    const run = frames?.run(behind, topic.position.offset, Infinity)
    return { id, recovered, replayed, texts: run?.frames.map(frame => frame.subarray(2).toString()) ?? [] }
  }
  return { topic, queries, replay, plan, largest: () => largest }
}

t.test('many kept messages become frames over many turns of the event loop, and only as many as may be replayed', async t => {
  for (const replayed of [1_048_576, 100_000]) {
    for (const encoding of [0, 1] as const) {
      const { topic, replay, plan, queries, largest } = fullTopic(20_000, replayed)
      const top = topic.position
      const turns = await turnsOf(async () => {
        const preparing = replay.prepare('0', encoding, top)
        t.equal(replay.prepare(`${one}-19000`, encoding, top), preparing, 'shared by all joins')
        topic.publish()
        await preparing
      })
      const all = plan('0', encoding)
      const size = (text: string): number => text.length + 2
      t.equal(largest(), 500)
      t.ok(all.replayed! <= 500 * (turns + 1), `${all.replayed} messages in ${turns} turns`)
      t.equal(all.texts.length, all.replayed)
      const bytes = all.texts.reduce((sum, text) => sum + size(text), 0)
      t.ok(bytes <= replayed && (all.replayed === 20_001 || bytes + size(all.texts[0]!) > replayed - 2), 'the newest within the bound')
      t.equal(JSON.parse(all.texts.at(-1)!).data ?? Number(all.texts.at(-1)), 20_001, 'with those that were published meanwhile')
      const first = 20_001 - all.replayed!
      t.match(plan(`${one}-${first}`, encoding), { recovered: true, replayed: all.replayed })
      if (first > 0) t.match(plan(`${one}-${first - 1}`, encoding), { recovered: false, replayed: 0 }, 'one more is over the bound')
      t.ok(queries.length < 50)
    }
  }
})

t.test('a join makes few frames itself, and needs none for a position that is lost or newest', async t => {
  const { topic, replay, plan, queries } = fullTopic(600)
  const top = topic.position
  for (const since of [undefined, 'latest', `${one}-600`, `${one}-601`, `${two}-1`]) t.equal(replay.prepare(since, 0, top), undefined, `${since}`)
  t.equal(replay.prepare('0', 0, undefined), undefined)
  t.same(plan(`${two}-1`), { id: `${one}-600`, recovered: false, replayed: 0, texts: [] })
  t.same(queries, [])
  t.match(plan('latest').texts.map(text => JSON.parse(text).data), [598, 599, 600])
  await replay.prepare('0', 0, top)
  t.equal(replay.prepare('0', 0, top), undefined, 'the frames are there')
  for (let n = 0; n < 500; n++) topic.publish()
  t.equal(replay.prepare('0', 0, topic.position), undefined)
  topic.publish()
  await replay.prepare('0', 0, topic.position)
  t.equal(plan('0').replayed, 1_101)
  t.equal(fullTopic(500).replay.prepare('0', 0, { epoch: one, offset: 500 }), undefined)
})

t.test('messages that are dropped while frames are made, another epoch, and a broker that cannot be read', async t => {
  const dropped = fullTopic(3_000)
  let preparing = dropped.replay.prepare('0', 0, dropped.topic.position)
  for (let n = 0; n < 1_234; n++) dropped.topic.log.dropOldest()
  await preparing
  t.match(dropped.plan(`${one}-1233`), { recovered: false })
  t.match(dropped.plan(`${one}-1234`), { recovered: true, replayed: 1_766 })
  t.equal(dropped.plan('0').replayed, 1_766)

  const other = fullTopic(3_000)
  preparing = other.replay.prepare('0', 0, other.topic.position)
  other.topic.position = { epoch: two, offset: 3_000 }
  await preparing
  t.ok(other.replay.isEmpty)
  t.equal(other.replay.prepare('0', 0, { epoch: one, offset: 3_000 }), undefined)

  const down = fullTopic(3_000)
  preparing = down.replay.prepare('0', 0, down.topic.position)
  down.topic.isDown = true
  await preparing
  t.match(down.plan('0'), { replayed: 0 })
  t.match(down.plan('latest'), { replayed: 0 })
  t.equal(down.replay.framesBehind(0, { epoch: one, offset: 5 }, 3_000), undefined)
})

t.test('a member that is far behind the others gets frames of its own', async t => {
  const { topic, replay, largest } = fullTopic(3_000, 1_000)
  const top = topic.position.offset
  await replay.prepare('0', 0, topic.position)
  const frames = replay.framesBehind(0, { epoch: one, offset: 100 }, top)
  t.match(frames?.run(100, top, Infinity), { count: 500, last: 600 })
  t.equal(replay.framesBehind(0, { epoch: one, offset: top - 5 }, top)?.top, top, 'shared')
  t.equal(replay.framesBehind(0, { epoch: two, offset: 100 }, top), undefined)
  topic.log.dropOldest()
  t.equal(replay.framesBehind(0, { epoch: one, offset: 0 }, top), undefined, 'no longer kept')
  for (let n = 0; n < 600; n++) topic.publish()
  t.equal(replay.framesBehind(0, { epoch: one, offset: top }, top + 600)?.top, top + 500)
  t.equal(largest(), 500)
})
