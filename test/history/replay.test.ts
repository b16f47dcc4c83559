import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { KeptLog } from '../../lib/brokers/kept-log.ts'
import { IdleReplays } from '../../lib/history/idle-replays.ts'
import { KeptFrames } from '../../lib/history/kept-frames.ts'
import { Replay, type Delivered, type RoomPlace } from '../../lib/history/replay.ts'
import { historyRule } from '../../lib/history/rule.ts'
import type { Encoding } from '../../lib/transport/encoding.ts'
import type { HistoryPage, HistoryQuery, Position } from '../../types/index.ts'
import { turnsOf } from '../helpers/turns.ts'

const [one, two] = ['a'.repeat(16), 'b'.repeat(16)] as const

function page (epoch: string, from: number, ...offsets: number[]): HistoryPage {
  return { position: { epoch, offset: offsets.at(-1) ?? from }, from, messages: offsets.map(offset => ({ offset, tail: Buffer.from(`"data":${offset}}`), payloadLength: String(offset).length, key: undefined })) }
}

/** A place at a position. It has reached all positions of its epoch that are not above it. */
function place (epoch: string, offset: number): RoomPlace {
  return { position: { epoch, offset }, hasReached: position => position.epoch === epoch && position.offset <= offset }
}

/** A message of a topic, delivered. */
function delivery (offset: number, key?: string, isEnd = false): Delivered {
  return { isEnd, tail: { length: `"data":${offset}}`.length }, publication: { key }, frame: () => Buffer.from(isEnd ? 'end' : String(offset)) }
}

/** A room's kept messages, of a broker of other processes, which answers when the test lets it. */
function remote (history: Parameters<typeof historyRule>[0] = true) {
  const queries: HistoryQuery[] = []
  const answers: ((page: HistoryPage | undefined) => void)[] = []
  const source = {
    isInProcess: false,
    isDown: false,
    read: (_topic: string, query: HistoryQuery) => {
      queries.push(query)
      return new Promise<HistoryPage | undefined>(resolve => { answers.push(resolve) })
    }
  }
  const idle = new IdleReplays()
  const replay = new Replay('news', historyRule(history)!, true, source, idle)
  const answer = async (page: HistoryPage | undefined): Promise<void> => {
    answers.shift()!(page)
    await new Promise(resolve => setImmediate(resolve))
  }
  /** A join that reads once. */
  const read = async (page: HistoryPage, encoding: Encoding = 0): Promise<void> => {
    replay.onAnswer(encoding, () => {})
    await answer(page)
  }
  /** Whether a position is recovered, and the messages that follow it. */
  const plan = (since: string, epoch: string, offset: number, encoding: Encoding = 0): unknown[] => {
    const { recovered, frames, behind } = replay.plan(since, encoding, { epoch, offset })
    return [recovered, ...frames?.run(behind, offset, Infinity)?.frames.map(frame => Number(/\d+\D*$/.exec(frame.toString())?.[0].replace(/\D/g, '')) || frame.toString()) ?? []]
  }
  return { source, queries, answers, idle, replay, answer, read, plan }
}

t.test('the frames follow the broker: another epoch, a hole, messages that are dropped meanwhile', async t => {
  const { replay, queries, read, plan } = remote()
  t.ok(replay.isEmpty)
  await read(page(one, 0, 1, 2, 3))
  t.notOk(replay.isEmpty)
  t.same(plan(`${one}-1`, one, 3), [true, 2, 3])
  t.same(plan(`${one}-1`, one, 4), [false], 'frames that do not reach the room\'s position are not used')
  t.same(plan('latest', one, 3), [undefined, 3])
  t.same(plan('latest', one, 3), [undefined, 3], 'made once')
  t.same(plan('latest', one, 4), [undefined])
  await read(page(two, 4, 5))
  t.notOk(replay.reaches(0, { epoch: two, offset: 5 }), 'the page is of another epoch, and may not be all that is kept')
  await read(page(two, 4, 5))
  t.same(plan(`${one}-3`, two, 5), [false])
  t.same(plan(`${two}-4`, two, 5), [true, 5])
  t.same(plan('latest', two, 5), [undefined, 5])
  await read(page(two, 8, 9, 10))
  await read(page(two, 8, 9, 10))
  t.same(plan(`${two}-4`, two, 10), [false], 'there is a hole')
  t.same(plan(`${two}-8`, two, 10), [true, 9, 10])
  await read(page(two, 10))
  t.same(plan(`${two}-8`, two, 10), [false], 'they are no longer kept')
  t.same(plan('0', two, 10), [undefined])
  t.equal(replay.plan(`${two}-8`, 0, undefined).recovered, false)
  t.same(queries.map(({ after }) => after), [undefined, 3, undefined, 5, undefined, 10])
  t.ok(replay.framesBehind(0, { epoch: two, offset: 9 }, 10) === undefined)
})

t.test('one reading serves all joins, those included that come while it is under way and of other encodings, and messages that are delivered meanwhile', async t => {
  const { replay, queries, answer, plan } = remote()
  const done: string[] = []
  replay.onAnswer(0, () => { done.push('first') })
  replay.onAnswer(0, () => { done.push('second') })
  replay.onAnswer(1, () => { done.push('raw') })
  replay.onAnswer(0, () => { done.push('gone') })()
  for (const offset of [3, 4]) replay.delivered({ epoch: one, offset }, delivery(offset))
  await answer(page(one, 0, 1, 2, 3))
  t.same(done, ['first', 'second', 'raw'])
  t.same(plan(`${one}-0`, one, 4), [true, 1, 2, 3, 4])
  t.same(plan(`${one}-2`, one, 4, 1), [true, 3, 4])
  replay.delivered({ epoch: one, offset: 5 }, delivery(5))
  t.same(plan(`${one}-3`, one, 5, 1), [true, 4, 5])
  t.equal(queries.length, 1)
})

t.test('a reading that continues the frames makes none for another encoding; the next one does', async t => {
  const { replay, queries, answer, read, plan } = remote()
  await read(page(one, 0, 1))
  const mark = replay.mark()
  replay.onAnswer(0, () => {})
  replay.onAnswer(1, () => {})
  replay.delivered({ epoch: one, offset: 2 }, delivery(2))
  await answer(page(one, 0, 2, 3))
  t.same(plan(`${one}-1`, one, 3), [true, 2, 3])
  t.equal(replay.needs({ epoch: one, offset: 1 }, 1, place(one, 3), mark), 'answer')
  await read(page(one, 0, 1, 2, 3), 1)
  t.same(plan(`${one}-1`, one, 3, 1), [true, 2, 3])
  t.same(queries.map(({ after }) => after), [undefined, 1, undefined])
})

t.test('an answer that is older than the frames does not replace them', async t => {
  const { replay, read, plan, answer } = remote({ bytes: 20 })
  await read(page(one, 0, 1))
  replay.onAnswer(1, () => {}) // reads all
  for (const offset of [2, 3, 4]) replay.delivered({ epoch: one, offset }, delivery(offset))
  await answer(page(one, 0, 1))
  t.ok(replay.reaches(0, { epoch: one, offset: 4 }))
  t.notOk(replay.reaches(1, { epoch: one, offset: 4 }), 'more was delivered than the topic keeps')
  t.same(plan(`${one}-2`, one, 4), [true, 3, 4])
  t.same(plan(`${one}-1`, one, 4), [false], 'it is dropped here as it is by the broker')
})

t.test('messages that are delivered during a reading continue it only if they are in a row, and of its epoch', async t => {
  const { replay, answer } = remote()
  replay.needs(null, 0, place(one, 0), replay.mark())
  replay.onAnswer(0, () => {})
  for (const offset of [2, 4, 5]) replay.delivered({ epoch: one, offset }, delivery(offset))
  await answer(page(one, 0, 1, 2, 3))
  t.ok(replay.reaches(0, { epoch: one, offset: 5 }))
  replay.onAnswer(0, () => {})
  for (const offset of [6, 8]) replay.delivered({ epoch: one, offset }, delivery(offset))
  await answer(page(one, 0, 6))
  t.notOk(replay.reaches(0, { epoch: one, offset: 7 }))
  replay.onAnswer(0, () => {})
  replay.delivered({ epoch: two, offset: 9 }, delivery(9))
  t.ok(replay.isEmpty)
  await answer(page(one, 0, 1, 2, 3, 4, 5, 6, 7, 8))
  t.ok(replay.isEmpty, 'the answer is older than the epoch of the room, and the broker is asked again')
  await answer(page(two, 8, 9))
  t.ok(replay.reaches(0, { epoch: two, offset: 9 }))
})

t.test('values: a message that is delivered takes the place of the one before it, and frames that members are being sent stay as they are', async t => {
  const { replay, queries, read, plan } = remote({ latest: true, size: 3 })
  const keyed = (...entries: [number, string][]): HistoryPage => ({ position: { epoch: one, offset: 3 }, from: 0, messages: entries.map(([offset, key]) => ({ ...page(one, 0, offset).messages[0]!, key })) })
  await read(keyed([1, 'a'], [2, 'b'], [3, 'c']))
  const before = replay.plan('0', 0, { epoch: one, offset: 3 }).frames!
  replay.delivered({ epoch: one, offset: 4 }, delivery(4, 'b'))
  t.same(plan('0', one, 4), [undefined, 1, 3, 4])
  t.same(plan(`${one}-2`, one, 4), [true, 3, 4])
  t.same(plan(`${one}-1`, one, 4), [false], 'a value behind the position was replaced')
  replay.delivered({ epoch: one, offset: 5 }, delivery(5, 'd'))
  t.same(plan('0', one, 5), [undefined, 3, 4, 5], 'no more values than the topic keeps')
  t.equal(before.run(0, 3, Infinity)?.count, 3)
  for (let offset = 6; offset < 3_000; offset++) replay.delivered({ epoch: one, offset }, delivery(offset, 'e'))
  t.equal(replay.framesBehind(0, { epoch: one, offset: 5 }, 2_999)?.countBehind(0), 3)
  t.same(plan('0', one, 2_999), [undefined, 4, 5, 2_999])
  t.ok(replay.framesBehind(0, { epoch: one, offset: 5 }, 2_999)!.run(0, 2_999, Infinity)!.whole.buffer.byteLength < 200, 'its memory does not grow with what was replaced')
  await read(keyed([1, 'a'], [2, 'b'], [3, 'c']))
  t.same(queries.map(({ after }) => after), [undefined, undefined], 'all values are read')
})

t.test('the end of a stream is not sent to peers that cannot be answered', async t => {
  const { replay, answer, plan } = remote()
  replay.onAnswer(0, () => {})
  replay.onAnswer(1, () => {})
  replay.delivered({ epoch: one, offset: 2 }, delivery(2, undefined, true))
  await answer(page(one, 0, 1))
  t.same([plan('0', one, 2), plan('0', one, 2, 1)], [[undefined, 1, 'end'], [undefined, 1]])
})

t.test('a join waits for an answer, for its room, or for nothing', async t => {
  const { replay, source, answers, answer, read } = remote()
  const at = (offset: number, epoch: string = one): Position => ({ epoch, offset })
  const here = place(one, 5)
  const early = replay.mark()
  t.equal(replay.needs(at(5), 0, here, early), undefined, 'it has all that the room has delivered')
  t.equal(replay.needs(at(4), 0, here, early), 'answer')
  t.equal(replay.needs(null, 0, here, early), 'answer')
  t.equal(replay.needs(at(7), 0, here, early), 'answer')
  await read(page(one, 0, 1, 2, 3, 4, 5, 6))
  t.equal(replay.needs(at(4), 0, here, early), undefined)
  t.equal(replay.needs(at(4), 0, here, replay.mark()), undefined, 'the reading is fresh')
  t.equal(replay.needs(at(6), 0, here, early), 'room', 'the broker knows more than the room')
  t.equal(replay.needs(at(7), 0, here, early), undefined, 'a reading that began after the join has told that there is no such position')
  t.equal(replay.needs(at(7), 0, here, replay.mark()), 'answer', 'a reading that began before the join cannot know this')
  replay.onAnswer(0, () => {})
  const during = replay.mark()
  await answer(page(one, 0))
  t.equal(replay.needs(at(7), 0, here, during), 'answer')
  t.equal(replay.needs(at(3, two), 0, here, during), 'answer')
  await read(page(one, 0))
  t.equal(replay.needs(at(3, two), 0, here, during), undefined)
  t.equal(replay.needs(at(9, two), 0, here, replay.mark()), undefined, 'the epoch is known to be over')
  for (let n = 0; n < 16; n++) replay.needs(at(1, String(n).repeat(16)), 0, here, during)
  t.equal(replay.needs(at(9, two), 0, here, replay.mark()), 'answer', 'only some epochs are remembered')
  await read(page(one, 0, 1, 2, 3, 4, 5, 6))
  t.equal(replay.needs(at(6), 0, here, replay.mark()), 'room')
  await sleep(510)
  t.equal(replay.needs(at(6), 0, here, replay.mark()), 'answer', 'what the broker knew then may be lost')
  t.equal(replay.needs(at(4), 0, here, replay.mark()), 'answer')
  await read(page(one, 0))
  source.isDown = true
  t.equal(replay.needs(at(4), 0, here, replay.mark()), 'answer', 'a broker that is down: the join waits')
  t.same(answers, [])
})

t.test('the room and the broker change their epochs', async t => {
  const { replay, read } = remote()
  const at = (offset: number, epoch: string = one): Position => ({ epoch, offset })
  const mark = replay.mark()
  t.equal(replay.needs(at(3), 0, place(one, 5), mark), 'answer')
  await read(page(two, 0, 1, 2))
  t.equal(replay.needs(at(3), 0, place(one, 5), mark), undefined, 'the room is behind a reset: no reading leads there')
  t.equal(replay.needs(at(2, two), 0, place(one, 5), mark), 'room')
  replay.delivered(at(6), delivery(6))
  t.equal(replay.needs(at(2, two), 0, place(one, 6), mark), 'room', 'an entry before the reset changes nothing')
  replay.delivered(at(1, two), delivery(1))
  t.equal(replay.needs(at(2, two), 0, place(two, 1), mark), 'room')
  t.equal(replay.needs(at(6), 0, place(two, 1), replay.mark()), undefined, 'the first epoch is over')
  const three = 'c'.repeat(16)
  replay.delivered(at(1, three), delivery(1))
  t.equal(replay.needs(at(2, two), 0, place(three, 1), replay.mark()), undefined)
  const lost: RoomPlace = { position: undefined, hasReached: () => true }
  const later = replay.mark()
  t.equal(replay.needs(at(1, three), 0, lost, later), 'answer')
  await read(page(three, 0, 1))
  t.equal(replay.needs(at(1, three), 0, lost, later), undefined, 'a room that has lost its position promises none')
})

t.test('a reading that fails is tried again while joins wait, and not after they have gone', async t => {
  const { replay, source, queries, answer } = remote()
  let answered = 0
  const stop = replay.onAnswer(0, () => { answered++ })
  await answer(undefined)
  replay.onAnswer(0, () => { answered++ })
  t.equal(queries.length, 1)
  source.isDown = true
  await sleep(150)
  t.equal(queries.length, 1, 'a broker that is down is not asked')
  source.isDown = false
  await sleep(100)
  t.equal(queries.length, 2, 'once for all')
  await answer(page(one, 0, 1))
  t.equal(answered, 2)
  const gone = replay.onAnswer(0, () => {})
  await answer(undefined)
  gone()
  stop()
  await sleep(150)
  t.equal(queries.length, 3)
})

t.test('an answer for which no join waits any more makes no frames', async t => {
  const { replay, answer, idle } = remote()
  replay.onAnswer(0, () => {})()
  await answer(page(one, 0, 1))
  t.ok(replay.isEmpty)
  idle.close()
})

t.test('a broker of this process is asked when a join is planned, and when frames are not enough', async t => {
  const pages = [page(one, 0, 1), page(one, 0, 2), page(one, 0, 3)]
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: true, isDown: false, read: () => pages.shift() }, new IdleReplays())
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
  const replay = new Replay('news', historyRule(true)!, true, { isInProcess: true, isDown: false, read: () => page(one, 0, 1) }, replays)
  replay.plan('0', 0, { epoch: one, offset: 1 })
  t.notOk(replay.isEmpty)
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
  const replay = new Replay('news', rule, true, { isInProcess: true, isDown: false, read }, new IdleReplays())
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

t.test('frames are bounded by their number and bytes, also behind offsets that were left out', async t => {
  const frames = new KeptFrames('e', 0, 1_000, [{ after: 3, to: 1_000 }])
  for (const offset of [1, 2, 3, 1_001, 1_002]) frames.append(offset, Buffer.from('x'), undefined, 10)
  frames.bound({ size: 5, bytes: 1_000 })
  t.equal(frames.from, 0)
  frames.bound({ size: 3, bytes: 1_000 })
  t.equal(frames.from, 2)
  frames.bound({ size: 3, bytes: 25 })
  t.equal(frames.from, 3)
  t.same(frames.grown(10).skips, [{ after: 3, to: 1_000 }])
})
