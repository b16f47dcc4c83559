import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, refused, until, type AnyOptions, type Client } from './helpers/app.ts'
import { joinMute } from './helpers/wire.ts'

/** Milliseconds that suffice on any machine; no test takes as long. */
const soon = 20_000

async function serve (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { heartbeat: false, ...options })
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

async function crowd (t: Test, url: string, count: number, topic = 'news'): Promise<Client[]> {
  return Promise.all(Array.from({ length: count }, () => join(t, `${url}/rooms/${topic}`)))
}

const frames = (client: Client, type: string): any[] => client.received.map(text => JSON.parse(text)).filter(frame => frame.type === type)

t.test('members are drained in batches with individual retry ranges; remaining members still get broadcasts', async t => {
  const { rooms, url } = await serve(t, { drain: { timeout: 9_000, batch: 10, interval: 200 } })
  const clients = await crowd(t, url, 40)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await rooms.count('news') === 41)
  await rooms.broadcast('news', 'before')
  const drained = rooms.drain()
  await until(async () => await rooms.count('news') === 31)
  t.match(await rooms.broadcast('news', 'meanwhile'), { local: 31, published: true })
  t.match(await refused(`${url}/rooms/news`), { status: 503, body: { code: 'FST_ROOMS_DRAINING' } })
  await drained
  t.equal(await rooms.count('news'), 0)

  const ends = await Promise.all(clients.map(({ closed }) => closed))
  for (const end of ends) t.same(end, { code: 1001, reason: 'going_away' })
  const seen = clients.map(client => frames(client, 'message').map(({ data }) => data).join())
  t.equal(seen.filter(data => data === 'before').length, 10)
  t.equal(seen.filter(data => data === 'before,meanwhile').length, 30)
  t.same(raw.received, ['before', 'meanwhile'])
  t.match(await raw.closed, { code: 1001 })

  const byes = clients.map(client => {
    const [bye, ...others] = frames(client, 'bye')
    t.same(others, [])
    t.equal(client.received.at(-1), JSON.stringify(bye), 'bye is the last frame')
    t.equal(bye.id, frames(client, 'message').at(-1).id)
    return bye
  })
  for (const { code, retry: { min, max } } of byes) t.ok(code === 1001 && Number.isInteger(min) && min >= 100 && min <= 400 && max === 1_000, `${min} to ${max}`)
  t.ok(new Set(byes.map(({ retry }) => retry.min)).size > 20, 'retry ranges differ, so that members do not reconnect all at once')
})

t.test('issue 8: drain.retry bounds the time of reconnects', async t => {
  const { rooms, url } = await serve(t, { drain: { retry: { min: 2_000, max: 2_500 } } })
  const clients = await crowd(t, url, 3)
  await rooms.drain()
  for (const client of clients) {
    await client.closed
    const [{ retry: { min, max } }] = frames(client, 'bye')
    t.ok(min >= 2_000 && min < 2_200, String(min))
    t.equal(max, 2_500)
  }
})

t.test('a drain.retry with a min above its max is refused', async t => {
  for (const [retry, got] of [[{ min: 2_000, max: 1_000 }, 'min 2000 and max 1000'], [{ max: 50 }, 'min 100 and max 50'], [{ min: 20_000 }, 'min 20000 and max 15000']] as const) {
    await t.rejects(createRooms(t, { drain: { retry } }), { code: 'FST_ROOMS_INVALID_OPTION', message: `option "drain.retry" takes a "min" that is not above "max"; got ${got}` })
  }
  await createRooms(t, { drain: { retry: { min: 0, max: 0 } } })
})

t.test('a close of the host with 1001 is not a drain, and gives the same retry range to all members', async t => {
  const { rooms, url } = await serve(t)
  const clients = await crowd(t, url, 3)
  await rooms.kick({ topic: 'news' }, { code: 1001 })
  for (const client of clients) {
    await client.closed
    t.match(frames(client, 'bye'), [{ retry: { min: 500, max: 15_000 } }])
  }
})

t.test('two drains and app.close share one bye and one timeout', async t => {
  const left: unknown[] = []
  const { app, rooms, url } = await serve(t, { drain: { timeout: 2_000, batch: 2, interval: 20 }, onLeave: (_session, { code }) => { left.push(code) } })
  const clients = await crowd(t, url, 8)
  const mute = await joinMute(t, `${url}/rooms/news`)
  await until(async () => await rooms.count('news') === 9)
  const order: string[] = []
  const began = performance.now()
  const drains = [rooms.drain().then(() => { order.push('first') }), rooms.drain().then(() => { order.push('second') })]
  await until(async () => await rooms.count('news') < 9)
  drains.push(app.close().then(() => { order.push('close') }))
  await Promise.all(drains)
  t.ok(performance.now() - began >= 1_900, 'the mute member had its time')
  t.same(order.sort(), ['close', 'first', 'second'])
  for (const client of clients) {
    t.match(await client.closed, { code: 1001 })
    t.equal(frames(client, 'bye').length, 1)
  }
  t.equal(mute.text().split('"bye"').length, 2)
  t.same(left, Array(9).fill(1001))
  t.match(rooms.stats(), { connections: 0, members: 0, topics: 0 })
})

t.test('if the batches do not fit into the timeout, every member still gets bye', async t => {
  const { app, url } = await serve(t, { drain: { timeout: 600, batch: 1, interval: 200 } })
  const clients = await crowd(t, url, 30)
  let over = false
  const closing = app.close().then(() => { over = true })
  await until(() => over, soon)
  await closing
  for (const client of clients) {
    t.match(await client.closed, { code: 1001 })
    t.equal(frames(client, 'bye').length, 1)
  }
})

t.test('a message of onLeave reaches the remaining members, and a broadcast of a handler in flight resolves', async t => {
  const app = await createRooms(t, { heartbeat: false, drain: { timeout: 9_000, batch: 1, interval: 50 }, onLeave: session => session.rooms.broadcast('news', 'somebody left') })
  let finish = (): void => {}
  app.get('/slow', async () => {
    await new Promise<void>(resolve => { finish = resolve })
    return (app.rooms as any).broadcast('news', 'late')
  })
  const url = await listen(app)
  const started = finish
  const answer = fetch(`http://${url}/slow`)
  await until(() => finish !== started, soon)
  const clients = await crowd(t, url, 3)
  const closing = app.close()
  await Promise.all(clients.map(({ closed }) => closed))
  finish()
  t.match(await (await answer).json(), { local: 0, published: true })
  await closing
  t.same(clients.map(client => frames(client, 'message').length).sort(), [0, 1, 2])
})

t.test('members of many rooms, joining and raw ones included, are drained in the same batches', async t => {
  const { rooms, url } = await serve(t, {
    drain: { timeout: 9_000, batch: 3, interval: 10 },
    onJoin: session => session.topic === 'never' ? new Promise(() => {}) : undefined
  })
  const joined = (await Promise.all(['a', 'b', 'c', 'd'].map(topic => crowd(t, url, 2, topic)))).flat()
  const joining = await connect(t, `${url}/rooms/never`)
  await until(() => rooms.stats().connections === 9)
  await Promise.all(['a', 'b', 'c', 'd'].map(topic => rooms.broadcast(topic, topic)))
  await rooms.drain()
  for (const client of joined) {
    t.match(await client.closed, { code: 1001 })
    t.match(client.received.slice(-2).map(text => JSON.parse(text)), [{ type: 'message' }, { type: 'bye' }])
  }
  t.match(await joining.closed, { code: 1001 })
  t.match(frames(joining, 'bye'), [{ code: 1001, retry: { min: Number, max: 1_000 } }])
  t.match(rooms.stats(), { connections: 0, topics: 0 })
})

t.test('a mute member with an unfinished message is gone after the drain, and app.close has nothing left to wait for', async t => {
  let left = 0
  const { app, rooms, url } = await serve(t, { drain: { timeout: 400 }, onMessage: { '*': () => new Promise(() => {}) }, onLeave: () => { left++ } })
  const mute = await joinMute(t, `${url}/rooms/news`)
  mute.send(1, '{"type":"message","data":1}')
  await until(() => rooms.stats().working === 1)
  mute.socket.pause()
  await rooms.drain()
  t.match(rooms.stats(), { connections: 0, members: 0, topics: 0 })
  t.equal(left, 1)
  await app.close()
})

t.test('messages of members that left or were ended are handled before app.close resolves', async t => {
  const seen: unknown[] = []
  const finish = new Map<string, () => void>()
  const { app, rooms, url } = await serve(t, {
    drain: { timeout: 9_900 },
    identify: request => ({ user: request.headers['x-user'] as string }),
    onMessage: {
      '*': async (session, payload) => {
        if (payload === 'go') session.close()
        await new Promise<void>(resolve => { finish.set(session.user, resolve) })
        const { published } = await session.rooms.broadcast('audit', payload)
        seen.push([session.user, published])
      }
    },
    onLeave: session => { seen.push(session.user) }
  })
  const users = ['goes', 'kicked', 'ends']
  for (const user of users) {
    const client = await join(t, `${url}/rooms/news`, { headers: { 'x-user': user } })
    client.send({ type: 'message', data: user === 'ends' ? 'go' : 1 })
    await until(() => finish.has(user))
    if (user === 'goes') client.socket.close()
    if (user === 'kicked') await rooms.kick({ user })
    await client.closed
  }
  await until(() => rooms.stats().connections === 0)
  let over = false
  const closing = app.close().then(() => { over = true })
  await until(() => rooms.health().state === 'draining')
  await new Promise(resolve => setTimeout(resolve, 50))
  t.notOk(over)
  for (const user of users) finish.get(user)!()
  await closing
  t.same(seen.filter(entry => Array.isArray(entry)), users.map(user => [user, true]))
  t.same(seen.filter(entry => !Array.isArray(entry)).sort(), [...users].sort())
})
