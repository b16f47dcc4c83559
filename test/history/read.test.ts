import t from 'tap'
import { createRooms, join, listen, until } from '../helpers/app.ts'
import { framesOf, joinMute } from '../helpers/wire.ts'

async function serve (history: unknown) {
  const app = await createRooms(t, { topics: { news: { history } as never, plain: {} } })
  const rooms = app.rooms as any
  return { rooms, publish: async (data: unknown, options?: object) => (await rooms.broadcast('news', data, options)).id as string }
}

t.test('without since: the newest messages, up to the top; complete if none was ever left out', async t => {
  const { rooms, publish } = await serve({ size: 3 })
  const first = await rooms.history('news')
  t.match(first, { messages: [], complete: true })
  t.match(first.id, /^[0-9a-f]{16}-0$/, 'a page of a topic without messages has a position, so that a later join misses nothing')
  const ids = [await publish('a'), await publish({ b: 1 }, { key: 'k' })]
  t.same(await rooms.history('news'), { id: ids[1], messages: [{ id: ids[0], data: 'a' }, { id: ids[1], data: { b: 1 }, key: 'k' }], complete: true })
  t.same(await rooms.history('news', { since: first.id }), { id: ids[1], messages: [{ id: ids[0], data: 'a' }, { id: ids[1], data: { b: 1 }, key: 'k' }], recovered: true, complete: true })
  t.same(await rooms.history('news', { limit: 1 }), { id: ids[1], messages: [{ id: ids[1], data: { b: 1 }, key: 'k' }], complete: false })
  await publish('c')
  await publish('d')
  t.match(await rooms.history('news', { since: '0' }), { messages: [{ data: { b: 1 } }, { data: 'c' }, { data: 'd' }], complete: false }, 'one was trimmed')
})

t.test('with since: a page of what came after, from which the next one goes on', async t => {
  const { rooms, publish } = await serve({ size: 10 })
  const ids: string[] = []
  for (let n = 0; n < 12; n++) ids.push(await publish(n))
  const one = await rooms.history('news', { since: ids[2], limit: 5 })
  t.match(one, { id: ids[7], recovered: true, complete: false })
  t.same(one.messages.map(({ data }: any) => data), [3, 4, 5, 6, 7])
  t.match(await rooms.history('news', { since: one.id, limit: 5 }), { id: ids[11], recovered: true, complete: true, messages: [{ data: 8 }, { data: 9 }, { data: 10 }, { data: 11 }] })
  t.same(await rooms.history('news', { since: ids[11] }), { id: ids[11], messages: [], recovered: true, complete: true })
  const lost = await rooms.history('news', { since: ids[0], limit: 2 })
  t.match(lost, { id: ids[11], recovered: false, complete: false, messages: [{ data: 10 }, { data: 11 }] }, 'the newest, with their position: a reload in one request')
  t.match(await rooms.history('news', { since: ids[11]!.replace(/\d+$/, '99') }), { recovered: false })
  t.match(await rooms.history('news', { since: `${'x'.repeat(11)}-1` }), { recovered: false })
})

t.test('pages are bounded in bytes, and a larger message comes alone', async t => {
  const { rooms, publish } = await serve({ size: 100, bytes: 10_000_000 })
  const start = (await rooms.history('news')).id
  for (const data of ['a'.repeat(600_000), 'b'.repeat(600_000), 'c'.repeat(1_200_000), 'd']) await publish(data)
  const sizes = []
  for (let since = start, complete = false; !complete;) {
    const page = await rooms.history('news', { since })
    sizes.push(page.messages.map(({ data }: any) => data[0]).join(''))
    since = page.id
    complete = page.complete
  }
  t.same(sizes, ['a', 'b', 'c', 'd'])
  t.same((await rooms.history('news')).messages.map(({ data }: any) => data[0]), ['d'])
  await publish('e'.repeat(1_200_000), { key: 'e' })
  t.same((await rooms.history('news')).messages.map(({ data }: any) => data[0]), ['e'], 'a newest message that is larger than a page comes alone')
  t.same((await rooms.history('news', { since: 'latest' })).messages.map(({ data }: any) => data[0]), ['e'])
  await publish('f', { key: 'f' })
  t.same((await rooms.history('news', { since: 'latest' })).messages.map(({ data }: any) => data[0]), ['f'])
})

t.test('since=latest: the newest message of each key', async t => {
  for (const history of [true, { latest: true }]) {
    const { rooms, publish } = await serve(history)
    for (const [key, data] of [['a', 1], ['b', 2], ['a', 3], ['c', 4]] as const) await publish(data, { key })
    const page = await rooms.history('news', { since: 'latest' })
    t.same(page.messages.map(({ data, key }: any) => [key, data]), [['b', 2], ['a', 3], ['c', 4]])
    t.equal(page.complete, false)
    t.same((await rooms.history('news', { since: 'latest', limit: 2 })).messages.map(({ data }: any) => data), [3, 4])
  }
})

t.test('a topic that keeps no messages has none, and is not complete', async t => {
  const { rooms } = await serve(true)
  t.same(await rooms.history('plain'), { messages: [], complete: false })
})

t.test('bad arguments get their errors', async t => {
  const { rooms } = await serve(true)
  await t.rejects(rooms.history('other'), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  for (const since of ['', 'x', 1, null, 'abc-1', {}]) await t.rejects(rooms.history('news', { since }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"since"/ })
  for (const limit of [0, -1, 1.5, 1_001, '5', null]) await t.rejects(rooms.history('news', { limit }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"limit"/ })
})

t.test('history frames: a page in the ack, permitted by authorize', async t => {
  let allowed = true
  const app = await createRooms(t, { topics: { news: { history: true, publish: true } as never, plain: { publish: true } }, authorize: ({ action }: any) => action !== 'history' || allowed })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  const ids: string[] = []
  for (const data of [1, 2, 3]) ids.push((await client.ask({ type: 'message', data }) as any).id)
  const { session } = client.hello
  t.same(await client.ask({ type: 'history', since: ids[1] }, 'h'), { type: 'ack', ref: 'h', ok: true, data: { id: ids[2], messages: [{ id: ids[2], data: 3, from: session }], recovered: true, complete: true } })
  t.match(await client.ask({ type: 'history', limit: 2 }), { ok: true, data: { messages: [{ data: 2 }, { data: 3 }], complete: false } })
  t.same((await (await join(t, `${url}/rooms/plain`)).ask({ type: 'history' }) as any).data, { messages: [], complete: false })
  allowed = false
  t.match(await client.ask({ type: 'history' }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  for (const [frame, fault] of [[{ since: 'x' }, /"since"/], [{ limit: 0 }, /"limit"/], [{ limit: 1_001 }, /"limit"/], [{ limit: '1' }, /"limit"/]] as const) {
    t.match(await client.ask({ type: 'history', ...frame }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: fault } })
  }
  client.send({ type: 'history' })
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME', message: /"ref" is missing/ } })
})

t.test('version: an older value than the kept one is refused as stale, and takes no position', async t => {
  const { rooms, publish } = await serve({ latest: true })
  const first = await publish('a5', { key: 'a', version: 5 })
  await t.rejects(rooms.broadcast('news', 'a4', { key: 'a', version: 4 }), { code: 'FST_ROOMS_STALE', statusCode: 409, message: /version 4 / })
  const second = await publish('b1', { key: 'b', version: 1 })
  t.equal(Number(second.split('-')[1]), Number(first.split('-')[1]) + 1, 'a stale value takes no position')
  await publish('a5 again', { key: 'a', version: 5 })
  await publish('a6', { key: 'a', version: 6 })
  await publish('none', { key: 'a' })
  await publish('a1', { key: 'a', version: 1 })
  await publish('without key', { version: -1 })
  await t.rejects(rooms.broadcast('news', 'x', { version: -2 }), { code: 'FST_ROOMS_STALE' })
  t.same((await rooms.history('news')).messages.map(({ data }: any) => data), ['b1', 'a1', 'without key'])
  for (const version of ['1', 1.5, 2 ** 53, NaN, null]) await t.rejects(rooms.broadcast('news', 1, { version }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"version"/ })
  await t.rejects(rooms.broadcast('plain', 1, { version: 1 }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"version"/ })
})

t.test('after the app has closed there is nothing to read', async t => {
  const app = await createRooms(t, { topics: { news: { history: true } as never } })
  await app.close()
  await t.rejects((app.rooms as any).history('news'), { code: 'FST_ROOMS_CLOSED' })
})

t.test('a member that asks for many pages and reads slowly is sent one after the other', async t => {
  const app = await createRooms(t, { topics: { news: { history: { bytes: 50_000_000 } } as never }, slow: { bytes: 1_500_000 } })
  const rooms = app.rooms as any
  const url = await listen(app)
  for (let n = 0; n < 10; n++) await rooms.broadcast('news', 'x'.repeat(100_000))
  const peer = await joinMute(t, `${url}/rooms/news`)
  const other = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 2)
  for (const { socket, send } of [peer, other]) {
    socket.pause()
    for (let ref = 0; ref < 12; ref++) send(1, JSON.stringify({ type: 'history', ref }))
  }
  await until(() => rooms.stats().queuedBytes > 1_000_000)
  other.socket.destroy()
  peer.socket.resume()
  await until(() => framesOf(peer).filter(({ type }) => type === 'ack').length === 12)
  t.equal(rooms.stats().slow, 0)
})
