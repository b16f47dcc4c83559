import t from 'tap'
import { Delivery } from '../../lib/room/delivery.ts'
import { Room } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import type { Subscription } from '../../lib/room/reader.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { fakeDefinition, fakeDelivery, fakeMember, fakePorts, fakeRoom, got, type FakeMember } from '../helpers/fakes.ts'

/** Runs a function while a member is written to, as an in-process stream can. */
function during ({ socket }: FakeMember, act: () => void): void {
  const { send } = socket
  socket.send = data => {
    socket.send = send
    send.call(socket, data)
    act()
  }
}

t.test('members are dense after each leave', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  const [a, b, c, d] = members.map(({ session }) => session) as [MemberSession, MemberSession, MemberSession, MemberSession]
  t.same(room.members.map(({ index }) => index), [0, 1, 2, 3])
  room.remove(b)
  t.same(room.members.map(({ id, index }) => [id, index]), [['a', 0], ['d', 1], ['c', 2]])
  room.remove(c)
  room.remove(a)
  t.same(room.members.map(({ id, index }) => [id, index]), [['d', 0]])
  t.equal(room.size, 1)
  t.notOk(room.isEmpty)
  room.remove(d)
  t.equal(room.size, 0)
  t.ok(room.isEmpty)
})

t.test('a join under way and a subscriber keep a room', async t => {
  const room = new Room<MemberSession>('news', fakeDefinition({ presence: null }), fakePorts())
  t.equal(room.roster, undefined)
  t.ok(room.isEmpty)
  room.joining++
  t.notOk(room.isEmpty)
  room.joining--
  const subscription = {} as Subscription
  room.readers.add(subscription)
  t.notOk(room.isEmpty)
})

t.test('delivered messages are queued until a flush', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  t.notOk(room.isDirty)
  t.equal(room.deliver(fakeDelivery('1')), 2)
  t.equal(room.deliver(fakeDelivery('2')), 2)
  t.ok(room.isDirty)
  t.same(members.map(got), [[], []])
  t.same(room.flush(1), [], 'no member is behind')
  t.same(members.map(got), [[1, 2], [1, 2]])
  t.notOk(room.isDirty)
  room.flush(1)
  t.same(members.map(got), [[1, 2], [1, 2]], 'nothing is queued')
})

t.test('members that leave during a fan-out are removed after it, and no other member is skipped or written twice', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  const sizes: number[] = []
  room.deliver(fakeDelivery('1'))
  during(members[0]!, () => {
    for (const leaver of [members[0]!, members[3]!, members[1]!]) {
      leaver.socket.close(1000, '')
      room.remove(leaver.session)
    }
    sizes.push(room.size, room.members.length)
  })
  room.flush(1)
  t.same(sizes, [1, 4], 'leaving members are not counted, but still in place')
  t.same(room.members.map(({ id, index }) => [id, index]), [['c', 0]])
  t.same(members.map(got), [[1], [], [1], []])
})

t.test('messages delivered during a fan-out belong to the next one', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  room.deliver(fakeDelivery('1'))
  during(members[0]!, () => { room.deliver(fakeDelivery('2')) })
  room.flush(1)
  t.same(members.map(got), [[1], [1], [1]])
  t.ok(room.isDirty)
  room.flush(1)
  t.same(members.map(got), [[1, 2], [1, 2], [1, 2]])
})

t.test('fan-outs do not nest, because an inner one would overtake the outer one', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  room.deliver(fakeDelivery('1'))
  during(members[0]!, () => {
    room.deliver(fakeDelivery('2'))
    t.same(room.flush(1), [])
    t.same(members.map(got), [[1], [], []])
  })
  room.flush(1)
  t.same(members.map(got), [[1], [1], [1]])
  t.ok(room.isDirty)
  room.flush(1)
  t.same(members.map(got), [[1, 2], [1, 2], [1, 2]])
})

t.test('a member that joins during a fan-out is not part of it', async t => {
  const { room, members } = fakeRoom(['a'])
  const late = fakeMember('late')
  t.equal(room.deliver(fakeDelivery('1')), 1)
  during(members[0]!, () => { room.add(late.session) })
  room.flush(1)
  t.same(got(late), [])
  t.equal(room.deliver(fakeDelivery('2')), 2)
  room.flush(1)
  t.same(got(late), [2])
})

t.test('a member that joins in a turn gets later messages of it, and no earlier ones', async t => {
  const { room, members } = fakeRoom(['a'])
  room.deliver(fakeDelivery('1'))
  const late = fakeMember('late')
  room.add(late.session)
  const later = fakeMember('later')
  room.add(later.session)
  room.deliver(fakeDelivery('2'))
  room.flush(1)
  t.same([members[0]!, late, later].map(got), [[1, 2], [2], [2]])

  room.deliver(fakeDelivery('3'))
  const last = fakeMember('last')
  room.add(last.session)
  room.flush(1)
  t.same(got(last), [])
  room.deliver(fakeDelivery('4'))
  room.flush(1)
  t.same([members[0]!, late, last].map(got), [[1, 2, 3, 4], [2, 3, 4], [4]], 'in the next turn it shares the batch')
})

t.test('a fan-out leaves out excepted, ended and slow members', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  members[1]!.socket.close(1000, '')
  members[2]!.session.transport.isClosing = true
  t.equal(room.deliver(fakeDelivery('1'), members[0]!.session), 3, 'an excepted member is not counted')
  room.flush(1)
  t.same(members.map(got), [[], [], [], [1]])
})

t.test('a member excepted from one message gets those before and after it', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  const [a, b] = members.map(({ session }) => session) as [MemberSession, MemberSession]
  room.deliver(fakeDelivery('1'))
  room.deliver(fakeDelivery('2'), a)
  room.deliver(fakeDelivery('3'))
  room.deliver(fakeDelivery('4'), b)
  room.deliver(fakeDelivery('5'), a)
  room.flush(1)
  t.same(members.map(got), [[1, 3, 4], [1, 2, 3, 5]])
})

t.test('a private frame is written at once if nothing is queued, and otherwise in its place', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  const [a, b] = members.map(({ session }) => session) as [MemberSession, MemberSession]
  const own = (data: unknown) => textFrame('', Buffer.from(JSON.stringify({ data })))
  room.sendTo(a, own('first'))
  t.same(members.map(got), [['first'], []])
  room.deliver(fakeDelivery('1'))
  room.sendTo(a, own('ack 1'))
  room.sendTo(a, own('direct'))
  room.deliver(fakeDelivery('2'), a)
  room.sendTo(b, own('ack 2'))
  room.deliver(fakeDelivery('3'))
  t.same(members.map(got), [['first'], []])
  room.flush(1)
  t.same(members.map(got), [['first', 1, 'ack 1', 'direct', 3], [1, 2, 'ack 2', 3]])
})

t.test('many private frames are written early, and in their place', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  const [a] = members.map(({ session }) => session) as [MemberSession]
  const own = (data: string) => textFrame('', Buffer.from(JSON.stringify({ data })))
  const long = 'x'.repeat(131_072)
  room.deliver(fakeDelivery('1'))
  room.sendTo(a, own(long))
  t.same(got(members[0]!), [])
  room.deliver(fakeDelivery('2'))
  room.sendTo(a, own(long))
  t.same(members.map(got), [[1, long, 2, long], []], 'the other member is not written to')
  room.deliver(fakeDelivery('3'))
  room.sendTo(a, own('last'))
  room.flush(1)
  t.same(members.map(got), [[1, long, 2, long, 3, 'last'], [1, 2, 3]])
})

t.test('a member that is about to leave gets its queued frames, and other members get theirs at the flush', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  const [a, b, c] = members.map(({ session }) => session) as [MemberSession, MemberSession, MemberSession]
  room.flushMember(a)
  t.same(got(members[0]!), [], 'nothing is queued')
  room.deliver(fakeDelivery('1'))
  room.deliver(fakeDelivery('2'), b)
  for (const session of [a, b]) {
    room.flushMember(session)
    session.state = 'closed'
    room.remove(session)
  }
  t.same(members.map(got), [[1, 2], [1], []])
  room.deliver(fakeDelivery('3'), c)
  room.flush(1)
  t.same(members.map(got), [[1, 2], [1], [1, 2]])
})

t.test('a batch is full at 256 frames, or at 256 KiB', async t => {
  const { room } = fakeRoom(['a'])
  for (let n = 0; n < 255; n++) room.deliver(fakeDelivery('1'))
  t.notOk(room.isFull)
  room.deliver(fakeDelivery('1'))
  t.ok(room.isFull)
  room.flush(1)
  t.notOk(room.isFull)
  const overhead = fakeDelivery('""').frame(0).length + 8
  room.deliver(fakeDelivery(`"${'x'.repeat(262_144 - overhead - 1)}"`))
  t.notOk(room.isFull)
  room.flush(1)
  room.deliver(fakeDelivery(`"${'x'.repeat(262_144 - overhead)}"`))
  t.ok(room.isFull)
})

t.test('without a member of a mode, nothing is queued for that mode', async t => {
  const room = new Room<MemberSession>('news', fakeDefinition(), fakePorts())
  const raw = fakeMember('a', 'rooms.raw')
  room.announce('{}')
  room.add(raw.session)
  room.announce('{}')
  t.notOk(room.isDirty)
  const given = fakeDelivery('1')
  given.frame = encoding => {
    if (encoding !== 1) throw new Error('no member needs this encoding')
    return textFrame('', Buffer.from('1'))
  }
  t.equal(room.deliver(given), 1)
  room.remove(raw.session)
  t.equal(room.deliver(given), 0)
})

t.test('an announcement reaches members of rooms.v1', async t => {
  const room = new Room<MemberSession>('news', fakeDefinition(), fakePorts())
  const members = [fakeMember('a'), fakeMember('b', 'rooms.raw')]
  for (const { session } of members) room.add(session)
  room.announce('{}')
  room.flush(1)
  t.same(members.map(({ socket }) => socket.sent), [['{}'], []])
})

t.test('subscribers get deliveries at once, and are not counted', async t => {
  const { room } = fakeRoom(['a'])
  const pushed: Delivery[] = []
  room.readers.add({ push (given: Delivery) { pushed.push(given) } } as unknown as Subscription)
  const given = fakeDelivery('1')
  t.equal(room.deliver(given), 1)
  t.same(pushed, [given])
  room.announce('{}')
  room.flush(1)
  t.equal(pushed.length, 1, 'subscribers get no presence')
})

t.test('a message with an encoding that fails is queued for no member, and the room goes on', async t => {
  const { room, members } = fakeRoom(['a'])
  const raw = fakeMember('b', 'rooms.raw')
  room.add(raw.session)
  const broken = fakeDelivery('1')
  const { frame } = broken
  broken.frame = encoding => {
    if (encoding === 1) throw new Error('no memory')
    return frame.call(broken, encoding)
  }
  t.throws(() => room.deliver(broken), { message: 'no memory' })
  t.notOk(room.isDirty)
  t.equal(room.deliver(fakeDelivery('2')), 2)
  t.ok(room.isDirty)
  room.flush(1)
  t.same(got(members[0]!), [2])
})
