import { EventEmitter } from 'node:events'
import { PassThrough, Readable } from 'node:stream'
import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import fastifyRooms from '../lib/index.ts'
import type { InjectedClient, ServerFrame } from '../types/index.ts'
import { createApp, createRooms, listen, until } from './helpers/app.ts'

const plugin = fastifyRooms as any

t.test('inject joins without a port, before the app listens or is ready', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news')
  const hello = await client.next('hello')
  t.match(hello, { v: 1, topic: 'news' })
  t.equal(client.mode, 'rooms.v1')
  t.notOk(app.server.listening)

  t.match(await app.rooms.broadcast('news', { a: 1 }), { local: 1 })
  t.match(await client.next('message'), { type: 'message', data: { a: 1 } })
  client.send({ type: 'message', data: 'hi', ref: 1 })
  t.match(await client.next('message'), { data: 'hi', from: hello.session })
  t.match(await client.next('ack'), { ref: 1, ok: true })
  await client.close()
  t.same(await client.closed, { code: 1000, reason: '' })
  await until(async () => await app.rooms.count('news') === 0)
})

t.test('inject works beside a port, and in every arrangement with @fastify/websocket', async t => {
  const arrangements: ((app: FastifyInstance) => Promise<unknown>)[] = [
    async app => app.register(plugin),
    async app => { await app.register(fastifyWebsocket); await app.register(plugin) },
    async app => { await app.register(plugin); await app.register(fastifyWebsocket) },
    async app => { await app.register(async scope => { await scope.register(fastifyWebsocket) }); await app.register(plugin) }
  ]
  for (const arrange of arrangements) {
    const app = createApp(t)
    await arrange(app)
    await listen(app)
    const client = await app.rooms.inject('/news')
    t.match(await client.next(), { type: 'hello' })
    await app.close()
    t.match(await client.next('bye'), { code: 1001, reason: 'going_away' })
    t.same(await client.closed, { code: 1001, reason: 'going_away' })
  }
})

t.test('inject reaches rooms in a child scope by the composed path', async t => {
  const app = createApp(t)
  let scope: FastifyInstance
  await app.register(async api => {
    scope = api
    await api.register(plugin, { prefix: '/rooms' })
  }, { prefix: '/api' })
  const client = await scope!.rooms.inject('/api/rooms/news')
  t.match(await client.next('hello'), { topic: 'news' })
})

t.test('inject in a scope that is still booting waits for the whole app', async t => {
  const app = createApp(t)
  let injected: Promise<InjectedClient>
  let late = false
  app.register(async scope => {
    await scope.register(plugin, { prefix: '/rooms' })
    scope.addHook('onReady', async () => { late = true })
    injected = scope.rooms.inject('/rooms/news')
  })
  await app.ready()
  t.match(await (await injected!).next('hello'), { topic: 'news' })
  t.ok(late)
})

t.test('inject takes headers in any case of letters', async t => {
  const seen: unknown[] = []
  const app = await createRooms(t, {
    identify: request => {
      seen.push([request.headers.authorization, request.host, request.ip, request.headers.cookie])
      return { user: String(request.headers.authorization) }
    }
  })
  const one = await app.rooms.inject('/rooms/news', { headers: { authorization: 'one' } })
  const two = await app.rooms.inject('/rooms/news', { headers: { Authorization: 'two', HOST: 'rooms.example', Cookie: 'a=b' } })
  await one.next('hello')
  await two.next('hello')
  t.same(seen, [['one', 'localhost', '127.0.0.1', undefined], ['two', 'rooms.example', '127.0.0.1', 'a=b']])
  t.same((await app.rooms.members('news')).map(({ user }) => user), ['one', 'two'])
})

t.test('inject takes since, with other query parameters or alone', async t => {
  const app = await createRooms(t)
  const first = await app.rooms.inject('/rooms/news')
  const { id } = await first.next('hello')
  for (const path of ['/rooms/news', '/rooms/news?presence=1']) {
    const again = await app.rooms.inject(path, { since: id! })
    t.match(await again.next('hello'), { recovered: true, replayed: 0 })
  }
  const presence = await app.rooms.inject('/rooms/news?presence=1', { since: id! })
  await presence.next('hello')
  t.match(await presence.next('presence'), { count: 4, state: [{}, {}, {}, {}] })
  await app.rooms.broadcast('news', 1)
  t.match(await (await app.rooms.inject('/rooms/news', { since: id! })).next('hello'), { recovered: false })
  await t.rejects(app.rooms.inject('/rooms/news', { since: 'a b&c=d' }), { code: 'FST_ROOMS_INJECT_REFUSED', message: /400/ })
})

t.test('inject supports raw mode: frames are text', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news', { mode: 'rooms.raw' })
  t.equal(client.mode, 'rooms.raw')
  await until(async () => await app.rooms.count('news') === 1)
  await app.rooms.broadcast('news', { a: 1 })
  t.equal(await client.next(), '{"a":1}')
  client.send('plain text')
  t.equal(await client.next(), 'plain text', 'the member gets its own message')
  client.send({ b: 2 })
  t.equal(await client.next(), '{"b":2}')
  client.send(Buffer.from('binary'))
  t.equal((await client.closed).code, 4000)
})

t.test('inject offers a token beside the mode through a header', async t => {
  const tokens: unknown[] = []
  const app = await createRooms(t, { identify: request => { tokens.push(request.headers['sec-websocket-protocol']); return null } })
  const client = await app.rooms.inject('/rooms/news', { headers: { 'Sec-WebSocket-Protocol': 'bearer.abc, rooms.v1' } })
  await client.next('hello')
  t.same(tokens, ['bearer.abc, rooms.v1'])
})

t.test('a refused upgrade is a coded error with the status', async t => {
  const app = await createRooms(t, {
    topics: { news: {}, 'chat:*': {} },
    authorize: context => context.topic !== 'chat:closed',
    identify: request => {
      if (request.headers['x-status'] !== undefined) throw Object.assign(new Error('no'), { statusCode: Number(request.headers['x-status']) })
      return null
    }
  })
  const table: [string, Record<string, string>, number][] = [
    ['/rooms/weather', {}, 404], ['/nowhere', {}, 404], ['/rooms/chat:closed', {}, 403], ['/rooms/chat:a%20b', {}, 400], ['/rooms/news?presence=7', {}, 400], [`/rooms/chat:${'x'.repeat(101)}`, {}, 414], ['/rooms/%zz', {}, 400],
    ['/rooms/news', { origin: 'http://evil.example' }, 403], ['/rooms/news', { 'x-status': '401' }, 401], ['/rooms/news', { 'x-status': '429' }, 429], ['/rooms/news', { 'sec-websocket-protocol': 'other' }, 400]
  ]
  for (const [path, headers, status] of table) {
    await t.rejects(app.rooms.inject(path, { headers }), { code: 'FST_ROOMS_INJECT_REFUSED', message: `the upgrade was refused with status ${status}` }, `${path} → ${status}`)
  }
  await app.rooms.drain()
  await t.rejects(app.rooms.inject('/rooms/news'), { code: 'FST_ROOMS_INJECT_REFUSED', message: /503/ })
})

t.test('inject into a closed app is refused with 503, whether or not the host registered @fastify/websocket', async t => {
  for (const hosted of [false, true]) {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms' })
    await app.ready()
    await app.close()
    await t.rejects(app.rooms.inject('/rooms/news'), { code: 'FST_ROOMS_INJECT_REFUSED', message: /503/ })
  }
})

t.test('inject of an app that fails to boot rejects with its error', async t => {
  const app = createApp(t)
  await app.register(plugin)
  app.register(async () => { throw new Error('boot') })
  await t.rejects(app.rooms.inject('/news'), { message: 'boot' })
})

t.test('an error of another upgrade listener of the host is not a refusal', async t => {
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  await app.register(plugin, { prefix: '/rooms' })
  await app.ready()
  app.server.prependListener('upgrade', () => { throw new Error('host listener') })
  await t.rejects(app.rooms.inject('/rooms/news'), { message: 'host listener' })
})

t.test('next() after the close rejects once all frames are read', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news')
  const { session } = await client.next('hello')
  await app.rooms.send(session, 'last words')
  const pending = client.next('direct')
  await app.rooms.kick({ session }, { code: 4005, reason: 'out' })
  t.match(await pending, { data: 'last words' })
  await client.closed
  t.match(await client.next('bye'), { code: 4005, reason: 'out' }, 'frames before the close can still be read')
  for (const read of [() => client.next(), () => client.next('message')]) await t.rejects(read(), { code: 'FST_ROOMS_INJECT_CLOSED', message: 'the server closed with 4005 out' })
})

t.test('a waiting next() rejects when the server closes', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news')
  const { session } = await client.next('hello')
  const waiting = [client.next('message'), client.next('message'), client.next('message')]
  const settled = Promise.allSettled(waiting)
  await app.rooms.kick({ session })
  for (const result of await settled) t.match(result, { status: 'rejected', reason: { code: 'FST_ROOMS_INJECT_CLOSED', message: /4005 kicked/ } })
})

t.test('close() takes a code and a reason, which onLeave gets', async t => {
  const left: unknown[] = []
  const app = await createRooms(t, { onLeave: (_session, reason) => { left.push(reason) } })
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  await client.close(4321, 'enough')
  await until(() => left.length === 1)
  t.same(left, [{ code: 4321, reason: 'enough' }])
})

t.test('concurrent readers get the frames in order, one each', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news', { mode: 'rooms.raw' })
  await until(async () => await app.rooms.count('news') === 1)
  const readers = [client.next(), client.next(), client.next()]
  for (const n of [1, 2, 3]) await app.rooms.broadcast('news', n)
  t.same(await Promise.all(readers), ['1', '2', '3'])
})

t.test('the first frame is never lost: of a hundred concurrent clients each reads hello first', async t => {
  const app = await createRooms(t)
  const clients = await Promise.all(Array.from({ length: 100 }, () => app.rooms.inject('/rooms/news')))
  const first = await Promise.all(clients.map(client => client.next())) as ServerFrame[]
  t.same(first.map(({ type }) => type), Array(100).fill('hello'))
  t.equal(new Set(first.map(frame => 'session' in frame && frame.session)).size, 100)
  t.match(await app.rooms.broadcast('news', 1), { local: 100 })
  for (const message of await Promise.all(clients.map(client => client.next('message')))) t.equal(message.data, 1)
})

t.test('messages that onJoin sends arrive right after hello', async t => {
  const app = await createRooms(t, { onJoin: session => session.send('welcome') })
  const client = await app.rooms.inject('/rooms/news')
  t.match(await client.next(), { type: 'hello' })
  t.match(await client.next(), { type: 'direct', data: 'welcome' })
})

t.test('inject works if the host trusts proxies, and its headers count', async t => {
  for (const trustProxy of [true, '127.0.0.1', () => true]) {
    const addresses: string[] = []
    const app = createApp(t, { trustProxy })
    await app.register(plugin, {
      prefix: '/rooms',
      onJoin: (session: any, request: any) => { addresses.push(session.connection.address, request.ip) }
    })
    await (await app.rooms.inject('/rooms/news')).next('hello')
    await (await app.rooms.inject('/rooms/news', { headers: { 'X-Forwarded-For': '203.0.113.7' } })).next('hello')
    t.same(addresses, ['127.0.0.1', '127.0.0.1', '203.0.113.7', '203.0.113.7'])
  }
})

t.test('inject runs the host\'s hooks', async t => {
  const app = createApp(t)
  app.addHook('onRequest', async request => { if (request.headers.authorization !== 'yes') throw Object.assign(new Error('no'), { statusCode: 401 }) })
  await app.register(plugin, { prefix: '/rooms' })
  await t.rejects(app.rooms.inject('/rooms/news'), { code: 'FST_ROOMS_INJECT_REFUSED', message: /401/ })
  t.match(await (await app.rooms.inject('/rooms/news', { headers: { authorization: 'yes' } })).next('hello'), { topic: 'news' })
})

t.test('inject into a WebSocket route of the host makes a bare client', async t => {
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  await app.register(plugin, { prefix: '/rooms' })
  app.get('/host', { websocket: true }, socket => { socket.on('message', data => { socket.send(`host: ${data.toString()}`) }) })
  app.get('/page', async () => 'page')
  const client = await app.rooms.inject('/host', { mode: 'rooms.raw' })
  client.send('hi')
  t.equal(await client.next(), 'host: hi')
  await client.close()
  const page = await app.rooms.inject('/page')
  await t.rejects(page.next(), { code: 'FST_ROOMS_INJECT_CLOSED' })
  // In-process streams do not report the end of the other side to the host.
  for (const socket of app.websocketServer.clients) socket.terminate()
})

t.test('a hook of the host may listen to events of the injected request', async t => {
  const app = createApp(t)
  app.addHook('onRequest', async ({ raw }) => {
    const listener = () => {}
    raw.on('close', listener)
    raw.once('aborted', listener)
    raw.off('close', listener)
    raw.removeListener('aborted', listener)
  })
  await app.register(plugin, { prefix: '/rooms' })
  t.match(await (await app.rooms.inject('/rooms/news')).next('hello'), { topic: 'news' })
})

t.test('issue 8: a next() that times out rejects with the frames that came instead', async t => {
  const app = await createRooms(t)
  const client = await app.rooms.inject('/rooms/news')
  const { session } = await client.next('hello')
  client.send({ type: 'message', ref: 1 })
  await app.rooms.send(session, 'x'.repeat(1_000))
  const begun = performance.now()
  const error = await client.next('message', { timeout: 50 }).then(() => { throw new Error('it came') }, error => error)
  t.match(error, { code: 'FST_ROOMS_INJECT_TIMEOUT', message: /^no "message" frame came within 50 ms; dropped were \{"type":"ack","ref":1,"ok":false,.*…, \{"type":"direct","data":"x+…$|dropped were .*direct.*ack/ })
  t.ok(error.message.length < 400, 'long frames are truncated')
  t.ok(performance.now() - begun < 4_000, 'the default timeout is longer')
  await t.rejects(client.next({ timeout: 10 }), { code: 'FST_ROOMS_INJECT_TIMEOUT', message: /^no frame came within 10 ms; dropped were .*"ack"/ }, 'the list includes frames that an earlier call dropped')

  const waiting = client.next('message')
  await app.rooms.broadcast('news', 'for the reader that still waits')
  t.match(await waiting, { data: 'for the reader that still waits' }, 'a reader that timed out takes no frame')
  for (let n = 0; n < 30; n++) await app.rooms.broadcast('news', `message ${n}`)
  const many = await client.next('bye', { timeout: 50 }).catch(error => error)
  t.equal(many.message.match(/"message"/g).length, 10, 'the list has the last ten frames')
  t.match(many.message, /message 29/)
})

t.test('next() that times out without a frame says so, in raw mode as well, and refuses an invalid timeout', async t => {
  const app = await createRooms(t)
  const raw = await app.rooms.inject('/rooms/news', { mode: 'rooms.raw' })
  await t.rejects(raw.next({ timeout: 10 }), { code: 'FST_ROOMS_INJECT_TIMEOUT', message: /^no frame came within 10 ms; none was dropped$/ })
  for (const timeout of [0, 1.5, Infinity, '10'] as number[]) {
    await t.rejects(raw.next({ timeout }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
    await t.rejects(raw.next('message', { timeout }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  }
})

t.test('issue 8: a refused upgrade carries the status and the body of the answer', async t => {
  for (const hosted of [false, true]) {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    app.addHook('onRequest', async (request, reply) => {
      if (request.headers['x-answer'] === 'stream') return reply.code(418).type('text/plain').send(Readable.from([Buffer.from('short and '), Buffer.from('stout')]))
      if (request.headers['x-answer'] === 'empty') return reply.code(401).send()
      if (request.headers['x-answer'] === 'broken') return reply.code(500).type('application/json').send('{"no')
    })
    await app.register(plugin, { prefix: '/rooms', topics: { news: {}, closed: {} }, authorize: (context: any) => context.topic !== 'closed' })
    const refusal = async (path: string, answer = ''): Promise<any> => app.rooms.inject(path, { headers: { 'x-answer': answer } }).then(() => { throw new Error('not refused') }, error => error)
    t.match(await refusal('/rooms/closed'), {
      code: 'FST_ROOMS_INJECT_REFUSED',
      statusCode: 403,
      body: { statusCode: 403, code: 'FST_ROOMS_FORBIDDEN', error: 'Forbidden', message: 'not allowed: join' },
      message: 'the upgrade was refused with status 403 (FST_ROOMS_FORBIDDEN)'
    })
    t.match(await refusal('/rooms/news?presence=7'), { statusCode: 400, body: { code: 'FST_ERR_VALIDATION' } })
    t.match(await refusal('/nowhere'), { statusCode: 404, body: { error: 'Not Found' }, message: /status 404$/ })
    t.match(await refusal('/rooms/%zz'), { statusCode: 400, body: { code: 'FST_ERR_BAD_URL' } })
    t.match(await refusal('/rooms/news', 'stream'), { statusCode: 418, body: 'short and stout' })
    t.match(await refusal('/rooms/news', 'empty'), { statusCode: 401, body: '' })
    t.match(await refusal('/rooms/news', 'broken'), { statusCode: 500, body: '{"no' })
    const client = await app.rooms.inject('/rooms/news')
    t.match(await client.next(), { type: 'hello' })
    await app.rooms.drain()
    t.match(await refusal('/rooms/news'), { statusCode: 503, body: { statusCode: 503, code: 'FST_ROOMS_DRAINING', error: 'Service Unavailable' } })
  }
})

t.test('next(), and the wait of inject for the body of a refusal, time out after five seconds by default', async t => {
  const app = createApp(t)
  const body = new PassThrough()
  app.addHook('onRequest', async (request, reply) => {
    if (request.headers['x-endless'] !== undefined) return reply.code(418).type('text/plain').send(body)
  })
  await app.register(plugin, { prefix: '/rooms' })
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  body.write('begun')
  await Promise.all([
    t.rejects(client.next('message'), { code: 'FST_ROOMS_INJECT_TIMEOUT', message: /within 5000 ms/ }),
    t.rejects(app.rooms.inject('/rooms/news', { headers: { 'x-endless': '1' } }), { code: 'FST_ROOMS_INJECT_REFUSED', statusCode: 418, body: 'begun' })
  ])
  body.end()
})

t.test('a refusal with a slow body is read to its end', async t => {
  const app = createApp(t)
  const body = new PassThrough()
  app.addHook('onRequest', async (_request, reply) => reply.code(418).type('application/json').send(body))
  await app.register(plugin, { prefix: '/rooms' })
  body.write('{"tea":')
  const refused = app.rooms.inject('/rooms/news').catch(error => error)
  setTimeout(() => { body.end('"pot"}') }, 50)
  t.match(await refused, { statusCode: 418, body: { tea: 'pot' } })
})

t.test('a refusal by an @fastify/websocket on a server of its own has only a status', async t => {
  const app = createApp(t)
  await app.register(fastifyWebsocket, { options: { server: new EventEmitter() as never } })
  await app.register(plugin, { prefix: '/rooms', topics: { news: {} } })
  t.match(await app.rooms.inject('/rooms/weather').catch(error => error), { code: 'FST_ROOMS_INJECT_REFUSED', statusCode: 404, body: undefined })
  t.match(await (await app.rooms.inject('/rooms/news')).next(), { type: 'hello' })
})
