import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import t from 'tap'
import { Backlog } from '../../lib/hub/backlog.ts'
import type { Ending, HubContext } from '../../lib/hub/context.ts'
import { createCounters } from '../../lib/hub/counters.ts'
import { Room } from '../../lib/hub/room.ts'
import type { MemberSession } from '../../lib/hub/session.ts'
import { textFrameOf } from '../../lib/hub/text-frame.ts'
import { Turn } from '../../lib/hub/turn.ts'
import type { SlowRule } from '../../lib/topics.ts'
import { until } from '../helpers/app.ts'
import { fakeDefinition, fakeDelivery, fakeMember, FakeTransport, type FakeMember } from '../helpers/fakes.ts'

const nextTurn = () => new Promise(resolve => setImmediate(resolve))
const text = (length: number): string => JSON.stringify('x'.repeat(length))

/** A room of one topic, and who watches over it; messages leave when the test says. */
function create (slow: Partial<SlowRule> = {}, ids = ['a', 'b']) {
  const counters = createCounters()
  const ended: [string, number][] = []
  const failures: Error[] = []
  const definition = fakeDefinition({ slow: { policy: 'close', bytes: 1_000, ...slow } })
  const room = new Room('news', definition, counters)
  const turn = new Turn(flush)
  const hub = {
    counters,
    end (session: MemberSession, { code }: Ending) {
      ended.push([session.id, code])
      session.state = 'closed'
      room.remove(session)
    },
    fail (error: Error) { failures.push(error) }
  } as unknown as HubContext
  const backlog = new Backlog(hub, turn)
  function flush (): void { backlog.judge(room, room.flush(turn.now)) }
  const join = (id: string, transport?: FakeTransport): FakeMember<any> => {
    const member = fakeMember(id, 'rooms.v1', transport ?? { bytesRead: 0 })
    Object.assign(member.session, { definition, room, announced: false })
    room.add(member.session)
    return member
  }
  const members = ids.map(id => join(id))
  let said = 0
  return {
    room,
    turn,
    backlog,
    counters,
    ended,
    failures,
    members,
    join,
    flush,
    /** One message, which waits; its data is its number unless given. */
    say (json = String(++said), key?: string, excepted?: MemberSession) {
      room.position = { epoch: 'e', offset: (room.position?.offset ?? 0) + 1 }
      const delivery = fakeDelivery(json, key)
      room.deliver(delivery, excepted)
    },
    async turnEnds () {
      flush()
      turn.mark()
      await nextTurn()
    }
  }
}

/** The frames that a member has got, briefly. */
function got ({ socket }: FakeMember<any>): unknown[] {
  return socket.sent.map((sent: string) => {
    const frame = JSON.parse(sent)
    return frame.type === 'message' ? frame.data : frame
  })
}

t.test('what waits from an earlier turn, and this batch, over the bound: the member is behind; the batch is not queued to it', async t => {
  const { members: [a, b], say, turnEnds, ended, counters } = create({ bytes: 1_000 }) as any
  a.socket.bufferedAmount = 960
  say()
  await turnEnds()
  t.same(ended, [], '960 bytes and one small frame are not over it')
  a.socket.bufferedAmount = 960
  say(text(50))
  await turnEnds()
  t.same(ended, [['a', 4201]])
  t.equal(counters.slow, 1)
  t.same([a, b].map(got), [[1], [1, 'x'.repeat(50)]])
  t.equal(a.session.connection.condemned, true)
})

t.test('an empty outbox takes whatever one turn brings, in however many batches', async t => {
  const { members: [a], say, flush, turnEnds, ended } = create({ bytes: 100 }, ['a']) as any
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
  t.same(ended, [['a', 4201]], 'but what is left of it in the next turn counts')
})

t.test('drop: nothing is queued while it waits, one gap says what was dropped, and on it goes', async t => {
  const { room, members: [a, b], say, turnEnds, ended, counters } = create({ policy: 'drop' }) as any
  say()
  await turnEnds()
  a.socket.bufferedAmount = 1_000
  for (let n = 0; n < 5; n++) {
    say()
    await turnEnds()
  }
  t.equal(room.size, 2)
  t.equal(room.members.length, 1, 'it is out of the fan-out')
  t.equal(room.laggards.size, 1)
  t.same(got(a), [1])
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  say()
  await turnEnds()
  t.same(got(a), [1, { type: 'gap', count: 5, reason: 'slow', from: 'e-1', to: 'e-6' }, 7])
  t.same(got(b), [1, 2, 3, 4, 5, 6, 7], 'nobody else is touched')
  t.same(ended, [])
  t.match(counters, { dropped: 5, conflated: 0, slow: 0 })
})

t.test('a gap begins at the position from which the room delivers, where nothing came before it', async t => {
  const { room, members: [a], say, turnEnds } = create({ policy: 'drop' }, ['a']) as any
  room.attachedAt({ epoch: 'e', offset: 0 })
  a.socket.bufferedAmount = 1_000
  say()
  room.attachedAt({ epoch: 'e', offset: 7 })
  t.equal(room.position.offset, 1, 'what was delivered meanwhile is newer')
  await turnEnds()
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.same(got(a), [{ type: 'gap', count: 1, reason: 'slow', from: 'e-0', to: 'e-1' }])
})

t.test('a gap has no positions where the broker has none', async t => {
  const { room, members: [a], say, turnEnds } = create({ policy: 'drop' }, ['a']) as any
  a.socket.bufferedAmount = 1_000
  say()
  room.position = undefined
  await turnEnds()
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.same(got(a), [{ type: 'gap', count: 1, reason: 'slow' }])
})

t.test('latest: the newest value of each key is sent when it has read, in their order, and a message without a key is one value', async t => {
  const { room, members: [a, b], say, turnEnds, counters } = create({ policy: 'latest' }) as any
  say('"a0"', 'a')
  say('"none0"')
  await turnEnds()
  a.socket.bufferedAmount = 1_000
  for (const [data, key] of [['a1', 'a'], ['b1', 'b'], ['none1', undefined]]) say(JSON.stringify(data), key)
  await turnEnds()
  for (const [data, key] of [['none2', undefined], ['a2', 'a']]) say(JSON.stringify(data), key)
  await turnEnds()
  t.same(got(a), ['a0', 'none0'])
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.same(got(a), ['a0', 'none0', 'b1', 'none2', 'a2'], 'no gap: what is missing was replaced')
  say('"a3"', 'a')
  await turnEnds()
  t.equal(got(a).at(-1), 'a3')
  t.equal(got(b).length, 8)
  t.match(counters, { dropped: 0, conflated: 2, slow: 0 })
})

t.test('latest: who falls behind later is told what is newer than its own place, and the values are kept no longer than for that', async t => {
  const { room, members: [a, b], say, turnEnds } = create({ policy: 'latest' }) as any
  a.socket.bufferedAmount = 1_000
  say('"k1"', 'k')
  await turnEnds()
  b.socket.bufferedAmount = 1_000
  say('"l1"', 'l')
  await turnEnds()
  t.equal(room.laggards.size, 2)
  say('"l2"', 'l')
  t.ok(room.isDirty, 'though nobody is there to whom it could be sent now')
  await turnEnds()
  b.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 1)
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.same([a, b].map(got), [['k1', 'l2'], ['k1', 'l2']])
  a.socket.bufferedAmount = 1_000
  say('"m1"', 'm')
  await turnEnds()
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.same(got(a), ['k1', 'l2', 'm1'], 'nothing from before')
})

t.test('latest: newest values that are over the bound themselves close the member, since something would be lost', async t => {
  const { room, members: [a, b], say, turnEnds, ended, failures } = create({ policy: 'latest', bytes: 1_000 }) as any
  a.socket.bufferedAmount = 1_000
  for (let n = 0; n < 3; n++) {
    say(text(400), `k${n}`)
    await turnEnds()
  }
  t.same(ended, [['a', 4201]])
  t.equal(got(b).length, 3)
  t.same(failures, [])
  t.same(got(a), [])
  t.equal(room.laggards.size, 0)
})

t.test('newest values over the bound concern those alone who are owed them', async t => {
  const { members, say, turnEnds, ended, room } = create({ policy: (session: any) => session.id === 'a' ? 'latest' : 'drop' })
  for (const { socket } of members) socket.bufferedAmount = 1_000
  for (let n = 0; n < 3; n++) {
    say(text(400), `k${n}`)
    await turnEnds()
  }
  t.same(ended, [['a', 4201]])
  t.equal(room.laggards.size, 1)
})

t.test('latest: newest values that are over the bound end their turn early, so that they do not pile up; fewer cost nobody the one write per turn', async t => {
  const { room, members: [a], say, turnEnds, flush, ended } = create({ policy: 'latest', bytes: 1_000_000 }, ['a']) as any
  a.socket.bufferedAmount = 1_000_000
  say()
  await turnEnds()
  say(text(900_000), 'k')
  t.notOk(room.isFull)
  say(text(100_000), 'l')
  t.ok(room.isFull)
  flush()
  t.same(ended, [['a', 4201]])
})

t.test('latest: many small values are bounded, too, since each costs more than its bytes', async t => {
  const { members: [a], say, turnEnds, ended } = create({ policy: 'latest', bytes: 10_000 }, ['a']) as any
  a.socket.bufferedAmount = 10_000
  for (let n = 0; n < 100; n++) say('1', `k${n}`)
  await turnEnds()
  say('1', 'k0')
  await turnEnds()
  t.same(ended, [['a', 4201]])
})

t.test('the excepted of a message is not told of it later either', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const { room, members: [a], say, turnEnds } = create({ policy }) as any
    a.socket.bufferedAmount = 1_000
    say('"one"', 'k')
    say('"not for it"', 'k', a.session)
    await turnEnds()
    t.equal(room.laggards.size, 1)
    say('"nor this"', 'l', a.session)
    say('"two"', 'm')
    await turnEnds()
    a.socket.bufferedAmount = 0
    await until(() => room.laggards.size === 0)
    if (policy === 'latest') t.same(got(a), ['two'], 'the older value of a key is not the newest')
    else t.match(got(a), [{ type: 'gap', count: 2 }])
  }
})

t.test('private frames are never dropped: they leave in their order, and over the bound with them the member is closed', async t => {
  const own = (data: unknown) => textFrameOf(JSON.stringify({ type: 'message', data }))
  for (const policy of ['drop', 'latest'] as const) {
    const { room, members: [a], say, turnEnds, ended, backlog } = create({ policy }, ['a']) as any
    a.socket.bufferedAmount = 980
    say()
    room.sendTo(a.session, own('p1'))
    say()
    await turnEnds()
    t.same(got(a), [], 'it would be over the bound with its own frame alone')
    t.same(ended, [['a', 4201]])

    const other = create({ policy }, ['a']) as any
    const [b] = other.members
    b.socket.bufferedAmount = 900
    other.say(text(100))
    other.room.sendTo(b.session, own('p1'))
    other.say(text(100))
    other.room.sendTo(b.session, own('p2'))
    await other.turnEnds()
    t.same(got(b), ['p1', 'p2'], 'while the room is held back')
    t.equal(other.room.laggards.size, 1)
    t.ok(other.backlog.admits(b.session, 100))
    other.room.sendTo(b.session, own('p3'))
    other.say()
    other.room.sendTo(b.session, own('p4'))
    t.same(got(b), ['p1', 'p2', 'p3', 'p4'], 'at once')
    t.notOk(other.backlog.admits(b.session, 101))
    t.same(other.ended, [['a', 4201]])
    t.ok(backlog)
  }
})

t.test('private frames that a policy sends, or the end that it makes, come after those that wait for its decision', async t => {
  const own = (data: unknown) => textFrameOf(JSON.stringify({ type: 'message', data }))
  for (const ends of [false, true]) {
    const context: any = create({
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

t.test('whoever is told of a laggard on the channel may end it, and others are owed what they were', async t => {
  const { room, members: [a, b], say, turnEnds, failures, ended } = create({ policy: (session: any) => session.id === 'a' ? 'drop' : 'latest' }) as any
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
  await until(() => room.laggards.size === 0)
  t.same([a, b].map(got), [[], ['newest']])
  t.same([failures, ended], [[], []])
})

t.test('what a member is told when it comes back counts in the next turn, like all that is left over', async t => {
  const { room, members: [a], say, turnEnds, flush } = create({ policy: 'latest' }, ['a']) as any
  a.socket.bufferedAmount = 1_000
  say(text(500), 'k')
  await turnEnds()
  const { send } = a.socket
  a.socket.send = (data: Buffer) => {
    a.socket.bufferedAmount += data.length
    send.call(a.socket, data)
  }
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  await nextTurn()
  say(text(500), 'k')
  flush()
  t.equal(room.laggards.size, 1)
})

t.test('private frames alone: one turn may queue what it likes, and what is left of it counts in the next', async t => {
  const { backlog, members: [a], ended } = create({}, ['a']) as any
  t.ok(backlog.admits(a.session, 5_000))
  a.socket.bufferedAmount = 5_000
  backlog.sent(a.session)
  t.ok(backlog.admits(a.session, 5_000), 'the same turn')
  await nextTurn()
  t.same(ended, [])
  t.notOk(backlog.admits(a.session, 1))
  t.same(ended, [['a', 4201]])
})

t.test('a function decides for each member; what is no answer, or a failure, closes and is told', async t => {
  const asked: unknown[] = []
  const answers: Record<string, unknown> = { a: 'drop', b: 'latest', c: 'close', d: 'other', e: undefined, f: Promise.reject(new Error('not at once')), g: new Error('as it was told to') }
  const { room, members, say, turnEnds, ended, failures, counters } = create({
    policy: (session: any, backlog) => {
      asked.push([session.id, backlog])
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
  t.match(failures.map(({ message }) => message), [/returned "other"; it returns/, /returned undefined/, /returned object/, 'as it was told to', 'not at once'])
  t.equal(counters.slow, 5)
  for (const { socket } of members) socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.match(members.slice(0, 2).map(got), [[{ type: 'gap', count: 2 }], [2]])
  t.match(counters, { dropped: 2, conflated: 1 })
})

t.test('a policy that ends members itself, those after it included', async t => {
  const context: any = create({
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

t.test('a laggard that leaves takes nothing with it, and what it missed is counted', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const { room, members: [a], say, turnEnds, counters } = create({ policy }) as any
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
    t.same(got(a), [], 'and it does not come back')
    t.equal(room.size, 1)
  }
})

t.test('one whose connection breaks meanwhile is waited for no longer', async t => {
  const transport = new FakeTransport()
  const { room, join, say, turnEnds, failures } = create({ policy: 'drop' }, [])
  const { session } = join('a', transport)
  Object.defineProperty(transport, 'writableLength', { value: 1_000 })
  say()
  await turnEnds()
  t.equal(room.laggards.size, 1)
  transport.emit('close')
  await nextTurn()
  t.equal(room.laggards.size, 1, 'who ends it is another')
  t.ok(session.lag)
  t.same(failures, [])
})

t.test('one that has read in the midst of a turn comes back at once, and is told of what waits, not sent it', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const transport = new FakeTransport()
    const { room, join, say, turnEnds } = create({ policy }, ['b'])
    join('a', transport)
    let waiting = 1_000
    Object.defineProperty(transport, 'writableLength', { get: () => waiting })
    say()
    await turnEnds()
    waiting = 0
    say()
    transport.emit('drain')
    for (let tick = 0; tick < 10; tick++) await undefined
    t.equal(room.laggards.size, 0)
    say()
    await turnEnds()
    const frames = transport.written.map(bytes => JSON.parse(bytes.subarray(2).toString()))
    t.match(frames, [policy === 'drop' ? { type: 'gap', count: 2 } : { type: 'message', data: 2 }, { type: 'message', data: 3 }])
    t.equal(frames.length, 2)
  }
})

t.test('presence that was missed is made up for by a snapshot', async t => {
  const { room, members: [a], say, turnEnds, join } = create({ policy: 'drop' }) as any
  a.socket.bufferedAmount = 1_000
  say()
  await turnEnds()
  room.announce('{"type":"presence","count":2}')
  join('c')
  await turnEnds()
  t.same(room.presence.snapshot(), '{"type":"presence","count":3,"state":[{"session":"b"},{"session":"c"},{"session":"a"}]}', 'a laggard is a member')
  room.presence.outdate() // so that it is made for the one who comes back
  a.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.match(got(a), [{ type: 'gap', count: 1 }, { type: 'presence', count: 3, state: [{ session: 'b' }, { session: 'c' }, { session: 'a' }] }])
})

t.test('a member that joined in the turn in which it falls behind misses only what came after it', async t => {
  const { room, say, turnEnds, join } = create({ policy: 'latest' }, []) as any
  const old = join('old')
  say('"before"', 'k')
  const late = join('late')
  late.socket.bufferedAmount = 1_000
  say('"after"', 'l')
  await turnEnds()
  t.equal(room.laggards.size, 1)
  late.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  t.same([old, late].map(got), [['before', 'after'], ['after']])
})

t.test('a raw member is told of no gap', async t => {
  const { room, say, turnEnds } = create({ policy: 'drop' }, ['b'])
  const raw = fakeMember('raw', 'rooms.raw')
  Object.assign(raw.session, { definition: room.definition, room })
  room.add(raw.session)
  raw.socket.bufferedAmount = 1_000
  room.announce('{}')
  say()
  await turnEnds()
  raw.socket.bufferedAmount = 0
  await until(() => room.laggards.size === 0)
  say()
  await turnEnds()
  t.same(raw.socket.sent, ['2'])
})

t.test('a value that cannot be encoded when a laggard comes back is told, and ends it: nobody would wait for it any more', async t => {
  const { room, members: [a], turnEnds, failures, ended } = create({ policy: 'latest' }, ['a']) as any
  a.socket.bufferedAmount = 1_000
  const delivery = fakeDelivery('1')
  room.deliver(delivery)
  await turnEnds()
  delivery.frame = () => { throw new Error('no memory') }
  a.socket.bufferedAmount = 0
  await until(() => failures.length === 1)
  t.match(failures, [{ message: 'no memory' }])
  t.same(ended, [['a', 1011]])
  t.equal(room.size, 0)
})
