import t from 'tap'
import { createRooms, join, listen } from './helpers/app.ts'

t.test('a broadcast from code reaches each member of its topic and no other', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const [one, two, other] = await Promise.all([join(t, `${url}/rooms/news`), join(t, `${url}/rooms/news`), join(t, `${url}/rooms/sports`)])

  const result = await app.rooms.broadcast('news', { headline: 'hello' })
  t.match(result, { topic: 'news', local: 2, published: true })
  for (const client of [one, two]) t.same(await client.next('message'), { type: 'message', id: result.id, data: { headline: 'hello' } })

  await app.rooms.broadcast('sports', 1)
  t.match(await other.next('message'), { data: 1 }, 'a member of another topic gets only messages of that topic')
})

t.test('except excludes one session', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const one = await join(t, `${url}/rooms/news`)
  const two = await join(t, `${url}/rooms/news`)
  t.match(await app.rooms.broadcast('news', 1, { except: one.hello.session }), { local: 1 })
  await app.rooms.broadcast('news', 2)
  t.match(await one.next('message'), { data: 2 })
  t.match(await two.next('message'), { data: 1 })
  for (const except of [7 as never, 'x'.repeat(256)]) await t.rejects(app.rooms.broadcast('news', 1, { except }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  t.match(await app.rooms.broadcast('news', 1, { except: 'x'.repeat(255) }), { published: true })
})

t.test('with an in-process broker a broadcast is queued when the call returns', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  await join(t, `${url}/rooms/news`)
  const before = app.rooms.stats().deliveries
  const pending = app.rooms.broadcast('news', 1)
  t.equal(app.rooms.stats().deliveries, before + 1)
  await pending
})

t.test('a payload that cannot be serialized as JSON is refused', async t => {
  const app = await createRooms(t)
  const circle: Record<string, unknown> = {}
  circle.circle = circle
  for (const payload of [undefined, () => {}, 1n, circle]) {
    await t.rejects(app.rooms.broadcast('news', payload), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  }
})
