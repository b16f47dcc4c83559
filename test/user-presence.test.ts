import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import type { LeaveReason, UserPresence } from '../types/index.ts'
import { connect, createRooms, join, listen, refused, until, type AnyOptions, type Client } from './helpers/app.ts'

const long = 60_000

/** An app with a topic `chat` of this grace, one without presence, and a record of what its hooks were called with. */
async function serve (t: Test, grace = long, options: AnyOptions = {}) {
  const calls: string[] = []
  const users: { presence: UserPresence<string, any>, reason?: LeaveReason }[] = []
  const errors: { error: Error, session: string | undefined }[] = []
  const app = await createRooms(t, {
    topics: { chat: { publish: true, presence: { info: Type.Object({ tab: Type.Number() }), grace } }, 'doc:*': { publish: true }, plain: { presence: true } },
    identify: request => {
      const { user, tab } = request.query as { user?: string, tab?: string }
      return user === undefined ? null : { user, ...(tab === undefined ? {} : { info: { tab: Number(tab) } }) }
    },
    onUserJoin: presence => {
      calls.push(`${presence.user} joins ${presence.topic}`)
      users.push({ presence })
    },
    onLeave: session => { calls.push(`onLeave ${session.user}`) },
    onUserLeave: (presence, reason) => {
      calls.push(`${presence.user} leaves ${presence.topic}`)
      users.push({ presence, reason })
    },
    onError: (error, session) => { errors.push({ error, session: session?.id }) },
    ...options
  })
  const host = await listen(app)
  const url = (query: string, topic = 'chat') => `${host}/rooms/${topic}?${query}`
  return { app, rooms: app.rooms as any, host, url, calls, users, errors, ofUsers: () => calls.filter(call => !call.startsWith('onLeave')) }
}

const presenceOf = (client: Client): any[] => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'presence')

/** The users of the list that a client keeps by the rules of docs/protocol.md, after each of its presence frames. */
function historyOf (client: Client): string[][] {
  let list = new Map<string, any>()
  return presenceOf(client).map(({ state, join = [], leave = [] }) => {
    if (state !== undefined) list = new Map(state.map((member: any) => [member.session, member]))
    for (const member of join) list.set(member.session, member)
    for (const { session } of leave) list.delete(session)
    return [...list.values()].map(({ user }) => user ?? '?').sort()
  })
}

const shown = (client: Client): string[] | undefined => historyOf(client).at(-1)

t.test('a user that comes back within the grace is never missing from presence, and its new session takes the place of the old one', async t => {
  const { url, rooms } = await serve(t)
  const watcher = await join(t, url('user=watcher&presence=1'))
  const ann = await join(t, url('user=ann&tab=1'))
  await until(() => shown(watcher)?.length === 2)
  await ann.close()
  await until(async () => await rooms.count('chat') === 1)

  const guest = await join(t, url('presence=1'))
  t.same((await guest.next('presence')).state!.map(({ user }) => user), ['watcher', undefined, 'ann'], 'a snapshot shows the user, too')
  await until(() => shown(watcher)?.length === 3)
  t.equal(presenceOf(watcher).at(-1).count, 3, 'and so does the count')

  const again = await join(t, url('user=ann&tab=2&presence=1'))
  const { state } = await again.next('presence')
  t.same(state!.filter(({ user }) => user === 'ann'), [{ session: again.hello.session, user: 'ann', info: { tab: 2 } }], 'the user sees itself once')
  await until(() => presenceOf(watcher).at(-1).leave !== undefined)
  t.same(presenceOf(watcher).at(-1), {
    type: 'presence',
    count: 3,
    join: [{ session: again.hello.session, user: 'ann', info: { tab: 2 } }],
    leave: [{ session: ann.hello.session }]
  }, 'one frame has the join and the leave')
  const history = historyOf(watcher)
  t.ok(history.slice(history.findIndex(users => users.includes('ann'))).every(users => users.includes('ann')))
  t.same(shown(watcher), ['?', 'ann', 'watcher'])
})

t.test('a user that comes back for the messages that it missed has not left either', async t => {
  const { url, rooms, ofUsers } = await serve(t, long, { topics: { chat: { presence: { grace: long }, history: true } } })
  const watcher = await join(t, url('user=watcher&presence=1'))
  const ann = await join(t, url('user=ann'))
  await until(() => shown(watcher)?.length === 2)
  await ann.close()
  await until(async () => await rooms.count('chat') === 1)
  for (const n of [1, 2]) await rooms.broadcast('chat', n)
  const again = await join(t, url(`user=ann&presence=1&since=${ann.hello.id}`))
  t.match(again.hello, { recovered: true, replayed: 2 })
  for (const data of [1, 2]) t.equal((await again.next('message')).data, data)
  await until(() => presenceOf(watcher).at(-1).leave !== undefined)
  t.match(presenceOf(watcher).at(-1), { count: 2, join: [{ session: again.hello.session }], leave: [{ session: ann.hello.session }] })
  t.same(ofUsers(), ['watcher joins chat', 'ann joins chat'])
})

t.test('a leave is told when the grace has passed', async t => {
  const { url } = await serve(t, 300)
  const watcher = await join(t, url('user=watcher&presence=1'))
  const ann = await join(t, url('user=ann'))
  await until(() => shown(watcher)?.length === 2)
  const leftAt = performance.now()
  await ann.close()
  await until(() => shown(watcher)?.length === 1)
  t.ok(performance.now() - leftAt >= 290, `${performance.now() - leftAt} ms`)
  t.same(presenceOf(watcher).at(-1), { type: 'presence', count: 1, leave: [{ session: ann.hello.session }] })
})

t.test('a member without identity leaves at once, and so does each one of a topic without grace', async t => {
  const { url } = await serve(t)
  const watcher = await join(t, url('user=watcher&presence=1'))
  const guest = await join(t, url(''))
  await until(() => shown(watcher)?.length === 2)
  await guest.close()
  await until(() => shown(watcher)?.length === 1)

  const other = await join(t, url('user=watcher&presence=1', 'plain'))
  const ann = await join(t, url('user=ann', 'plain'))
  await until(() => shown(other)?.length === 2)
  await ann.close()
  await until(() => shown(other)?.length === 1)
  t.same(presenceOf(other).at(-1), { type: 'presence', count: 1, leave: [{ session: ann.hello.session }] })
})

t.test('each session that comes back takes the place of one, the first that left before the others', async t => {
  const { url, rooms } = await serve(t)
  const watcher = await join(t, url('user=watcher&presence=1'))
  const tabs = [await join(t, url('user=ann&tab=1')), await join(t, url('user=ann&tab=2'))]
  await until(() => shown(watcher)?.length === 3)
  for (const tab of tabs) await tab.close()
  await until(async () => await rooms.count('chat') === 1)
  await join(t, url('user=ann&tab=3'))
  await until(() => presenceOf(watcher).at(-1).leave !== undefined)
  t.same(presenceOf(watcher).at(-1).leave, [{ session: tabs[0]!.hello.session }])
  t.same(shown(watcher), ['ann', 'ann', 'watcher'])
  t.equal(presenceOf(watcher).at(-1).count, 3)
})

t.test('a leave that the server does not expect to be undone is told at once, another one is held', async t => {
  let mayStay = true
  const { url, rooms } = await serve(t, long, { authorize: ({ action }) => action !== 'stay' || mayStay })
  const watcher = await join(t, url('user=watcher&presence=1'))
  const endings: [string, () => Promise<unknown>][] = [
    ['kicked', () => rooms.kick({ user: 'ann' })],
    ['asked about again', () => {
      mayStay = false
      return rooms.reauthorize({ user: 'ann' })
    }]
  ]
  for (const [how, end] of endings) {
    const ann = await join(t, url('user=ann'))
    await until(() => shown(watcher)?.length === 2)
    t.equal(await end(), 1)
    await until(() => shown(watcher)?.length === 1)
    t.same(presenceOf(watcher).at(-1).leave, [{ session: ann.hello.session }], how)
  }
  const ann = await join(t, url('user=ann'))
  await until(() => shown(watcher)?.length === 2)
  await rooms.kick({ user: 'ann' }, { code: 4201 })
  await ann.closed
  const guest = await join(t, url('user=guest&presence=1'))
  t.same((await guest.next('presence')).state!.map(({ user }) => user).sort(), ['ann', 'guest', 'watcher'], 'the client was told to come back')
})

t.test('the grace goes on when the room has ended with its last member', async t => {
  const { url, rooms, ofUsers } = await serve(t)
  await (await join(t, url('user=ann&tab=1'))).close()
  await until(() => rooms.stats().topics === 0)
  t.same(await rooms.members('chat', { by: 'user' }), [{ user: 'ann', info: { tab: 1 }, sessions: [] }])
  const bob = await join(t, url('user=bob&presence=1'))
  t.same((await bob.next('presence')).state!.map(({ user }) => user), ['bob', 'ann'])
  const ann = await join(t, url('user=ann&tab=2'))
  await until(() => shown(bob)?.length === 2 && presenceOf(bob).at(-1).leave !== undefined)
  t.same(shown(bob), ['ann', 'bob'])
  t.same((await rooms.members('chat', { by: 'user' })).find(({ user }: { user: string }) => user === 'ann'), { user: 'ann', info: { tab: 2 }, sessions: [ann.hello.session] })
  t.same(ofUsers(), ['ann joins chat', 'bob joins chat'])
})

t.test('at most limits.connections leaves are held, and others are told at once', async t => {
  const { url, rooms } = await serve(t, long, { limits: { connections: 2 } })
  const watcher = await join(t, url('user=watcher&presence=1'))
  for (const user of ['ann', 'bob', 'cat']) {
    const client = await join(t, url(`user=${user}`))
    await until(() => shown(watcher)?.includes(user) === true)
    await client.close()
    await until(() => rooms.stats().connections === 1)
  }
  await until(() => shown(watcher)?.length === 3)
  t.same(shown(watcher), ['ann', 'bob', 'watcher'])
})

t.test('a room of which too many members are held sends counts', async t => {
  const { url, rooms } = await serve(t)
  const watcher = await join(t, url('user=watcher&presence=1'))
  for (let part = 0; part < 7; part++) {
    await Promise.all(Array.from({ length: 30 }, async (_, n) => (await connect(t, url(`user=u${part}-${n}`))).close()))
  }
  await until(async () => await rooms.count('chat') === 1 && rooms.stats().joined === 211)
  await until(() => presenceOf(watcher).at(-1).count === 211)
  t.same(presenceOf(watcher).at(-1), { type: 'presence', count: 211 })
  t.equal((await rooms.members('chat', { by: 'user', limit: 50 })).length, 50)
})

t.test('onUserJoin comes with the first session of a user in a topic, and onUserLeave with the last', async t => {
  const { url, rooms, users, calls } = await serve(t, 0)
  const first = await join(t, url('user=ann&tab=1'))
  const second = await join(t, url('user=ann&tab=2'))
  const other = await join(t, url('user=ann', 'doc:1'))
  await join(t, url(''))
  await first.close()
  await until(() => calls.includes('onLeave ann'))
  await other.close()
  await until(() => calls.includes('ann leaves doc:1'))
  second.socket.close(3001, 'enough')
  await until(() => calls.includes('ann leaves chat'))
  t.same(calls, ['ann joins chat', 'ann joins doc:1', 'onLeave ann', 'onLeave ann', 'ann leaves doc:1', 'onLeave ann', 'ann leaves chat'])
  t.same(users.map(({ presence: { rooms: own, ...rest }, reason }) => ({ ...rest, own: own === rooms, reason })), [
    { user: 'ann', key: 'chat', topic: 'chat', info: { tab: 1 }, own: true, reason: undefined },
    { user: 'ann', key: 'doc:*', topic: 'doc:1', info: undefined, own: true, reason: undefined },
    { user: 'ann', key: 'doc:*', topic: 'doc:1', info: undefined, own: true, reason: { code: 1005, reason: '' } },
    { user: 'ann', key: 'chat', topic: 'chat', info: { tab: 2 }, own: true, reason: { code: 3001, reason: 'enough' } }
  ])
})

t.test('a user that comes back within the grace has neither left nor joined, and one that does not has left', async t => {
  const { url, ofUsers, users } = await serve(t, 1_500)
  for (let tab = 0; tab < 3; tab++) await (await join(t, url(`user=ann&tab=${tab}`))).close()
  await until(() => ofUsers().length === 2)
  t.same(ofUsers(), ['ann joins chat', 'ann leaves chat'])
  t.same([users[1]!.presence.info, users[1]!.reason], [{ tab: 2 }, { code: 1005, reason: '' }], 'it is told about the session that left last')
  await join(t, url('user=ann'))
  await until(() => ofUsers().length === 3)
  t.equal(ofUsers()[2], 'ann joins chat')
})

t.test('two sessions that leave together are one leave of their user, after the grace', async t => {
  const { url, ofUsers } = await serve(t, 300)
  const watcher = await join(t, url('presence=1'))
  const tabs = [await join(t, url('user=ann')), await join(t, url('user=ann'))]
  for (const { socket } of tabs) socket.terminate()
  await until(() => ofUsers().length === 2 && shown(watcher)?.length === 1)
  t.same(ofUsers(), ['ann joins chat', 'ann leaves chat'])
})

t.test('a join that is refused is no join of its user', async t => {
  const { url, rooms, host, ofUsers, calls } = await serve(t, long, {
    onJoin: async session => {
      const { tab } = session.info as { tab: number }
      if (tab === 1) return false
      if (tab === 2) throw new Error('not today')
      if (tab === 3) session.close()
      if (tab === 4) await rooms.kick({ user: 'ann' })
    },
    authorize: ({ action }) => action !== 'broadcast',
    onError: () => {}
  })
  for (const [tab, code] of [[1, 4003], [2, 4003], [3, 1000], [4, 4005]]) {
    const client = await connect(t, url(`user=ann&tab=${tab}`))
    t.equal((await client.closed).code, code)
  }
  t.equal((await refused(`${host}/rooms/unknown?user=ann`)).status, 404)
  await until(() => rooms.stats().connections === 0)
  t.same(calls, ['onLeave ann', 'onLeave ann'], 'onJoin has accepted two of them, which had been ended')
  t.same(await rooms.members('chat', { by: 'user' }), [])
  await join(t, url('user=ann&tab=5'))
  await until(() => ofUsers().length === 1)
})

t.test('errors of the hooks go to onError, and break no join', async t => {
  let n = 0
  const { url, errors, rooms } = await serve(t, 0, {
    onUserJoin: () => {
      if (n++ === 0) throw new Error('join')
      return Promise.reject(new Error('late join'))
    },
    onUserLeave: async () => { throw new Error('leave') }
  })
  const first = await join(t, url('user=ann'))
  t.match(await first.ask({ type: 'ping' }), { ok: true })
  await first.close()
  await until(() => errors.length === 2)
  const second = await join(t, url('user=ann'))
  await until(() => errors.length === 3)
  t.same(errors.map(({ error: { message }, session }) => [message, session]), [['join', first.hello.session], ['leave', undefined], ['late join', second.hello.session]])
  t.equal(rooms.stats().errors, 3)
})

t.test('onUserJoin may end the session: the member then joins and leaves, in this order, and so does its user', async t => {
  const events: string[] = []
  const listeners = (['join', 'leave'] as const).map(name => [`fastify-rooms:${name}`, () => { events.push(name) }] as const)
  for (const [name, listener] of listeners) subscribe(name, listener)
  t.teardown(() => { for (const [name, listener] of listeners) unsubscribe(name, listener) })
  const { url, calls } = await serve(t, 0, {
    onUserJoin: ({ user, topic, rooms }) => {
      calls.push(`${user} joins ${topic}`)
      return rooms.kick({ user, topic })
    }
  })
  const ann = await join(t, url('user=ann'))
  t.equal((await ann.closed).code, 4005)
  t.same(calls, ['ann joins chat', 'onLeave ann', 'ann leaves chat'])
  t.same(events, ['join', 'leave'])
})

t.test('a session that a subscriber of the join ends is no join of its user without grace', async t => {
  const { url, calls, rooms } = await serve(t, 0)
  const end = (): void => { rooms.kick({ topic: 'chat' }) }
  subscribe('fastify-rooms:join', end)
  t.teardown(() => { unsubscribe('fastify-rooms:join', end) })
  const ann = await join(t, url('user=ann'))
  t.equal((await ann.closed).code, 4005)
  t.same(calls, ['onLeave ann'])
})

t.test('a session that a subscriber of the join ends, and whose client may come back, is no join of its user either', async t => {
  const { url, calls, rooms } = await serve(t, 50)
  const end = (): void => { rooms.kick({ topic: 'chat' }, { code: 4200 }) }
  subscribe('fastify-rooms:join', end)
  t.teardown(() => { unsubscribe('fastify-rooms:join', end) })
  const ann = await join(t, url('user=ann'))
  t.equal((await ann.closed).code, 4200)
  await until(() => calls.length > 0)
  await new Promise(resolve => setTimeout(resolve, 300))
  t.same(calls, ['onLeave ann'])
})

t.test('messages that a member had sent are handled before its user has left, and a join meanwhile is no join of the user', async t => {
  const finish: (() => void)[] = []
  const { url, calls, rooms } = await serve(t, 0, {
    onMessage: { chat: () => new Promise<void>(resolve => { finish.push(resolve) }) }
  })
  const ann = await join(t, url('user=ann'))
  ann.send({ type: 'message', data: 1 })
  await until(() => finish.length === 1)
  await ann.close()
  t.same(await rooms.members('chat', { by: 'user' }), [])
  const again = await join(t, url('user=ann'))
  t.same(calls, ['ann joins chat'])
  finish[0]!()
  await until(() => calls.length === 2)
  t.same(calls, ['ann joins chat', 'onLeave ann'])
  await again.close()
  await until(() => calls.length === 4)
  t.same(calls.slice(2), ['onLeave ann', 'ann leaves chat'])
})

t.test('a drain has no grace: users that are away leave when it begins, and others with their last session', async t => {
  const { app, url, rooms, ofUsers, users } = await serve(t)
  for (let tab = 0; tab < 2; tab++) {
    const [gone, alsoGone] = [await join(t, url('user=ann')), await join(t, url('user=ann'))]
    await gone.close()
    await alsoGone.close()
  }
  const bob = await join(t, url('user=bob'))
  await until(async () => await rooms.count('chat') === 1)
  t.same(ofUsers(), ['ann joins chat', 'bob joins chat'])
  const drained = rooms.drain()
  t.same(ofUsers().slice(2), ['ann leaves chat'])
  await drained
  t.same(ofUsers().slice(2), ['ann leaves chat', 'bob leaves chat'])
  t.match(users.at(-1)!.reason, { code: 1001 })
  t.equal((await bob.closed).code, 1001)
  t.same(await rooms.members('chat', { by: 'user' }), [])
  await app.close()
  t.equal(ofUsers().length, 4)
})

t.test('the close of the app is a drain', async t => {
  const { app, url, ofUsers, rooms } = await serve(t)
  await (await join(t, url('user=ann'))).close()
  await until(() => rooms.stats().topics === 0)
  await join(t, url('user=bob'))
  await app.close()
  t.same(ofUsers(), ['ann joins chat', 'bob joins chat', 'ann leaves chat', 'bob leaves chat'])
})

t.test('one of the hooks alone is enough', async t => {
  const joined = await serve(t, 0, { onUserLeave: undefined as never })
  await (await join(t, joined.url('user=ann'))).close()
  await until(() => joined.rooms.stats().connections === 0)
  t.same(joined.ofUsers(), ['ann joins chat'])
  const left = await serve(t, 0, { onUserJoin: undefined as never, onLeave: undefined as never })
  await (await join(t, left.url('user=ann'))).close()
  await until(() => left.calls.length === 1)
  t.same(left.calls, ['ann leaves chat'])
})

t.test('rooms.members lists users once, with all sessions and the info of the newest', async t => {
  const { url, rooms } = await serve(t)
  const sessions: string[] = []
  for (let tab = 1; tab <= 3; tab++) sessions.push((await join(t, url(`user=ann&tab=${tab}`))).hello.session)
  await join(t, url('user=ann', 'doc:1'))
  await join(t, url(''))
  const bob = await join(t, url('user=bob'))
  const byName = (users: { user: string }[]) => users.sort((a, b) => a.user < b.user ? -1 : 1)
  t.same(byName(await rooms.members('chat', { by: 'user' })), [
    { user: 'ann', info: { tab: 3 }, sessions },
    { user: 'bob', sessions: [bob.hello.session] }
  ])
  t.equal((await rooms.members('chat', { by: 'session' })).length, 5)
  t.equal((await rooms.members('chat', { by: 'user', limit: 1 })).length, 1)
  await rooms.kick({ session: sessions[2] })
  t.same((await rooms.members('chat', { by: 'user' })).find(({ user }: { user: string }) => user === 'ann'), { user: 'ann', info: { tab: 2 }, sessions: sessions.slice(0, 2) })
  for (const by of ['users', null, 1]) await t.rejects(rooms.members('chat', { by }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: '"by" takes "session" or "user"' })
  await t.rejects(rooms.members('weather', { by: 'user' }), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
})

t.test('rooms.members lists a user that is away until the grace has passed, within its limit', async t => {
  const { url, rooms } = await serve(t)
  const tabs = [await join(t, url('user=ann&tab=1')), await join(t, url('user=ann&tab=2'))]
  for (const tab of tabs) await tab.close()
  const bobs = [await join(t, url('user=bob&tab=3')), await join(t, url('user=bob&tab=4'))]
  await bobs[1]!.close()
  await until(async () => await rooms.count('chat') === 1)
  t.same(await rooms.members('chat', { by: 'user' }), [
    { user: 'bob', info: { tab: 3 }, sessions: [bobs[0]!.hello.session] },
    { user: 'ann', info: { tab: 2 }, sessions: [] }
  ], 'with the info of the session that left last')
  t.same((await rooms.members('chat', { by: 'user', limit: 1 })).map(({ user }: { user: string }) => user), ['bob'])
  t.equal((await rooms.members('chat')).length, 1, 'its sessions are not members')
})
