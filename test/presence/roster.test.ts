import t, { type Test } from 'tap'
import { Announcer } from '../../lib/presence/announcer.ts'
import { describe } from '../../lib/presence/roster.ts'
import { fakeDefinition, fakeMember, fakePorts, fakeRoom, type FakeMember, at } from '../helpers/fakes.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { Room } from '../../lib/room/room.ts'

const ids = (count: number, prefix = 's') => Array.from({ length: count }, (_, index) => `${prefix}${index}`)

function enter (room: Room<MemberSession>, id: string): FakeMember {
  const member = fakeMember(id)
  room.add(member.session)
  room.roster!.memberChanged(member.session)
  return member
}

function leave (room: Room<MemberSession>, { session }: FakeMember): void {
  session.state = 'closed'
  room.remove(session)
  room.roster!.memberLeft(session)
}

const parse = (frame: string | undefined) => frame === undefined ? undefined : JSON.parse(frame)

t.test('a member is listed with its known fields only', async t => {
  const { session } = fakeMember('a')
  t.same(describe(session), { session: 'a' })
  t.notOk(session.isAnnounced, 'no frame has listed it')
  session.info = null
  t.same(describe(session), { session: 'a', info: null })
  Object.assign(session, { user: 'u', info: { name: 'N' } })
  t.same(describe(session), { session: 'a', user: 'u', info: { name: 'N' } })
})

t.test('changes since the last frame form one difference', async t => {
  const { room } = fakeRoom([])
  const roster = room.roster!
  const a = enter(room, 'a')
  enter(room, 'b')
  t.same(parse(roster.flush(0)), { type: 'presence', count: 2, join: [{ session: 'a' }, { session: 'b' }] })
  t.equal(roster.wait(0), 100)
  t.equal(roster.wait(99), 1)
  t.equal(roster.wait(150), 0)
  leave(room, a)
  enter(room, 'c')
  t.same(parse(roster.flush(100)), { type: 'presence', count: 2, join: [{ session: 'c' }], leave: [{ session: 'a' }] })
  t.equal(roster.flush(200), undefined, 'no changes')
})

t.test('a join and a leave between two frames cancel out', async t => {
  const { room } = fakeRoom([])
  leave(room, enter(room, 'a'))
  t.equal(room.roster!.flush(0), undefined)
  t.equal(room.roster!.wait(0), 0, 'the next frame need not wait')
})

t.test('a join and a leave do not cancel out if a snapshot has listed the member meanwhile', async t => {
  const { room } = fakeRoom([])
  const a = enter(room, 'a')
  t.same(parse(room.roster!.snapshot()), { type: 'presence', count: 1, state: [{ session: 'a' }] })
  leave(room, a)
  t.same(parse(room.roster!.flush(0)), { type: 'presence', count: 0, leave: [{ session: 'a' }] })
})

t.test('a change of info followed by a leave is a leave', async t => {
  const { room } = fakeRoom([])
  const a = enter(room, 'a')
  room.roster!.flush(0)
  a.session.info = 1
  room.roster!.memberChanged(a.session)
  leave(room, a)
  t.same(parse(room.roster!.flush(100)), { type: 'presence', count: 0, leave: [{ session: 'a' }] })
})

t.test('a member that is held is named and counted, until it has left', async t => {
  const held = new Set<any>()
  const room = new Room<MemberSession>('news', fakeDefinition({ grace: 1 }), fakePorts({ held: topic => topic === 'news' ? held : new Set() }))
  const roster = room.roster!
  const a = enter(room, 'a')
  enter(room, 'b')
  const hold = ({ session }: FakeMember) => {
    const { id, info, isAnnounced } = session
    const stand = { id, user: 'u', info, isAnnounced }
    session.state = 'closed'
    room.remove(session)
    held.add(stand)
    roster.memberHeld(session, stand)
    return stand
  }
  const first = hold(a)
  t.same(parse(roster.flush(0)), { type: 'presence', count: 2, join: [{ session: 'a', user: 'u' }, { session: 'b' }] }, 'its join is told')
  t.ok(first.isAnnounced)
  t.same(parse(roster.snapshot()), { type: 'presence', count: 2, state: [{ session: 'b' }, { session: 'a', user: 'u' }] })
  t.equal(roster.flush(100), undefined, 'its leave is not')
  held.delete(first)
  roster.memberLeft(first)
  const c = enter(room, 'c')
  t.same(parse(roster.flush(200)), { type: 'presence', count: 2, join: [{ session: 'c' }], leave: [{ session: 'a' }] })
  const second = hold(c)
  t.equal(roster.flush(300), undefined)
  const third = hold(enter(room, 'd'))
  for (const stand of [second, third]) {
    held.delete(stand)
    roster.memberLeft(stand)
  }
  t.same(parse(roster.flush(400)), { type: 'presence', count: 1, leave: [{ session: 'c' }] }, 'a member that no frame has named cancels out')
})

t.test('a snapshot is built once per version of the room', async t => {
  const { room } = fakeRoom(['a', 'b'])
  const roster = room.roster!
  const first = roster.snapshot()
  t.equal(roster.snapshot(), first)
  const c = fakeMember('c')
  room.add(c.session)
  t.equal(parse(roster.snapshot()).state.length, 3, 'a member that was just added is listed')
  roster.memberChanged(c.session)
  c.session.info = 'new'
  roster.memberChanged(c.session)
  t.same(parse(roster.snapshot()).state[2], { session: 'c', info: 'new' })
  leave(room, c)
  t.same(parse(roster.snapshot()), parse(first))
})

t.test('a snapshot does not list members that left during a fan-out', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  members[0]!.session.state = 'closed'
  t.same(parse(room.roster!.snapshot()).state, [{ session: 'b' }])
})

t.test('above 200 members only counts are sent, once a second', async t => {
  const { room } = fakeRoom(ids(199))
  const roster = room.roster!
  enter(room, 'x')
  t.match(parse(roster.flush(0)), { count: 200, join: [{ session: 'x' }] }, '200 members are still listed')
  enter(room, 'y')
  t.equal(roster.flush(100), '{"type":"presence","count":201}')
  t.equal(roster.wait(100), 1_000)
  t.equal(roster.snapshot(), '{"type":"presence","count":201}')
  enter(room, 'z')
  t.equal(roster.flush(1_100), '{"type":"presence","count":202}')
})

t.test('below 150 one state goes to all, followed by differences', async t => {
  const { room, members } = fakeRoom(ids(201))
  const roster = room.roster!
  enter(room, 'y')
  t.equal(roster.flush(0), '{"type":"presence","count":202}')
  for (const member of members.splice(0, 52)) leave(room, member)
  t.equal(roster.flush(1_000), '{"type":"presence","count":150}', 'at 150 only counts are sent')
  t.equal(roster.snapshot(), '{"type":"presence","count":150}')
  leave(room, members.shift()!)
  t.equal(roster.snapshot(), '{"type":"presence","count":149}', 'a snapshot requested before the state')
  const state = parse(roster.flush(2_000))
  t.equal(state.count, 149)
  t.equal(state.state.length, 149)
  t.equal(roster.wait(2_000), 100)
  leave(room, members.shift()!)
  t.match(parse(roster.flush(2_100)), { count: 148, leave: [{}] })
})

t.test('a member that got a count gets no difference before a state', async t => {
  const { room } = fakeRoom(ids(200))
  const roster = room.roster!
  const x = enter(room, 'x')
  t.equal(roster.snapshot(), '{"type":"presence","count":201}')
  leave(room, x)
  enter(room, 'y')
  leave(room, enter(room, 'z'))
  enter(room, 'w')
  t.equal(roster.flush(0), '{"type":"presence","count":202}')
})

t.test('a room that sent counts for a moment needs a state, even without changes since', async t => {
  const { room, members } = fakeRoom(ids(201))
  const roster = room.roster!
  roster.snapshot()
  for (const { session } of members.splice(0, 60)) room.remove(session)
  roster.outdate()
  t.equal(parse(roster.flush(0)).state.length, 141)
})

t.test('the first change of a quiet room is sent at once, the next ones together and later', async t => {
  const sent: { frame: any }[] = []
  const announcer = new Announcer()
  t.teardown(() => { announcer.stop() })
  const { room } = fakeRoom([])
  room.announce = text => { sent.push({ frame: parse(text) }) }
  enter(room, 'a')
  announcer.changed(room.roster!)
  t.match(sent, [{ frame: { count: 1 } }])
  enter(room, 'b')
  announcer.changed(room.roster!)
  enter(room, 'c')
  announcer.changed(room.roster!)
  t.equal(sent.length, 1)
  while (sent.length < 2) await new Promise(resolve => setTimeout(resolve, 5))
  t.match(sent[1]!.frame, { count: 3, join: [{ session: 'b' }, { session: 'c' }] })
})

t.test('changes that cancel out are not sent', async t => {
  const sent: string[] = []
  const announcer = new Announcer()
  const { room } = fakeRoom([])
  room.announce = text => { sent.push(text) }
  leave(room, enter(room, 'a'))
  announcer.changed(room.roster!)
  t.same(sent, [])
})

/** Replaces the timers of an announcer, so that the test fires them. */
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
  one.room.announce = text => { sent.push(['one', parse(text).count]) }
  two.room.announce = text => { sent.push(['two', parse(text).count]) }
  const announcer = new Announcer()
  const timer = manual(t)
  at(0, () => {
    enter(one.room, 'a')
    announcer.changed(one.room.roster!)
    enter(two.room, 'b')
    announcer.changed(two.room.roster!)
  })
  t.same(sent, [['one', 202], ['two', 2]])
  t.notOk(timer.armed())
  at(10, () => {
    enter(one.room, 'c')
    announcer.changed(one.room.roster!)
    enter(two.room, 'd')
    announcer.changed(two.room.roster!)
  })
  t.ok(timer.armed())
  timer.fire(110)
  t.same(sent.slice(2), [['two', 3]], 'the room with counts waits for its second')
  t.ok(timer.armed())
  timer.fire(1_010)
  t.same(sent.slice(3), [['one', 203]])
  t.notOk(timer.armed(), 'no changes are left to send')
})

t.test('a removed room is forgotten, and a stopped announcer sends nothing', async t => {
  const sent: string[] = []
  const announcer = new Announcer()
  const timer = manual(t)
  const { room } = fakeRoom([])
  room.announce = text => { sent.push(text) }
  const change = (id: string) => {
    enter(room, id)
    announcer.changed(room.roster!)
  }
  at(0, () => { change('a') })
  at(10, () => { change('b') })
  announcer.remove(room.roster!)
  timer.fire(110)
  t.equal(sent.length, 1)
  t.notOk(timer.armed())
  at(50, () => { change('c') })
  announcer.stop()
  timer.fire(200)
  t.equal(sent.length, 1)
})
