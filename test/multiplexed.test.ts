import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { FST_ROOMS_DRAINING } from '../lib/errors.ts'
import type { Session } from '../types/index.ts'
import { connect, createApp, createRooms, listen, refused, until, type AnyOptions, type Client } from './helpers/app.ts'
import fastifyRooms from '../lib/index.ts'

// Several topics on one connection: docs/protocol.md, "Several topics on one connection".

type Frame = Record<string, any>

/** Opens a connection of several topics and reads its hello. */
async function open (t: Test, url: string, options: Parameters<typeof connect>[3] = {}): Promise<Client & { first: Frame }> {
  const client = await connect(t, url, [], options)
  return Object.assign(client, { first: await client.next() as Frame })
}

async function next (client: Client): Promise<Frame> { return JSON.parse(await client.text()) as Frame }

/** Sends a frame and returns the next one. */
async function answer (client: Client, frame: Frame): Promise<Frame> {
  client.send(frame)
  return next(client)
}

/** Joins a topic, and returns its hello or the refusal. */
const join = (client: Client, topic: string, more: Frame = {}): Promise<Frame> => answer(client, { type: 'join', topic, ref: `join ${topic}`, ...more })

async function start (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, options)
  const url = `${await listen(app)}/rooms`
  return { app, url }
}

const any = { publish: true, presence: true } as const

t.test('a connection says hello, joins topics, and gets each message with its topic right after the type', async t => {
  const { app, url } = await start(t, { topics: { news: {}, 'chat:*': any } })
  const client = await open(t, url)
  t.same(client.first, { type: 'hello', v: 1, heartbeat: 25_000, maxPayload: 65_536 })
  const hello = await join(client, 'news')
  t.match(hello, { type: 'hello', topic: 'news', id: /-0$/, v: 1, session: String, ref: 'join news', heartbeat: 25_000, maxPayload: 65_536 })
  t.match(client.received[1], /^\{"type":"hello","topic":"news","id":"/)
  t.match(await join(client, 'chat:1', { presence: true }), { type: 'hello', topic: 'chat:1' })
  t.match(await next(client), { type: 'presence', topic: 'chat:1', count: 1, state: [{ session: String }] })
  await client.next('presence')

  await app.rooms.broadcast('news', { a: 1 })
  const text = await client.text()
  t.match(text, /^\{"type":"message","topic":"news","id":"[^"]+","data":\{"a":1\}\}$/)
  const echo = await answer(client, { type: 'message', topic: 'chat:1', data: 'hi', ref: 7 })
  t.match(echo, { type: 'message', topic: 'chat:1', data: 'hi', from: String })
  t.match(await next(client), { type: 'ack', topic: 'chat:1', ref: 7, ok: true, id: echo.id })
  t.match(app.rooms.stats(), { connections: 1, members: 2 })
})

t.test('requests without an upgrade are answered after the same checks', async t => {
  const { app, url } = await start(t, { origin: ['https://good.example'] })
  const ok = await app.inject('/rooms')
  t.equal(ok.statusCode, 200)
  t.same(ok.json(), { v: 1, protocols: ['rooms.v1'] })
  t.equal((await app.inject({ url: '/rooms', headers: { origin: 'https://evil.example' } })).statusCode, 403)
  t.equal((await app.inject({ url: '/rooms', headers: { upgrade: 'h2c' } })).json().code, 'FST_ROOMS_UPGRADE_REQUIRED')
  t.match(await refused(url, ['rooms.raw']), { status: 400, body: { code: 'FST_ROOMS_BAD_SUBPROTOCOL' } })
  const both = await connect(t, url, ['rooms.raw', 'rooms.v1'])
  t.equal(both.socket.protocol, 'rooms.v1')
  t.match(await refused(url, [], { origin: 'https://evil.example' }), { status: 403 })
  t.equal(app.rooms.stats().refusals.origin, 2)
})

t.test('the route is at the prefix, where the option says, or nowhere', async t => {
  const bare = createApp(t)
  bare.get('/', () => 'mine')
  await bare.register(fastifyRooms)
  t.equal((await bare.inject('/')).body, 'mine')

  const prefixed = createApp(t)
  await prefixed.register(fastifyRooms, { prefix: '/rooms' })
  t.equal((await prefixed.inject('/rooms')).statusCode, 200)
  t.equal((await prefixed.inject('/rooms/')).statusCode, 400, 'a topic without a name')

  const named = createApp(t)
  await named.register(fastifyRooms, { multiplex: '/connect' })
  t.same((await named.inject('/connect')).json(), { v: 1, protocols: ['rooms.v1'] })

  const off = createApp(t)
  await off.register(fastifyRooms, { prefix: '/rooms', multiplex: false })
  t.equal((await off.inject('/rooms')).statusCode, 404)

  const taken = createApp(t)
  taken.get('/rooms', () => 'mine')
  await t.rejects(Promise.resolve(taken.register(fastifyRooms, { prefix: '/rooms' })), { code: 'FST_ROOMS_ROUTE_TAKEN', message: /GET \/rooms is taken: .*"multiplex"/ })
})

t.test('a refused join is answered with its code and the close code of a join by URL, and no member has seen it', async t => {
  const asked: unknown[] = []
  const { app, url } = await start(t, {
    topics: { open: any, closed: any, thrown: any, slow: any, full: { ...any, limits: { members: 1 } }, teapot: any, broken: any },
    authorize: ({ topic, action }) => {
      if (action === 'join' && topic === 'broken') throw new Error('secret')
      return action !== 'join' || topic !== 'closed'
    },
    onJoin: (session: Session) => {
      asked.push(session.topic)
      if (session.topic === 'thrown') throw Object.assign(new Error('no ticket'), { statusCode: 401, code: 'NO_TICKET' })
      if (session.topic === 'teapot') session.close(4418, 'teapot')
      return session.topic !== 'slow'
    },
    onError: () => {}
  })
  const client = await open(t, url)
  t.match(await join(client, 'open'), { type: 'hello' })
  await client.next('presence')
  t.same(await join(client, 'closed'), { type: 'ack', topic: 'closed', ref: 'join closed', ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: join' }, close: 4003 })
  t.match(await join(client, 'nowhere'), { ok: false, error: { code: 'FST_ROOMS_NO_SUCH_TOPIC' }, close: 4004 })
  t.match(await join(client, 'thrown'), { topic: 'thrown', ok: false, error: { code: 'NO_TICKET', message: 'no ticket' }, close: 4001 })
  t.match(await join(client, 'slow'), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' }, close: 4003 })
  t.match(await join(client, 'teapot'), { ok: false, error: { code: 'FST_ROOMS_JOIN_REFUSED', message: /4418 teapot/ }, close: 4418 })
  t.match(await join(client, 'broken'), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' }, close: 1011, retry: { min: Number } }, 'the text of an error that is not for the peer is not shown')
  t.match(await join(client, 'full'), { type: 'hello' })
  await client.next('presence')
  const other = await open(t, url)
  t.match(await join(other, 'full'), { ok: false, error: { code: 'FST_ROOMS_ROOM_FULL' }, close: 4102, retry: { min: Number, max: Number } })
  t.match(await join(client, 'open'), { type: 'ack', topic: 'open', ok: false, error: { code: 'FST_ROOMS_ALREADY_JOINED' } })
  t.match(await join(client, 'closed', { ref: undefined }), { type: 'error', topic: 'closed', error: { code: 'FST_ROOMS_FORBIDDEN' }, close: 4003 })
  t.same(asked, ['open', 'thrown', 'slow', 'teapot', 'full'])
  t.equal(app.rooms.stats().members, 2)
  t.same(await app.rooms.topics(), ['open', 'full'])
})

t.test('hooks get the arguments that a join by URL gives them', async t => {
  const seen: Record<string, unknown>[] = []
  const { app, url } = await start(t, {
    topics: { news: { ...any, history: true } },
    identify: request => ({ user: String(request.headers['x-user']), info: { name: 'Ann' } }),
    authorize: context => {
      seen.push({ action: context.action, topic: context.topic, user: 'identity' in context ? context.identity?.user : context.session.user, header: 'request' in context ? context.request.headers['x-user'] : undefined })
      return true
    },
    onJoin: (session: Session, request) => { seen.push({ hook: 'onJoin', topic: session.topic, user: session.user, info: session.info, header: request.headers['x-user'] }) },
    onJoined: session => { seen.push({ hook: 'onJoined', topic: session.topic }) },
    onLeave: (session, { code }) => { seen.push({ hook: 'onLeave', topic: session.topic, code }) }
  })
  const byUrl = await connect(t, `${url}/news?since=0`, [], { headers: { 'x-user': 'ann' } })
  await byUrl.next('hello')
  byUrl.socket.close(1000)
  await until(() => app.rooms.stats().members === 0)
  const first = seen.splice(0)
  const client = await open(t, url, { headers: { 'x-user': 'ann' } })
  t.same(seen, [], 'nothing is asked before a topic is joined')
  await join(client, 'news', { since: '0' })
  client.send({ type: 'leave', topic: 'news' })
  await until(() => seen.length === first.length)
  t.same(seen, first)
})

t.test('each topic resumes by itself', async t => {
  const { app, url } = await start(t, { topics: { a: { history: true }, b: { history: true }, c: {} } })
  const { id } = await app.rooms.broadcast('a', 1)
  await app.rooms.broadcast('a', 2)
  await app.rooms.broadcast('b', 3)
  await app.rooms.broadcast('c', 4)
  const client = await open(t, url)
  client.send({ type: 'join', topic: 'a', since: id })
  client.send({ type: 'join', topic: 'b', since: '0' })
  client.send({ type: 'join', topic: 'c', since: 'ffffffffffffffff-1' })
  const frames = [await next(client), await next(client), await next(client), await next(client), await next(client)]
  t.match(frames.filter(({ topic }) => topic === 'a'), [{ type: 'hello', id, recovered: true, replayed: 1 }, { type: 'message', data: 2 }])
  t.match(frames.filter(({ topic }) => topic === 'b'), [{ type: 'hello', replayed: 1 }, { type: 'message', data: 3 }])
  t.match(frames.filter(({ topic }) => topic === 'c'), [{ type: 'hello', recovered: false }])
  await app.rooms.broadcast('b', 5)
  t.match(await next(client), { type: 'message', topic: 'b', data: 5 })
})

t.test('frames for a topic wait for its hello, and are refused if the join is', async t => {
  let permit = (_is: boolean): void => {}
  const { url } = await start(t, { topics: { slow: { publish: true }, quick: {} }, limits: { pending: 4 }, authorize: ({ topic, action }) => action !== 'join' || topic === 'quick' || new Promise<boolean>(resolve => { permit = resolve }) })
  const client = await open(t, url)
  client.send({ type: 'join', topic: 'slow', ref: 1 })
  client.send({ type: 'message', topic: 'slow', data: 'first', ref: 2 })
  client.send({ type: 'ack', topic: 'slow', ref: 'unknown' })
  t.match(await join(client, 'quick'), { type: 'hello', topic: 'quick' })
  permit(true)
  t.match([await next(client), await next(client), await next(client)], [{ type: 'hello', topic: 'slow', ref: 1 }, { type: 'message', data: 'first' }, { type: 'ack', ref: 2, ok: true }])
  client.send({ type: 'leave', topic: 'slow' })
  client.send({ type: 'join', topic: 'slow', ref: 3 })
  client.send({ type: 'message', topic: 'slow', data: 'second', ref: 4 })
  client.send({ type: 'ack', topic: 'slow', ref: 'unknown' })
  await answer(client, { type: 'ping', ref: 5 })
  permit(false)
  t.match([await next(client), await next(client)], [{ ref: 4, ok: false, error: { code: 'FST_ROOMS_NOT_JOINED' } }, { ref: 3, ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' }, close: 4003 }])
})

t.test('a leave ends the membership at once; frames that were sent before are handled and answered', async t => {
  let finish = (): void => {}
  const left: string[] = []
  const { app, url } = await start(t, {
    topics: { work: any, other: any },
    onMessage: { work: () => new Promise(resolve => { finish = () => { resolve('done') } }) },
    onLeave: session => { left.push(session.topic) }
  })
  const client = await open(t, url)
  await join(client, 'work')
  await client.next('presence')
  client.send({ type: 'message', topic: 'work', data: 1, ref: 1 })
  t.same(await answer(client, { type: 'leave', topic: 'work', ref: 2 }), { type: 'ack', topic: 'work', ref: 2, ok: true })
  t.equal(app.rooms.stats().members, 0)
  t.same(left, [], 'onLeave comes after them')
  t.match(await join(client, 'work'), { type: 'hello' }, 'it can join again at once')
  await client.next('presence')
  finish()
  t.match(await next(client), { type: 'ack', topic: 'work', ref: 1, ok: true, data: 'done' })
  t.same(left, ['work'])
  t.match(await answer(client, { type: 'leave', topic: 'other', ref: 3 }), { topic: 'other', ref: 3, ok: false, error: { code: 'FST_ROOMS_NOT_JOINED' } })
  t.match(await answer(client, { type: 'message', topic: 'other', data: 1 }), { type: 'error', topic: 'other', error: { code: 'FST_ROOMS_NOT_JOINED' } })
  client.send({ type: 'leave', topic: 'work' })
  await until(() => left.length === 2)
})

t.test('a leave ends a join that is under way', async t => {
  let permit = (): void => {}
  const joined: string[] = []
  const { app, url } = await start(t, {
    topics: { asked: any, hooked: any },
    authorize: ({ topic, action }) => action !== 'join' || topic !== 'asked' || new Promise<boolean>(resolve => { permit = () => { resolve(true) } }),
    onJoin: (session: Session) => new Promise<void>(resolve => { joined.push(session.topic); permit = resolve })
  })
  const client = await open(t, url)
  for (const topic of ['asked', 'hooked']) {
    client.send({ type: 'join', topic, ref: 1 })
    if (topic === 'hooked') await until(() => joined.length === 1)
    client.send({ type: 'leave', topic, ref: 2 })
    t.match([await next(client), await next(client)], [{ topic, ref: 1, ok: false, error: { code: 'FST_ROOMS_NOT_JOINED' } }, { topic, ref: 2, ok: true }])
    permit()
    await answer(client, { type: 'ping', ref: 3 })
  }
  client.send({ type: 'join', topic: 'hooked' })
  await until(() => joined.length === 2)
  client.send({ type: 'leave', topic: 'hooked', ref: 4 })
  t.match(await next(client), { ref: 4, ok: true }, 'a join without a ref is not answered')
  permit()
  t.same(joined, ['hooked', 'hooked'])
  t.equal(app.rooms.stats().members, 0)
  t.equal((app.rooms as any).stats().connections, 1)
})

t.test('the end of one topic leaves the others; the end of the user ends the connection', async t => {
  const { app, url } = await start(t, { topics: { a: any, b: any, c: any, d: any }, identify: request => ({ user: String(request.headers['x-user'] ?? 'ann') }), authorize: ({ action, topic }) => action !== 'stay' || topic !== 'c' })
  const client = await open(t, url)
  const idle = await open(t, url)
  const bob = await open(t, url, { headers: { 'x-user': 'bob' } })
  const sessions: Record<string, string> = {}
  for (const topic of ['a', 'b', 'c', 'd']) {
    sessions[topic] = (await join(client, topic)).session
    await client.next('presence')
  }
  t.equal(await app.rooms.kick({ topic: 'a' }), 1)
  t.match(await next(client), { type: 'bye', topic: 'a', code: 4005, reason: 'kicked' })
  t.equal(await app.rooms.kick({ session: sessions.b! }, { code: 4444, reason: 'alone' }), 1)
  t.match(await next(client), { type: 'bye', topic: 'b', code: 4444, reason: 'alone' })
  t.equal(await app.rooms.reauthorize({ user: 'ann' }), 1)
  t.match(await next(client), { type: 'bye', topic: 'c', code: 4301 })
  t.match(await answer(client, { type: 'ping', ref: 1 }), { ok: true })
  t.equal(await app.rooms.kick({ user: 'ann' }), 1)
  t.match([await next(client), await next(client)], [{ type: 'bye', topic: 'd', code: 4005 }, { type: 'bye', code: 4005, reason: 'kicked' }])
  t.equal(JSON.parse(client.received.at(-1)!).topic, undefined)
  t.match(await client.closed, { code: 4005 })
  t.match(await idle.closed, { code: 4005 }, 'a connection of the user that has joined nothing closes, too')
  t.match(await answer(bob, { type: 'ping', ref: 1 }), { ok: true })
})

t.test('a session that the host closes is one topic', async t => {
  const { url } = await start(t, { topics: { a: any, b: any }, onMessage: { a: session => { session.close(4500, 'enough') } } })
  const client = await open(t, url)
  await join(client, 'a')
  await client.next('presence')
  t.match(await answer(client, { type: 'message', topic: 'a', data: 1, ref: 1 }), { type: 'bye', topic: 'a', code: 4500, reason: 'enough' })
  t.match(await join(client, 'b'), { type: 'hello', topic: 'b' })
})

t.test('credentials end for all topics, and can be renewed for all', async t => {
  const asked: string[] = []
  const identity = { ttl: 60_000 }
  const { app, url } = await start(t, {
    topics: { a: any, b: { ...any, presence: Type.Object({ name: Type.String() }) } },
    expiry: { notice: 59_000 },
    identify: () => ({ user: 'ann', expires: Date.now() + identity.ttl }),
    onAuth: (session, token) => {
      asked.push(`${session.topic} ${token}`)
      if (token === 'throws') throw new Error('secret')
      return token === 'good' ? { user: 'ann', info: { name: 'Ann' }, expires: Date.now() + 1_000 } : { user: 'bob' }
    },
    onError: () => {}
  })
  const client = await open(t, url)
  t.match(await answer(client, { type: 'auth', token: 'early', ref: 0 }), { ref: 0, ok: false, error: { code: 'FST_ROOMS_NOT_JOINED' } })
  for (const topic of ['a', 'b']) {
    await join(client, topic)
    await client.next('presence')
  }
  t.match(await answer(client, { type: 'auth', token: 'wrong', ref: 1 }), { ref: 1, ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  t.match(await answer(client, { type: 'auth', token: 'throws', ref: 2 }), { ref: 2, ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  const ack = await answer(client, { type: 'auth', token: 'good', ref: 3 })
  t.match(ack, { type: 'ack', ref: 3, ok: true, data: { in: Number } })
  t.equal(ack.topic, undefined)
  t.match(await client.next('presence'), { join: [{ user: 'ann', info: { name: 'Ann' } }] })
  t.same(await app.rooms.members('b'), [{ session: String(app.rooms && JSON.parse(client.received.find(text => text.includes('"hello","topic":"b"'))!).session), user: 'ann', info: { name: 'Ann' } }])
  t.same(asked, ['a wrong', 'a throws', 'a good'], 'the host is asked once')
  t.match(await client.next('expiring'), { in: Number })
  t.match(await client.next('bye'), { code: 4300 })
  t.match(await client.closed, { code: 4300, reason: 'token_expired' })
  t.match(JSON.parse(client.received.at(-1)!), { type: 'bye', code: 4300 })
  t.equal(app.rooms.stats().expired, 1)
})

t.test('the drain says bye for each topic and for the connection, and refuses joins', async t => {
  let release = (): void => {}
  const { app, url } = await start(t, { topics: { a: any, b: any }, onMessage: { a: () => new Promise<void>(resolve => { release = resolve }) }, drain: { timeout: 5_000 } })
  const client = await open(t, url)
  await join(client, 'a')
  await client.next('presence')
  client.send({ type: 'message', topic: 'a', data: 1, ref: 1 })
  await answer(client, { type: 'ping', ref: 2 })
  const drained = app.rooms.drain()
  const { code } = new FST_ROOMS_DRAINING()
  t.match(await join(client, 'b'), { ok: false, error: { code }, close: 1001, retry: { min: Number, max: Number } })
  release()
  t.match([await next(client), await next(client), await next(client)], [{ type: 'ack', ref: 1 }, { type: 'bye', topic: 'a', code: 1001, retry: {}, id: String }, { type: 'bye', code: 1001, retry: {} }])
  t.match(await client.closed, { code: 1001 })
  await drained
})

t.test('one write per connection and turn, though several rooms have something to say; the bytes are made once', async t => {
  const { app, url } = await start(t, { topics: { 'room:*': { publish: true } } })
  const clients = [await open(t, url), await open(t, url)]
  for (const client of clients) for (let n = 0; n < 5; n++) await join(client, `room:${n}`)
  const chunks: number[] = []
  for (const client of clients) (client.socket as any)._socket.on('data', (bytes: Buffer) => { chunks.push(bytes.length) })
  const writes: Buffer[] = []
  const { Socket } = await import('node:net')
  const { write } = Socket.prototype
  Socket.prototype.write = function (this: InstanceType<typeof Socket>, ...args: any[]) {
    if (Buffer.isBuffer(args[0])) writes.push(args[0])
    return (write as any).apply(this, args)
  } as never
  t.teardown(() => { Socket.prototype.write = write })
  for (let n = 0; n < 5; n++) app.rooms.broadcast(`room:${n}`, n)
  await until(() => clients.every(({ received }) => received.length === 11))
  Socket.prototype.write = write
  t.equal(writes.length, 2)
  t.equal(writes[0], writes[1], 'the same Buffer for both')
  t.equal(chunks.length, 2)
})

t.test('a private frame keeps its place among those of its room', async t => {
  const { app, url } = await start(t, { topics: { a: any, b: any } })
  const client = await open(t, url)
  const { session } = await join(client, 'a')
  await client.next('presence')
  await join(client, 'b')
  await client.next('presence')
  app.rooms.broadcast('a', 1)
  app.rooms.send(session, 2)
  app.rooms.broadcast('a', 3)
  app.rooms.broadcast('b', 4)
  const frames = [await next(client), await next(client), await next(client), await next(client)]
  t.match(frames, [{ type: 'message', topic: 'a', data: 1 }, { type: 'direct', topic: 'a', data: 2 }, { type: 'message', topic: 'a', data: 3 }, { topic: 'b', data: 4 }])
  const asked = app.rooms.ask(session, 'ready?')
  const question = await next(client)
  t.match(question, { type: 'direct', topic: 'a', data: 'ready?', ref: String })
  client.send({ type: 'ack', topic: 'a', ref: question.ref, data: 'yes' })
  t.equal(await asked, 'yes')
})

t.test('a peer that reads nothing is closed with 4201 in all its topics', async t => {
  const left: [string, number][] = []
  const { app, url } = await start(t, { topics: { a: {}, b: {} }, slow: { bytes: 100_000 }, onLeave: (session, { code }) => { left.push([session.topic, code]) } })
  const client = await open(t, url)
  await join(client, 'a')
  await join(client, 'b')
  client.socket.pause()
  for (let n = 0; n < 2_000 && left.length === 0; n++) {
    await app.rooms.broadcast('a', 'x'.repeat(50_000))
    await new Promise(resolve => setImmediate(resolve))
  }
  t.same(left.sort(), [['a', 4201], ['b', 4201]])
  t.match(app.rooms.stats(), { members: 0, slow: 1 })
})

t.test('a member of one topic that is dropped from goes on in the others', async t => {
  const { app, url } = await start(t, { topics: { loud: { slow: { policy: 'drop', bytes: 50_000 } }, quiet: { slow: { bytes: 10_000_000 } } } })
  const client = await open(t, url)
  await join(client, 'loud')
  await join(client, 'quiet')
  client.socket.pause()
  for (let n = 0; n < 2_000 && app.rooms.stats().lagging === 0; n++) {
    await app.rooms.broadcast('loud', 'x'.repeat(30_000))
    await new Promise(resolve => setImmediate(resolve))
  }
  t.equal(app.rooms.stats().lagging, 1)
  await app.rooms.broadcast('quiet', 'still here')
  await app.rooms.broadcast('loud', 'missed')
  client.socket.resume()
  await until(() => client.received.some(text => text.includes('"gap"')))
  const frames = client.received.map(text => JSON.parse(text) as Frame)
  t.match(frames.find(({ type }) => type === 'gap'), { type: 'gap', topic: 'loud', reason: 'slow', count: Number })
  t.equal(frames.filter(({ data }) => data === 'still here').length, 1)
  t.equal(frames.filter(({ data }) => data === 'missed').length, 0)
  t.equal(app.rooms.stats().members, 2)
})

t.test('streams end in their topic', async t => {
  const { app, url } = await start(t, { topics: { 'answer:*': { stream: true, history: true } } })
  const client = await open(t, url)
  await join(client, 'answer:1')
  const run = await app.rooms.stream('answer:1')
  await run.write('a')
  await run.end('b')
  t.match([await next(client), await next(client), await next(client)], [
    { type: 'message', topic: 'answer:1', data: 'a' }, { type: 'end', topic: 'answer:1', reason: 'done', data: 'b' }, { type: 'bye', topic: 'answer:1', code: 1000 }
  ])
  client.send({ type: 'join', topic: 'answer:1', since: '0' })
  t.match([await next(client), await next(client), await next(client), await next(client)], [{ type: 'hello' }, { data: 'a' }, { type: 'end', topic: 'answer:1' }, { type: 'bye', topic: 'answer:1' }])
  t.match(await answer(client, { type: 'ping', ref: 1 }), { ok: true })
})

t.test('a mid counts on both kinds of connection', async t => {
  const { url } = await start(t, { topics: { a: { publish: true } } })
  const mid = 'c'.repeat(20)
  const byUrl = await connect(t, `${url}/a`)
  await byUrl.next('hello')
  const first = await byUrl.ask({ type: 'message', data: 1, mid })
  const client = await open(t, url)
  await join(client, 'a')
  t.match(await answer(client, { type: 'message', topic: 'a', data: 1, mid, ref: 1 }), { topic: 'a', ok: true, id: (first as any).id, duplicate: true })
})

t.test('an injected client has several topics, too', async t => {
  const app = await createRooms(t, { topics: { a: any, b: any } })
  const client = await app.rooms.inject('/rooms') as any
  t.match(await client.next('hello'), { v: 1 })
  client.send({ type: 'join', topic: 'a', ref: 1 })
  t.match(await client.next('hello'), { topic: 'a', ref: 1 })
  await app.rooms.broadcast('a', 1)
  t.match(await client.next('message'), { topic: 'a', data: 1 })
  await client.close()
})

t.test('compressed messages reach connections of several topics', async t => {
  const app = await createRooms(t, { topics: { a: any }, websocket: { options: { perMessageDeflate: { threshold: 0 } } } })
  const url = `${await listen(app)}/rooms`
  const clients = [await open(t, url), await open(t, url)]
  for (const client of clients) {
    await join(client, 'a')
    await client.next('presence')
  }
  await app.rooms.broadcast('a', 'x'.repeat(10_000))
  for (const client of clients) t.match(await client.next('message'), { topic: 'a', data: 'x'.repeat(10_000) })
})

t.test('the topic of a refused frame is escaped, and bounded', async t => {
  const { url } = await start(t, { topics: { a: any } })
  const client = await open(t, url)
  const topic = 'a","close":1,"x":"\u2028'
  t.match(await join(client, topic), { topic, ok: false, error: { code: 'FST_ROOMS_NO_SUCH_TOPIC' }, close: 4004 })
  t.match(await answer(client, { type: 'message', topic, data: 1, ref: 1 }), { topic, ok: false, error: { code: 'FST_ROOMS_NOT_JOINED' } })
  t.match(await answer(client, { type: 'join', topic: 'x'.repeat(256), ref: 1 }), { ref: 1, ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /1 to 255/ } })
  t.match(await answer(client, { type: 'leave', topic: '', ref: 1 }), { ref: 1, ok: false, error: { code: 'FST_ROOMS_BAD_FRAME' } })
})

t.test('joins that were left count until the host has answered, and all frames that wait are bounded together', async t => {
  const answers: ((is: boolean) => void)[] = []
  const { app, url } = await start(t, {
    topics: { 'a:*': { publish: true } },
    limits: { topicsPerConnection: 3, pending: 4 },
    authorize: ({ action }) => action !== 'join' || new Promise<boolean>(resolve => { answers.push(resolve) })
  })
  const client = await open(t, url)
  for (const topic of ['a:1', 'a:2', 'a:3']) {
    client.send({ type: 'join', topic })
    t.match(await answer(client, { type: 'leave', topic, ref: 1 }), { ok: true })
  }
  t.match(await join(client, 'a:4'), { ok: false, error: { code: 'FST_ROOMS_TOO_MANY_TOPICS' }, close: 4104, retry: {} })
  answers[0]!(true)
  answers[1]!(false)
  await answer(client, { type: 'ping', ref: 2 })
  client.send({ type: 'join', topic: 'a:5', ref: 3 })
  client.send({ type: 'join', topic: 'a:6', ref: 4 })
  await until(() => answers.length === 5)
  const before = app.rooms.stats().paused
  for (let n = 0; n < 3; n++) for (const topic of ['a:5', 'a:6']) client.send({ type: 'message', topic, data: n })
  await until(() => app.rooms.stats().paused > before)
  answers[3]!(true)
  answers[4]!(true)
  await until(() => client.received.filter(text => text.startsWith('{"type":"message"')).length === 6)
  t.match(await answer(client, { type: 'ping', ref: 5 }), {})
})

t.test('a host that closes one session with the code of slow members ends one topic', async t => {
  const { url } = await start(t, { topics: { a: any, b: any }, onMessage: { a: session => { session.close(4201) } } })
  const client = await open(t, url)
  await join(client, 'a')
  await client.next('presence')
  client.send({ type: 'message', topic: 'a', data: 1 })
  t.match(await join(client, 'b'), { type: 'hello', topic: 'b' })
})

t.test('a short mid of an anonymous member, a payload that a topic refuses, and new credentials without onAuth are told', async t => {
  const { url } = await start(t, { topics: { a: { publish: true } } })
  const client = await open(t, url)
  await join(client, 'a')
  t.match(await answer(client, { type: 'message', topic: 'a', data: 1, mid: 'short', ref: 1 }), { topic: 'a', ref: 1, ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /16/ } })
  t.match(await answer(client, { type: 'auth', token: 'x', ref: 2 }), { ref: 2, ok: false, error: { code: 'FST_ROOMS_NO_AUTH' } })
  t.match(await answer(client, { type: 'auth', token: 'x' }), { type: 'error', error: { code: 'FST_ROOMS_NO_AUTH' } })
})

t.test('a kick that meant the user of an upgrade under way refuses the connection', async t => {
  let identify = (): void => {}
  const { app, url } = await start(t, { topics: { a: any }, identify: () => new Promise(resolve => { identify = () => { resolve({ user: 'ann' }) } }) })
  const connecting = connect(t, url)
  await until(() => identify.name === 'identify' && String(identify).includes('ann'))
  await app.rooms.kick({ user: 'ann' })
  identify()
  const client = await connecting
  t.match(await client.closed, { code: 4005 })
})
