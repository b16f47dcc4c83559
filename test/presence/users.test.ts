import t, { type Test } from 'tap'
import { Aftermath } from '../../lib/hub/aftermath.ts'
import { Users, type UserSession, type UsersPorts } from '../../lib/presence/users.ts'
import type { UserPresence } from '../../types/index.ts'
import { at } from '../helpers/fakes.ts'

interface Changes { left: string[], held: string[] }
type Session = UserSession & { state: string, ending: { code: number, reason: string }, isEndedByServer: boolean, roster: Changes }

/** Users whose timer the test fires. */
function create (t: Test, limit = 10) {
  const real = { setInterval: globalThis.setInterval, clearInterval: globalThis.clearInterval }
  t.teardown(() => { Object.assign(globalThis, real) })
  const timers = new Set<() => void>()
  globalThis.setInterval = ((callback: () => void) => {
    timers.add(callback)
    return { unref: () => callback }
  }) as never
  globalThis.clearInterval = ((callback: () => void) => { timers.delete(callback) }) as never

  const calls: string[] = []
  const rosters = new Map<string, Changes & { memberLeft (member: { id: string }): void, memberHeld (member: { id: string }): void }>()
  const announced: unknown[] = []
  const roster = (topic: string) => {
    const known = rosters.get(topic)
    if (known !== undefined) return known
    const changes = { left: [] as string[], held: [] as string[] }
    const made = { ...changes, memberLeft: ({ id }: { id: string }) => { changes.left.push(id) }, memberHeld: ({ id }: { id: string }) => { changes.held.push(id) } }
    rosters.set(topic, made)
    return made
  }
  const users = new Users<Session>({
    hooks: {
      onUserJoin: ({ user, topic }: UserPresence) => { calls.push(`+${user} ${topic}`) },
      onUserLeave: ({ user, topic }: UserPresence) => { calls.push(`-${user} ${topic}`) }
    },
    aftermath: new Aftermath(),
    announcer: { changed: (roster: unknown) => { announced.push(roster) } },
    limit,
    rooms: () => ({}),
    roster: (topic: string) => rosters.get(topic),
    guard: (hook: () => unknown) => { hook() }
  } as unknown as UsersPorts<Session>)
  let count = 0
  const enter = (user: string | undefined, topic = 'news', grace = 1_000): Session => {
    const session = { id: `s${++count}`, user, info: count, isAnnounced: true, topic, state: 'open', definition: { key: '*', grace }, room: { roster: roster(topic) }, ending: { code: 1005, reason: '' }, isEndedByServer: false, roster: roster(topic) } as unknown as Session
    users.entered(session)
    users.joined(session)
    return session
  }
  /** Ends a session as the hub does. Returns whether its leave is held. */
  const leave = (session: Session): boolean => {
    session.state = 'closed'
    const isHeld = users.hold(session)
    users.left(session)
    return isHeld
  }
  const fire = (now: number): void => { at(now, () => { for (const callback of [...timers]) callback() }) }
  return { users, timers, calls, rosters, announced, enter, leave, fire, held: (topic = 'news') => [...users.held(topic)].map(({ id }) => id) }
}

t.test('one timer serves all topics and users, and runs while a leave is held', async t => {
  const { users, timers, calls, announced, enter, leave, fire, held } = create(t)
  const members = [enter('ann'), enter('bob'), enter('ann', 'sport', 500)]
  t.equal(timers.size, 0)
  t.same(at(0, () => members.map(leave)), [true, true, true])
  t.equal(timers.size, 1)
  t.same(held(), ['s1', 's2'])
  for (let now = 100; now <= 900; now += 100) fire(now)
  t.same(held('sport'), [])
  t.same(held(), ['s1', 's2'])
  t.same(calls, ['+ann news', '+bob news', '+ann sport', '-ann sport'])
  fire(1_000)
  fire(1_100)
  t.same(calls.slice(4), ['-ann news', '-bob news'])
  t.equal(announced.length, 2, 'leaves of one room that are due together are announced together')
  t.equal(timers.size, 0)
  t.equal(users.size, 0, 'nothing is kept of topics without users')
})

t.test('a leave whose session came back is not held, and the timer ends without it', async t => {
  const { timers, calls, enter, leave, fire, held } = create(t)
  const first = enter('ann')
  at(0, () => leave(first))
  enter('ann')
  t.same(held(), [])
  fire(100)
  t.equal(timers.size, 0)
  t.same(calls, ['+ann news'])
})

t.test('time in which the event loop does not turn is not grace', async t => {
  const { calls, enter, leave, fire } = create(t)
  const ann = enter('ann')
  at(0, () => leave(ann))
  fire(100)
  fire(5_100) // a turn took 5 seconds
  t.same(calls, ['+ann news'])
  const bob = enter('bob')
  at(5_100, () => leave(bob))
  for (let now = 5_200; now <= 5_800; now += 100) fire(now)
  t.same(calls, ['+ann news', '+bob news'])
  fire(5_900)
  t.same(calls.slice(2), ['-ann news'])
  fire(6_000)
  t.equal(calls.length, 3)
  fire(6_100)
  t.same(calls.slice(3), ['-bob news'])
})

t.test('a late timer within one look counts as grace', async t => {
  const { calls, enter, leave, fire } = create(t)
  const ann = enter('ann')
  at(0, () => leave(ann))
  for (let now = 190; now <= 1_140; now += 190) fire(now)
  t.same(calls, ['+ann news', '-ann news'])
})

t.test('over the bound of held leaves, a leave is told at once, and the user has left', async t => {
  const { calls, enter, leave } = create(t, 1)
  const [ann, bob] = [enter('ann'), enter('bob')]
  t.ok(leave(ann))
  t.notOk(leave(bob))
  t.same(calls, ['+ann news', '+bob news', '-bob news'])
})

t.test('the code of a close by the server decides whether the leave is held', async t => {
  const { enter, leave } = create(t, 100)
  for (const [code, isHeld] of [[1000, false], [1001, true], [1009, false], [1011, true], [4003, false], [4005, false], [4101, true], [4201, true], [4203, true], [4300, true], [4301, false]] as const) {
    const byServer = Object.assign(enter('ann'), { isEndedByServer: true, ending: { code, reason: '' } })
    t.equal(leave(byServer), isHeld, `${code} of the server`)
    t.ok(leave(Object.assign(enter('bob'), { ending: { code, reason: '' } })), `${code} of the peer`)
  }
})

t.test('if the server ends a session of a user for good, no earlier leave of the user is held any more', async t => {
  const { calls, timers, rosters, enter, leave, held, fire } = create(t)
  const [first, second, last, bob] = [enter('ann'), enter('ann'), enter('ann'), enter('bob')]
  at(0, () => { for (const session of [first, bob, second]) t.ok(leave(session)) })
  t.notOk(leave(Object.assign(last, { isEndedByServer: true, ending: { code: 4005, reason: 'kicked' } })))
  t.same(held(), ['s4'])
  t.same(rosters.get('news')!.left, ['s1', 's2'])
  t.same(calls, ['+ann news', '+bob news', '-ann news'])
  fire(100)
  t.equal(timers.size, 1)
})

t.test('a session that has ended before presence knows it is not held, and none of its user is told', async t => {
  const { users, calls, enter, leave } = create(t)
  const ann = enter('ann', 'news', 0)
  const early = { ...enter(undefined), user: 'eve', id: 'early', state: 'closed' } as Session
  users.entered(early)
  users.joined(early)
  t.notOk(leave(early))
  t.notOk(leave(Object.assign({ ...ann }, { id: 'unknown', definition: { key: '*', grace: 1_000 } })))
  t.same(calls, ['+ann news'])
})

t.test('after the release nothing is held, and all users without sessions have left', async t => {
  const { users, timers, calls, enter, leave, held } = create(t)
  const sessions = [enter('ann'), enter('ann'), enter('bob'), enter('bob'), enter('cat', 'sport')]
  for (const index of [0, 1, 2, 4]) leave(sessions[index]!)
  users.release()
  t.equal(timers.size, 0)
  t.same([...held(), ...held('sport')], [])
  t.same(calls.slice(3), ['-ann news', '-cat sport'])
  users.left(sessions[3]!)
  t.same(calls.slice(5), ['-bob news'])
  t.equal(users.size, 0)
})

t.test('a user that a hook lets in while another one leaves is there', async t => {
  const made = create(t)
  const { calls, enter, leave, fire } = made
  const [ann, bob] = [enter('ann'), enter('bob')]
  at(0, () => {
    leave(ann)
    leave(bob)
  })
  const push = calls.push.bind(calls)
  calls.push = (call: string): number => {
    if (call === '-ann news') enter('bob')
    return push(call)
  }
  for (let now = 100; now <= 1_100; now += 100) fire(now)
  t.same(calls, ['+ann news', '+bob news', '-ann news'])
})
