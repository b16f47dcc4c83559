import t from 'tap'
import type { PresenceDelta } from '../../types/index.ts'
import { createRooms, until } from '../helpers/app.ts'
import { PresenceServer } from '../helpers/presence-broker.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'
import { framesOf, others, reads, shortened, shown, startNode, turns } from './nodes.ts'

t.test('calls reject if the broker refuses, is down, or does not answer; local: true never does', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const ann = await a.join('user=ann')
  const cause = new Error('no')
  a.broker.before = () => { throw cause }
  await t.rejects(a.rooms.topics(), { code: 'FST_ROOMS_BROKER_DOWN' })
  t.equal(await a.rooms.count('live').catch((error: Error) => error.cause), cause)
  a.broker.cut()
  for (const call of ['members', 'count']) await t.rejects(a.rooms[call]('chat'), { code: 'FST_ROOMS_BROKER_DOWN' }, 'a list that may be old is not given')
  t.equal(await a.rooms.count('chat', { local: true }), 1)
  t.equal((await a.rooms.members('chat', { local: true, by: 'user' })).length, 1)
  t.same(await a.rooms.topics({ local: true }), ['chat'])
  t.equal((await a.app.inject('/rooms/chat')).json().count, 1, 'a snapshot then counts this node')

  a.broker.before = () => new Promise(() => {})
  await shortened(5_000, async () => {
    await t.rejects(a.rooms.topics(), { code: 'FST_ROOMS_BROKER_SILENT', message: 'the broker has not answered the topics within 5000 ms' })
    await t.rejects(a.rooms.count('live'), { code: 'FST_ROOMS_BROKER_SILENT' })
  })
  await ann.close()
})

t.test('a broker that breaks its contract is reported, and what can be read stays', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const a = await startNode(t, server, calls)
  const ann = await a.join('user=ann')
  others(server, ['m1'])
  await until(() => shown(ann)?.toString() === 'ann,m1')
  const { handlers } = a.broker
  const faults = () => a.rooms.stats().brokerFaults
  const { version } = server.topic('chat')
  const deep = `${'['.repeat(2_000)}${']'.repeat(2_000)}`
  const good = { session: 'm2', node: 'other' }
  const bad = [{}, null, 7, { session: '', node: 'x' }, { ...good, user: 7 }, { ...good, user: '' }, { ...good, info: 7 }, { ...good, info: '{' }, { ...good, info: deep }, { ...good, info: JSON.stringify('x'.repeat(70_000)) }, { ...good, session: 'x'.repeat(256) }]
  server.topic('chat').version++
  server.topic('chat').members.set('m2', good)
  handlers.presence!('chat', { version: version + 1, node: 'other', set: [...bad, good] as never, leave: [7 as never, 'nowhere'] })
  await until(() => framesOf(ann).at(-1).count === 3)
  t.equal(faults(), 1, 'members that cannot be read are left out')
  t.match(a.errors.at(-1), { code: 'FST_ROOMS_BROKER_FAULT', message: /12 members of topic "chat" are left out/ })

  const before = reads(a)
  for (const delta of [null, { version: 0, node: 'x', set: [], leave: [] }, { version: 'x' }, { version: 1, node: '' }, { version: 1, node: 'x', set: {}, leave: [] }, Object.defineProperty({}, 'version', { get () { throw new Error('unreadable') } })]) {
    const counted = faults()
    handlers.presence!('chat', delta as PresenceDelta)
    t.equal(faults(), counted + 1)
  }
  handlers.presence!('nowhere', null as never)
  await until(() => reads(a) === before + 1)
  await turns(5)

  for (const users of [null, [null], [{ topic: 'chat' }], [{ topic: '/', user: 'x' }]]) {
    const counted = faults()
    handlers.gone!(users as never)
    handlers.back!(users as never)
    t.equal(faults(), counted + 2)
  }
  const told = calls.length
  handlers.gone!([{ topic: 'weather', user: 'x' }, { topic: 'live', user: 'x' }, { topic: 'chat', user: 'x', info: '{' }])
  handlers.back!([{ topic: 'weather', user: 'x' }, { topic: 'chat', user: 'y' }])
  t.same(calls.slice(told), ['-x', '+y'], 'for topics with presence alone')

  a.broker.answer = (call, answer) => call === 'counts' ? [-1] : call === 'topics' ? 'all' : call === 'read' ? { members: {} } : answer
  await t.rejects(a.rooms.count('live'), { code: 'FST_ROOMS_BROKER_FAULT' })
  await t.rejects(a.rooms.topics(), { code: 'FST_ROOMS_BROKER_FAULT' })
  const b = await startNode(t, server)
  b.broker.answer = a.broker.answer
  await t.rejects(b.rooms.members('chat'), { code: 'FST_ROOMS_BROKER_FAULT' })
  b.broker.answer = (_call, answer) => ({ ...answer, members: [...answer.members, ...bad] })
  t.equal((await b.rooms.members('chat')).length, 3)
  b.broker.answer = () => ['/', 7, 'chat', 'weather']
  t.same(await b.rooms.topics(), ['chat'])

  a.broker.answer = (call, answer) => {
    if (call !== 'change') return answer
    a.broker.answer = undefined
    return []
  }
  const counted = faults()
  await a.join('user=ben')
  await until(() => calls.includes('+ben'))
  t.equal(faults(), counted + 1, 'the answer is asked for again')

  await a.app.close()
  handlers.presence!('chat', null as never)
  handlers.gone!(null as never)
  t.equal(faults(), counted + 1, 'nothing is taken after the end')
})

t.test('a node closes though the broker does not answer', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  await a.join('user=ann')
  await until(() => server.topic('chat').members.size === 1)
  a.broker.before = () => new Promise(() => {})
  await shortened(1_000, () => a.app.close())

  const b = await startNode(t, server)
  await b.join('user=ben')
  await until(() => b.broker.calls.length > 1)
  b.broker.cut()
  await b.app.close()
  t.pass()
})

t.test('a broker that joins nodes and does not note members: only this node is known', async t => {
  const calls: string[] = []
  const app = await createRooms(t, {
    topics: { news: {} },
    broker: new SlowBroker(turns.bind(undefined, 1)),
    identify: () => ({ user: 'ann' }),
    onUserJoin: ({ user }) => { calls.push(`+${user}`) },
    onUserLeave: ({ user }) => { calls.push(`-${user}`) }
  })
  const rooms = app.rooms as any
  await app.ready()
  const ann = await rooms.inject('/rooms/news')
  await ann.next('hello')
  for (const call of [() => rooms.members('news'), () => rooms.members('news', { by: 'user' }), () => rooms.count('news'), () => rooms.topics()]) {
    await t.rejects(call(), { code: 'FST_ROOMS_NOT_LISTED', statusCode: 500 })
  }
  t.equal((await rooms.members('news', { local: true })).length, 1)
  t.same((await rooms.members('news', { local: true, by: 'user' })).length, 1)
  t.equal(await rooms.count('news', { local: true }), 1)
  t.same(await rooms.topics({ local: true }), ['news'])
  t.equal((await app.inject('/rooms/news')).json().count, 1)
  await ann.close()
  await until(() => calls.length === 2)
  t.same(calls, ['+ann', '-ann'])
})
