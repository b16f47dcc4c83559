import t, { type Test } from 'tap'
import type { FastifyServerOptions } from 'fastify'
import { drawFor } from '../lib/connection/frame-rate.ts'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, join, listen, until, type AnyOptions, type Client } from './helpers/app.ts'
import { clientFrame, joinMute } from './helpers/wire.ts'

const limited = { code: 4101, reason: 'rate_limited' }
/** A period in which nothing is refilled within a test. */
const long = 600_000

async function serve (t: Test, options: AnyOptions = {}, server: FastifyServerOptions = {}) {
  const app = createApp(t, server)
  await app.register(fastifyRooms as any, { prefix: '/rooms', ...options })
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

const from = (address: string): { headers: Record<string, string> } => ({ headers: { 'x-forwarded-for': address } })
const refusedFrame = { error: { code: 'FST_ROOMS_RATE_LIMITED', message: /too fast: more than/ } }

/** Sends pings until one is refused; returns how many were served. */
async function served (client: Client): Promise<number> {
  for (let count = 0; ; count++) {
    if (!(await client.ask({ type: 'ping' })).ok) return count
  }
}

t.test('limits.messages frames of a member are served at once; one more is refused with its ref, no other frame is lost, and other members go on', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 5, per: long } })
  const other = await join(t, `${url}/rooms/news`)
  const client = await join(t, `${url}/rooms/news`)
  for (let n = 0; n < 5; n++) client.send({ type: 'message', data: n, ref: n })
  client.send({ type: 'message', data: 5, ref: 5 })
  client.send({ type: 'message', data: 6 })
  for (let n = 0; n < 5; n++) t.match(await client.next('ack'), { ref: n, ok: true })
  t.match(await client.next('ack'), { ref: 5, ok: false, ...refusedFrame })
  t.match(await client.next('error'), refusedFrame)
  for (let n = 0; n < 5; n++) t.match(await other.next('message'), { data: n })
  t.match(await other.ask({ type: 'message', data: 'mine' }), { ok: true })
  t.match(await client.next('message'), { data: 'mine' }, 'the session is still a member')
  t.match(rooms.stats(), { members: 2, invalid: 0, refusals: { messages: 2, addressMessages: 0 } })
})

t.test('each kind of frame counts, bad ones as well, and onInvalid is not called for refused frames', async t => {
  let asked = 0
  const { rooms, url } = await serve(t, { limits: { messages: 8, per: long, payload: 100 }, onInvalid: () => { asked++; return 'answer' } })
  const client = await join(t, `${url}/rooms/news`)
  const frames: unknown[] = [
    { type: 'message', data: 1 }, { type: 'direct', to: 'nobody', data: 1 }, { type: 'presence' }, { type: 'ping' }, { type: 'ack', ref: 's1' },
    { type: 'auth', token: 'x' }, { type: 'dance' }, 'no JSON'
  ]
  for (const frame of frames) client.send(frame)
  t.match(await client.ask({ type: 'ping' }), { ok: false, ...refusedFrame })
  t.equal(asked, 2, 'onInvalid was called twice before the refusal')
  for (const frame of ['no JSON', 'x'.repeat(101), Buffer.from('{}')]) {
    client.received.length = 0
    client.socket.send(frame, { binary: typeof frame !== 'string' })
  }
  client.send({ type: 'dance', ref: 'd' })
  client.send({ type: 'ack', ref: 's2' })
  await until(() => rooms.stats().refusals.messages === 6)
  t.equal(asked, 2)
  t.match(rooms.stats(), { invalid: 2, members: 1 })
})

t.test('a refused frame with a ref is answered with that ref', async t => {
  const { url } = await serve(t, { limits: { messages: 1, per: long, payload: 100 }, topics: { news: { publish: true, limits: { messages: 9 } } } })
  const client = await join(t, `${url}/rooms/news`)
  for (let n = 0; n < 9; n++) client.send({ type: 'ping' })
  client.send({ type: 'dance', ref: 'unknown' })
  t.match(await client.next(), { type: 'ack', ref: 'unknown', ok: false, ...refusedFrame })
  for (const frame of [{ type: 'ack', ref: 's1' }, 'no JSON', '{"__proto__":1,"ref":1}', JSON.stringify({ type: 'ping', ref: 'large', fill: 'x'.repeat(100) }), Buffer.from('{"type":"ping","ref":1}')]) {
    client.socket.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
    t.match(await client.next(), { type: 'error', ...refusedFrame }, String(frame))
  }
})

t.test('a member that keeps sending is closed with 4101 after as many refusals as the limit', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 3, per: long } })
  const client = await join(t, `${url}/rooms/news`)
  for (let n = 0; n < 7; n++) client.send({ type: 'ping', ref: n })
  t.same(await client.closed, limited)
  const frames = client.received.map(text => JSON.parse(text)).filter(({ type }) => type !== 'presence')
  t.match(frames.slice(1), [...[0, 1, 2].map(ref => ({ ref, ok: true })), ...[3, 4, 5].map(ref => ({ ref, ok: false })), { type: 'bye', code: 4101, retry: { min: 1_000 } }])
  t.equal(frames.length, 8)
  t.match(rooms.stats().refusals, { messages: 4 })
})

t.test('a member that pauses is served again', async t => {
  const { url } = await serve(t, { limits: { messages: 4, per: 200 } })
  const client = await join(t, `${url}/rooms/news`)
  t.ok(await served(client) >= 4)
  await new Promise(resolve => setTimeout(resolve, 400))
  t.match(await client.ask({ type: 'ping' }), { ok: true })
})

t.test('a raw member is closed at once', async t => {
  const { url } = await serve(t, { limits: { messages: 2, per: long } })
  const other = await join(t, `${url}/rooms/news`)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => (await other.next('presence')).count === 2)
  for (const data of [1, 2, 3]) raw.send(String(data))
  t.same(await raw.closed, limited)
  for (const data of [1, 2]) t.match(await other.next('message'), { data })
})

t.test('a topic may override the limits, wholly or in part', async t => {
  const { url } = await serve(t, {
    limits: { messages: 4, per: long },
    topics: { few: { limits: { messages: 2 } }, many: { limits: { messages: 9, per: long } }, fast: { limits: { per: 200 } }, plain: {} }
  })
  for (const [topic, count] of [['few', 2], ['many', 9], ['plain', 4]] as const) t.equal(await served(await join(t, `${url}/rooms/${topic}`)), count, topic)
  const [fast, plain] = [await join(t, `${url}/rooms/fast`), await join(t, `${url}/rooms/plain`)]
  t.ok(await served(fast) >= 4)
  await served(plain)
  await new Promise(resolve => setTimeout(resolve, 400))
  t.match(await fast.ask({ type: 'ping' }), { ok: true })
  t.match(await plain.ask({ type: 'ping' }), { ok: false })
})

t.test('over limits.addressMessages members of one address are refused together, and other addresses are not', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 4, per: long, addressMessages: 6 } }, { trustProxy: true })
  const [one, two, other] = [await join(t, `${url}/rooms/a`, from('203.0.113.1')), await join(t, `${url}/rooms/b`, from('203.0.113.1')), await join(t, `${url}/rooms/a`, from('203.0.113.2'))]
  for (let n = 0; n < 4; n++) t.match(await one.ask({ type: 'ping' }), { ok: true })
  t.equal(await served(two), 2)
  t.match(await two.ask({ type: 'ping' }), { ok: false, error: { code: 'FST_ROOMS_RATE_LIMITED', message: 'too fast: more than 6 frames in 600000 ms from this address' } })
  t.match(rooms.stats().refusals, { messages: 0, addressMessages: 2 })
  t.equal(await served(other), 4)
  await two.close()
  const back = await join(t, `${url}/rooms/b`, from('203.0.113.1'))
  t.match(await back.ask({ type: 'ping' }), { ok: false }, 'a reconnect does not reset the limit')
  for (let n = 0; n < 4; n++) back.send({ type: 'ping' })
  t.same(await back.closed, limited)
  t.match(await one.ask({ type: 'message', data: 1 }), { ok: false }, 'a first refused frame is answered, and the member stays')
  one.send({ type: 'ping' })
  t.same(await one.closed, limited)
})

t.test('by default an address may send as much as ten busy members, and this machine has no limit', async t => {
  const { url } = await serve(t, { limits: { messages: 1, per: long }, topics: { plain: {}, busy: { limits: { messages: 2, per: long } } } }, { trustProxy: true })
  const spent = async (address: string | undefined): Promise<number> => {
    let count = 0
    for (let n = 0; n < 12; n++) count += await served(await join(t, `${url}/rooms/busy`, address === undefined ? {} : from(address)))
    return count
  }
  t.equal(await spent('203.0.113.1'), 14, 'six of twenty frames are refused by the limit of the address')
  t.equal(await spent(undefined), 24)
  const given = await serve(t, { limits: { messages: 2, per: long, addressMessages: 3 } })
  t.equal(await served(await join(t, `${given.url}/rooms/a`)), 2)
  t.equal(await served(await join(t, `${given.url}/rooms/a`)), 0, 'a given limit also applies to this machine')
})

t.test('a topic\'s burst fits into the limit of the address, even with a slow refill', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 1, per: 1_000 }, topics: { quota: { limits: { messages: 50, per: 3_600_000 } } } }, { trustProxy: '127.0.0.1' })
  const client = await join(t, `${url}/rooms/quota`, from('203.0.113.1'))
  t.equal(await served(client), 50)
  t.match(rooms.stats().refusals, { messages: 1, addressMessages: 0 })
})

t.test('pings and pongs of the WebSocket count; excess ones are not answered, and a peer that continues is closed', async t => {
  for (const opcode of [9, 10]) {
    const { rooms, url } = await serve(t, { limits: { messages: 5, per: long } })
    const peer = await joinMute(t, `${url}/rooms/news`)
    await until(() => rooms.stats().members === 1)
    for (let n = 0; n < 10; n++) peer.send(opcode, '')
    peer.send(1, '{"type":"message","data":1,"ref":1}')
    await until(() => peer.text().includes('"bye"'))
    t.match(peer.text(), '"code":4101')
    t.notMatch(peer.text(), '"error"', 'the message was the frame over the limit')
    t.match(rooms.stats(), { members: 0, received: 1, refusals: { messages: 1 } })

    const second = await joinMute(t, `${url}/rooms/news`)
    await until(() => rooms.stats().members === 1)
    for (let n = 0; n < 12; n++) second.send(opcode, '')
    await until(() => second.text().includes('"code":4101'))
    t.match(rooms.stats(), { members: 0, refused: 0, refusals: { messages: 2 } })
  }
})

t.test('a peer that pings without pause before hello is refused', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 2, per: long }, onJoin: () => new Promise(() => {}) })
  const peer = await joinMute(t, `${url}/rooms/news`)
  for (let n = 0; n < 5; n++) peer.send(9, '')
  await until(() => peer.text().includes('"code":4101'))
  await until(() => rooms.stats().refused === 1)
  t.match(rooms.stats().refusals, { messages: 1 })
})

t.test('the pong for a ping of the server does not count', async t => {
  const { url } = await serve(t, { limits: { messages: 1, per: long }, heartbeat: { interval: 100, timeout: 5_000 } })
  const client = await join(t, `${url}/rooms/news`)
  let pings = 0
  client.socket.on('ping', () => { pings++ })
  await until(() => pings >= 5)
  t.match(await client.ask({ type: 'ping' }), { ok: true })
})

t.test('one pong answers a ping of the server, and further ones count', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 5, per: long, handshake: 100_000 }, heartbeat: { interval: 1_000, timeout: 20_000 } })
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(() => peer.text().includes('\x89\x00'))
  // One write, so that the server checks nothing between the pongs.
  peer.socket.write(Buffer.concat(Array.from({ length: 12 }, () => clientFrame(10, ''))))
  await until(() => peer.text().includes('"code":4101'))
  t.match(rooms.stats(), { members: 0, refusals: { messages: 1 } })
})

t.test('frames that were held before hello are not refused', async t => {
  let open = (): void => {}
  const { rooms, url } = await serve(t, {
    limits: { messages: 2, per: 100, pending: 4 },
    onJoin: () => new Promise<void>(resolve => { open = resolve })
  })
  const client = await connect(t, `${url}/rooms/news`)
  await until(() => rooms.stats().connections === 1)
  for (let n = 0; n < 8; n++) {
    client.send({ type: 'ping', ref: n })
    await new Promise(resolve => setTimeout(resolve, 60))
  }
  open()
  for (let n = 0; n < 8; n++) t.match(await client.next('ack'), { ref: n, ok: true })
})

t.test('frames that were held while reading was paused are not refused, by member or by address', async t => {
  const doors: (() => void)[] = []
  const { url } = await serve(t, {
    limits: { messages: 4, per: 200, pending: 2, addressMessages: 4 },
    onMessage: { '*': (_session, n) => n === 0 ? new Promise<void>(resolve => { doors.push(resolve) }) : undefined }
  })
  const client = await join(t, `${url}/rooms/news`)
  for (let n = 0; n < 14; n++) {
    client.send({ type: 'message', data: n, ref: n })
    await new Promise(resolve => setTimeout(resolve, 60))
  }
  doors[0]!()
  for (let n = 0; n < 14; n++) t.match(await client.next('ack'), { ref: n, ok: true })
})

t.test('frames that were held during a stall of the server are not refused', async t => {
  const { rooms, url } = await serve(t, { limits: { messages: 5, per: 1_000, handshake: 1_000 }, heartbeat: false, onMessage: { '*': () => { const end = Date.now() + 3_000; while (Date.now() < end); } } })
  const client = await join(t, `${url}/rooms/news`)
  const other = await join(t, `${url}/rooms/news`)
  client.send({ type: 'message', data: 'stand still' })
  // The operating system buffers these during the stall.
  for (let n = 0; n < 12; n++) other.send({ type: 'ping', ref: n })
  for (let n = 0; n < 12; n++) t.match(await other.next('ack'), { ref: n, ok: true })
  t.equal(rooms.stats().refusals.messages, 0)
})

t.test('frames that arrive after all held frames are handled get no credit: after a pause, and after hello', async t => {
  const { url, rooms } = await serve(t, {
    limits: { messages: 10, per: 1_000, pending: 1, handshake: 100_000 },
    heartbeat: { interval: 400, timeout: 400 },
    onJoin: session => session.topic === 'slow' ? new Promise<void>(resolve => { setTimeout(resolve, 2_000) }) : undefined,
    onMessage: { '*': () => new Promise<void>(resolve => { setTimeout(resolve, 2_000) }) }
  })
  for (const topic of ['news', 'slow']) {
    const client = await connect(t, `${url}/rooms/${topic}`)
    client.send({ type: topic === 'news' ? 'message' : 'ping', ref: 'first', data: 1 })
    t.match(await client.next('ack'), { ref: 'first', ok: true })
    await new Promise(resolve => setTimeout(resolve, 1_000))
    const before = rooms.stats().refusals.messages
    for (let n = 0; n < 19; n++) client.send({ type: 'ping', ref: n })
    let count = 0
    for (let n = 0; n < 19; n++) if ((await client.next('ack')).ok) count++
    t.equal(rooms.stats().refusals.messages - before, 19 - count)
    t.ok(count < 16, `${count} of 19 frames are served at once; with two seconds of credit all would be`)
  }
})

t.test('one connection is in one topic: join and leave are not frames', async t => {
  const { url } = await serve(t)
  const client = await join(t, `${url}/rooms/news`)
  for (const type of ['join', 'leave']) t.match(await client.ask({ type, topic: 'other' }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /not known/ } })
})

t.test('held frames of many members of one address get no more credit than the address could have sent meanwhile', async t => {
  const hub = { stalledFor: () => 0 }
  const own = { capacity: 100, per: 1_000 }
  const now = performance.now()
  const source = { rate: { capacity: 1_000, per: 1_000 }, tokens: 1_000, filledAt: now, creditedUntil: 0 }
  const paused = () => ({ hub, withheld: 2_000, rate: own, addressBucket: source, tokens: own.capacity, filledAt: now - 2_000, creditedUntil: 0, isOverRate: false })
  const members = Array.from({ length: 1_000 }, paused)
  drawFor(members[0] as never)
  t.ok(source.tokens > 1_150, 'the first member gets full credit')
  for (const member of members.slice(1)) drawFor(member as never)
  t.ok(source.tokens < 3_100, `all members together find ${Math.round(source.tokens)} tokens`)
  t.ok(source.creditedUntil > now + 4_000 && source.creditedUntil < now + 60_000, 'the credit is bounded in time')
})
