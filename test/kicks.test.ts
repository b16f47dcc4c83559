import t, { type Test } from 'tap'
import { RecentKicks } from '../lib/limits/recent-kicks.ts'
import fastifyRooms from '../lib/index.ts'
import type { Rooms } from '../types/index.ts'
import { connect, createApp, createRooms, join, listen, until } from './helpers/app.ts'
import { at } from './helpers/fakes.ts'

/** A server on which requests with `x-wait` wait in identify. */
async function serve (t: Test) {
  const waiting: (() => void)[] = []
  const joined: unknown[] = []
  const app = await createRooms(t, {
    identify: async request => {
      if (request.headers['x-wait'] !== undefined) await new Promise<void>(resolve => { waiting.push(resolve) })
      return { user: String(request.headers['x-user']) }
    },
    onJoin: session => { joined.push(session.user) }
  })
  return { rooms: app.rooms, url: await listen(app), waiting, joined }
}

t.test('a user or topic is kicked while an upgrade is under way: the upgrade ends with the close code and never joins', async t => {
  const { rooms, url, waiting, joined } = await serve(t)
  const slow = ['anna', 'ben', 'cleo'].map((user, index) => connect(t, `${url}/rooms/${['news', 'closed', 'news'][index]}`, [], { headers: { 'x-user': user, 'x-wait': '1' } }))
  await until(() => waiting.length === 3)
  t.equal(await rooms.kick({ user: 'anna' }), 0, 'upgrades under way are not counted, because they have no session yet')
  t.equal(await rooms.kick({ topic: 'closed' }, { code: 4007 }), 0)
  await rooms.kick({ user: 'cleo', topic: 'closed' })
  for (const go of waiting) go()
  const [anna, ben, cleo] = await Promise.all(slow)
  t.same(await anna!.closed, { code: 4005, reason: 'kicked' })
  t.same(await ben!.closed, { code: 4007, reason: 'topic_closed' })
  t.match(await cleo!.next('hello'), { topic: 'news' }, 'a kick ends only joins that match all given fields')
  t.same(joined, ['cleo'])
  t.match(rooms.stats(), { refused: 2, refusals: { forbidden: 2 } })
  await until(() => rooms.stats().connections === 1)
})

t.test('a join after a kick is checked like any other', async t => {
  const { rooms, url } = await serve(t)
  const headers = { 'x-user': 'anna' }
  const before = await join(t, `${url}/rooms/news`, { headers })
  t.equal(await rooms.kick({ user: 'anna' }), 1)
  t.same(await before.closed, { code: 4005, reason: 'kicked' })
  t.match((await join(t, `${url}/rooms/news`, { headers })).hello, { topic: 'news' })
})

t.test('kicks are kept as long as an upgrade may take', async t => {
  const kicks = new RecentKicks(100)
  const ending = { code: 4005, reason: 'kicked', by: 'server' } as const
  at(1_000, () => { kicks.note('anna', undefined, ending) })
  at(1_050, () => { kicks.note(undefined, 'news', ending) })
  const found = (now: number, begunAt: number, user: string | undefined, topic: string) => at(now, () => kicks.find(begunAt, user, topic) !== undefined)
  t.equal(found(1_060, 1_000, 'anna', 'sports'), true)
  t.equal(found(1_060, 1_001, 'anna', 'sports'), false, 'the upgrade began after the kick')
  t.equal(found(1_060, 1_050, undefined, 'news'), true)
  t.equal(found(1_060, 900, 'ben', 'sports'), false)
  t.equal(found(1_101, 990, 'anna', 'sports'), true, 'the upgrade was in time when it was admitted')
  t.equal(found(1_101, 990, 'anna', 'sports'), false)
  t.equal(found(1_101, 990, 'anna', 'news'), true)
  t.equal(found(1_151, 990, 'ben', 'sports'), false)
  t.equal(found(1_151, 990, 'anna', 'news'), false)
})

t.test('an upgrade over its deadline does not join, even if the server stalled at the time of the deadline', async t => {
  const joined: unknown[] = []
  let go: (() => void) | undefined
  const app = await createRooms(t, {
    limits: { handshake: 1_000 },
    identify: async () => {
      await new Promise<void>(resolve => { go = resolve })
      return { user: 'anna' }
    },
    onJoin: session => { joined.push(session.user) }
  })
  const url = await listen(app)
  const anna = connect(t, `${url}/rooms/news`)
  anna.catch(() => {})
  await until(() => go !== undefined)
  await app.rooms.kick({ user: 'anna' })
  const end = Date.now() + 1_500
  while (Date.now() < end);
  go!() // before any timer runs
  await t.rejects(anna)
  t.same(joined, [])
  t.match(app.rooms.stats(), { connections: 0, refused: 0, refusals: { handshake: 1, forbidden: 0 } })
})

t.test('if several hubs share one server, a kick is kept as long as the first hub allows upgrades to take', async t => {
  const app = createApp(t)
  let go: (() => void) | undefined
  await app.register(async scope => { await scope.register(fastifyRooms as any, { prefix: '/one', limits: { handshake: 60_000 } }) })
  let rooms: Rooms | undefined
  await app.register(async scope => {
    await scope.register(fastifyRooms as any, {
      prefix: '/two',
      limits: { handshake: 100 },
      identify: async () => {
        await new Promise<void>(resolve => { go = resolve })
        return { user: 'anna' }
      }
    })
    rooms = scope.rooms
  })
  const url = await listen(app)
  const anna = connect(t, `${url}/two/news`)
  await until(() => go !== undefined)
  await rooms!.kick({ user: 'anna' })
  await new Promise(resolve => setTimeout(resolve, 300))
  go!()
  t.same(await (await anna).closed, { code: 4005, reason: 'kicked' })
})
