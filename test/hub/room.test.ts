import t from 'tap'
import { Backlog } from '../../lib/hub/backlog.ts'
import { Delivery, Outgoing, rawPayload } from '../../lib/hub/delivery.ts'
import { Room } from '../../lib/hub/room.ts'
import type { MemberSession } from '../../lib/hub/session.ts'
import type { Subscription } from '../../lib/hub/subscription.ts'
import { fakeDefinition, fakeMember, fakeRoom } from '../helpers/fakes.ts'

const origin = { uid: 'u1', node: 'n1', topic: 'news', deadline: 0 }
const nobody = (): void => {}

function delivery (json: string, except?: string): Delivery {
  return new Delivery(new Outgoing({ ...origin, except }, json), { epoch: 'e', offset: 1 }, true)
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

t.test('who leaves during a fan-out is taken out after it, and nobody is skipped or told twice', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  const sizes: number[] = []
  const told = room.deliver(delivery('1'), session => {
    if (session.id !== 'a') return
    for (const { session: leaver } of [members[0]!, members[3]!, members[1]!]) {
      leaver.state = 'closed'
      room.remove(leaver)
    }
    sizes.push(room.size, room.members.length)
  })
  t.equal(told, 2, 'the first, and the one that stayed')
  t.same(sizes, [1, 4], 'they are not counted any more, but still in place')
  t.same(room.members.map(({ id, index }) => [id, index]), [['c', 0]])
  t.same(members.map(({ socket }) => socket.sent.length), [1, 0, 1, 0])
})

t.test('a fan-out within a fan-out leaves the places alone until the outer one is over', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c'])
  let inner = false
  room.deliver(delivery('1'), session => {
    if (inner || session.id !== 'a') return
    inner = true
    session.state = 'closed'
    room.remove(session)
    room.deliver(delivery('2'), nobody)
    t.equal(room.members.length, 3)
  })
  t.equal(room.members.length, 2)
  t.same(members.map(({ socket }) => socket.sent.map(text => JSON.parse(text).data)), [[1], [2, 1], [2, 1]])
})

t.test('who joins during a fan-out is not among those told', async t => {
  const { room } = fakeRoom(['a'])
  const late = fakeMember('late')
  t.equal(room.deliver(delivery('1'), () => { room.add(late.session) }), 1)
  t.equal(late.socket.sent.length, 0)
  t.equal(room.deliver(delivery('2'), nobody), 2)
})

t.test('a fan-out leaves out the excepted, the ended and those to be closed for not reading', async t => {
  const { room, members } = fakeRoom(['a', 'b', 'c', 'd'])
  members[1]!.session.state = 'closed'
  members[2]!.session.connection.condemned = true
  t.equal(room.deliver(delivery('1', 'a'), nobody), 1)
  t.same(members.map(({ socket }) => socket.sent.length), [0, 0, 0, 1])
})

t.test('all members of a mode get the same bytes, which are made once', async t => {
  const room = new Room('news', fakeDefinition())
  const members = [fakeMember('a'), fakeMember('b', 'rooms.raw'), fakeMember('c'), fakeMember('d', 'rooms.raw')]
  for (const { session } of members) room.add(session)
  room.deliver(delivery('"hi"'), nobody)
  t.equal(members[0]!.socket.buffers[0], members[2]!.socket.buffers[0], 'the same buffer')
  t.equal(members[1]!.socket.buffers[0], members[3]!.socket.buffers[0], 'the same buffer')
  t.equal(members[0]!.socket.sent[0], '{"type":"message","id":"e-1","data":"hi"}')
  t.equal(members[1]!.socket.sent[0], 'hi')
})

t.test('an announcement reaches those who speak rooms.v1', async t => {
  const room = new Room('news', fakeDefinition())
  const members = [fakeMember('a'), fakeMember('b', 'rooms.raw')]
  for (const { session } of members) room.add(session)
  const sent: string[] = []
  room.announce('{}', session => { sent.push(session.id) })
  t.same(sent, ['a'])
  t.same(members.map(({ socket }) => socket.sent), [['{}'], []])
})

t.test('a publication knows where its payload stands, in bytes', async t => {
  const publication = new Outgoing({ ...origin, except: 's9' }, '"ü"', 's1', 'Jö')
  t.match(publication, { v: 1, uid: 'u1', node: 'n1', topic: 'news', deadline: 0, except: 's9', payloadLength: 4, local: 0 })
  t.equal(publication.tail.toString(), '"data":"ü","from":"s1","user":"Jö"}')
  t.equal(new Outgoing(origin, '1').except, undefined)
  const without = new Delivery(publication, undefined, false)
  t.equal(without.id, undefined)
  t.equal(without.json.toString(), '"ü"')
  t.equal(without.bytes('rooms.v1').toString(), '{"type":"message","data":"ü","from":"s1","user":"Jö"}')
  t.equal(without.bytes('rooms.raw').toString(), '"ü"', 'typed: with quotes')
})

t.test('raw mode gives a string of an untyped topic as its text, and other JSON as it is', async t => {
  t.equal(rawPayload(Buffer.from('"a\\nb\\u00e4"'), true).toString(), 'a\nbä')
  t.equal(rawPayload(Buffer.from('""'), true).toString(), '')
  for (const json of ['1', 'null', '["a"]', '{"a":"b"}']) t.equal(rawPayload(Buffer.from(json), true).toString(), json)
  t.equal(rawPayload(Buffer.from('"a"'), false).toString(), '"a"')
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
  const backlog: Backlog = new Backlog(100, session => {
    ended.push(session.id)
    session.state = 'closed'
    room.remove(session)
    // As an onLeave does that tells the others.
    backlog.fanOut(() => room.deliver(delivery('"left"'), backlog.sent))
  })
  const fan = (json: string) => backlog.fanOut(() => {
    const result = room.deliver(delivery(json), backlog.sent)
    t.same(ended, [], 'not in the midst of it')
    return result
  })
  for (const { socket } of members.slice(0, 2)) socket.bufferedAmount = 101
  t.equal(fan('1'), 3)
  await new Promise(resolve => setImmediate(resolve))
  t.equal(fan('2'), 3)
  t.same(ended, ['a', 'b'])
  t.same(members.map(({ socket }) => socket.sent.map(text => JSON.parse(text).data)), [[1, 2], [1, 2], [1, 2, 'left', 'left']])
})

t.test('subscribers are handed what members are, and are not counted', async t => {
  const { room } = fakeRoom(['a'])
  const pushed: Delivery[] = []
  room.subscriptions.add({ push (given: Delivery) { pushed.push(given) } } as unknown as Subscription)
  const given = delivery('1')
  t.equal(room.deliver(given, nobody), 1)
  t.same(pushed, [given])
  room.announce('{}', nobody)
  t.equal(pushed.length, 1, 'presence is not for them')
})
