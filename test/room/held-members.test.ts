import t from 'tap'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { until } from '../helpers/app.ts'
import { fakeMember } from '../helpers/fakes.ts'
import { got, slowRoom, text } from './slow-room.ts'

const own = (data: unknown) => textFrame(JSON.stringify({ type: 'message', data }))
const roomOf = (...args: Parameters<typeof slowRoom>): any => slowRoom(...args)

t.test('members that are held get what was sent since then, each from its own place, and one list serves all', async t => {
  const { room, slow, say, turnEnds, members: [a, b, c], counters } = roomOf({}, ['a', 'b', 'c'])
  say() // 1
  room.hold(a.session)
  t.same(got(a), [1], 'what the room had for it leaves first')
  say() // 2
  room.sendTo(a.session, own('for a'))
  room.hold(b.session)
  say() // 3
  room.sendTo(a.session, own('state'), true)
  await turnEnds()
  t.same([a, b, c].map(got), [[1, 'state'], [1, 2], [1, 2, 3]])
  t.equal(room.size, 3)
  t.same(Array.from(room.open(), ({ id }: any) => id).sort(), ['a', 'b', 'c'])
  t.equal(room.lagging.size, 0, 'a member that waits for onJoined is not slow')
  slow.release(room, a.session)
  t.same(got(a), [1, 'state', 2, 'for a', 3])
  say() // 4
  await turnEnds()
  slow.release(room, b.session)
  say() // 5
  await turnEnds()
  t.same([a, b, c].map(got), [[1, 'state', 2, 'for a', 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
  slow.release(room, a.session) // does nothing
  t.match(counters, { dropped: 0, conflated: 0, slow: 0 })
})

t.test('a member that is released in the middle of a turn gets each frame once', async t => {
  const { room, slow, say, turnEnds, members: [a, b] } = roomOf()
  room.hold(a.session)
  say()
  slow.release(room, a.session)
  t.same(got(a), [1])
  room.sendTo(a.session, own('private'))
  say()
  await turnEnds()
  t.same([a, b].map(got), [[1, 'private', 2], [1, 2]])
})

t.test('a message to others is counted for the members that it waits for, and not for an excepted one', async t => {
  const { room, slow, members: [a, b] } = roomOf({}, ['a', 'b', 'c'])
  room.hold(a.session)
  room.hold(b.session)
  const deliver = (data: string, excepted?: unknown): number => {
    const { say } = { say: (json: string) => room.receive({ topic: 'news', tail: Buffer.from(`"data":${json}}`), payloadLength: json.length, except: excepted }, { epoch: 'e', offset: 1 }) }
    return say(data)
  }
  t.equal(deliver('1'), 3)
  slow.release(room, a.session)
  t.same(got(a), [1])
})

t.test('an excepted member that is held is not sent the message', async t => {
  const { room, slow, say, members: [a, b] } = roomOf()
  room.hold(a.session)
  say('1')
  say('2', undefined, a.session)
  say('3')
  say('4', undefined, b.session)
  slow.release(room, a.session)
  t.same(got(a), [1, 3, 4])
})

t.test('a gap and presence wait in their places, and a raw member gets neither', async t => {
  const { room, slow, say, members: [a] } = roomOf({}, ['a'])
  const raw = fakeMember('raw', 'rooms.raw')
  room.add(raw.session)
  room.hold(raw.session)
  room.hold(a.session)
  say('1')
  room.announce('{"type":"presence","count":9}')
  room.tellGap({ reason: 'lost' })
  say('2')
  slow.release(room, a.session)
  slow.release(room, raw.session)
  t.match(got(a), [1, { type: 'presence', count: 9 }, { type: 'gap', reason: 'lost' }, 2])
  t.same(raw.socket.sent, ['1', '2'])
})

t.test('frames that are not messages count towards the bound', async t => {
  const { room, turnEnds, members: [a], ended } = roomOf({ bytes: 1_000 }, ['a'])
  room.hold(a.session)
  for (let n = 0; n < 8; n++) room.announce('{"type":"presence","count":9}')
  await turnEnds()
  t.same(ended, [['a', 4201]])
})

t.test('a member for which too much waits is slow when the turn ends, and is told its gap after onJoined', async t => {
  const { room, slow, say, turnEnds, members: [a, b], counters, join } = roomOf({ policy: 'drop' })
  room.hold(a.session)
  say(text(400))
  room.tellGap({ reason: 'lost' })
  say(text(400))
  say(text(400))
  t.equal(room.lagging.size, 1)
  room.hold(b.session) // its place is behind all of these
  await turnEnds()
  say('1')
  room.sendTo(a.session, own('private'))
  join('c')
  room.announce('{"type":"presence","count":3}')
  await turnEnds()
  t.same(got(a), [], 'the member does not catch up while onJoined runs')
  slow.release(room, b.session)
  slow.release(room, a.session)
  await until(() => room.lagging.size === 0)
  t.match(got(a), ['private', { type: 'gap', reason: 'lost' }, { type: 'gap', reason: 'slow', count: 4 }, { type: 'presence', state: [{}, {}, {}] }])
  t.match(got(b).slice(-2), [1, { type: 'presence', count: 3 }])
  t.match(counters, { dropped: 4, slow: 0 })
})

t.test('a member for which nothing waits is not slow when onJoined settles, however much of the state it has not read', async t => {
  const { room, slow, turnEnds, members: [a], ended } = roomOf({}, ['a'])
  room.hold(a.session)
  a.socket.bufferedAmount = 5_000
  await turnEnds()
  slow.release(room, a.session)
  await turnEnds()
  t.same(ended, [])
  t.equal(room.members.length, 1)
})

t.test('a policy function is told the bytes that wait for onJoined', async t => {
  const asked: number[] = []
  const { room, say, turnEnds, members: [a] } = roomOf({ policy: (_session: unknown, { bytes }: { bytes: number }) => { asked.push(bytes); return 'drop' } }, ['a'])
  room.hold(a.session)
  a.socket.bufferedAmount = 10
  for (let n = 0; n < 2; n++) say(text(400))
  await turnEnds()
  t.same(asked, [10 + 2 * (402 + 128)])
})

t.test('onJoined may settle before the policy of a member for which too much waits is applied', async t => {
  const { room, slow, say, turnEnds, members: [a] } = roomOf({ policy: 'drop' }, ['a'])
  room.hold(a.session)
  for (let n = 0; n < 3; n++) say(text(400))
  room.sendTo(a.session, own('private'))
  slow.release(room, a.session)
  t.same(got(a), [])
  await turnEnds()
  await until(() => room.lagging.size === 0)
  t.match(got(a), ['private', { type: 'gap', count: 3 }])
})

t.test('what waits counts together with what the member has not read when onJoined settles', async t => {
  for (const isRead of [true, false]) {
    const { room, slow, say, turn, turnEnds, members: [a], ended, counters } = roomOf({}, ['a'])
    room.hold(a.session)
    a.socket.bufferedAmount = 500
    turn.mark()
    await turnEnds()
    for (let n = 0; n < 3; n++) say(text(200))
    if (isRead) a.socket.bufferedAmount = 100
    else t.equal(room.lagging.size, 0)
    slow.release(room, a.session)
    await turnEnds()
    t.same(ended, isRead ? [] : [['a', 4201]])
    t.equal(got(a).length, isRead ? 3 : 0)
    t.equal(counters.slow, isRead ? 0 : 1)
  }
})

t.test('what the state left in this turn does not count when onJoined settles', async t => {
  const { room, slow, say, turn, members: [a], ended } = roomOf({}, ['a'])
  room.hold(a.session)
  a.session.transport.emptyTurn = turn.now
  a.socket.bufferedAmount = 5_000
  say()
  slow.release(room, a.session)
  t.same(got(a), [1])
  t.same(ended, [])
})

t.test('latest: a member for which too much waited is sent the newest value of each key since it was held', async t => {
  const { room, slow, say, turnEnds, members: [a, b], counters } = roomOf({ policy: 'latest', bytes: 1_500 })
  room.hold(a.session)
  say('"k1"', 'k')
  say('"l1"', 'l')
  await turnEnds()
  // Another member falls behind, from when on the newest values are kept.
  b.socket.bufferedAmount = 1_500
  say('"l2"', 'l')
  await turnEnds()
  t.equal(room.lagging.size, 1)
  for (let n = 0; n < 10; n++) say(text(50), 'm')
  say('"n1"', 'n')
  t.equal(room.lagging.size, 2)
  await turnEnds()
  slow.release(room, a.session)
  b.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same(got(a), ['k1', 'l2', 'x'.repeat(50), 'n1'])
  t.same(got(b), ['k1', 'l1', 'l2', 'x'.repeat(50), 'n1'])
  t.match(counters, { conflated: 10 + 9, dropped: 0 })
})

t.test('latest: a member that falls behind in the turn in which too much waited for another gets all values of the turn', async t => {
  const { room, slow, say, turnEnds, members: [a, b] } = roomOf({ policy: 'latest', bytes: 1_000 })
  b.socket.bufferedAmount = 1_000
  say('"k1"', 'k')
  room.hold(a.session)
  for (let n = 0; n < 10; n++) say(text(50), 'm')
  await turnEnds()
  t.equal(room.lagging.size, 2)
  slow.release(room, a.session)
  b.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same([a, b].map(got), [['k1', 'x'.repeat(50)], ['k1', 'x'.repeat(50)]])
})

t.test('a member that leaves while it is held is forgotten, and so are the frames that waited for it', async t => {
  for (const bytes of [10_000, 1_000]) {
    const { room, slow, say, turnEnds, members: [a, b], counters } = roomOf({ policy: 'drop', bytes })
    room.hold(a.session)
    room.hold(b.session)
    for (let n = 0; n < 3; n++) say(text(400))
    a.session.state = 'closed'
    room.remove(a.session)
    t.equal(room.size, 1)
    await turnEnds()
    slow.release(room, a.session)
    slow.release(room, b.session)
    await until(() => room.lagging.size === 0)
    t.same(got(a), [])
    t.equal(got(b).length, bytes === 1_000 ? 1 : 3)
    t.ok(counters.deliveries <= 0)
  }
})

t.test('more private frames than slow.bytes that wait close a member', async t => {
  const { room, slow, members: [a], ended } = roomOf({ policy: 'latest', bytes: 2_000 }, ['a'])
  room.hold(a.session)
  for (let n = 0; n < 3; n++) {
    t.ok(slow.admits(a.session, 100))
    room.sendTo(a.session, own(n))
    slow.sent(a.session)
  }
  t.same(ended, [])
  room.sendTo(a.session, own(3))
  slow.sent(a.session)
  t.same(ended, [['a', 4201]])
})
