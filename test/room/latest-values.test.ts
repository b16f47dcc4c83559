import t from 'tap'
import { until } from '../helpers/app.ts'
import { fakeDelivery } from '../helpers/fakes.ts'
import { got, slowRoom, text } from './slow-room.ts'

t.test('latest: a slow member that has read gets the latest value of each key, in order; messages without a key are one value', async t => {
  const { room, members: [a, b], say, turnEnds, counters } = slowRoom({ policy: 'latest' }) as any
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
  await until(() => room.lagging.size === 0)
  t.same(got(a), ['a0', 'none0', 'b1', 'none2', 'a2'], 'no gap, because missing messages were replaced')
  say('"a3"', 'a')
  await turnEnds()
  t.equal(got(a).at(-1), 'a3')
  t.equal(got(b).length, 8)
  t.match(counters, { dropped: 0, conflated: 2, slow: 0 })
})

t.test('latest: a member that falls behind later gets only values newer than its own position, and values are dropped once no member waits for them', async t => {
  const { room, members: [a, b], say, turnEnds } = slowRoom({ policy: 'latest' }) as any
  a.socket.bufferedAmount = 1_000
  say('"k1"', 'k')
  await turnEnds()
  b.socket.bufferedAmount = 1_000
  say('"l1"', 'l')
  await turnEnds()
  t.equal(room.lagging.size, 2)
  say('"l2"', 'l')
  t.ok(room.isDirty, 'the room stays dirty although no member could be written to now')
  await turnEnds()
  b.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 1)
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same([a, b].map(got), [['k1', 'l2'], ['k1', 'l2']])
  a.socket.bufferedAmount = 1_000
  say('"m1"', 'm')
  await turnEnds()
  a.socket.bufferedAmount = 0
  await until(() => room.lagging.size === 0)
  t.same(got(a), ['k1', 'l2', 'm1'], 'no earlier value')
})

t.test('latest: values over the bound close the member, because a value would be lost', async t => {
  const { room, members: [a, b], say, turnEnds, ended, failures } = slowRoom({ policy: 'latest', bytes: 1_000 }) as any
  a.socket.bufferedAmount = 1_000
  for (let n = 0; n < 3; n++) {
    say(text(400), `k${n}`)
    await turnEnds()
  }
  t.same(ended, [['a', 4201]])
  t.equal(got(b).length, 3)
  t.same(failures, [])
  t.same(got(a), [])
  t.equal(room.lagging.size, 0)
})

t.test('values over the bound close only the members that wait for them', async t => {
  const { members, say, turnEnds, ended, room } = slowRoom({ policy: (session: any) => session.id === 'a' ? 'latest' : 'drop' })
  for (const { socket } of members) socket.bufferedAmount = 1_000
  for (let n = 0; n < 3; n++) {
    say(text(400), `k${n}`)
    await turnEnds()
  }
  t.same(ended, [['a', 4201]])
  t.equal(room.lagging.size, 1)
})

t.test('latest: values over the bound end their turn early, so that they do not pile up; fewer values keep one write per turn', async t => {
  const { room, members: [a], say, turnEnds, flush, ended } = slowRoom({ policy: 'latest', bytes: 1_000_000 }, ['a']) as any
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

t.test('latest: many small values are bounded as well, because each costs more memory than its bytes', async t => {
  const { members: [a], say, turnEnds, ended } = slowRoom({ policy: 'latest', bytes: 10_000 }, ['a']) as any
  a.socket.bufferedAmount = 10_000
  for (let n = 0; n < 100; n++) say('1', `k${n}`)
  await turnEnds()
  say('1', 'k0')
  await turnEnds()
  t.same(ended, [['a', 4201]])
})

t.test('a member that is excepted from a message does not get it later either', async t => {
  for (const policy of ['drop', 'latest'] as const) {
    const { room, members: [a], say, turnEnds } = slowRoom({ policy }) as any
    a.socket.bufferedAmount = 1_000
    say('"one"', 'k')
    say('"not for it"', 'k', a.session)
    await turnEnds()
    t.equal(room.lagging.size, 1)
    say('"nor this"', 'l', a.session)
    say('"two"', 'm')
    await turnEnds()
    a.socket.bufferedAmount = 0
    await until(() => room.lagging.size === 0)
    if (policy === 'latest') t.same(got(a), ['two'], 'the older value of a key is not sent either')
    else t.match(got(a), [{ type: 'gap', count: 2 }])
  }
})

t.test('a value that cannot be encoded when a slow member comes back is reported, and ends that member', async t => {
  const { room, members: [a], turnEnds, failures, ended } = slowRoom({ policy: 'latest' }, ['a']) as any
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
