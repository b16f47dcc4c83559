import t from 'tap'
import type { Publication } from '../../types/index.ts'
import { Backlog } from '../../lib/hub/backlog.ts'
import { Delivery, Outgoing, rawText } from '../../lib/hub/delivery.ts'
import { Room, type Watch } from '../../lib/hub/room.ts'
import type { MemberSession } from '../../lib/hub/session.ts'
import type { Subscription } from '../../lib/hub/subscription.ts'
import { payloadOf, textFrame } from '../../lib/hub/text-frame.ts'
import { FakeTransport, fakeDefinition, fakeMember, fakeRoom, type FakeMember } from '../helpers/fakes.ts'
import { tailEnd } from '../../lib/protocol/frames.ts'

const origin = { uid: 'u1', node: 'n1', topic: 'news', deadline: 0 }
const nobody: Watch = { bytes: Infinity, sent () {} }
/** Watches everybody, however little waits. */
const each = (sent: Watch['sent']): Watch => ({ bytes: -1, sent })

function delivery (json: string): Delivery {
  return new Delivery(new Outgoing(origin, json), { epoch: 'e', offset: 1 }, true)
}

t.test('members are kept dense, whoever leaves', async t => {
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
  const room = new Room('news', fakeDefinition({ presence: null }))
  t.equal(room.presence, undefined)
  t.ok(room.isEmpty)
  room.joining++
  t.notOk(room.isEmpty)
  room.joining--
  const subscription = {} as Subscription
  room.subscriptions.add(subscription)
  t.notOk(room.isEmpty)
})

/** The payloads of the messages a member has got. */
const got = ({ socket }: FakeMember): unknown[] => socket.sent.map(text => JSON.parse(text).data)

t.test('what is delivered waits, and leaves with a flush', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  t.notOk(room.isDirty)
  t.equal(room.deliver(delivery('1')), 2)
  t.equal(room.deliver(delivery('2')), 2)
  t.ok(room.isDirty)
  t.same(members.map(got), [[], []])
  const sent: string[] = []
  room.flush(each(session => { sent.push(session.id) }))
  t.same(members.map(got), [[1, 2], [1, 2]])
  t.same(sent, ['a', 'b'], 'once for each member')
  t.notOk(room.isDirty)
  room.flush(each(session => { sent.push(session.id) }))
  t.equal(sent.length, 2, 'nothing is left')
})

t.test('who leaves during a fan-out is taken out after it, and nobody is skipped or told twice', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  const sizes: number[] = []
  room.deliver(delivery('1'))
  room.flush(each(session => {
    if (session.id !== 'a') return
    for (const leaver of [members[0]!, members[3]!, members[1]!]) {
      leaver.socket.close(1000, '')
      room.remove(leaver.session)
    }
    sizes.push(room.size, room.members.length)
  }))
  t.same(sizes, [1, 4], 'they are not counted any more, but still in place')
  t.same(room.members.map(({ id, index }) => [id, index]), [['c', 0]])
  t.same(members.map(got), [[1], [], [1], []])
})

t.test('what is delivered during a fan-out is for the next one', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  room.deliver(delivery('1'))
  room.flush(each(session => {
    if (session.id === 'a') room.deliver(delivery('2'))
  }))
  t.same(members.map(got), [[1], [1], [1]])
  t.ok(room.isDirty)
  room.flush(nobody)
  t.same(members.map(got), [[1, 2], [1, 2], [1, 2]])
})

t.test('a fan-out within a fan-out leaves the places alone until the outer one is over', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  room.deliver(delivery('1'))
  room.flush(each(session => {
    if (session.id !== 'c') return
    members[2]!.socket.close(1000, '')
    room.remove(session)
    room.deliver(delivery('2'))
    room.flush(nobody)
    t.equal(room.members.length, 3)
  }))
  t.equal(room.members.length, 2)
  t.same(members.map(got), [[1, 2], [1, 2], [1]])
})

t.test('who joins during a fan-out is not among those told', async t => {
  const { room } = fakeRoom(['a'])
  const late = fakeMember('late')
  t.equal(room.deliver(delivery('1')), 1)
  room.flush(each(() => { room.add(late.session) }))
  t.same(got(late), [])
  t.equal(room.deliver(delivery('2')), 2)
  room.flush(nobody)
  t.same(got(late), [2])
})

t.test('who joins in a turn gets what comes after it, and nothing from before', async t => {
  const { room, members } = fakeRoom(['a'])
  room.deliver(delivery('1'))
  const late = fakeMember('late')
  room.add(late.session)
  const later = fakeMember('later')
  room.add(later.session)
  room.deliver(delivery('2'))
  room.flush(nobody)
  t.same([members[0]!, late, later].map(got), [[1, 2], [2], [2]])

  room.deliver(delivery('3'))
  const last = fakeMember('last')
  room.add(last.session)
  room.flush(nobody)
  t.same(got(last), [])
  room.deliver(delivery('4'))
  room.flush(nobody)
  t.same([members[0]!, late, last].map(got), [[1, 2, 3, 4], [2, 3, 4], [4]], 'in the next turn it is one of all')
})

t.test('a fan-out leaves out the excepted, the ended and those to be closed for not reading', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  members[1]!.socket.close(1000, '')
  members[2]!.session.connection.condemned = true
  t.equal(room.deliver(delivery('1'), members[0]!.session), 3, 'the excepted is not counted')
  room.flush(nobody)
  t.same(members.map(got), [[], [], [], [1]])
})

t.test('the excepted of one message gets those before and after it', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  const [a, b] = members.map(({ session }) => session) as [MemberSession, MemberSession]
  room.deliver(delivery('1'))
  room.deliver(delivery('2'), a)
  room.deliver(delivery('3'))
  room.deliver(delivery('4'), b)
  room.deliver(delivery('5'), a)
  room.flush(nobody)
  t.same(members.map(got), [[1, 3, 4], [1, 2, 3, 5]])
})

t.test('a frame of a member\'s own leaves at once where nothing waits, and else in its place', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  const [a, b] = members.map(({ session }) => session) as [MemberSession, MemberSession]
  const own = (data: unknown) => textFrame('', Buffer.from(JSON.stringify({ data })))
  room.sendTo(a, own('first'))
  t.same(members.map(got), [['first'], []])
  room.deliver(delivery('1'))
  room.sendTo(a, own('ack 1'))
  room.sendTo(a, own('direct'))
  room.deliver(delivery('2'), a)
  room.sendTo(b, own('ack 2'))
  room.deliver(delivery('3'))
  t.same(members.map(got), [['first'], []])
  room.flush(nobody)
  t.same(members.map(got), [['first', 1, 'ack 1', 'direct', 3], [1, 2, 'ack 2', 3]])
})

t.test('frames of a member\'s own leave early where they are many, and in their place', async t => {
  const { room, members } = fakeRoom(['a', 'b'])
  const [a] = members.map(({ session }) => session) as [MemberSession]
  const own = (data: string) => textFrame('', Buffer.from(JSON.stringify({ data })))
  const long = 'x'.repeat(131_072)
  room.deliver(delivery('1'))
  room.sendTo(a, own(long))
  t.same(got(members[0]!), [])
  room.deliver(delivery('2'))
  room.sendTo(a, own(long))
  t.same(members.map(got), [[1, long, 2, long], []], 'and nobody else is touched by it')
  room.deliver(delivery('3'))
  room.sendTo(a, own('last'))
  room.flush(nobody)
  t.same(members.map(got), [[1, long, 2, long, 3, 'last'], [1, 2, 3]])
})

t.test('a member that is about to leave gets what waits for it, and the others theirs in time', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  const [a, b, c] = members.map(({ session }) => session) as [MemberSession, MemberSession, MemberSession]
  room.flushMember(a)
  t.same(got(members[0]!), [], 'nothing waits')
  room.deliver(delivery('1'))
  room.deliver(delivery('2'), b)
  for (const session of [a, b]) {
    room.flushMember(session)
    session.state = 'closed'
    room.remove(session)
  }
  t.same(members.map(got), [[1, 2], [1], []])
  room.deliver(delivery('3'), c)
  room.flush(nobody)
  t.same(members.map(got), [[1, 2], [1], [1, 2]])
})

t.test('a batch is full at 256 frames, or at 256 KiB', async t => {
  const { room } = fakeRoom(['a'])
  for (let n = 0; n < 255; n++) room.deliver(delivery('1'))
  t.notOk(room.isFull)
  room.deliver(delivery('1'))
  t.ok(room.isFull)
  room.flush(nobody)
  t.notOk(room.isFull)
  const overhead = delivery('""').frame(0).length + 8
  room.deliver(delivery(`"${'x'.repeat(262_144 - overhead - 1)}"`))
  t.notOk(room.isFull)
  room.flush(nobody)
  room.deliver(delivery(`"${'x'.repeat(262_144 - overhead)}"`))
  t.ok(room.isFull)
})

t.test('where nobody speaks a mode, nothing waits in it', async t => {
  const room = new Room('news', fakeDefinition())
  const raw = fakeMember('a', 'rooms.raw')
  room.announce('{}')
  room.add(raw.session)
  room.announce('{}')
  t.notOk(room.isDirty)
  const given = delivery('1')
  given.frame = encoding => {
    if (encoding !== 1) throw new Error('nobody asked for it')
    return textFrame('', Buffer.from('1'))
  }
  t.equal(room.deliver(given), 1)
  room.remove(raw.session)
  t.equal(room.deliver(given), 0)
})

t.test('all members of a mode get the same bytes, which are made once', async t => {
  const room = new Room('news', fakeDefinition())
  const transports = Array.from({ length: 4 }, () => new FakeTransport())
  const members = transports.map((transport, index) => fakeMember(`s${index}`, index % 2 === 0 ? 'rooms.v1' : 'rooms.raw', transport))
  for (const { session } of members) room.add(session)
  const write = (): Buffer[] => {
    room.flush(nobody)
    for (const { written } of transports) t.equal(written.length, 1, 'one write')
    return transports.map(({ written }) => written.splice(0)[0]!)
  }
  room.deliver(delivery('"hi"'))
  const single = write()
  t.equal(single[0], single[2], 'the same buffer')
  t.equal(single[1], single[3], 'the same buffer')
  t.equal(payloadOf(single[0]!).toString(), '{"type":"message","id":"e-1","data":"hi"}')
  t.equal(payloadOf(single[1]!).toString(), 'hi')
  room.deliver(delivery('"hi"'))
  room.deliver(delivery('"ho"'))
  const double = write()
  t.equal(double[0], double[2], 'the same buffer')
  t.equal(double[1], double[3], 'the same buffer')
  t.equal(double[1]!.toString('latin1'), '\x81\x02hi\x81\x02ho')
  for (const { socket } of members) t.same(socket.sent, [], 'nothing through ws')
})

t.test('an announcement reaches those who speak rooms.v1', async t => {
  const room = new Room('news', fakeDefinition())
  const members = [fakeMember('a'), fakeMember('b', 'rooms.raw')]
  for (const { session } of members) room.add(session)
  const sent: string[] = []
  room.announce('{}')
  room.flush(each(session => { sent.push(session.id) }))
  t.same(sent, ['a'])
  t.same(members.map(({ socket }) => socket.sent), [['{}'], []])
})

t.test('a publication knows where its payload stands, in bytes', async t => {
  const publication = new Outgoing({ ...origin, except: 's9' }, '"ü"', tailEnd('s1', 'Jö'))
  t.match(publication, { v: 1, uid: 'u1', node: 'n1', topic: 'news', deadline: 0, except: 's9', payloadLength: 4, local: 0 })
  t.equal(publication.tail.toString(), '"data":"ü","from":"s1","user":"Jö"}')
  t.equal(new Outgoing(origin, '1').except, undefined)
  const without = new Delivery(publication, undefined, false)
  t.equal(without.id, undefined)
  t.equal(without.json, '"ü"')
  t.equal(payloadOf(without.frame(0)).toString(), '{"type":"message","data":"ü","from":"s1","user":"Jö"}')
  t.equal(payloadOf(without.frame(1)).toString(), '"ü"', 'typed: with quotes')
})

t.test('raw mode gives a string of an untyped topic as its text, and other JSON as it is', async t => {
  t.equal(rawText('"a\\nb\\u00e4"', true), 'a\nbä')
  t.equal(rawText('""', true), '')
  for (const json of ['1', 'null', '["a"]', '{"a":"b"}']) t.equal(rawText(json, true), json)
  t.equal(rawText('"a"', false), '"a"')
})

t.test('a member over the bound is ended in a later turn of the loop, not in the one that filled it', async t => {
  const ended: string[] = []
  const backlog = new Backlog(100, session => { ended.push(session.id) })
  const { session, socket } = fakeMember('a')
  socket.bufferedAmount = 101
  backlog.sent(session)
  backlog.sent(session)
  t.same(ended, [], 'one turn may queue what it likes')
  await new Promise(resolve => setImmediate(resolve))
  backlog.sent(session)
  t.same(ended, ['a'])
  backlog.sent(session)
  t.same(ended, ['a'], 'once')
})

t.test('a member that has read is forgiven', async t => {
  const ended: string[] = []
  const backlog = new Backlog(100, session => { ended.push(session.id) })
  const { session, socket } = fakeMember('a')
  socket.bufferedAmount = 101
  backlog.sent(session)
  await new Promise(resolve => setImmediate(resolve))
  socket.bufferedAmount = 100
  backlog.sent(session)
  t.equal(session.connection.overTurn, 0)
  socket.bufferedAmount = 101
  backlog.sent(session)
  t.same(ended, [], 'its count of turns began anew')
  await new Promise(resolve => setImmediate(resolve))
  backlog.sent(session)
  t.same(ended, ['a'])
})

t.test('the turn is counted once, however many are over the bound in it', async t => {
  const ended: string[] = []
  const backlog = new Backlog(100, session => { ended.push(session.id) })
  const members = ['a', 'b'].map(id => fakeMember(id))
  for (const { session, socket } of members) {
    socket.bufferedAmount = 101
    backlog.sent(session)
  }
  t.equal(members[0]!.session.connection.overTurn, members[1]!.session.connection.overTurn)
  await new Promise(resolve => setImmediate(resolve))
  for (const { session } of members) backlog.sent(session)
  t.same(ended, ['a', 'b'])
})

t.test('the verdict on slow members is carried out after the fan-out, once each, and nothing more is queued to them', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  const ended: string[] = []
  const flush = (): void => { backlog.fanOut(() => { room.flush(backlog) }) }
  const backlog: Backlog = new Backlog(100, session => {
    ended.push(session.id)
    session.state = 'closed'
    room.remove(session)
    // As an onLeave does that tells the others, and a full batch that leaves at once.
    room.deliver(delivery('"left"'))
    flush()
  })
  const fan = (json: string): void => {
    backlog.fanOut(() => {
      room.deliver(delivery(json))
      room.flush(backlog)
      t.same(ended, [], 'not in the midst of it')
    })
  }
  for (const { socket } of members.slice(0, 2)) socket.bufferedAmount = 101
  fan('1')
  await new Promise(resolve => setImmediate(resolve))
  fan('2')
  t.same(ended, ['a', 'b'])
  t.same(members.map(got), [[1, 2], [1, 2], [1, 2, 'left', 'left']])
})

t.test('subscribers are handed what members are, at once, and are not counted', async t => {
  const { room } = fakeRoom(['a'])
  const pushed: Delivery[] = []
  room.subscriptions.add({ push (given: Delivery) { pushed.push(given) } } as unknown as Subscription)
  const given = delivery('1')
  t.equal(room.deliver(given), 1)
  t.same(pushed, [given])
  room.announce('{}')
  room.flush(nobody)
  t.equal(pushed.length, 1, 'presence is not for them')
})

t.test('a message of which one encoding cannot be made is queued to nobody, and the room goes on', async t => {
  const { room, members } = fakeRoom(['a'])
  const raw = fakeMember('b', 'rooms.raw')
  room.add(raw.session)
  const broken = delivery('1')
  const { frame } = broken
  broken.frame = encoding => {
    if (encoding === 1) throw new Error('no memory')
    return frame.call(broken, encoding)
  }
  t.throws(() => room.deliver(broken), { message: 'no memory' })
  t.notOk(room.isDirty)
  t.equal(room.deliver(delivery('2')), 2)
  t.ok(room.isDirty)
  room.flush(nobody)
  t.same(got(members[0]!), [2])
})

t.test('a member that has read everything in between may be given more than the bound in every turn', async t => {
  const ended: string[] = []
  const backlog = new Backlog(100, session => { ended.push(session.id) })
  const { room, members } = fakeRoom(['a'])
  const [{ socket }] = members as [FakeMember]
  for (let turn = 0; turn < 4; turn++) {
    room.deliver(delivery('1'))
    socket.bufferedAmount = 0
    const { send } = socket
    socket.send = data => {
      send.call(socket, data)
      socket.bufferedAmount = 1_000
    }
    backlog.fanOut(() => { room.flush(backlog) })
    await new Promise(resolve => setImmediate(resolve))
  }
  t.same(ended, [])
  room.deliver(delivery('1'))
  backlog.fanOut(() => { room.flush(backlog) })
  t.same(ended, ['a'], 'but not while the last is still there')
})

t.test('a copy of a publication has all that the original says', async t => {
  const publication = new Outgoing({ ...origin, except: 's9' }, '"ü"', tailEnd('s1', 'Jö')).settle()
  const copy: Publication = { ...publication } as never
  t.same(new Delivery(copy, undefined, false).frame(0), new Delivery(publication, undefined, false).frame(0))
  t.equal(new Delivery(copy, undefined, false).json, '"ü"')
})
