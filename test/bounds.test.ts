import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

async function serve (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, options)
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

/** A handler whose work ends by hand: `true` resolves it, `false` rejects it. */
function workshop () {
  const doors: ((well: boolean) => void)[] = []
  const handler = (_session: unknown, payload: unknown): unknown => payload === 'sync'
    ? 'done'
    : new Promise((resolve, reject) => { doors.push(well => { well ? resolve('done') : reject(new Error('broken')) }) })
  return { doors, handler }
}

t.test('while limits.work messages are unfinished, messages of all members are refused, until one of them is resolved or rejected', async t => {
  const { doors, handler } = workshop()
  const { rooms, url } = await serve(t, { limits: { work: 2 }, onMessage: { '*': handler }, onError: () => {} })
  const [one, two, three] = [await join(t, `${url}/rooms/a`), await join(t, `${url}/rooms/b`), await join(t, `${url}/rooms/b`)]
  t.match(await one.ask({ type: 'message', data: 'sync' }), { ok: true, data: 'done' })
  t.equal(rooms.stats().working, 0)
  one.send({ type: 'message', data: 1, ref: 1 })
  two.send({ type: 'message', data: 2, ref: 2 })
  await until(() => rooms.stats().working === 2)
  t.match(await three.ask({ type: 'message', data: 3 }), { ok: false, error: { code: 'FST_ROOMS_OVERLOADED' } })
  three.send({ type: 'message', data: 'sync' })
  t.match(await three.next('error'), { error: { code: 'FST_ROOMS_OVERLOADED' } }, 'a synchronous handler is refused as well, because its result is not known before the call')
  t.match(await three.ask({ type: 'ping' }), { ok: true })
  const raw = await connect(t, `${url}/rooms/b`, 'rooms.raw')
  await until(() => rooms.stats().members === 4)
  raw.send('1')
  t.same(await raw.closed, { code: 4100, reason: 'overloaded' })
  t.match(rooms.stats(), { invalid: 0, errors: 0, refusals: { work: 3, overloaded: 0 } })

  doors[0]!(false)
  t.match(await one.next('ack'), { ref: 1, ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  three.send({ type: 'message', data: 3, ref: 3 })
  await until(() => doors.length === 3)
  doors[1]!(true)
  doors[2]!(true)
  t.match(await three.next('ack'), { ref: 3, ok: true })
  t.match(await two.next('ack'), { ref: 2, ok: true })
  t.equal(rooms.stats().working, 0)
})

t.test('unfinished work of a member that has left still counts', async t => {
  const { doors, handler } = workshop()
  const { rooms, url } = await serve(t, { limits: { work: 1 }, onMessage: { '*': handler } })
  const one = await join(t, `${url}/rooms/a`)
  one.send({ type: 'message', data: 1 })
  await until(() => doors.length === 1)
  await one.close()
  await until(() => rooms.stats().connections === 0)
  t.equal(rooms.stats().working, 1)
  doors[0]!(true)
  await until(() => rooms.stats().working === 0)
  t.match(await (await join(t, `${url}/rooms/a`)).ask({ type: 'message', data: 'sync' }), { ok: true })
})

t.test('each pause of reading is counted', async t => {
  const { doors, handler } = workshop()
  let open = (): void => {}
  const { rooms, url } = await serve(t, {
    limits: { pending: 3 },
    onMessage: { '*': handler },
    onJoin: session => session.topic === 'fast' || new Promise<void>(resolve => { open = resolve })
  })
  const client = await join(t, `${url}/rooms/fast`)
  for (let n = 0; n < 2; n++) client.send({ type: 'message', data: n })
  await until(() => rooms.stats().received === 2)
  t.equal(rooms.stats().paused, 0)
  client.send({ type: 'message', data: 2 })
  await until(() => rooms.stats().paused === 1)
  for (let n = 0; n < 3; n++) {
    await until(() => doors.length > n)
    doors[n]!(true)
  }
  await until(() => rooms.stats().working === 0)
  const early = await connect(t, `${url}/rooms/slow`)
  for (let n = 0; n < 5; n++) early.send({ type: 'ping', ref: n })
  await until(() => rooms.stats().paused === 2)
  open()
  for (let n = 0; n < 5; n++) t.match(await early.next('ack'), { ref: n, ok: true })
  t.equal(rooms.stats().paused, 2)
})

t.test('a topic whose name exceeds limits.topicLength does not exist for clients or code', async t => {
  const { app, rooms, url } = await serve(t, { limits: { topicLength: 8 } })
  t.ok(rooms.has('12345678'))
  t.notOk(rooms.has('123456789'))
  t.match(await rooms.broadcast('12345678', 1), { local: 0 })
  await t.rejects(rooms.broadcast('123456789', 1), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  await join(t, `${url}/rooms/12345678`)
  await t.rejects(connect(t, `${url}/rooms/123456789`), /400/)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/12345678', payload: {} })).statusCode, 200)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/123456789', payload: {} })).statusCode, 400)
  await until(() => rooms.stats().refusals.badRequest === 2)
})

t.test('limits.topicLength counts the whole name, and declared names have to fit', async t => {
  const { app, rooms, url } = await serve(t, { limits: { topicLength: 8 }, topics: { 'chat:*': {}, 12345678: {} } })
  await join(t, `${url}/rooms/chat:123`)
  await join(t, `${url}/rooms/12345678`)
  for (const path of ['chat:1234', 'chat%3A1234']) t.equal((await app.inject(`/rooms/${path}`)).statusCode, 400, path)
  t.notOk(rooms.has('chat:1234'))
  for (const key of ['123456789', '12345678*']) {
    await t.rejects(createRooms(t, { limits: { topicLength: 8 }, topics: { [key]: {} } }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: /at most 8 characters/ }, key)
  }
  await t.rejects(createRooms(t, { limits: { topicLength: 256 } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /limits.topicLength.*1 to 255/ })
})
