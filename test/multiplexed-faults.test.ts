import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import t, { type Test } from 'tap'
import { RawPeer, shaped } from './adversaries/peer.ts'
import { connect, createRooms, listen, refused, until, type AnyOptions, type Client } from './helpers/app.ts'

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

t.test('an upgrade during a drain is refused', async t => {
  const { rooms, url } = await open(t)
  await (rooms as any).drain()
  t.match(await refused(url), { status: 503, body: { code: 'FST_ROOMS_DRAINING' } })
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

t.test('a frame over the rate is answered as far as it can be read, and counts as no fault of its form; a flood of any frames is closed', async t => {
  const { client, rooms } = await open(t, { limits: { messages: 6, per: 60_000, badFrames: 1 } })
  client.socket.pause()
  const ping = { type: 'ping', ref: 'ping' }
  const over = [Buffer.from(JSON.stringify(ping)), 'x'.repeat(70_000), '{', { type: 'message', topic: 'a', ref: 'bad' }, { type: 'ack', topic: 'a', ref: 's1', data: 1 }, { type: 'message', topic: 'a', data: 1, ref: 'good' }]
  for (const frame of [...Array(6).fill(ping), ...over, ping]) client.send(frame)
  client.socket.resume()
  t.match(await client.closed, { code: 4101 })
  const answers = client.received.slice(1).map(text => JSON.parse(text))
  t.same(answers.slice(0, 6), Array(6).fill({ type: 'ack', ref: 'ping', ok: true }))
  const error = { code: 'FST_ROOMS_RATE_LIMITED', message: answers[6].error.message }
  t.same(answers.slice(6, -1), [
    { type: 'error', error },
    { type: 'error', error },
    { type: 'error', error },
    { type: 'ack', topic: 'a', ref: 'bad', ok: false, error },
    { type: 'error', error },
    { type: 'ack', topic: 'a', ref: 'good', ok: false, error }
  ])
  t.match(answers.at(-1), { type: 'bye', code: 4101 })
  t.match(rooms.stats(), { invalid: 0, refusals: { messages: 7, badFrames: 0, payload: 0 } })
})

t.test('frames that have waited for a topic stop with its session', async t => {
  const handled: unknown[] = []
  let admit = (): void => {}
  const { client, rooms } = await open(t, {
    topics: { rated: { publish: true, limits: { messages: 3, per: 60_000, payload: 100 } }, '*': { publish: true } },
    onJoin: () => new Promise<void>(resolve => { admit = resolve }),
    onMessage: { '*': () => {}, rated: (_session, payload) => { handled.push(payload) } }
  })
  client.send({ type: 'join', topic: 'rated', ref: 'join' })
  for (let n = 1; n <= 10; n++) client.send({ type: 'message', topic: 'rated', data: n === 10 ? 'x'.repeat(100) : n, ref: n })
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  admit()
  t.match(await client.next('bye'), { topic: 'rated', code: 4101 })
  t.match(await client.ask({ type: 'ping' }, 'last'), { ok: true })
  t.same(client.received.map(text => JSON.parse(text)).filter(({ type, topic }) => type === 'ack' && topic === 'rated').map(({ ref, ok }) => `${ref} ${ok}`), ['1 true', '2 true', '3 true', '4 false', '5 false', '6 false'])
  t.same(handled, [1, 2, 3])
  t.match(rooms.stats(), { members: 0, invalid: 0, refusals: { messages: 4 } }, 'frames behind the end are not looked at')
})

t.test('a member whose session ends while its join is told to the host leaves the topic free', async t => {
  let isWanted = false
  let admit = (): void => {}
  const { client, rooms } = await open(t, { onJoin: () => new Promise<void>(resolve => { admit = resolve }) })
  const hear = ({ topic }: any): unknown => isWanted || rooms.kick({ topic })
  subscribe('fastify-rooms:join', hear)
  t.teardown(() => { unsubscribe('fastify-rooms:join', hear) })
  client.send({ type: 'join', topic: 'news', ref: 'join' })
  client.send({ type: 'message', topic: 'news', data: 1, ref: 'held' })
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  admit()
  t.match(await client.next('hello'), { topic: 'news', ref: 'join' })
  t.match(await client.next('bye'), { topic: 'news', code: 4005 })
  isWanted = true
  t.match(await client.ask({ type: 'message', topic: 'news', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_NOT_JOINED' } })
  client.send({ type: 'join', topic: 'news', ref: 'again' })
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  admit()
  t.match(await client.next('hello'), { topic: 'news', ref: 'again' })
  t.match(await client.ask({ type: 'message', topic: 'news', data: 1 }), { ok: true })
})

t.test('new credentials that the host decides about too late change nothing; an error of the host is told to it, however late', async t => {
  const settle: { resolve (identity: object): void, reject (error: unknown): void }[] = []
  const errors: unknown[] = []
  const { rooms, url } = await open(t, {
    identify: () => ({ user: 'ann', expires: Date.now() + 60_000 }),
    onAuth: () => new Promise((resolve, reject) => { settle.push({ resolve, reject } as never) }),
    onError: error => { errors.push(error) }
  })
  const broken = new Error('broken')
  const outcomes: ((answer: typeof settle[number]) => void)[] = [
    ({ resolve }) => { resolve({ user: 'bob' }) },
    ({ reject }) => { reject(Object.assign(new Error('no'), { statusCode: 403 })) },
    ({ reject }) => { reject(broken) }
  ]
  for (const settles of outcomes) {
    const client = await opened(t, url)
    await joined(client, 'news')
    client.send({ type: 'auth', token: 'x', ref: 'late' })
    await until(() => settle.length === 1)
    await rooms.kick({ user: 'ann' })
    settles(settle.pop()!)
    t.match(await client.closed, { code: 4005 })
    t.notOk(client.received.some(text => text.includes('"late"')))
  }
  t.same(errors, [broken])
  const real = Date.now
  t.teardown(() => { Date.now = real })
  const client = await opened(t, url)
  await joined(client, 'news')
  client.send({ type: 'auth', token: 'x', ref: 'late' })
  await until(() => settle.length === 1)
  Date.now = () => real() + 3_600_000
  settle.pop()!.resolve({ user: 'ann' })
  t.match(await client.closed, { code: 4300 })
  t.match(rooms.stats(), { expired: 1, refusals: { forbidden: 1, failed: 1 } }, 'an answer that comes too late is not looked at')
})

t.test('an error of onAuth is answered like an error of onMessage, also on a connection of several topics', async t => {
  const errors: [unknown, string][] = []
  let thrown: unknown
  const { client, rooms } = await open(t, {
    onAuth: async session => {
      if (thrown !== undefined) throw thrown
      await session.close()
      await session.send('late')
      return null
    },
    onError: (error, session) => { errors.push([error, session!.topic]) }
  })
  await joined(client, 'news')
  const refusal = async (): Promise<any> => client.ask({ type: 'auth', token: 'x' })
  thrown = Object.assign(new Error('no'), { statusCode: 401, code: 'REVOKED' })
  t.match(await refusal(), { ok: false, error: { code: 'REVOKED' } })
  t.same(errors, [])
  thrown = Object.assign(new Error('invalid'), { statusCode: 400, code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.match(await refusal(), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } }, 'the host has made that payload')
  t.same(errors.splice(0), [[thrown, 'news']])
  t.match(rooms.stats().refusals, { unauthorized: 1, failed: 1 })
  thrown = undefined
  t.match(await refusal(), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } }, 'the peer is answered, because its connection goes on')
  t.same(errors, [], 'the end of a session is no error')
  t.match(rooms.stats().refusals, { unauthorized: 1, failed: 1 })
})

t.test('a drain refuses joins that the host is still asked about, and asks about no credentials', async t => {
  const gates = new Map<string, () => void>()
  let asked = 0
  const joins: string[] = []
  const app = await createRooms(t, {
    topics: { '*': { publish: true } },
    authorize: ({ action, topic }) => action !== 'join' || topic === 'news' || new Promise<boolean>(resolve => { gates.set(topic, () => { resolve(true) }) }),
    onMessage: { '*': () => new Promise<void>(resolve => { gates.set('message', resolve) }) },
    onJoin: ({ topic }) => { joins.push(topic) },
    onAuth: () => { asked++; return null }
  })
  const client = await opened(t, `${await listen(app)}/rooms`)
  await joined(client, 'news')
  client.send({ type: 'join', topic: 'late', ref: 'late' })
  client.send({ type: 'message', topic: 'news', data: 1 })
  await until(() => gates.size === 2)
  const drained = app.rooms.drain()
  client.send({ type: 'auth', token: 'x', ref: 'auth' })
  t.match(await client.ask({ type: 'ping' }), { ok: true })
  gates.get('late')!()
  t.match(await client.next('ack'), { ref: 'late', topic: 'late', ok: false, close: 1001, retry: { min: Number } })
  gates.get('message')!()
  t.match(await client.closed, { code: 1001 })
  await drained
  t.equal(asked, 0)
  t.same(joins, ['news'])
  t.notOk(client.received.some(text => text.includes('"auth"')))
})
