import t, { type Test } from 'tap'
import { connect, createRooms, join, listen, until, type AnyOptions, type Client } from './helpers/app.ts'
import { joinMute } from './helpers/wire.ts'

const turn = () => new Promise(resolve => setImmediate(resolve))
const fill = 'x'.repeat(200_000)

async function serve (t: Test, options: AnyOptions = {}) {
  const left: any[] = []
  const app = await createRooms(t, { onLeave: (session, reason) => { left.push([session.id, reason]) }, ...options })
  return { rooms: app.rooms as any, url: await listen(app), left }
}

const dataOf = (client: Client): any[] => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data.n)

/** Broadcasts until a member that has stopped reading falls behind; returns the number of messages. */
async function untilBehind (rooms: any, topic: string, key?: string): Promise<number> {
  let sent = 0
  while (rooms.stats().lagging === 0 && sent < 500) {
    await rooms.broadcast(topic, { n: sent++, fill }, { key })
    await turn()
  }
  return sent
}

t.test('drop: a member that stops reading gets no messages; when it reads again a gap frame tells the number of dropped ones, and it goes on', async t => {
  const { rooms, url, left } = await serve(t, { topics: { news: { slow: { policy: 'drop', bytes: 100_000 } } } })
  const slow = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  let sent = await untilBehind(rooms, 'news')
  t.match(rooms.stats(), { lagging: 1, members: 2, slow: 0 })
  const { queuedBytes } = rooms.stats()
  for (let n = 0; n < 100; n++) t.equal((await rooms.broadcast('news', { n: sent++, fill })).local, 1)
  await until(() => dataOf(other).length === sent)
  t.ok(rooms.stats().queuedBytes <= queuedBytes, 'buffered bytes do not grow with twenty further megabytes')
  t.equal((await rooms.members('news')).length, 2, 'the session is still a member')
  slow.socket.resume()
  await until(() => rooms.stats().lagging === 0)
  const { id } = await rooms.broadcast('news', { n: sent++ })
  await until(() => dataOf(slow).at(-1) === sent - 1)
  const frames = slow.received.map(text => JSON.parse(text)).filter(({ type }) => type !== 'hello')
  const gap = frames.findIndex(({ type }) => type === 'gap')
  t.equal(gap, frames.length - 2, 'one gap before the last message')
  t.match(frames[gap], { type: 'gap', count: sent - frames.length + 1, reason: 'slow', from: frames[gap - 1].id })
  const [epoch, offset] = id.split('-')
  t.equal(frames[gap].to, `${epoch}-${offset - 1}`)
  t.same(dataOf(slow).slice(0, -1), [...Array(gap).keys()], 'earlier messages have no gap')
  t.equal(rooms.stats().dropped, frames[gap].count)
  t.equal(rooms.stats().deliveries, dataOf(slow).length + dataOf(other).length, 'dropped messages were not delivered')
  t.same(dataOf(other), [...Array(sent).keys()])
  t.same(left, [])
})

t.test('latest: a dashboard that stops reading gets the latest value of each key when it reads again', async t => {
  const { rooms, url } = await serve(t, { topics: { 'sensor:*': { slow: { policy: 'latest', bytes: 500_000 } } } })
  const slow = await join(t, `${url}/rooms/sensor:1`)
  const other = await join(t, `${url}/rooms/sensor:1`)
  slow.socket.pause()
  let sent = await untilBehind(rooms, 'sensor:1', 'big')
  for (let n = 0; n < 300; n++) await rooms.broadcast('sensor:1', { n: sent++ }, { key: `k${n % 3}` })
  await until(() => dataOf(other).length === sent)
  slow.socket.resume()
  await until(() => rooms.stats().lagging === 0)
  await until(() => dataOf(slow).at(-1) === sent - 1)
  const frames = slow.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message')
  t.match(frames.slice(-4), [{ key: 'big' }, { key: 'k0', data: { n: sent - 3 } }, { key: 'k1', data: { n: sent - 2 } }, { key: 'k2', data: { n: sent - 1 } }])
  t.notOk(slow.received.some(text => text.includes('"gap"')), 'no gap, because missing messages were replaced')
  const got = dataOf(slow)
  t.same(got, [...got].sort((a, b) => a - b), 'in order')
  t.equal(rooms.stats().conflated, sent - got.length)
  t.equal(rooms.stats().deliveries, sent + got.length)
})

t.test('a slow member with the policy close is closed, others follow their own policy', async t => {
  const { rooms, url, left } = await serve(t, {
    topics: { log: {}, view: { slow: { policy: 'drop' } }, asked: { slow: { bytes: 50_000 } } },
    slow: { policy: session => session.topic === 'asked' ? 'drop' : 'close', bytes: 100_000 }
  })
  const clients = await Promise.all(['log', 'view', 'asked'].map(topic => join(t, `${url}/rooms/${topic}`)))
  for (const { socket } of clients) socket.pause()
  for (let n = 0; n < 500 && (rooms.stats().slow === 0 || rooms.stats().lagging < 2); n++) {
    for (const topic of ['log', 'view', 'asked']) await rooms.broadcast(topic, fill)
    await turn()
  }
  t.match(rooms.stats(), { slow: 1, lagging: 2, members: 2 })
  t.same(left, [[clients[0]!.hello.session, { code: 4201, reason: 'slow' }]])
  const [log] = clients
  log!.socket.resume()
  t.same(await log!.closed, { code: 4201, reason: 'slow' })
})

t.test('private messages reach a slow member in order, and close it if they exceed the bound', async t => {
  const { rooms, url, left } = await serve(t, { topics: { news: { slow: { policy: 'drop', bytes: 1_000_000 } } } })
  const slow = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  await untilBehind(rooms, 'news')
  const { session } = slow.hello
  for (let n = 0; n < 10; n++) rooms.send(session, n)
  slow.socket.resume()
  await until(() => rooms.stats().lagging === 0)
  const directs = () => slow.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'direct').map(({ data }) => data)
  await until(() => directs().length === 10)
  t.same(directs(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])

  slow.socket.pause()
  await untilBehind(rooms, 'news')
  let refused: any
  for (let n = 0; n < 100 && refused === undefined; n++) {
    rooms.send(session, fill).catch((error: any) => { refused = error })
    await turn()
  }
  t.match(refused, { code: 'FST_ROOMS_SESSION_CLOSED' })
  t.same(left, [[session, { code: 4201, reason: 'slow' }]])
  await t.rejects(rooms.send(session, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
})

t.test('a private message to a member that does not read tells how many sessions were reached', async t => {
  const { rooms, url } = await serve(t, { slow: { bytes: 100_000 }, limits: { payload: 300_000 }, identify: request => request.headers['x-user'] === undefined ? null : { user: String(request.headers['x-user']) } })
  const writer = await join(t, `${url}/rooms/news`)
  const headers = { 'x-user': 'anna' }
  const mute = await join(t, `${url}/rooms/news`, { headers })
  mute.socket.pause()
  let ack: any
  for (let n = 0; n < 500; n++) {
    ack = await writer.ask({ type: 'direct', to: mute.hello.session, data: fill })
    if (ack.ok !== true) break
  }
  t.match(ack, { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_SESSION' } })
  t.equal(rooms.stats().slow, 1)

  const both = [await join(t, `${url}/rooms/news`, { headers }), await join(t, `${url}/rooms/news`, { headers })]
  both[0]!.socket.pause()
  for (let n = 0; n < 500; n++) {
    ack = await writer.ask({ type: 'direct', to: 'user:anna', data: fill })
    if (ack.data?.local !== 2) break
  }
  t.match(ack, { ok: true, data: { local: 1 } })
})

t.test('small private frames cost more memory than their bytes and count for more, so that a member that pings and does not read is closed soon', async t => {
  const { rooms, url, left } = await serve(t, { limits: { messages: 1_000_000 }, slow: { bytes: 400_000 }, heartbeat: false })
  const peer = await joinMute(t, `${url}/rooms/news`)
  peer.socket.pause()
  // Bytes in the kernel do not count.
  for (let n = 0; n < 500 && rooms.stats().queuedBytes === 0; n++) {
    await rooms.broadcast('news', 'x'.repeat(100_000))
    await turn()
  }
  const { received } = rooms.stats()
  for (let n = 0; n < 200 && left.length === 0; n++) {
    for (let m = 0; m < 50; m++) peer.send(1, '{"type":"ping","ref":1}')
    await until(() => left.length > 0 || rooms.stats().received - received >= (n + 1) * 50)
  }
  t.match(left, [[String, { code: 4201, reason: 'slow' }]])
  const pings = rooms.stats().received - received
  t.ok(pings > 300 && pings < 1_000, `${pings} acks of 30 bytes`)
})

t.test('bye of a slow member has no position, because the member has not received up to the room\'s position', async t => {
  const { rooms, url } = await serve(t, { topics: { news: { slow: { policy: 'drop', bytes: 100_000 } } } })
  const slow = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  await untilBehind(rooms, 'news')
  await rooms.kick({ topic: 'news' })
  slow.socket.resume()
  await Promise.all([slow.closed, other.closed])
  t.match(JSON.parse(other.received.at(-1)!), { type: 'bye', code: 4005, id: String })
  const bye = JSON.parse(slow.received.at(-1)!)
  t.match(bye, { type: 'bye', code: 4005 })
  t.equal(bye.id, undefined)
})

t.test('a slow member that does not read its close frame is terminated after 5 s, and other members are not delayed', async t => {
  const { rooms, url } = await serve(t, { slow: { bytes: 100_000 } })
  const mute = await joinMute(t, `${url}/rooms/news`)
  mute.socket.pause()
  const other = await join(t, `${url}/rooms/news`)
  for (let n = 0; n < 500 && rooms.stats().slow === 0; n++) {
    await rooms.broadcast('news', { n, fill })
    await turn()
  }
  t.match(rooms.stats(), { slow: 1, connections: 2, members: 1 })
  const since = Date.now()
  t.match(await other.ask({ type: 'ping' }), { ok: true })
  await until(() => rooms.stats().connections === 1)
  t.ok(Date.now() - since > 4_000, 'the member had its time')
  t.equal(rooms.stats().queuedBytes, 0, 'the buffered bytes are freed')
})

t.test('a peer that reads slowly is not silent: its pong waits behind the bytes that it has to read', async t => {
  const { rooms, url, left } = await serve(t, { heartbeat: { interval: 100, timeout: 300 }, topics: { news: { slow: { policy: 'drop', bytes: 30_000_000 } } } })
  const peer = await joinMute(t, `${url}/rooms/news`)
  peer.socket.pause()
  // One batch takes the peer seconds. Meanwhile it answers no ping, but keeps reading.
  for (let n = 0; n < 150; n++) rooms.broadcast('news', fill)
  await turn()
  t.ok(rooms.stats().queuedBytes > 10_000_000)
  const reading = setInterval(() => {
    peer.socket.resume()
    setImmediate(() => { peer.socket.pause() })
  }, 50)
  t.teardown(() => { clearInterval(reading) })
  const started = Date.now()
  await until(() => left.length > 0 || rooms.stats().queuedBytes === 0, 30_000)
  t.same(left, [])
  t.ok(Date.now() - started > 400, 'reading took longer than the silence limit')
  clearInterval(reading)
  await until(() => left.length === 1, 30_000)
  t.match(left, [[String, { code: 4203 }]], 'a peer that stops reading is silent')
})

t.test('messages of onJoin belong to one turn, and so do the buffered bytes of the 101 response before them', async t => {
  const { rooms, url } = await serve(t, { slow: { bytes: 100_000 }, onJoin: session => { for (let n = 0; n < 5; n++) session.send(fill) } })
  const client = await join(t, `${url}/rooms/news`)
  await until(() => client.received.filter(text => text.includes('"direct"')).length === 5)
  t.match(rooms.stats(), { slow: 0, members: 1, joined: 1 })
})

t.test('a request to a member that does not read closes it, and rejects', async t => {
  const { rooms, url, left } = await serve(t, { topics: { news: { slow: { policy: 'drop', bytes: 100_000 } } } })
  const slow = await join(t, `${url}/rooms/news`)
  slow.socket.pause()
  await untilBehind(rooms, 'news')
  await t.rejects(rooms.ask(slow.hello.session, fill), { code: 'FST_ROOMS_SESSION_CLOSED' })
  t.same(left, [[slow.hello.session, { code: 4201, reason: 'slow' }]])
  t.equal(rooms.stats().slow, 1)
})

t.test('a member that stops reading among many delays no other member, and uses constant memory', async t => {
  const { rooms, url } = await serve(t, { topics: { news: { slow: { policy: 'drop', bytes: 100_000 } } }, heartbeat: false })
  const mute = await joinMute(t, `${url}/rooms/news`)
  mute.socket.pause()
  const others = await Promise.all(Array.from({ length: 50 }, () => join(t, `${url}/rooms/news`)))
  let sent = await untilBehind(rooms, 'news')
  const { queuedBytes } = rooms.stats()
  for (let round = 0; round < 5; round++) {
    for (let n = 0; n < 20; n++) await rooms.broadcast('news', { n: sent++, fill: 'x'.repeat(1_000) })
    await turn()
  }
  await until(() => others.every(client => dataOf(client).length === sent), 30_000)
  for (const client of others) t.same(dataOf(client), [...Array(sent).keys()])
  t.ok(rooms.stats().queuedBytes <= queuedBytes)
})

t.test('a key accompanies a message: from code, with the response, from a member, and in onMessage', async t => {
  const keys: unknown[] = []
  const asked: unknown[] = []
  const app = await createRooms(t, {
    authorize: context => {
      if (context.action === 'publish') asked.push(context.key)
      return true
    },
    topics: { plain: { publish: true }, told: { publish: true } },
    onMessage: { told: async (session, payload, { key }) => { keys.push(key); await session.rooms.broadcast('told', payload, { key }) } }
  } as AnyOptions)
  app.post('/later', async request => { request.rooms.broadcast('plain' as never, 3 as never, { key: 'r' }); return {} })
  const url = await listen(app)
  const rooms = app.rooms as any
  const [plain, told, raw] = [await join(t, `${url}/rooms/plain`), await join(t, `${url}/rooms/told`), await connect(t, `${url}/rooms/plain`, 'rooms.raw')]
  await until(async () => await rooms.count('plain') === 2)
  await rooms.broadcast('plain', 1, { key: 'a"b' })
  t.match(await plain.next('message'), { data: 1, key: 'a"b' })
  plain.send({ type: 'message', data: 2, key: 'm' })
  t.match(await plain.next('message'), { data: 2, key: 'm', from: plain.hello.session })
  await fetch(`http://${url}/later`, { method: 'POST' })
  t.match(await plain.next('message'), { data: 3, key: 'r' })
  await rooms.broadcast('plain', 4)
  t.notOk('key' in await plain.next('message'))
  t.same([await raw.text(), await raw.text(), await raw.text(), await raw.text()], ['1', '2', '3', '4'])
  told.send({ type: 'message', data: 1, key: 'x' })
  t.match(await told.next('message'), { data: 1, key: 'x' })
  told.send({ type: 'message', data: 2 })
  t.notOk('key' in await told.next('message'))
  t.same(keys, ['x', undefined])
  t.same(asked, ['m', 'x', undefined], 'authorize can decide about a key')
  for (const key of ['', 'x'.repeat(256), 1, null]) {
    await t.rejects(rooms.broadcast('plain', 1, { key }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"?key"? .*a string of 1 to 255 characters/ })
    t.match(await plain.ask({ type: 'message', data: 1, key }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /"key" is a string of 1 to 255 characters/ } })
  }
  t.match(await plain.ask({ type: 'message', data: 1, key: 'x'.repeat(255) }), { ok: true })
})
