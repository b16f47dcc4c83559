import { once } from 'node:events'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import fastifyWebsocket from '@fastify/websocket'
import fp from 'fastify-plugin'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, createRooms, join, listen, refused, until, type AnyOptions, type Client, type LogLine } from './helpers/app.ts'

/** Milliseconds that app.close() may take if no client delays it. A mute client would cost 30 s with ws alone. */
const quickly = 4_000

const plugin = fastifyRooms as any

/** The paths of the rooms and of the host's own sockets in one arrangement. */
interface Arrangement { rooms: string[], host: string[] }

type Arrange = (app: FastifyInstance, options: AnyOptions) => Promise<Arrangement>

/** A WebSocket route of the host that echoes. */
function hostSocket (app: FastifyInstance, path: string): void {
  app.get(path, { websocket: true }, socket => {
    socket.on('message', data => { socket.send(`host: ${data.toString()}`) })
  })
}

/** Registers @fastify/websocket and a route of the host in a scope of its own. */
async function hostScope (app: FastifyInstance): Promise<void> {
  await app.register(async scope => {
    await scope.register(fastifyWebsocket)
    hostSocket(scope, '/host')
  })
}

const arrangements: Record<string, Arrange> = {
  'without @fastify/websocket of the host': async (app, options) => {
    await app.register(plugin, { prefix: '/rooms', ...options })
    return { rooms: ['/rooms/news'], host: [] }
  },
  'with @fastify/websocket registered before': async (app, options) => {
    await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms', ...options })
    hostSocket(app, '/host')
    return { rooms: ['/rooms/news'], host: ['/host'] }
  },
  'with @fastify/websocket registered after': async (app, options) => {
    await app.register(plugin, { prefix: '/rooms', ...options })
    await app.register(fastifyWebsocket)
    hostSocket(app, '/host')
    return { rooms: ['/rooms/news'], host: ['/host'] }
  },
  'with @fastify/websocket registered after, not awaited': async (app, options) => {
    app.register(plugin, { prefix: '/rooms', ...options })
    app.register(fastifyWebsocket)
    app.register(async scope => { hostSocket(scope, '/host') })
    await app.ready()
    return { rooms: ['/rooms/news'], host: ['/host'] }
  },
  'with @fastify/websocket in a child scope before': async (app, options) => {
    await hostScope(app)
    await app.register(plugin, { prefix: '/rooms', ...options })
    return { rooms: ['/rooms/news'], host: ['/host'] }
  },
  'with @fastify/websocket in a child scope after': async (app, options) => {
    await app.register(plugin, { prefix: '/rooms', ...options })
    await hostScope(app)
    return { rooms: ['/rooms/news'], host: ['/host'] }
  },
  'with @fastify/websocket in two scopes, around it': async (app, options) => {
    await hostScope(app)
    await app.register(plugin, { prefix: '/rooms', ...options })
    await app.register(async scope => {
      await scope.register(fastifyWebsocket)
      hostSocket(scope, '/other')
    })
    return { rooms: ['/rooms/news'], host: ['/host', '/other'] }
  },
  'with @fastify/websocket above its scope, registered later': async (app, options) => {
    app.register(async scope => { await scope.register(plugin, { prefix: '/rooms', ...options }) })
    app.register(fastifyWebsocket)
    app.register(async scope => { hostSocket(scope, '/host') })
    await app.ready()
    return { rooms: ['/rooms/news'], host: ['/host'] }
  },
  'as two siblings without @fastify/websocket of the host': async (app, options) => {
    await app.register(async scope => { await scope.register(plugin, { prefix: '/one', ...options }) })
    await app.register(async scope => { await scope.register(plugin, { prefix: '/two', ...options }) })
    return { rooms: ['/one/news', '/two/news'], host: [] }
  },
  'as two siblings with @fastify/websocket before': async (app, options) => {
    await app.register(fastifyWebsocket)
    hostSocket(app, '/host')
    await app.register(async scope => { await scope.register(plugin, { prefix: '/one', ...options }) })
    await app.register(async scope => { await scope.register(plugin, { prefix: '/two', ...options }) })
    return { rooms: ['/one/news', '/two/news'], host: ['/host'] }
  },
  'as two siblings, one with @fastify/websocket in its scope and one without': async (app, options) => {
    await app.register(async scope => { await scope.register(plugin, { prefix: '/one', ...options }) })
    await app.register(async scope => {
      await scope.register(fastifyWebsocket)
      hostSocket(scope, '/host')
      await scope.register(plugin, { prefix: '/two', ...options })
    })
    return { rooms: ['/one/news', '/two/news'], host: ['/host'] }
  }
}

/** A client that completes the handshake and then sends no byte: it answers neither pings nor the close frame. */
async function joinMute (t: Test, url: string, path: string): Promise<{ socket: Socket, text: () => string }> {
  const [host, port] = url.split(':')
  const socket = connectTcp({ host: host!, port: Number(port), allowHalfOpen: true })
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {})
  let text = ''
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  await once(socket, 'connect')
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${url}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`)
  await until(() => text.includes('"hello"'))
  return { socket, text: () => text }
}

async function echoes (client: Client): Promise<string> {
  client.send('hi')
  return client.text()
}

/** Asserts that the member gets bye and then a close with 1001. */
async function leavesProperly (t: Test, client: Client): Promise<void> {
  t.same(await client.closed, { code: 1001, reason: 'going_away' })
  const frames = client.received.map(text => JSON.parse(text))
  t.match(frames.at(-1), { type: 'bye', code: 1001, reason: 'going_away', retry: { min: Number, max: 1_000 } })
  t.equal(frames.filter(({ type }) => type === 'bye').length, 1)
}

for (const [name, arrange] of Object.entries(arrangements)) {
  t.test(`${name}: rooms and the host's own WebSockets work, and members are closed with 1001`, async t => {
    const logs: LogLine[] = []
    const app = createApp(t, {}, logs)
    const { rooms, host } = await arrange(app, {})
    const url = await listen(app)

    const members: Client[] = []
    for (const path of rooms) {
      const one = await join(t, url + path)
      const two = await join(t, url + path)
      one.send({ type: 'message', data: path })
      for (const client of [one, two]) t.match(await client.next('message'), { data: path, from: one.hello.session }, 'rooms of siblings are separate')
      const response = await app.inject({ method: 'POST', url: path, payload: { over: 'http' } })
      t.match(response.json(), { topic: 'news', local: 2, published: true })
      for (const client of [one, two]) t.match(await client.next('message'), { data: { over: 'http' } })
      members.push(one, two)
    }
    const guests = await Promise.all(host.map(path => connect(t, url + path)))
    for (const guest of guests) t.equal(await echoes(guest), 'host: hi')
    t.equal((await app.inject(rooms[0]!)).statusCode, 200)

    const start = Date.now()
    await app.close()
    t.ok(Date.now() - start < quickly, 'app.close() is quick')
    await Promise.all(members.map(client => leavesProperly(t, client)))
    for (const guest of guests) t.equal((await guest.closed).code, 1005, '@fastify/websocket closes the host\'s own sockets without a code')
    t.same(logs.filter(({ level }) => level >= 50), [])
  })

  t.test(`${name}: a mute client does not delay app.close() beyond drain.timeout`, async t => {
    const app = createApp(t)
    const { rooms } = await arrange(app, { drain: { timeout: 200 } })
    const url = await listen(app)
    const mutes = await Promise.all(rooms.map(path => joinMute(t, url, path)))
    const well = await join(t, url + rooms[0]!)

    const start = Date.now()
    await app.close()
    const took = Date.now() - start
    t.ok(took >= 150, 'app.close() waits for the mute client')
    t.ok(took < quickly, 'app.close() ends soon after drain.timeout')
    await leavesProperly(t, well)
    for (const { socket, text } of mutes) {
      await until(() => socket.readableEnded || socket.destroyed)
      t.match(text(), '{"type":"bye","code":1001,"reason":"going_away"', 'the mute client gets bye')
    }
  })
}

t.test('members in raw mode are closed with 1001', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const client = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await app.rooms.count('news') === 1)
  await app.close()
  t.same(await client.closed, { code: 1001, reason: 'going_away' })
  t.same(client.received, [])
})

t.test('a plugin nested in the scope of another is refused with a coded error', async t => {
  const direct = createApp(t)
  await direct.register(plugin, { prefix: '/one' })
  await t.rejects(async () => { await direct.register(plugin, { prefix: '/two' }) }, { code: 'FST_ROOMS_ALREADY_REGISTERED', message: /sibling scopes/ })

  const nested = createApp(t)
  await nested.register(plugin, { prefix: '/one' })
  await t.rejects(async () => {
    await nested.register(async scope => { await scope.register(plugin, { prefix: '/two' }) })
  }, { code: 'FST_ROOMS_ALREADY_REGISTERED', message: /register the plugin once/ })
})

t.test('a route that the host has registered already is refused with a coded error that names the prefix', async t => {
  const taken = { code: 'FST_ROOMS_ROUTE_TAKEN', message: /prefix/ }
  const slug = createApp(t)
  slug.get('/:slug', async () => 'page')
  await t.rejects(async () => { await slug.register(plugin) }, { ...taken, message: /GET \/:topic is taken.*"prefix"/ })

  const post = createApp(t)
  post.post('/rooms/:id', async () => 'created')
  await t.rejects(async () => { await post.register(plugin, { prefix: '/rooms' }) }, { ...taken, message: /POST \/rooms\/:topic is taken/ })

  const same = createApp(t)
  await same.register(async scope => { await scope.register(plugin, { prefix: '/rooms' }) })
  await t.rejects(async () => { await same.register(async scope => { await scope.register(plugin, { prefix: '/rooms/' }) }) }, taken)

  const declared = createApp(t)
  declared.get('/rooms/chat::lobby', async () => 'page')
  await t.rejects(async () => { await declared.register(plugin, { prefix: '/rooms', topics: { 'chat:lobby': {} } }) }, taken)

  const composed = createApp(t)
  composed.get('/api/rooms/:id', async () => 'page')
  await t.rejects(async () => {
    await composed.register(async api => { await api.register(plugin, { prefix: '/rooms' }) }, { prefix: '/api' })
  }, { ...taken, message: /GET \/api\/rooms\/:topic is taken/ })
})

t.test('two topics with one custom path are refused like a route that is taken', async t => {
  const app = createApp(t)
  await t.rejects(async () => {
    await app.register(plugin, { topics: { a: { post: '/same' }, b: { post: '/same' } }, authorize: () => true })
  }, { code: 'FST_ROOMS_ROUTE_TAKEN', message: /POST \/same/ })
})

t.test('a route of the host under another constraint does not conflict', async t => {
  const app = createApp(t)
  app.get('/rooms/:topic', { constraints: { host: 'other.example' } }, async () => 'page')
  await app.register(plugin, { prefix: '/rooms', routes: { socket: { constraints: { host: 'rooms.example' } } } })
  t.equal((await app.inject({ url: '/rooms/news', headers: { host: 'rooms.example' } })).statusCode, 200)
  t.equal((await app.inject({ url: '/rooms/news', headers: { host: 'other.example' } })).body, 'page')

  const clash = createApp(t)
  clash.get('/rooms/:topic', { constraints: { host: 'rooms.example' } }, async () => 'page')
  await t.rejects(async () => {
    await clash.register(plugin, { prefix: '/rooms', routes: { socket: { constraints: { host: 'rooms.example' } } } })
  }, { code: 'FST_ROOMS_ROUTE_TAKEN' })
})

t.test('more specific routes of the host stand beside the rooms at the root', async t => {
  const app = createApp(t)
  app.get('/about', async () => 'about')
  await app.register(plugin)
  const url = await listen(app)
  t.equal((await app.inject('/about')).body, 'about')
  const client = await join(t, `${url}/news`)
  t.equal(client.hello.topic, 'news')
})

t.test('app.rooms exists in the registering scope and below it only', async t => {
  const app = createApp(t)
  let inside: FastifyInstance, below: FastifyInstance, sibling: FastifyInstance
  await app.register(async scope => {
    inside = scope
    await scope.register(plugin, { prefix: '/rooms' })
    await scope.register(async child => { below = child })
  })
  await app.register(async scope => { sibling = scope })
  await app.ready()
  t.equal(below!.rooms, inside!.rooms)
  t.ok(inside!.rooms)
  t.notOk(sibling!.hasDecorator('rooms'))
  t.notOk(app.hasDecorator('rooms'))
  t.notOk(sibling!.hasRequestDecorator('rooms'))
  t.ok(below!.hasRequestDecorator('rooms'))
})

t.test('siblings have separate rooms, sessions and states', async t => {
  const app = createApp(t)
  const hubs: FastifyInstance[] = []
  for (const prefix of ['/one', '/two']) {
    await app.register(async scope => {
      await scope.register(plugin, { prefix })
      hubs.push(scope)
    })
  }
  const url = await listen(app)
  const one = await join(t, `${url}/one/news`)
  const two = await join(t, `${url}/two/news`)
  t.match(await hubs[0]!.rooms.broadcast('news', 'first'), { local: 1 })
  t.match(await hubs[1]!.rooms.broadcast('news', 'second'), { local: 1 })
  t.match(await one.next('message'), { data: 'first' })
  t.match(await two.next('message'), { data: 'second' })
  await t.rejects(hubs[1]!.rooms.send(one.hello.session, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })

  await hubs[0]!.rooms.drain()
  await leavesProperly(t, one)
  t.match(await refused(`${url}/one/news`), { status: 503, body: { code: 'FST_ROOMS_DRAINING' } })
  t.match(await two.ask({ type: 'message', data: 'still here' }), { ok: true })
})

t.test('siblings drain at the same time', async t => {
  const app = createApp(t)
  const hubs: FastifyInstance[] = []
  for (const prefix of ['/one', '/two', '/three']) {
    await app.register(async api => {
      await api.register(async scope => {
        await scope.register(plugin, { prefix, drain: { timeout: 9_000 }, heartbeat: false })
        hubs.push(scope)
      })
    })
  }
  const url = await listen(app)
  const one = await joinMute(t, url, '/one/news')
  const two = await join(t, `${url}/two/news`)
  const three = await joinMute(t, url, '/three/news')
  let over = false
  const closing = app.close().then(() => { over = true })
  await leavesProperly(t, two)
  await until(() => one.text().includes('"bye"') && three.text().includes('"bye"'))
  t.match(hubs.map(({ rooms }) => rooms.stats().connections), [1, Number, 1])
  t.notOk(over)
  one.socket.destroy()
  three.socket.destroy()
  await closing
  t.same(hubs.map(({ rooms }) => rooms.health().state), ['closed', 'closed', 'closed'])
})

t.test('prefixes compose', async t => {
  const app = createApp(t)
  await app.register(async api => {
    await api.register(async v1 => {
      await v1.register(plugin, { prefix: '/rooms', topics: { 'chat:*': { publish: true, post: true }, news: { post: '/feed' } }, authorize: () => true })
    }, { prefix: '/v1' })
  }, { prefix: '/api' })
  const url = await listen(app)
  const chat = await join(t, `${url}/api/v1/rooms/chat:lobby`)
  const news = await join(t, `${url}/api/v1/rooms/news`)
  t.equal((await app.inject({ method: 'POST', url: '/api/v1/rooms/chat:lobby', payload: { a: 1 } })).statusCode, 200)
  t.equal((await app.inject({ method: 'POST', url: '/api/v1/rooms/feed', payload: { b: 2 } })).statusCode, 200)
  t.match(await chat.next('message'), { data: { a: 1 } })
  t.match(await news.next('message'), { data: { b: 2 } })
  t.equal((await app.inject('/rooms/news')).statusCode, 404)
})

t.test('registered inside an fp plugin of the host, the plugin belongs to the host\'s scope', async t => {
  const app = createApp(t)
  await app.register(fp(async scope => { await scope.register(plugin, { prefix: '/rooms' }) }))
  t.ok(app.hasDecorator('rooms'))
  const url = await listen(app)
  t.equal((await join(t, `${url}/rooms/news`)).hello.topic, 'news')
})

t.test('websocket.options is for a registration of @fastify/websocket by this plugin, and is refused if the host registered it', async t => {
  const hosted = createApp(t)
  await hosted.register(fastifyWebsocket)
  await t.rejects(async () => { await hosted.register(plugin, { websocket: { options: { maxPayload: 1 } } }) }, { code: 'FST_ROOMS_WEBSOCKET_REGISTERED', message: /there instead/ })

  const app = await createRooms(t, { websocket: { options: { maxPayload: 64 } } })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  client.send({ type: 'message', data: 'x'.repeat(100) })
  t.equal((await client.closed).code, 1009)
})

t.test('ws accepts payloads up to the largest limit of all topics', async t => {
  const app = await createRooms(t, { limits: { payload: 100 }, topics: { small: { publish: true }, large: { publish: true, limits: { payload: 100_000 } } } })
  const url = await listen(app)
  const large = await join(t, `${url}/rooms/large`)
  t.match(await large.ask({ type: 'message', data: 'x'.repeat(90_000) }), { ok: true })
  const small = await join(t, `${url}/rooms/small`)
  t.match(await small.ask({ type: 'ping' }), { ok: true })
  small.send({ type: 'message', data: 'x'.repeat(1_000) })
  t.match(await small.next('error'), { error: { code: 'FST_ROOMS_FRAME_TOO_LARGE' } }, 'the frame is refused with an answer, and the connection stays open')
  t.match(await small.ask({ type: 'ping' }), { ok: true })
})

for (const hosted of [true, false]) {
  t.test(`clientTracking: false, ${hosted ? 'of the host' : 'in websocket.options'}, changes nothing`, async t => {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket, { options: { clientTracking: false } })
    await app.register(plugin, { prefix: '/rooms', ...(hosted ? {} : { websocket: { options: { clientTracking: false } } }) })
    const url = await listen(app)
    const client = await join(t, `${url}/rooms/news`)
    const start = Date.now()
    await app.close()
    t.ok(Date.now() - start < quickly)
    await leavesProperly(t, client)
  })
}

t.test('connection errors of members reach neither the log above debug nor the errorHandler of the host', async t => {
  for (const hosted of [true, false]) {
    const logs: LogLine[] = []
    const app = createApp(t, {}, logs)
    let handled = 0
    if (hosted) await app.register(fastifyWebsocket, { errorHandler: () => { handled++ } })
    await app.register(plugin, { prefix: '/rooms' })
    const url = await listen(app)
    const { socket } = await joinMute(t, url, '/rooms/news')
    socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff])) // reserved bits violate RFC 6455 5.2
    await until(() => logs.some(({ msg }) => msg === 'connection error'))
    socket.destroy()
    await until(async () => await app.rooms.count('news') === 0)
    t.equal(handled, 0)
    t.match(logs.find(({ msg }) => msg === 'connection error'), { level: 20, err: { code: 'WS_ERR_UNEXPECTED_RSV_2_3' } })
    t.same(logs.filter(({ level, msg }) => level >= 40 && !msg.includes('open lobby')), [])
  }
})

t.test('compilers of the host do not affect the routes of the plugin', async t => {
  const app = createApp(t)
  app.setValidatorCompiler(() => () => true)
  app.setSerializerCompiler(() => () => '"garbage"')
  await app.register(plugin, {
    prefix: '/rooms',
    topics: { news: { message: { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } }, post: true } },
    authorize: () => true
  })
  app.post('/host', { schema: { body: { type: 'object', required: ['n'] }, response: { 200: { type: 'object' } } } }, async () => ({ fine: true }))
  const url = await listen(app)
  const member = await join(t, `${url}/rooms/news`)

  t.equal((await app.inject({ method: 'POST', url: '/host', payload: {} })).body, '"garbage"', 'the host\'s compilers are in use')
  const invalid = await app.inject({ method: 'POST', url: '/rooms/news', payload: { n: '1' } })
  t.equal(invalid.statusCode, 400)
  t.match(invalid.json(), { code: 'FST_ERR_VALIDATION', message: 'body/n must be integer' })
  t.match(await refused(`${url}/rooms/news?since=nonsense`), { status: 400, body: { code: 'FST_ERR_VALIDATION' } })
  const valid = await app.inject({ method: 'POST', url: '/rooms/news', payload: { n: 1 } })
  t.match(valid.json(), { topic: 'news', local: 1, published: true })
  t.match(await member.next('message'), { data: { n: 1 } }, 'the first delivered message is the valid one')
})

t.test('compilers of the host that refuse and throw do not affect the routes of the plugin', async t => {
  const app = createApp(t)
  app.setValidatorCompiler(() => { throw new Error('no schema of mine') })
  app.setSerializerCompiler(() => { throw new Error('no schema of mine') })
  await app.register(plugin, { prefix: '/rooms' })
  await app.ready()
  t.match((await app.inject({ method: 'POST', url: '/rooms/news', payload: [1] })).json(), { local: 0, published: true })
})

t.test('the host\'s error handler gets the refusals of the plugin', async t => {
  const app = createApp(t)
  app.setErrorHandler((error: Error & { code?: string, statusCode?: number }, _request, reply) => { reply.code(error.statusCode ?? 500).send({ handled: error.code }) })
  await app.register(plugin, { prefix: '/rooms', authorize: () => false })
  const url = await listen(app)
  t.same(await refused(`${url}/rooms/news`), { status: 403, body: { handled: 'FST_ROOMS_FORBIDDEN' } })
  t.same(await refused(`${url}/rooms/n%20ws`), { status: 400, body: { handled: 'FST_ERR_VALIDATION' } })
  t.same((await app.inject({ method: 'POST', url: '/rooms/news', payload: {} })).json(), { handled: 'FST_ROOMS_FORBIDDEN' })
})

t.test('routes of the plugin take JSON only, and content type parsers of the host keep working on its own routes', async t => {
  const app = createApp(t)
  app.addContentTypeParser('text/csv', { parseAs: 'string' }, (_request, body, done) => { done(null, { csv: body }) })
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => { done(null, { any: body }) })
  await app.register(plugin, { prefix: '/rooms' })
  app.post('/host', async request => request.body)
  t.same((await app.inject({ method: 'POST', url: '/host', headers: { 'content-type': 'text/csv' }, payload: 'a,b' })).json(), { csv: 'a,b' })
  for (const type of ['text/csv', 'text/plain', 'application/x-anything']) {
    t.equal((await app.inject({ method: 'POST', url: '/rooms/news', headers: { 'content-type': type }, payload: '{}' })).statusCode, 415, type)
  }
})

t.test('on localhost, where Fastify listens on two addresses, both servers take members and close', async t => {
  const app = await createRooms(t)
  await app.listen({ host: 'localhost', port: 0 })
  const addresses = app.addresses() as AddressInfo[]
  const members = await Promise.all(addresses.map(({ address, family, port }) => join(t, `${String(family).endsWith('6') ? `[${address}]` : address}:${port}/rooms/news`)))
  t.match(await app.rooms.broadcast('news', 1), { local: addresses.length })
  for (const member of members) t.match(await member.next('message'), { data: 1 })
  const start = Date.now()
  await app.close()
  t.ok(Date.now() - start < quickly)
  await Promise.all(members.map(member => leavesProperly(t, member)))
})

t.test('app.close() of an app that never listened, or never became ready, does not fail', async t => {
  const ready = await createRooms(t)
  await ready.ready()
  await ready.close()
  t.equal(ready.rooms.health().state, 'closed')
  await t.rejects(ready.rooms.broadcast('news', 1), { code: 'FST_ROOMS_CLOSED' })

  const early = await createRooms(t)
  await early.close()
  t.equal(early.rooms.health().state, 'closed')
})
