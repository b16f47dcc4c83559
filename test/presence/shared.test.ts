import t from 'tap'
import type { Delta, MembersPage, RemoteMember } from '../../lib/presence/check.ts'
import { groupUsers } from '../../lib/presence/list-users.ts'
import { RemoteMembers } from '../../lib/presence/remote-members.ts'
import { SharedCounts } from '../../lib/presence/shared-counts.ts'
import { at, fakeRoom, stopClock } from '../helpers/fakes.ts'

const turns = async (count = 3): Promise<void> => { for (let n = 0; n < count; n++) await new Promise(resolve => setImmediate(resolve)) }

/** The remote members of a room, with readings that the test answers. */
function createRemote () {
  const { room } = fakeRoom(['own'])
  const readings: { limit: number, resolve: (page: MembersPage) => void, reject: () => void }[] = []
  const came: string[] = []
  const remote = new RemoteMembers('chat', room.roster!, {
    node: 'me',
    firstWait: 10,
    read: (_topic, limit) => new Promise((resolve, reject) => { readings.push({ limit, resolve, reject: () => { reject(new Error('no')) } }) }),
    changed: () => {},
    came: (_topic, user) => { came.push(user) }
  })
  Object.defineProperty(room, 'remote', { value: remote })
  const member = (id: string, node = 'other', json?: string): RemoteMember => ({ id, node, user: `u-${id}`, info: undefined, json, isAnnounced: false })
  const page = (version: number, ids: string[], more: Partial<MembersPage> = {}): MembersPage => ({ version, count: ids.length, members: ids.map(id => member(id)), isWhole: true, refused: 0, ...more })
  const delta = (version: number, set: string[], leave: string[] = [], node = 'other'): Delta => ({ version, node, set: set.map(id => member(id, node)), leave, refused: 0 })
  const list = (): string[] => Array.from(remote.list(), ({ id }) => id).sort()
  const answer = async (given: MembersPage): Promise<void> => {
    readings.shift()!.resolve(given)
    await turns(1)
  }
  const frame = (): any => JSON.parse(room.roster!.flush(0) ?? 'null')
  return { room, remote, readings, came, member, page, delta, list, answer, frame }
}

/** Runs a function some seconds later, on the clock of `performance`. */
const later = (run: () => void): void => { at(performance.now() + 10_000, run) }

/** Waits until a reading has begun. */
async function reading (readings: unknown[]): Promise<void> {
  for (let n = 0; readings.length === 0 && n < 1_000; n++) await new Promise(resolve => setTimeout(resolve, 5))
}

t.test('deltas that come before, during and after a reading are followed in their order', async t => {
  const { remote, readings, came, page, delta, list, answer, frame, member } = createRemote()
  remote.lost()
  remote.take(delta(1, ['early']))
  t.equal(readings.length, 0, 'nothing is read before the topic is attached')
  t.notOk(remote.isCurrent)
  remote.attached()
  t.ok(remote.ready)
  for (const version of [4, 5, 6]) remote.take(delta(version, [`d${version}`]))
  await answer(page(5, ['a', 'd4', 'd5'], { members: [...page(5, ['a', 'd4', 'd5']).members, member('mine', 'me')] }))
  t.equal(remote.ready, undefined)
  t.ok(remote.isCurrent)
  t.same(list(), ['a', 'd4', 'd5', 'd6'])
  t.same(came, ['u-a', 'u-d4', 'u-d5', 'u-d6'])
  t.match(frame(), { count: 5, join: [{ session: 'a' }, { session: 'd4' }, { session: 'd5' }, { session: 'd6' }] })
  remote.take(delta(7, ['mine'], ['a'], 'me'))
  remote.take(delta(8, ['a'], ['d4', 'nowhere']))
  t.same(list(), ['a', 'd5', 'd6'], 'own changes only count')
  t.match(frame(), { count: 4, leave: [{ session: 'd4' }] })
  t.equal(frame(), null)
  t.same(came.length, 4, 'a member that is known has not come')
  remote.close()
})

t.test('a hole, and versions that begin again, lead to a reading, whose difference is told', async t => {
  const { remote, readings, page, delta, list, answer, frame } = createRemote()
  remote.attached()
  await answer(page(5, ['a', 'b']))
  frame()
  later(() => { remote.take(delta(7, ['c'])) })
  t.notOk(remote.isCurrent)
  await reading(readings)
  await answer(page(8, ['b', 'c']))
  t.same(list(), ['b', 'c'])
  t.match(frame(), { count: 3, join: [{ session: 'c' }], leave: [{ session: 'a' }] })
  remote.take(delta(8, ['x']))
  t.ok(remote.isCurrent, 'the reading has included it, and it came late')
  t.same(list(), ['b', 'c'])
  later(() => { remote.take(delta(1, ['x'])) })
  t.notOk(remote.isCurrent)
  await reading(readings)
  await answer(page(2, ['x']))
  t.same(list(), ['x'])
  remote.take(delta(2, ['x']))
  t.ok(remote.isCurrent)
  // Before the versions have caught up with those that were known.
  remote.take(delta(1, ['y']))
  t.notOk(remote.isCurrent)
  remote.take(delta(2, ['z']))
  remote.take(delta(3, ['w']))
  await reading(readings)
  remote.take(delta(1, ['v']))
  await answer(page(3, ['y', 'z', 'w']))
  t.notOk(remote.isCurrent, 'it began again while it was read')
  await reading(readings)
  await answer(page(1, ['v']))
  t.same(list(), ['v'])
  remote.close()
})

t.test('up to 200 members the list is read, once they are above that not before they are below 150', async t => {
  const { remote, readings, page, delta, answer, frame } = createRemote()
  const ids = Array.from({ length: 160 }, (_, n) => `m${n}`)
  remote.attached()
  await answer(page(1, ids))
  t.equal(frame().count, 161)
  later(() => { remote.take(delta(3, [])) })
  await reading(readings)
  t.equal(readings[0]!.limit, 200)
  await answer(page(3, ids))
  remote.take(delta(4, ids.map(id => `n${id}`)))
  t.same(frame(), { type: 'presence', count: 321 })
  t.equal(readings.length, 0, 'the number is known')
  later(() => { remote.take(delta(5, ['x'])) })
  await reading(readings)
  t.equal(readings[0]!.limit, 0)
  await answer(page(5, [], { count: 161 }))
  t.equal(remote.count, 160)
  t.same(frame(), { type: 'presence', count: 161 })
  later(() => { remote.lost() })
  await reading(readings)
  t.equal(readings[0]!.limit, 0)
  remote.close()
})

t.test('a loss, and too many deltas, during a reading lead to another one', async t => {
  const { remote, readings, page, delta, list, answer } = createRemote()
  remote.attached()
  remote.lost()
  await answer(page(1, ['a']))
  t.notOk(remote.isCurrent)
  await reading(readings)
  for (let version = 2; version < 300; version++) remote.take(delta(version, [`d${version % 5}`]))
  await answer(page(1, ['a']))
  t.notOk(remote.isCurrent)
  await reading(readings)
  await answer(page(299, ['b']))
  t.same(list(), ['b'])
  remote.close()
})

t.test('of more than 200 members the number is read, at most once a second, and below 150 the list', async t => {
  const { room, remote, readings, page, delta, list, answer, frame } = createRemote()
  remote.attached()
  t.equal(readings[0]!.limit, 200)
  await answer(page(1, [], { count: 301, isWhole: false }))
  t.equal(remote.count, 300, 'without the own member')
  t.notOk(remote.isListed)
  t.same(list(), [])
  t.same(frame(), { type: 'presence', count: 301 })
  t.equal(frame(), null)
  later(() => {
    remote.take(delta(2, ['x']))
    remote.take(delta(3, [], ['y']))
  })
  await reading(readings)
  t.equal(readings[0]!.limit, 0)
  await answer(page(3, [], { count: 0, isWhole: true }))
  t.equal(remote.count, 0)
  await reading(readings)
  t.equal(readings[0]!.limit, 200)
  await answer(page(3, ['x']))
  t.same(list(), ['x'])
  t.match(frame(), { count: 2, state: [{ session: 'own' }, { session: 'x' }] })
  t.equal(room.roster!.own, 1)
  remote.close()
})

t.test('a closed list reads no more', async t => {
  const { remote, readings, page, delta, list } = createRemote()
  remote.attached()
  const { ready } = remote
  remote.close()
  readings.shift()!.resolve(page(1, ['a']))
  await ready
  t.same(list(), [])
  remote.lost()
  remote.take(delta(2, ['b']))
  await turns()
  t.equal(readings.length, 0)
})

t.test('a report that fails is repeated, and the last one is made at the end', async t => {
  const reports: [string, number][][] = []
  let fails = true
  let waits = Promise.resolve()
  const counts = new SharedCounts({
    report: async given => {
      reports.push([...given])
      await waits
      if (fails) throw new Error('no')
    },
    counts: async topics => topics.map(() => 1),
    read: async () => ({ version: 1, count: 2, members: [], isWhole: true, refused: 0 })
  }, topic => topic.length)
  counts.changed('chat')
  await new Promise(resolve => setTimeout(resolve, 20))
  t.same(reports, [[['chat', 4]]])
  fails = false
  let go = (): void => {}
  waits = new Promise(resolve => { go = resolve })
  for (let n = 0; reports.length < 2 && n < 1_000; n++) await new Promise(resolve => setTimeout(resolve, 5))
  t.same(reports[1], [['chat', 4]], 'not before a second')
  counts.changed('news-1')
  const closed = counts.close()
  go()
  await closed
  t.same(reports[2], [['news-1', 6]])
  counts.changed('late')
  await counts.close()
  t.equal(reports.length, 4)
})

t.test('at most 10,000 numbers are remembered', async t => {
  let asked = 0
  const counts = new SharedCounts({
    report: async () => {},
    counts: async topics => {
      asked += topics.length
      return topics.map(() => 1)
    },
    read: async () => { throw new Error('no') }
  }, () => 0)
  const start = stopClock()
  await counts.of('first', false)
  await Promise.all(Array.from({ length: 10_000 }, (_, n) => counts.of(`t${n}`, false)))
  t.equal(asked, 10_001)
  await counts.of('t9999', false)
  t.equal(asked, 10_001)
  await counts.of('first', false)
  t.equal(asked, 10_002)
  await t.rejects(counts.of('noted', true))
  await t.rejects(counts.of('noted', true))
  start()
})

t.test('users are grouped from a list: each once, held ones without sessions', async t => {
  const member = (id: string, user?: string, info?: unknown) => ({ id, user, info, isAnnounced: false })
  const users = groupUsers([member('1', 'ann', 1), member('2'), member('3', 'ben'), member('4', 'ann', 2), member('5', 'cat')], [member('6', 'dan', 3), member('7', 'ann', 4)], 2)
  t.same(users, [{ user: 'ann', info: 2, sessions: ['1', '4'] }, { user: 'ben', sessions: ['3'] }])
  t.same(groupUsers([], [member('6', 'dan', 3)], 2), [{ user: 'dan', info: 3, sessions: [] }])
})
