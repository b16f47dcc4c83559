import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import t, { type Test } from 'tap'
import { RawPeer, shaped } from './adversaries/peer.ts'
import { connect, createRooms, listen, until, type AnyOptions, type Client } from './helpers/app.ts'

// Faults of connections of several topics that the model, the fuzzer and the limits have found, or watch for.

type Rooms = { stats (): any, kick (selector: object, options?: object): Promise<number>, broadcast (topic: string, data: unknown): Promise<any> }

async function open (t: Test, options: AnyOptions = {}): Promise<{ client: Client, rooms: Rooms, url: string }> {
  const app = await createRooms(t, { topics: { '*': { publish: true, presence: true } }, ...options })
  const url = `${await listen(app)}/rooms`
  return { client: await opened(t, url), rooms: app.rooms as never, url }
}

/** A client that was sent the first hello. */
async function opened (t: Test, url: string): Promise<Client> {
  const client = await connect(t, url)
  await client.next('hello')
  return client
}

/** Joins a topic. */
async function joined (client: Client, topic: string): Promise<void> {
  client.send({ type: 'join', topic, ref: `join ${topic}` })
  await client.next('hello')
}

t.test('frames of a peer that has left their topic meanwhile are answered, and it is sent no presence', async t => {
  const proceed: (() => void)[] = []
  const errors: any[] = []
  const { client } = await open(t, {
    onError: error => { errors.push(error) },
    onMessage: {
      '*': async (session, payload) => {
        await new Promise<void>(resolve => { proceed.push(resolve) })
        if (payload === 'send') await session.send('too late')
      }
    }
  })
  await joined(client, 'news')
  for (const [ref, frame] of [{ type: 'message', data: 'wait' }, { type: 'presence', info: 1 }, { type: 'presence' }, { type: 'message', data: 'send' }, { type: 'message', data: 'over' }].entries()) client.send({ ...frame, topic: 'news', ref })
  t.match(await client.ask({ type: 'leave', topic: 'news' }), { ok: true })
  const before = client.received.length
  await until(() => {
    proceed.shift()?.()
    return client.received.length >= before + 5
  })
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  t.match(client.received.slice(before, -1).map(text => JSON.parse(text)), [
    { type: 'ack', topic: 'news', ref: 0, ok: true },
    { type: 'ack', topic: 'news', ref: 1, ok: true },
    { type: 'ack', topic: 'news', ref: 2, ok: true },
    { type: 'ack', topic: 'news', ref: 3, ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } },
    { type: 'ack', topic: 'news', ref: 4, ok: true }
  ])
  t.same(errors, [])
})

t.test('a ping over the rate is answered without a topic, whatever stands there', async t => {
  const { client } = await open(t, { limits: { messages: 4, per: 60_000 } })
  for (const topic of ['news', 1, {}, null, 'a"b', []]) client.send({ type: 'ping', topic, ref: 1 })
  for (const ok of [true, true, true, true, false, false]) {
    const ack = await client.next('ack')
    t.same([ack.ok, 'topic' in ack], [ok, false])
  }
})

t.test('answers of one topic are in the order of its frames, whether its session or the connection makes them', async t => {
  const { client } = await open(t, { topics: { '*': { publish: true } }, limits: { messages: 8, per: 60_000 } })
  await joined(client, 'news')
  client.socket.pause()
  for (let ref = 1; ref <= 10; ref++) client.send({ type: ref === 3 ? 'join' : 'message', topic: 'news', data: ref, ref })
  client.socket.resume()
  const answers = []
  while (answers.length < 10) {
    const { ref, ok } = await client.next('ack')
    answers.push(`${ref} ${ok}`)
  }
  t.same(answers, ['1 true', '2 true', '3 false', '4 true', '5 true', '6 true', '7 true', '8 false', '9 false', '10 false'])
})

t.test('onInvalid decides about frames over the largest limit of all topics', async t => {
  const large = { type: 'message', topic: 'news', data: 'x'.repeat(70_000) }
  const { client, rooms } = await open(t, { onInvalid: 'ignore' })
  await joined(client, 'news')
  client.send(large)
  t.match(await client.ask({ type: 'ping' }, 'only'), { ref: 'only' })
  t.notOk(client.received.some(text => text.includes('"error"')))
  t.match(rooms.stats(), { invalid: 1, refusals: { payload: 1 } })
  const strict = await open(t, { onInvalid: 'close' })
  await joined(strict.client, 'news')
  strict.client.send(large)
  t.match(await strict.client.closed, { code: 1009 })
  t.match(strict.client.received.slice(-2).map(text => JSON.parse(text)), [{ type: 'bye', topic: 'news', code: 1009 }, { type: 'bye', code: 1009 }])
})

t.test('a peer of many topics that reads nothing is closed with 4201, and its buffer is bounded', async t => {
  const slow = { bytes: 262_144 }
  const { client: other, rooms, url } = await open(t, { topics: { '*': { publish: true } }, slow, heartbeat: false, limits: { messages: 1_000_000 } })
  const topics = Array.from({ length: 100 }, (_, n) => `t${n}`)
  const peer = await RawPeer.join(Number(url.split(/[:/]/)[1]), '/rooms')
  peer.write(Buffer.concat(topics.map(topic => shaped(JSON.stringify({ type: 'join', topic })))))
  await peer.until(() => peer.frames.length === 101, 'joined to all topics')
  await joined(other, 't99')
  peer.socket.pause()
  let most = 0
  const data = 'x'.repeat(2_000)
  while (rooms.stats().connections === 2 && most < 50_000_000) {
    await Promise.all(topics.map(topic => rooms.broadcast(topic, data)))
    await new Promise(resolve => setImmediate(resolve))
    most = Math.max(most, rooms.stats().queuedBytes)
  }
  t.ok(most > 0 && most < slow.bytes + 100 * 2_200, `${most} bytes were buffered at most`)
  t.match(rooms.stats(), { slow: 1, topics: 1, members: 1 })
  t.match(await other.ask({ type: 'message', topic: 't99', data: 'still here' }), { ok: true })
  peer.destroy()
})

t.test('a flood of pings by a peer that reads nothing is closed with 4201', async t => {
  const { rooms, url } = await open(t, { slow: { bytes: 100_000 }, heartbeat: false, limits: { messages: 1_000_000 } })
  const peer = await RawPeer.join(Number(url.split(/[:/]/)[1]), '/rooms')
  const before = rooms.stats().connections
  peer.socket.pause()
  const load = Buffer.concat(Array.from({ length: 1_000 }, () => shaped('{"type":"ping","ref":"as long as a ref may be, because it comes back in the ack of it"}')))
  let most = 0
  await until(() => {
    if (!peer.socket.writableNeedDrain) peer.write(load)
    most = Math.max(most, rooms.stats().queuedBytes)
    return rooms.stats().slow === 1
  })
  t.ok(most < 1_000_000, `${most} bytes were buffered at most`)
  peer.destroy()
  await until(() => rooms.stats().connections === before - 1)
})

t.test('limits count connections, not topics; refusals are counted, and told to the diagnostics channels', async t => {
  const told: any[] = []
  const hear = (message: any): void => { told.push(`${message.what} ${message.reason} ${message.topic}`) }
  subscribe('fastify-rooms:refused', hear)
  t.teardown(() => { unsubscribe('fastify-rooms:refused', hear) })
  const { client, rooms, url } = await open(t, { limits: { connections: 2, perAddress: 2, topicsPerConnection: 3, topics: 3 } })
  const second = await opened(t, url)
  for (const topic of ['a', 'b', 'c']) await joined(client, topic)
  t.match(await client.ask({ type: 'join', topic: 'd' }), { ok: false, error: { code: 'FST_ROOMS_TOO_MANY_TOPICS' }, close: 4104 })
  t.match(await client.ask({ type: 'join', topic: 'a' }), { ok: false, error: { code: 'FST_ROOMS_ALREADY_JOINED' } })
  t.match(await second.ask({ type: 'join', topic: 'd' }), { ok: false, error: { code: 'FST_ROOMS_OVERLOADED' }, close: 4100, retry: { min: 1_000 } })
  await joined(second, 'a')
  t.match(await client.ask({ type: 'leave', topic: 'c' }), { ok: true })
  await joined(client, 'd')
  t.match(rooms.stats(), { connections: 2, members: 4, topics: 3, refused: 2, refusals: { topicsPerConnection: 1, topics: 1 } })
  const third = await connect(t, url)
  t.match(await third.closed, { code: 4104 })
  t.same(told, ['join topicsPerConnection d', 'join topics d', 'join connections undefined'])
})

t.test('a join that is not decided in time is refused, and the frames behind it; other topics go on', async t => {
  const late: (() => void)[] = []
  const { client, rooms } = await open(t, {
    limits: { handshake: 100, pending: 3 },
    heartbeat: { interval: 400, timeout: 400 },
    authorize: ({ action, topic }) => action !== 'join' || topic !== 'stuck' || new Promise<boolean>(resolve => { late.push(() => { resolve(true) }) }),
    onJoin: ({ topic }) => topic === 'slow' ? new Promise(() => {}) : undefined
  })
  await joined(client, 'news')
  for (const topic of ['stuck', 'slow']) {
    client.send({ type: 'join', topic, ref: topic })
    // Reading pauses at the third, and goes on when the join is refused.
    for (let n = 1; n <= 5; n++) client.send({ type: 'message', topic, data: n, ref: `${topic} ${n}` })
    const answers: string[] = []
    while (answers.length < 6) {
      const { ref, error, close } = await client.next('ack') as any
      answers.push(`${ref} ${error.code} ${close}`)
    }
    t.same(answers.toSorted(), [`${topic} FST_ROOMS_OVERLOADED 4100`, ...[1, 2, 3, 4, 5].map(n => `${topic} ${n} FST_ROOMS_NOT_JOINED undefined`)].toSorted())
  }
  for (const settle of late) settle()
  t.match(await client.ask({ type: 'message', topic: 'news', data: 1 }), { ok: true })
  t.match(rooms.stats(), { connections: 1, members: 1, topics: 1, paused: 2 })
  client.send({ type: 'join', topic: 'stuck', ref: 'again' })
  await until(() => late.length === 2)
  late[1]!()
  t.match(await client.next('hello'), { topic: 'stuck', ref: 'again' })
})

t.test('a kick, the end of the credentials and a review reach joins that authorize or onJoin decides', async t => {
  const gates = new Map<string, (() => void)>()
  const left: string[] = []
  let isPermitted = true
  const { client, rooms, url } = await open(t, {
    identify: ({ headers }) => headers['x-user'] === undefined ? null : { user: 'u1', expires: headers['x-expires'] === undefined ? undefined : new Date(Date.now() + 400) } as never,
    authorize: ({ action, topic }) => topic.startsWith('ask') && action === 'join' && !gates.has(topic) ? new Promise<boolean>(resolve => { gates.set(topic, () => { resolve(true) }) }) : isPermitted,
    onJoin: ({ topic }) => topic.startsWith('join') ? new Promise<void>(resolve => { gates.set(topic, resolve) }) : undefined,
    onLeave: ({ topic }) => { left.push(topic) }
  })
  await joined(client, 'news')
  const member = await connect(t, url, [], { headers: { 'x-user': 'u1' } })
  await member.next('hello')
  for (const topic of ['ask1', 'join1']) member.send({ type: 'join', topic, ref: topic })
  await until(() => gates.size === 2)
  for (const topic of ['ask1', 'join1']) {
    await rooms.kick({ user: 'u1', topic })
    gates.get(topic)!()
    t.match(await member.next('ack'), { ref: topic, topic, ok: false, close: 4005 })
  }
  for (const topic of ['ask2', 'join2']) member.send({ type: 'join', topic, ref: topic })
  await until(() => gates.size === 4)
  isPermitted = false
  await (rooms as any).reauthorize({ user: 'u1' })
  for (const topic of ['join2', 'ask2']) {
    gates.get(topic)!()
    t.match(await member.next('ack'), { ref: topic, topic, ok: false, close: 4301 })
  }
  isPermitted = true
  for (const topic of ['ask3', 'join3']) member.send({ type: 'join', topic, ref: topic })
  await until(() => gates.size === 6)
  await rooms.kick({ user: 'u1' })
  t.match(await member.closed, { code: 4005 })
  t.match(JSON.parse(member.received.at(-1)!), { type: 'bye', code: 4005 })
  const brief = await connect(t, url, [], { headers: { 'x-user': 'u1', 'x-expires': '1' } })
  for (const topic of ['ask4', 'join4']) brief.send({ type: 'join', topic, ref: topic })
  await until(() => gates.size === 8)
  t.match(await brief.closed, { code: 4300 })
  for (const settle of gates.values()) settle()
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  await until(() => rooms.stats().topics === 1)
  t.match(rooms.stats(), { connections: 1, members: 1 })
})

t.test('bad frames of all topics are counted together, and each topic has its own rate and size', async t => {
  const { client, rooms } = await open(t, {
    topics: { small: { publish: true, limits: { payload: 100, messages: 3, per: 60_000 } }, '*': { publish: true } },
    limits: { badFrames: 4 }
  })
  await joined(client, 'small')
  await joined(client, 'large')
  t.match(await client.ask({ type: 'message', topic: 'small', data: 'x'.repeat(200) }), { ok: false, error: { code: 'FST_ROOMS_FRAME_TOO_LARGE' } })
  t.match(await client.ask({ type: 'message', topic: 'large', data: 'x'.repeat(200) }), { ok: true })
  for (let n = 0; n < 8; n++) client.send({ type: 'message', topic: 'small', data: n })
  t.match(await client.next('bye'), { topic: 'small', code: 4101 })
  t.match(await client.ask({ type: 'message', topic: 'large', data: 1 }), { ok: true })
  await joined(client, 'small')
  for (const frame of [{ type: 'message', topic: 'small' }, '{', { type: 'nonsense', topic: 'large' }, Buffer.from('{}')]) client.send(frame)
  t.match(await client.closed, { code: 4000 })
  t.match(client.received.slice(-3).map(text => JSON.parse(text)), [{ type: 'bye', topic: 'large', code: 4000 }, { type: 'bye', topic: 'small', code: 4000 }, { type: 'bye', code: 4000 }])
  await until(() => rooms.stats().connections === 0)
  t.match(rooms.stats(), { topics: 0, members: 0, refusals: { badFrames: 4, payload: 1 } })
})
