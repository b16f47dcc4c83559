import t from 'tap'
import { Backlog } from '../../lib/hub/backlog.ts'
import { fakeDelivery, fakeMember, fakeRoom, got, type FakeMember } from '../helpers/fakes.ts'

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
    room.deliver(fakeDelivery('"left"'))
    flush()
  })
  const fan = (json: string): void => {
    backlog.fanOut(() => {
      room.deliver(fakeDelivery(json))
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

t.test('a member that has read everything in between may be given more than the bound in every turn', async t => {
  const ended: string[] = []
  const backlog = new Backlog(100, session => { ended.push(session.id) })
  const { room, members } = fakeRoom(['a'])
  const [{ socket }] = members as [FakeMember]
  for (let turn = 0; turn < 4; turn++) {
    room.deliver(fakeDelivery('1'))
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
  room.deliver(fakeDelivery('1'))
  backlog.fanOut(() => { room.flush(backlog) })
  t.same(ended, ['a'], 'but not while the last is still there')
})
