import t from 'tap'
import { until } from '../helpers/app.ts'
import { PresenceServer } from '../helpers/presence-broker.ts'
import { framesOf, leave, names, others, reads, shortened, shown, startNode, turns } from './nodes.ts'

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
