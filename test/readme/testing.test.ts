import t from 'tap'
import { createRooms, until } from '../helpers/app.ts'

t.test('a client of rooms.inject has left when close() settles', async t => {
  const left: number[] = []
  const app = await createRooms(t, { onLeave: (_session, { code }) => { left.push(code) } })
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  await client.close(4400, 'enough')
  t.same(left, [4400])
  t.equal(app.rooms.stats().connections, 0)
})

t.test('an app does not wait for clients of rooms.inject', async t => {
  const app = await createRooms(t, { drain: { timeout: 9_000 } })
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  const before = performance.now()
  await app.close()
  t.ok(performance.now() - before < 8_000, 'app.close() ends long before the deadline')
  t.same(await client.closed, { code: 1001, reason: 'going_away' })
})

t.test('a kicked client of rooms.inject is closed on both ends', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news')
  const { session } = await client.next('hello')
  t.equal(await app.rooms.kick({ session }), 1)
  t.match(await client.next('bye'), { code: 4005 })
  t.same(await client.closed, { code: 4005, reason: 'kicked' })
  await until(() => app.rooms.stats().connections === 0)
  await t.rejects(client.next(), { code: 'FST_ROOMS_INJECT_CLOSED' })
})

t.test('a client of rooms.inject that is cut is closed on both ends', async t => {
  const app = await createRooms(t, { drain: { timeout: 0 } })
  const client = await app.rooms.inject('/rooms/news')
  await app.close()
  await client.closed
  t.equal(app.rooms.stats().connections, 0)
})
