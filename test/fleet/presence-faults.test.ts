import t from 'tap'
import type { PresenceDelta } from '../../types/index.ts'
import { createRooms, until } from '../helpers/app.ts'
import { PresenceServer } from '../helpers/presence-broker.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'
import { framesOf, shown, startNode } from './nodes.ts'

const turns = async (count: number): Promise<void> => { for (let n = 0; n < count; n++) await new Promise(resolve => setImmediate(resolve)) }
const reads = ({ broker }: { broker: { calls: { call: string }[] } }) => broker.calls.filter(({ call }) => call === 'read').length

/** Runs a function while all timers of this time fire at once. */
async function shortened (milliseconds: number, run: () => Promise<unknown>): Promise<void> {
  const real = globalThis.setTimeout
  globalThis.setTimeout = ((call: () => void, time: number) => real(call, time === milliseconds ? 1 : time)) as never
  try {
    await run()
  } finally {
    globalThis.setTimeout = real
  }
}

/** Joins members to a topic on a node that has no app. */
const others = (server: PresenceServer, ids: string[], node = 'other') => server.change(node, ids.map(session => ({ topic: 'chat', session, user: session, type: 'set' as const })))
const leave = (server: PresenceServer, ids: string[], node = 'other') => server.change(node, ids.map(session => ({ topic: 'chat', session, user: session, type: 'leave' as const })))
const names = (count: number, prefix = 'm') => Array.from({ length: count }, (_, n) => `${prefix}${n}`)

t.test('members of a node that was killed leave, and another node calls onUserLeave for them, once', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const dead = await startNode(t, server)
  const b = await startNode(t, server, calls)
  const c = await startNode(t, server, calls)
  const ben = await b.join('user=ben')
  const cat = await c.join('user=cat')
  await dead.join('user=ann&tab=1')
  await dead.join('user=ben')
  await until(() => (shown(ben) as string[]).length === 4 && (shown(cat) as string[]).length === 4)
  dead.broker.die()
  await until(() => shown(ben)?.toString() === 'ben,cat' && shown(cat)?.toString() === 'ben,cat')
  t.same(calls, ['+ben', '+cat', '-ann (1)'], 'not for a user that is on another node')
  t.same([...b.reasons, ...c.reasons], [{ code: 1006, reason: 'node gone' }])
})

t.test('a node that was taken for dead comes back: its users join again, and leave once', async t => {
  const server = new PresenceServer()
  const onA: string[] = []
  const onB: string[] = []
  const a = await startNode(t, server, onA)
  const b = await startNode(t, server, onB)
  const ben = await b.join('user=ben')
  const ann = await a.join('user=ann&tab=1')
  await until(() => shown(ben)?.toString() === 'ann,ben')
  await turns(10)
  a.broker.cut()
  server.sweep(a.broker.node)
  await until(() => shown(ben)?.toString() === 'ben')
  t.same(onB, ['+ben', '-ann (1)'])
  a.broker.heal()
  await until(() => shown(ben)?.toString() === 'ann,ben')
  t.same(onA, ['+ann (1)', '+ann (1)'])
  await ann.close()
  await until(() => onA.length === 3)
  t.same(onA[2], '-ann (1)')
})

t.test('a broker that is down delays the hooks, and calls none twice; both sides see each other again', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const a = await startNode(t, server, calls)
  const b = await startNode(t, server)
  const watcher = await b.join('user=watcher')
  const ann = await a.join('user=ann')
  await until(() => (shown(watcher) as string[]).length === 2)
  await until(() => calls.length === 1)
  a.broker.cut()
  await ann.close()
  const ben = await a.join('user=ben')
  await until(() => a.broker.calls.filter(({ call }) => call === 'change').length >= 2)
  const short = await a.join('user=short')
  await short.close()
  await until(async () => await a.rooms.count('chat', { local: true }) === 1)
  await turns(20)
  t.same(calls, ['+ann'])
  t.same(shown(watcher), ['ann', 'watcher'], 'what another node says last is true until the broker says something else')
  a.broker.heal()
  await until(() => calls.length === 3)
  await until(() => shown(watcher)?.toString() === 'ben,watcher' && shown(ben)?.toString() === 'ben,watcher')
  t.same(calls, ['+ann', '-ann', '+ben'], 'a session that came and went is not told')
  t.equal(a.rooms.stats().brokerFaults, 0, 'a broker that is down need not answer')
})

t.test('a node without hooks shares its members, too', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server, [], { onUserJoin: undefined, onUserLeave: undefined } as never)
  const ann = await a.join('user=ann')
  await until(() => server.topic('chat').members.size === 1)
  await ann.close()
  await until(() => server.topic('chat').members.size === 0)
  await until(() => a.broker.calls.filter(({ call }) => call === 'change').length === 2)
  t.same(a.errors, [])
})

t.test('an answer that is lost is asked for again', async t => {
  const server = new PresenceServer()
  const calls: string[] = []
  const a = await startNode(t, server, calls)
  const lose = () => {
    a.broker.answer = (call, answer) => {
      if (call !== 'change') return answer
      a.broker.answer = undefined
      throw new Error('lost')
    }
  }
  lose()
  const ann = await a.join('user=ann')
  await until(() => calls.length === 1)
  lose()
  await ann.close()
  await until(() => calls.length === 2)
  t.same(calls, ['+ann', '-ann'])
  t.equal(a.rooms.stats().brokerFaults, 2, 'it was connected')
  t.match(a.errors[0], { code: undefined, message: 'lost' })
})

t.test('a hole in the versions, and a loss, are mended by reading again', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const ann = await a.join('user=ann')
  others(server, ['m1', 'm2'])
  await until(() => shown(ann)?.toString() === 'ann,m1,m2')
  a.broker.isDeaf = true
  others(server, ['m3'])
  leave(server, ['m1'])
  a.broker.isDeaf = false
  await turns(5)
  t.equal(shown(ann)?.toString(), 'ann,m1,m2')
  others(server, ['m4'])
  await until(() => shown(ann)?.toString() === 'ann,m2,m3,m4')
  t.ok(reads(a) <= 3)

  a.broker.isDeaf = true
  leave(server, ['m2'])
  a.broker.isDeaf = false
  const before = reads(a)
  for (let n = 0; n < 20; n++) a.broker.handlers.lost(n % 2 === 0 ? 'all' : ['chat', 'nowhere'])
  await until(() => shown(ann)?.toString() === 'ann,m3,m4')
  t.equal(reads(a), before + 1, 'at most once in half a second')
})

t.test('above 200 members of all nodes a room counts; below 150 it lists again', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  const ann = await a.join('user=ann')
  others(server, names(150))
  await until(() => (shown(ann) as string[]).length === 151)
  others(server, names(60, 'n'))
  await until(() => shown(ann) === 211)
  const ben = await a.join('user=ben')
  t.same(framesOf(ben)[0], { type: 'presence', count: 212 }, 'a snapshot is a count')
  t.equal(await a.rooms.count('chat'), 212)
  t.equal((await a.rooms.members('chat')).length, 212, 'the list is asked for')
  t.equal((await a.rooms.members('chat', { limit: 10 })).length, 10)

  leave(server, [...names(60, 'n'), ...names(20)])
  await until(() => Array.isArray(shown(ben)) && Array.isArray(shown(ann)))
  t.equal((shown(ann) as string[]).length, 132)
  t.same(framesOf(ann).at(-1).state.length, 132)
})

t.test('a first member of a node waits a little for the members of other nodes, and not for ever', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  others(server, ['m1'])
  let answer = (): void => {}
  a.broker.before = call => call === 'read' ? new Promise<void>(resolve => { answer = resolve }) : undefined
  let ann!: Awaited<ReturnType<typeof a.join>>
  await shortened(1_000, async () => { ann = await a.join('user=ann') })
  await until(() => shown(ann) !== undefined)
  t.same(shown(ann), ['ann'])
  others(server, ['m2'])
  await turns(5)
  answer()
  await until(() => shown(ann)?.toString() === 'ann,m1,m2')

  // A session that closes while it waits does not join.
  const b = await startNode(t, server)
  let free = (): void => {}
  b.broker.before = call => call === 'read' ? new Promise<void>(resolve => { free = resolve }) : undefined
  const leaving = b.join('user=gone').catch(() => 'closed')
  await until(() => reads(b) === 1)
  await b.rooms.kick({ user: 'gone' })
  free()
  t.equal(await leaving, 'closed')
  t.equal(b.rooms.stats().members, 0)
})

t.test('if the members cannot be read, the room goes on, and they are read later', async t => {
  const server = new PresenceServer()
  const a = await startNode(t, server)
  others(server, ['m1'])
  let failures = 0
  a.broker.before = call => { if (call === 'read' && failures++ === 0) throw new Error('no') }
  const ann = await a.join('user=ann')
  t.same(await a.rooms.members('chat', { local: true }).then((list: unknown[]) => list.length), 1)
  others(server, ['m2'])
  await until(() => shown(ann)?.toString() === 'ann,m1,m2')
  t.equal(a.rooms.stats().brokerFaults, 1)
  t.match(a.errors, [{ message: 'no' }])
})

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
