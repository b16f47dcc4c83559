import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import t from 'tap'
import { Lag } from '../../lib/room/lag.ts'
import type { Room } from '../../lib/room/room.ts'
import { textFrame } from '../../lib/transport/ws/frame.ts'
import { until } from '../helpers/app.ts'
import { at, FakeStream, fakeMember } from '../helpers/fakes.ts'
import { got, nextTurn, slowRoom, text } from './slow-room.ts'

/** The broker delivers the topic from its beginning. */
function attach (room: Room): void {
  room.feed.attachedAt({ epoch: 'e', offset: 0 })
  room.attached(room.feed.position)
}

t.test('a member whose bytes of earlier turns exceed the bound with this batch is slow, and the batch is not queued for it', async t => {
  const { members: [a, b], say, turnEnds, ended, counters } = slowRoom({ bytes: 1_000 }) as any
  a.socket.bufferedAmount = 960
  say()
  await turnEnds()
  t.same(ended, [], '960 bytes and one small frame are within the bound')
  a.socket.bufferedAmount = 960
  say(text(50))
  await turnEnds()
  t.same(ended, [['a', 4201]])
  t.equal(counters.slow, 1)
  t.same([a, b].map(got), [[1], [1, 'x'.repeat(50)]])
  t.equal(a.session.transport.isClosing, true)
})

t.test('a connection without buffered bytes accepts all batches of one turn', async t => {
  const { members: [a], say, flush, turnEnds, ended } = slowRoom({ bytes: 100 }, ['a']) as any
  for (let n = 0; n < 20; n++) {
    say(text(64_000))
    flush()
    a.socket.bufferedAmount += 64_000
  }
  t.equal(got(a).length, 20)
  await turnEnds()
  t.same(ended, [])
  say()
  await turnEnds()
  t.same(ended, [['a', 4201]], 'bytes that are still buffered in the next turn count')
})

t.test('drop: a slow member gets no messages; when it has read, one gap frame counts the dropped ones, and it goes on', async t => {
  const { room, members: [a, b], say, turnEnds, ended, counters } = slowRoom({ policy: 'drop' }) as any
  say()
  await turnEnds()
  a.socket.bufferedAmount = 1_000
  for (let n = 0; n < 5; n++) {
    say()
    await turnEnds()
  }
  t.equal(room.size, 2)
  t.equal(room.members.length, 1, 'a slow member is not part of the fan-out')
  t.equal(room.lagging.size, 1)
  t.same(got(a), [1])
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  say()
  await turnEnds()
  t.same(got(a), [1, { type: 'gap', count: 5, reason: 'slow', from: 'e-1', to: 'e-6' }, 7])
  t.same(got(b), [1, 2, 3, 4, 5, 6, 7], 'other members are not affected')
  t.same(ended, [])
  t.match(counters, { dropped: 5, conflated: 0, slow: 0 })
})

t.test('without an earlier message, a gap begins at the position from which the room delivers', async t => {
  const { room, members: [a], say, turnEnds } = slowRoom({ policy: 'drop' }, ['a']) as any
  attach(room)
  a.socket.bufferedAmount = 1_000
  say()
  attach(room)
  t.equal(room.feed.position.offset, 1, 'messages delivered meanwhile are newer')
  await turnEnds()
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same(got(a), [{ type: 'gap', count: 1, reason: 'slow', from: 'e-0', to: 'e-1' }])
})

t.test('a gap has no positions if the broker has none', async t => {
  const { room, members: [a], say, turnEnds } = slowRoom({ policy: 'drop' }, ['a']) as any
  a.socket.bufferedAmount = 1_000
  say()
  room.feed.position = undefined
  await turnEnds()
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same(got(a), [{ type: 'gap', count: 1, reason: 'slow' }])
})

t.test('private frames are never dropped: they keep their order, and close the member if they exceed the bound', async t => {
  const own = (data: unknown) => textFrame(JSON.stringify({ type: 'message', data }))
  for (const policy of ['drop', 'latest'] as const) {
    const { room, members: [a], say, turnEnds, ended, slow } = slowRoom({ policy }, ['a']) as any
    a.socket.bufferedAmount = 980
    say()
    room.sendTo(a.session, own('p1'))
    say()
    await turnEnds()
    t.same(got(a), [], 'the private frame alone exceeds the bound')
    t.same(ended, [['a', 4201]])

    const other = slowRoom({ policy }, ['a']) as any
    const [b] = other.members
    b.socket.bufferedAmount = 900
    other.say(text(100))
    other.room.sendTo(b.session, own('p1'))
    other.say(text(100))
    other.room.sendTo(b.session, own('p2'))
    await other.turnEnds()
    t.same(got(b), ['p1', 'p2'], 'private frames are sent while messages of the room are held')
    t.equal(other.room.lagging.size, 1)
    t.ok(other.slow.admits(b.session, 100))
    other.room.sendTo(b.session, own('p3'))
    other.say()
    other.room.sendTo(b.session, own('p4'))
    t.same(got(b), ['p1', 'p2', 'p3', 'p4'], 'a private frame is sent at once')
    t.notOk(other.slow.admits(b.session, 101))
    t.same(other.ended, [['a', 4201]])
    t.ok(slow)
  }
})

t.test('private frames that a policy sends, and an end that it makes, come after those that wait for its decision', async t => {
  const own = (data: unknown) => textFrame(JSON.stringify({ type: 'message', data }))
  for (const ends of [false, true]) {
    const context: any = slowRoom({
      policy: (session: any) => {
        context.room.sendTo(session, own('p2'))
        if (ends) {
          context.room.flushMember(session)
          session.state = 'closed'
          context.room.remove(session)
        }
        return 'drop'
      }
    }, ['a'])
    const { room, members: [a], say, turnEnds } = context
    a.socket.bufferedAmount = 900
    room.sendTo(a.session, own('p0'))
    say(text(100))
    room.sendTo(a.session, own('p1'))
    await turnEnds()
    t.equal(room.size, ends ? 0 : 1)
    t.same(got(a), ['p0', 'p1', 'p2'])
  }
})

t.test('a subscriber of the slow channel may end the member, and other members still get their messages', async t => {
  const { room, members: [a, b], say, turnEnds, failures, ended } = slowRoom({ policy: (session: any) => session.id === 'a' ? 'drop' : 'latest' }) as any
  const listener = (event: any): void => {
    if (event.session !== 'a') return
    a.session.state = 'closed'
    room.remove(a.session)
  }
  subscribe('fastify-rooms:slow', listener)
  t.teardown(() => { unsubscribe('fastify-rooms:slow', listener) })
  for (const { socket } of [a, b]) socket.bufferedAmount = 1_000
  say('"newest"', 'k')
  await turnEnds()
  t.equal(room.size, 1)
  for (const { socket } of [a, b]) socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same([a, b].map(got), [[], ['newest']])
  t.same([failures, ended], [[], []])
})

t.test('frames that a member gets when it comes back count in the next turn like other buffered bytes', async t => {
  const { room, members: [a], say, turnEnds, flush } = slowRoom({ policy: 'latest' }, ['a']) as any
  a.socket.bufferedAmount = 1_000
  say(text(500), 'k')
  await turnEnds()
  const { send } = a.socket
  a.socket.send = (data: Buffer) => {
    a.socket.bufferedAmount += data.length
    send.call(a.socket, data)
  }
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  await nextTurn()
  say(text(500), 'k')
  flush()
  t.equal(room.lagging.size, 1)
})

t.test('private frames alone may fill one turn, and those still buffered count in the next one', async t => {
  const { slow, members: [a], ended } = slowRoom({}, ['a']) as any
  t.ok(slow.admits(a.session, 5_000))
  a.socket.bufferedAmount = 5_000
  slow.sent(a.session)
  t.ok(slow.admits(a.session, 5_000), 'within the same turn')
  await nextTurn()
  t.same(ended, [])
  t.notOk(slow.admits(a.session, 1))
  t.same(ended, [['a', 4201]])
})

t.test('a policy function decides for each member; an invalid result, or an error, closes the member and is reported', async t => {
  const asked: unknown[] = []
  const answers: Record<string, unknown> = { a: 'drop', b: 'latest', c: 'close', d: 'other', e: undefined, f: Promise.reject(new Error('not at once')), g: new Error('as it was told to') }
  const { room, members, say, turnEnds, ended, failures, counters } = slowRoom({
    policy: (session: any, slow) => {
      asked.push([session.id, slow])
      const answer = answers[session.id]
      if (answer instanceof Error) throw answer
      return answer
    }
  }, Object.keys(answers))
  for (const { socket } of members) socket.bufferedAmount = 1_000
  say('1', 'k')
  say('2', 'k')
  await turnEnds()
  t.same(asked, Object.keys(answers).map(id => [id, { bytes: 1_000 }]))
  t.same(ended, ['c', 'd', 'e', 'f', 'g'].map(id => [id, 4201]))
  t.match(failures.map(({ message }) => message), [/returned "other"; it must return/, /returned undefined/, /returned object/, 'as it was told to', 'not at once'])
  t.equal(counters.slow, 5)
  for (const { socket } of members) socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.match(members.slice(0, 2).map(got), [[{ type: 'gap', count: 2 }], [2]])
  t.match(counters, { dropped: 2, conflated: 1 })
})

t.test('a policy may end members, later ones included', async t => {
  const context: any = slowRoom({
    policy: (session: any) => {
      for (const { session: member } of context.members) {
        if (member.state !== 'open') continue
        member.state = 'closed'
        context.room.remove(member)
      }
      return 'latest'
    }
  }, ['a', 'b'])
  for (const { socket } of context.members) socket.bufferedAmount = 1_000
  context.say()
  await context.turnEnds()
  t.equal(context.room.size, 0)
  t.same(context.ended, [])
  t.match(context.counters, { slow: 0, dropped: 0, conflated: 0 })
})

t.test('a slow member that leaves gets nothing more, and its missed messages are counted', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const { room, members: [a], say, turnEnds, counters } = slowRoom({ policy }) as any
    a.socket.bufferedAmount = 1_000
    say('1', 'k')
    await turnEnds()
    say('2', 'k')
    await turnEnds()
    a.session.state = 'closed'
    room.remove(a.session)
    t.equal(room.size, 1)
    t.match(counters, { dropped: policy === 'drop' ? 2 : 0, conflated: policy === 'latest' ? 2 : 0 })
    a.socket.bufferedAmount = 0
    await new Promise(resolve => setTimeout(resolve, 30))
    t.same(got(a), [], 'the member does not come back')
    t.equal(room.size, 1)
  }
})

t.test('a slow member whose connection breaks is no longer waited for', async t => {
  const transport = new FakeStream()
  const { room, join, say, turnEnds, failures } = slowRoom({ policy: 'drop' }, [])
  const { session } = join('a', transport)
  Object.defineProperty(transport, 'writableLength', { value: 1_000 })
  say()
  await turnEnds()
  t.equal(room.lagging.size, 1)
  transport.emit('close')
  await nextTurn()
  t.equal(room.lagging.size, 1, 'other code ends the session')
  t.ok(session.lag)
  t.same(failures, [])
})

t.test('a member that has read in the middle of a turn comes back at once, and queued messages are part of its gap', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const transport = new FakeStream()
    const { room, join, say, turnEnds } = slowRoom({ policy }, ['b'])
    join('a', transport)
    let waiting = 1_000
    Object.defineProperty(transport, 'writableLength', { get: () => waiting })
    say()
    await turnEnds()
    waiting = 0
    say()
    transport.emit('drain')
    for (let tick = 0; tick < 10; tick++) await undefined
    t.equal(room.lagging.size, 0)
    say()
    await turnEnds()
    const frames = transport.written.map(bytes => JSON.parse(bytes.subarray(2).toString()))
    t.match(frames, [policy === 'drop' ? { type: 'gap', count: 2 } : { type: 'message', data: 2 }, { type: 'message', data: 3 }])
    t.equal(frames.length, 2)
  }
})

t.test('a member that missed presence frames gets a snapshot', async t => {
  const { room, members: [a], say, turnEnds, join } = slowRoom({ policy: 'drop' }) as any
  a.socket.bufferedAmount = 1_000
  say()
  await turnEnds()
  room.announce('{"type":"presence","count":2}')
  join('c')
  await turnEnds()
  t.same(room.roster.snapshot(), '{"type":"presence","count":3,"state":[{"session":"b"},{"session":"c"},{"session":"a"}]}', 'a slow member is listed')
  room.roster.outdate() // a new snapshot is built when the slow member comes back
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.match(got(a), [{ type: 'gap', count: 1 }, { type: 'presence', count: 3, state: [{ session: 'b' }, { session: 'c' }, { session: 'a' }] }])
})

t.test('a member that joined in the turn in which it falls behind misses only messages after its join', async t => {
  const { room, say, turnEnds, join } = slowRoom({ policy: 'latest' }, []) as any
  const old = join('old')
  say('"before"', 'k')
  const late = join('late')
  late.socket.bufferedAmount = 1_000
  say('"after"', 'l')
  await turnEnds()
  t.equal(room.lagging.size, 1)
  late.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same([old, late].map(got), [['before', 'after'], ['after']])
})

t.test('a raw member gets no gap frame', async t => {
  const { room, say, turnEnds } = slowRoom({ policy: 'drop' }, ['b'])
  const raw = fakeMember('raw', 'rooms.raw')
  Object.assign(raw.session, { definition: room.definition, room })
  room.add(raw.session)
  raw.socket.bufferedAmount = 1_000
  room.announce('{}')
  say()
  await turnEnds()
  raw.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  say()
  await turnEnds()
  t.same(raw.socket.sent, ['2'])
})

t.test('a frame that belongs to no member makes its peer slow once', async t => {
  const { slow, counters, turnEnds } = slowRoom({}, [])
  const { connection: { transport }, socket } = fakeMember('peer')
  const write = (frame: string): boolean => slow.write(transport, textFrame(frame), 1_000)
  t.equal(write('1'), true)
  await turnEnds()
  socket.bufferedAmount = 1_001
  t.equal(write('2'), false)
  t.equal(write('3'), true, 'the connection is being closed already')
  t.same(socket.sent, ['1'])
  t.equal(counters.slow, 1)
})

t.test('a member under replay whose peer takes nothing is closed; one that takes some of it stays, and a stall of this process counts for neither', async t => {
  const { slow, join, counters } = slowRoom({}, [])
  const ended: [string, number][] = []
  const room = { sendKept: () => 'more' as const, isEnded: false }
  const member = (id: string) => {
    const stream = new FakeStream()
    const bytes = { writableLength: 1_000, bytesWritten: 1_000, writeQueueSize: 1_000 }
    for (const name of ['writableLength', 'bytesWritten'] as const) Object.defineProperty(stream, name, { get: () => bytes[name] })
    Object.assign(stream, { _handle: bytes })
    const { session } = join(id, stream)
    session.lag = new Lag(0, 0, undefined, 0, [], {} as never)
    session.end = ({ code }) => {
      ended.push([id, code])
      session.lag = undefined
    }
    at(0, () => { slow.sendKept(room, session, undefined) })
    return { session, bytes }
  }
  const [mute, taking, left] = ['mute', 'taking', 'left'].map(member)
  left!.session.lag = undefined
  for (let now = 1_000; now < 30_000; now += 1_000) {
    taking!.bytes.writeQueueSize--
    slow.sweep(now, 0)
  }
  mute!.bytes.bytesWritten += 500
  mute!.bytes.writableLength += 500
  slow.sweep(40_000, 10_000)
  t.same(ended, [], 'bytes that were queued meanwhile were not taken, and the stall is not the peer\'s')
  taking!.bytes.writeQueueSize--
  slow.sweep(41_000, 0)
  t.same(ended, [['mute', 4201]])
  t.equal(counters.slow, 1)
  taking!.session.lag = new Lag(0, 0, undefined, 0, [], {} as never)
  slow.sendKept({ sendKept: () => 'done', isEnded: false }, taking!.session, undefined)
  slow.sweep(200_000, 0)
  t.same(ended, [['mute', 4201]], 'a member that has all of its replay is watched no longer')
})
