import t, { type Test } from 'tap'
import { PresenceClock, describe, type RoomPresence } from '../../lib/presence/roster.ts'
import { fakeMember, fakeRoom, type FakeMember, at } from '../helpers/fakes.ts'
import type { Room } from '../../lib/room/room.ts'

const ids = (count: number, prefix = 's') => Array.from({ length: count }, (_, index) => `${prefix}${index}`)

function enter (room: Room, id: string): FakeMember {
  const member = fakeMember(id)
  room.add(member.session)
  room.presence!.joined(member.session)
  return member
}

function leave (room: Room, { session }: FakeMember): void {
  session.state = 'closed'
  room.remove(session)
  room.presence!.left(session)
}

const parse = (frame: string | undefined) => frame === undefined ? undefined : JSON.parse(frame)

t.test('a member is listed with its known fields only', async t => {
  const { session } = fakeMember('a')
  t.same(describe(session), { session: 'a' })
  t.notOk(session.announced, 'no frame has listed it')
  session.info = null
  t.same(describe(session), { session: 'a', info: null })
  Object.assign(session, { user: 'u', info: { name: 'N' } })
  t.same(describe(session), { session: 'a', user: 'u', info: { name: 'N' } })
})

t.test('changes since the last frame form one difference', async t => {
  const { room } = fakeRoom([])
  const presence = room.presence!
  const a = enter(room, 'a')
  enter(room, 'b')
  t.same(parse(presence.flush(0)), { type: 'presence', count: 2, join: [{ session: 'a' }, { session: 'b' }] })
  t.equal(presence.wait(0), 100)
  t.equal(presence.wait(99), 1)
  t.equal(presence.wait(150), 0)
  leave(room, a)
  enter(room, 'c')
  t.same(parse(presence.flush(100)), { type: 'presence', count: 2, join: [{ session: 'c' }], leave: [{ session: 'a' }] })
  t.equal(presence.flush(200), undefined, 'no changes')
})

t.test('a join and a leave between two frames cancel out', async t => {
  const { room } = fakeRoom([])
  leave(room, enter(room, 'a'))
  t.equal(room.presence!.flush(0), undefined)
  t.equal(room.presence!.wait(0), 0, 'the next frame need not wait')
})

t.test('a join and a leave do not cancel out if a snapshot has listed the member meanwhile', async t => {
  const { room } = fakeRoom([])
  const a = enter(room, 'a')
  t.same(parse(room.presence!.snapshot()), { type: 'presence', count: 1, state: [{ session: 'a' }] })
  leave(room, a)
  t.same(parse(room.presence!.flush(0)), { type: 'presence', count: 0, leave: [{ session: 'a' }] })
})

t.test('a change of info followed by a leave is a leave', async t => {
  const { room } = fakeRoom([])
  const a = enter(room, 'a')
  room.presence!.flush(0)
  a.session.info = 1
  room.presence!.joined(a.session)
  leave(room, a)
  t.same(parse(room.presence!.flush(100)), { type: 'presence', count: 0, leave: [{ session: 'a' }] })
})

t.test('a snapshot is built once per version of the room', async t => {
  const { room } = fakeRoom(['a', 'b'])
  const presence = room.presence!
  const first = presence.snapshot()
  t.equal(presence.snapshot(), first)
  const c = fakeMember('c')
  room.add(c.session)
  t.equal(parse(presence.snapshot()).state.length, 3, 'a member that was just added is listed')
  presence.joined(c.session)
  c.session.info = 'new'
  presence.joined(c.session)
  t.same(parse(presence.snapshot()).state[2], { session: 'c', info: 'new' })
  leave(room, c)
  t.same(parse(presence.snapshot()), parse(first))
})

t.test('a snapshot does not list members that left during a fan-out', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  members[0]!.session.state = 'closed'
  t.same(parse(room.presence!.snapshot()).state, [{ session: 'b' }])
})

t.test('above 200 members only counts are sent, once a second', async t => {
  const { room } = fakeRoom(ids(199))
  const presence = room.presence!
  enter(room, 'x')
  t.match(parse(presence.flush(0)), { count: 200, join: [{ session: 'x' }] }, '200 members are still listed')
  enter(room, 'y')
  t.equal(presence.flush(100), '{"type":"presence","count":201}')
  t.equal(presence.wait(100), 1_000)
  t.equal(presence.snapshot(), '{"type":"presence","count":201}')
  enter(room, 'z')
  t.equal(presence.flush(1_100), '{"type":"presence","count":202}')
})

t.test('below 150 one state goes to all, followed by differences', async t => {
  const { room, members } = fakeRoom(ids(201))
  const presence = room.presence!
  enter(room, 'y')
  t.equal(presence.flush(0), '{"type":"presence","count":202}')
  for (const member of members.splice(0, 52)) leave(room, member)
  t.equal(presence.flush(1_000), '{"type":"presence","count":150}', 'at 150 only counts are sent')
  t.equal(presence.snapshot(), '{"type":"presence","count":150}')
  leave(room, members.shift()!)
  t.equal(presence.snapshot(), '{"type":"presence","count":149}', 'a snapshot requested before the state')
  const state = parse(presence.flush(2_000))
  t.equal(state.count, 149)
  t.equal(state.state.length, 149)
  t.equal(presence.wait(2_000), 100)
  leave(room, members.shift()!)
  t.match(parse(presence.flush(2_100)), { count: 148, leave: [{}] })
})

t.test('a member that got a count gets no difference before a state', async t => {
  const { room } = fakeRoom(ids(200))
  const presence = room.presence!
  const x = enter(room, 'x')
  t.equal(presence.snapshot(), '{"type":"presence","count":201}')
  leave(room, x)
  enter(room, 'y')
  leave(room, enter(room, 'z'))
  enter(room, 'w')
  t.equal(presence.flush(0), '{"type":"presence","count":202}')
})

t.test('a room that sent counts for a moment needs a state, even without changes since', async t => {
  const { room, members } = fakeRoom(ids(201))
  const presence = room.presence!
  presence.snapshot()
  for (const { session } of members.splice(0, 60)) room.remove(session)
  presence.outdate()
  t.equal(parse(presence.flush(0)).state.length, 141)
})

t.test('the first change of a quiet room is sent at once, the next ones together and later', async t => {
  const sent: { presence: RoomPresence, frame: any }[] = []
  const clock = new PresenceClock((presence, frame) => { sent.push({ presence, frame: parse(frame) }) })
  t.teardown(() => { clock.stop() })
  const { room } = fakeRoom([])
  enter(room, 'a')
  clock.changed(room.presence!)
  t.match(sent, [{ frame: { count: 1 } }])
  enter(room, 'b')
  clock.changed(room.presence!)
  enter(room, 'c')
  clock.changed(room.presence!)
  t.equal(sent.length, 1)
  while (sent.length < 2) await new Promise(resolve => setTimeout(resolve, 5))
  t.match(sent[1]!.frame, { count: 3, join: [{ session: 'b' }, { session: 'c' }] })
})

t.test('changes that cancel out are not sent', async t => {
  const sent: string[] = []
  const clock = new PresenceClock((_presence, frame) => { sent.push(frame) })
  const { room } = fakeRoom([])
  leave(room, enter(room, 'a'))
  clock.changed(room.presence!)
  t.same(sent, [])
})

/** Replaces the timers of a clock, so that the test fires them. */
function manual (t: Test): { fire (now: number): void, armed (): boolean } {
  const real = globalThis.setTimeout
  let armed: (() => void) | undefined
  t.teardown(() => { globalThis.setTimeout = real })
  globalThis.setTimeout = ((callback: () => void) => {
    armed = callback
    return { unref () { return 7 } }
  }) as never
  return {
    fire (now) {
      const callback = armed!
      armed = undefined
      at(now, callback)
    },
    armed: () => armed !== undefined
  }
}

t.test('one timer serves all rooms, and runs while one has changes', async t => {
  const sent: [string, number][] = []
  const one = fakeRoom(ids(201, 'one'))
  const two = fakeRoom(['two'])
  const clock = new PresenceClock((presence, frame) => { sent.push([presence === one.room.presence ? 'one' : 'two', parse(frame).count]) })
  const timer = manual(t)
  at(0, () => {
    enter(one.room, 'a')
    clock.changed(one.room.presence!)
    enter(two.room, 'b')
    clock.changed(two.room.presence!)
  })
  t.same(sent, [['one', 202], ['two', 2]])
  t.notOk(timer.armed())
  at(10, () => {
    enter(one.room, 'c')
    clock.changed(one.room.presence!)
    enter(two.room, 'd')
    clock.changed(two.room.presence!)
  })
  t.ok(timer.armed())
  timer.fire(110)
  t.same(sent.slice(2), [['two', 3]], 'the room with counts waits for its second')
  t.ok(timer.armed())
  timer.fire(1_010)
  t.same(sent.slice(3), [['one', 203]])
  t.notOk(timer.armed(), 'no changes are left to send')
})

t.test('a removed room is forgotten, and a stopped clock sends nothing', async t => {
  const sent: string[] = []
  const clock = new PresenceClock((_presence, frame) => { sent.push(frame) })
  const timer = manual(t)
  const { room } = fakeRoom([])
  const change = (id: string) => {
    enter(room, id)
    clock.changed(room.presence!)
  }
  at(0, () => { change('a') })
  at(10, () => { change('b') })
  clock.forget(room.presence!)
  timer.fire(110)
  t.equal(sent.length, 1)
  t.notOk(timer.armed())
  at(50, () => { change('c') })
  clock.stop()
  timer.fire(200)
  t.equal(sent.length, 1)
})
