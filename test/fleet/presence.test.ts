import t from 'tap'
import { until } from '../helpers/app.ts'
import { stopClock } from '../helpers/fakes.ts'
import { PresenceServer } from '../helpers/presence-broker.ts'
import { framesOf, historyOf, shown, startNode } from './nodes.ts'

const names = (members: { user: string }[]) => members.map(({ user }) => user).sort()

t.test('members of two nodes see each other: in the snapshot of a join, in differences, with their info', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const b = await startNode(t, server)
  const ann = await a.join('user=ann&tab=1')
  const ben = await b.join('user=ben&tab=2')
  await until(() => shown(ann)?.toString() === 'ann,ben' && shown(ben)?.toString() === 'ann,ben')
  t.same(framesOf(ben)[0].state.map(({ user, info }: any) => ({ user, info })).sort((x: any, y: any) => x.user < y.user ? -1 : 1), [{ user: 'ann', info: { tab: 1 } }, { user: 'ben', info: { tab: 2 } }], 'the first member of a node is sent all of them')
  const cat = await a.join('user=cat')
  await until(() => shown(ben)?.toString() === 'ann,ben,cat')
  t.same(framesOf(cat)[0].count, 3)

  ann.send({ type: 'presence', info: { tab: 7 } })
  await until(() => framesOf(ben).at(-1).join?.[0]?.info?.tab === 7)
  t.same(framesOf(ben).at(-1), { type: 'presence', count: 3, join: [{ session: ann.hello.session, user: 'ann', info: { tab: 7 } }] })

  await ann.close()
  await until(() => shown(ben)?.toString() === 'ben,cat' && shown(cat)?.toString() === 'ben,cat')
  t.same([...a.errors, ...b.errors], [])
  t.equal(a.rooms.stats().brokerFaults + b.rooms.stats().brokerFaults, 0)
  t.equal(a.broker.calls.filter(({ call }) => call === 'read').length, 1, 'the list was read once, and followed')
})

t.test('changes of many members on one node are one frame on the other', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const b = await startNode(t, server)
  const ann = await a.join('user=ann')
  const from = performance.now()
  await Promise.all(Array.from({ length: 20 }, (_, n) => b.join(`user=u${n}`)))
  await until(() => (shown(ann) as string[]).length === 21)
  t.ok(framesOf(ann).length <= 4 + (performance.now() - from) / 100, `${framesOf(ann).length} frames`)
})

t.test('onUserJoin and onUserLeave are called once in the fleet, on the node of the first and of the last session, after its onLeave', async t => {
  const server = new PresenceServer()
  const onA: string[] = []
  const onB: string[] = []
  const a = await startNode(t, server, onA, { onLeave: session => { onA.push(`onLeave ${session.user}`) } })
  const b = await startNode(t, server, onB, { onLeave: session => { onB.push(`onLeave ${session.user}`) } })
  const first = await a.join('user=ann&tab=1')
  await until(() => onA.length === 1)
  const second = await b.join('user=ann&tab=2')
  const ben = await b.join('user=ben')
  await until(() => onB.length === 1)
  await first.close()
  await until(async () => server.topic('chat').members.size === 2)
  second.send({ type: 'presence', info: { tab: 3 } })
  await until(() => [...server.topic('chat').members.values()].some(({ info }) => info === '{"tab":3}'))
  await second.close()
  await until(() => onB.includes('-ann (3)'))
  t.same(onA, ['+ann (1)', 'onLeave ann'])
  t.same(onB, ['+ben', 'onLeave ann', '-ann (3)'])
  t.match(b.reasons, [{ code: 1005 }])
  await b.app.close()
  t.same(onB.slice(3), ['onLeave ben', '-ben'], 'a node that closes waits for the broker')
  t.equal((await ben.closed).code, 1001)
  await until(() => (server.topic('chat').members.size) === 0)
})

t.test('onUserLeave waits for onLeave, which waits for the frames that the member has sent', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  let finish = (): void => {}
  const a = await startNode(t, server, calls, {
    onMessage: { chat: () => new Promise<void>(resolve => { finish = resolve }) },
    onLeave: () => { calls.push('onLeave') }
  })
  const ann = await a.join('user=ann')
  ann.send({ type: 'message', data: 1 })
  await until(() => a.rooms.stats().working === 1)
  await ann.close()
  await until(() => server.topic('chat').members.size === 0)
  await until(() => a.broker.calls.filter(({ call }) => call === 'change').length === 2)
  await new Promise(resolve => setTimeout(resolve, 20))
  t.same(calls, ['+ann'])
  finish()
  await until(() => calls.length === 3)
  t.same(calls, ['+ann', 'onLeave', '-ann'])
})

t.test('members, count and topics are those of all nodes; with local: true those of one', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const b = await startNode(t, server)
  const c = await startNode(t, server)
  const ann = await a.join('user=ann&tab=1')
  const again = await b.join('user=ann&tab=2')
  await b.join('user=ben')
  await b.join('', 'chat')
  await b.join('user=ben', 'live')
  await until(() => (shown(ann) as string[]).length === 4)

  t.same((await a.rooms.members('chat')).length, 4)
  t.same(await a.rooms.members('chat', { local: true }), [{ session: ann.hello.session, user: 'ann', info: { tab: 1 } }])
  t.same((await a.rooms.members('chat', { limit: 2 })).length, 2)
  t.same((await c.rooms.members('chat')).length, 4, 'a node without the topic reads them')
  t.same((await c.rooms.members('chat', { limit: 3 })).length, 3)
  t.same(names(await a.rooms.members('chat', { by: 'user' })), ['ann', 'ben'])
  t.same((await a.rooms.members('chat', { by: 'user' })).find(({ user }: any) => user === 'ann'), { user: 'ann', info: { tab: 1 }, sessions: [again.hello.session, ann.hello.session] })
  t.same(names(await c.rooms.members('chat', { by: 'user' })), ['ann', 'ben'])
  t.equal((await c.rooms.members('chat', { by: 'user', limit: 1 })).length, 1)
  t.same(await c.rooms.members('chat', { by: 'user', local: true }), [])

  t.equal(await a.rooms.count('chat'), 4)
  t.equal(await a.rooms.count('chat', { local: true }), 1)
  const reads = c.broker.calls.filter(({ call }) => call === 'read').length
  const start = stopClock()
  t.same(await Promise.all([c.rooms.count('chat'), c.rooms.count('chat')]), [4, 4])
  t.equal(await c.rooms.count('chat'), 4)
  start()
  t.equal(c.broker.calls.filter(({ call }) => call === 'read').length, reads + 1, 'the answer is used for a second')
  t.same(await c.rooms.count('live', { local: true }), 0)
  t.same(await b.rooms.count('live'), 1, 'its own members are always in it')
  await until(async () => await c.rooms.count('live') === 1, 3_000)
  await until(async () => (await c.rooms.topics()).length === 2, 3_000)
  t.same((await c.rooms.topics()).sort(), ['chat', 'live'])
  t.same(await c.rooms.topics({ local: true }), [])
  t.same(await a.rooms.topics({ local: true }), ['chat'])

  t.same((await c.app.inject('/rooms/chat')).json().count, 4, 'a snapshot counts the fleet')
  for (const local of [1, 'yes', null]) {
    for (const call of ['members', 'count']) await t.rejects(a.rooms[call]('chat', { local }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
    await t.rejects(a.rooms.topics({ local }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  }
  await t.rejects(a.rooms.members('live'), { code: 'FST_ROOMS_NOT_LISTED', message: /the members of topic "live" \(give it "presence"\)/ })
  t.equal((await b.rooms.members('live', { local: true })).length, 1)
  await t.rejects(a.rooms.count('weather'), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
})

t.test('numbers of topics are reported when they change, at most once a second, and asked for together', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const b = await startNode(t, server, [], { topics: { '*': { publish: true } } })
  const clients = []
  const from = performance.now()
  for (let n = 0; n < 5; n++) clients.push(await a.join('', 'live'))
  await until(() => server.reports.get(a.broker.node)?.get('live') === 5, 3_000)
  t.ok(a.broker.calls.filter(({ call }) => call === 'report').length <= 2 + (performance.now() - from) / 1_000)
  t.same(await Promise.all(['live', 'chat', 'other'].map(topic => b.rooms.count(topic))), [5, 0, 0])
  t.same(b.broker.calls.filter(({ call }) => call === 'counts').map(({ given }) => given), [['live', 'chat', 'other']])
  await Promise.all(clients.map(client => client.close()))
  await until(() => server.reports.get(a.broker.node)?.get('live') === 0, 3_000)
  await until(async () => await b.rooms.count('live') === 0, 3_000)
})

t.test('a user that comes back on another node within the grace is never missing, and no hook is called', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const a = await startNode(t, server, calls, { grace: 60_000 })
  const b = await startNode(t, server, calls, { grace: 60_000 })
  const onA = await a.join('user=watcher')
  const onB = await b.join('user=watcher')
  const ann = await a.join('user=ann&tab=1')
  await until(() => (shown(onB) as string[]).length === 3 && (shown(onA) as string[]).length === 3)
  const before = { a: framesOf(onA).length, b: framesOf(onB).length }
  await ann.close()
  await until(async () => await a.rooms.count('chat', { local: true }) === 1)
  await new Promise(resolve => setTimeout(resolve, 150))
  t.same({ a: framesOf(onA).length, b: framesOf(onB).length }, before, 'no frame tells the leave')
  const back = await b.join('user=ann&tab=2')
  await until(() => server.topic('chat').members.size === 3)
  const session = (client: typeof back) => framesOf(client).some(({ leave }) => leave?.[0]?.session === ann.hello.session)
  await until(() => session(onA) && session(onB))
  for (const client of [onA, onB]) {
    const since = historyOf(client).findIndex(list => list.toString().includes('ann'))
    t.ok(historyOf(client).slice(since).every(list => (list as string[]).includes('ann')), 'always in the list')
  }
  t.same(framesOf(onA).at(-1), { type: 'presence', count: 3, join: [{ session: back.hello.session, user: 'ann', info: { tab: 2 } }], leave: [{ session: ann.hello.session }] })
  t.same(calls, ['+watcher', '+ann (1)'])
  t.same((await a.rooms.members('chat', { by: 'user' })).find(({ user }: any) => user === 'ann'), { user: 'ann', info: { tab: 2 }, sessions: [back.hello.session] })
})

t.test('a user that comes back on its own node takes its place for all nodes, and one that does not leaves when the grace ends', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const a = await startNode(t, server, calls, { grace: 300 })
  const b = await startNode(t, server, calls, { grace: 300 })
  const watcher = await b.join()
  const ann = await a.join('user=ann')
  await until(() => (shown(watcher) as string[]).length === 2)
  await ann.close()
  const back = await a.join('user=ann')
  await until(() => framesOf(watcher).at(-1).leave?.length === 1)
  t.same(framesOf(watcher).at(-1).join, [{ session: back.hello.session, user: 'ann' }], 'one frame names both')
  t.same(calls, ['+ann'])
  await back.close()
  await until(() => calls.length === 2)
  t.same(calls, ['+ann', '-ann'])
  await until(() => (shown(watcher) as string[]).length === 1)
})

t.test('a node that drains ends the grace of its users', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const a = await startNode(t, server, calls, { grace: 60_000 })
  const ann = await a.join('user=ann')
  await a.join('user=ben')
  await until(() => calls.length === 2)
  await ann.close()
  await until(async () => await a.rooms.count('chat', { local: true }) === 1)
  await a.rooms.drain()
  t.same(calls, ['+ann', '+ben', '-ann', '-ben'])
  t.equal(server.topic('chat').members.size, 0)
})
