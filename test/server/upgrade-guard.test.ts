import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import fastifyRooms from '../../lib/index.ts'
import { connect, createApp, createRooms, join, listen, refused, until, type AnyOptions } from '../helpers/app.ts'

const plugin = fastifyRooms as any

/** Milliseconds for an upgrade in these tests, and for a busy machine to react. */
const handshake = 200
const soon = 8_000

interface RawClient { socket: Socket, text: () => string, closed: () => boolean }

/** Sends an upgrade as bytes, because clients would not send an invalid one. */
async function upgrade (t: Test, url: string, path: string, { protocol = 'websocket', version = '13', allowHalfOpen = false } = {}): Promise<RawClient> {
  const [host, port] = url.split(':')
  const socket = connectTcp({ host: host!, port: Number(port), allowHalfOpen })
  t.teardown(() => { socket.destroy() })
  let text = ''
  let closed = false
  socket.on('error', () => {})
  socket.on('close', () => { closed = true })
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  await once(socket, 'connect')
  socket.write(`GET ${path} HTTP/1.1\r\nHost: ${url}\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\nSec-WebSocket-Version: ${version}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`)
  return { socket, text: () => text, closed: () => closed }
}

const pause = (milliseconds: number) => new Promise(resolve => setTimeout(resolve, milliseconds))

/** Kinds of refused upgrades that @fastify/websocket leaves open. */
const leaks: Record<string, { path: string, status: number, before?: (app: FastifyInstance) => void, after?: (app: FastifyInstance) => void }> = {
  'a malformed URL': { path: '/%zz', status: 400 },
  'a malformed URL below the prefix': { path: '/rooms/%zz', status: 400 },
  'a refusal by a hook of the host that was added before the plugin': {
    path: '/rooms/news',
    status: 401,
    before: app => { app.addHook('onRequest', async (_request, reply) => reply.code(401).send({ no: true })) }
  },
  'an error of a hook of the host that was added before the plugin': {
    path: '/rooms/news',
    status: 500,
    before: app => { app.addHook('onRequest', async () => { throw new Error('broken') }) }
  },
  'a route of the host outside the scope': { path: '/page', status: 200, after: app => { app.get('/page', async () => 'page') } },
  'a path that does not exist': { path: '/nowhere/at/all', status: 404 }
}

for (const [name, { path, status, before, after }] of Object.entries(leaks)) {
  for (const hosted of [false, true]) {
    t.test(`${name}${hosted ? ', if the host registered @fastify/websocket in a child scope' : ''}: the socket of the refused upgrade is cut within limits.handshake`, async t => {
      const app = createApp(t)
      before?.(app)
      if (hosted) await app.register(async scope => { await scope.register(fastifyWebsocket) })
      await app.register(plugin, { prefix: '/rooms', limits: { handshake } })
      after?.(app)
      const url = await listen(app)
      const client = await upgrade(t, url, path)
      await until(() => client.closed(), soon)
      t.match(client.text(), new RegExp(`^HTTP/1\\.1 ${status} `), 'the upgrade was answered first')
    })
  }
}

t.test('an upgrade that was refused at once ends with its response, and does not count as timed out', async t => {
  const app = await createRooms(t, { limits: { handshake: 60_000 } })
  const url = await listen(app)
  for (const path of ['/%zz', '/rooms/%zz', '/nowhere/at/all', `/rooms/${'a'.repeat(200)}`]) {
    for (const protocol of ['websocket', 'foo']) {
      const client = await upgrade(t, url, path, { protocol })
      await until(() => client.closed())
      t.match(client.text(), /^HTTP\/1\.1 4(00|04|14) /, path)
    }
  }
  t.equal(app.rooms.stats().refusals.handshake, 0)
})

t.test('upgrades that waited for others end with their response, too', async t => {
  const app = createApp(t)
  // Longer than upgrades may take of one turn.
  app.addHook('onRequest', (_request, _reply, done) => { for (const end = performance.now() + 5; performance.now() < end;); done() })
  await app.register(plugin, { prefix: '/rooms', limits: { handshake: 60_000 } })
  const url = await listen(app)
  const clients = await Promise.all(Array.from({ length: 8 }, (_, n) => upgrade(t, url, n % 2 === 0 ? '/nowhere' : '/%zz')))
  await until(() => clients.every(client => client.closed()))
  for (const client of clients) t.match(client.text(), /^HTTP\/1\.1 40[04] /)
  t.equal(app.rooms.stats().refusals.handshake, 0)
})

t.test('a refused peer that stays connected is cut within limits.handshake, and does not outlast app.close', async t => {
  for (const time of [handshake, 60_000]) {
    const app = await createRooms(t, { limits: { handshake: time } })
    const url = await listen(app)
    const client = await upgrade(t, url, '/%zz', { allowHalfOpen: true })
    let ended = false
    client.socket.on('end', () => { ended = true })
    await until(() => ended)
    const open = (): Promise<number> => new Promise((resolve, reject) => { app.server.getConnections((error, count) => { if (error === null) resolve(count); else reject(error) }) })
    if (time > handshake) {
      await pause(handshake * 3)
      t.equal(await open(), 1)
      await app.close()
    }
    await until(async () => await open() === 0)
    t.equal(app.rooms.stats().refusals.handshake, 0)
  }
})

t.test('a refused peer that keeps sending is cut as well', async t => {
  const app = await createRooms(t, { limits: { handshake } })
  const url = await listen(app)
  const client = await upgrade(t, url, '/%zz')
  const timer = setInterval(() => { client.socket.write('x') }, 20)
  t.teardown(() => { clearInterval(timer) })
  await until(() => client.closed(), soon)
  t.match(client.text(), /^HTTP\/1\.1 400 /)
})

t.test('an upgrade that ws itself refuses is answered and cut', async t => {
  const app = await createRooms(t)
  const url = await listen(app)
  const client = await upgrade(t, url, '/rooms/news', { version: '7' })
  await until(() => client.closed(), soon)
  t.match(client.text(), /^HTTP\/1\.1 400 /)
  t.match(app.rooms.stats(), { connections: 0, members: 0 })
})

t.test('an upgrade that hooks of the plugin refuse is cut at once', async t => {
  const app = await createRooms(t, { limits: { handshake: 60_000 }, authorize: () => false })
  const url = await listen(app)
  const client = await upgrade(t, url, '/rooms/news')
  await until(() => client.closed(), soon)
  t.match(client.text(), /^HTTP\/1\.1 403 /)
})

t.test('an upgrade whose hooks take longer than limits.handshake is cut, and does not join', async t => {
  let answer: (identity: null) => void = () => {}
  const asked = new Promise<null>(resolve => { answer = resolve })
  const app = await createRooms(t, { limits: { handshake }, identify: () => asked })
  const url = await listen(app)
  const client = await upgrade(t, url, '/rooms/news')
  await until(() => client.closed(), soon)
  t.equal(client.text(), '')
  answer(null)
  await pause(50)
  t.match(app.rooms.stats(), { connections: 0, members: 0, topics: 0 })
})

t.test('a WebSocket may be idle for longer than limits.handshake', async t => {
  const app = createApp(t)
  await app.register(plugin, { prefix: '/rooms', limits: { handshake } })
  await app.register(async scope => {
    await scope.register(fastifyWebsocket)
    scope.get('/host', { websocket: true }, socket => { socket.on('message', () => { socket.send('echo') }) })
  })
  const url = await listen(app)
  const member = await join(t, `${url}/rooms/news`)
  const guest = await connect(t, `${url}/host`)
  await pause(handshake * 4)
  t.match(await member.ask({ type: 'ping' }), { ok: true })
  guest.send('hi')
  t.equal(await guest.text(), 'echo', 'a WebSocket of the host may be idle as well')
})

for (const order of ['before', 'after']) {
  t.test(`the host's own WebSockets, registered ${order}, are not cut when the rooms have closed`, async t => {
    const app = createApp(t)
    let ended = false
    const host = async () => app.register(async scope => {
      await scope.register(fastifyWebsocket, {
        preClose (done) {
          // A host with a slow farewell.
          setTimeout(() => {
            for (const client of scope.websocketServer.clients) client.close(4321, 'from the host')
            scope.websocketServer.close()
            ended = true
          }, 200)
          done()
        }
      })
      scope.get('/host', { websocket: true }, () => {})
    })
    if (order === 'before') await host()
    await app.register(plugin, { prefix: '/rooms', limits: { handshake: 60_000 } })
    if (order === 'after') await host()
    const url = await listen(app)
    const guest = await connect(t, `${url}/host`)
    await app.close()
    t.ok(ended, 'Fastify waited for the host\'s connections')
    t.same(await guest.closed, { code: 4321, reason: 'from the host' })
  })
}

t.test('upgrades to other protocols have no deadline of the plugin', async t => {
  const app = await createRooms(t, { limits: { handshake } })
  const sockets: Socket[] = []
  app.server.on('upgrade', (request, socket: Socket) => {
    if (request.headers.upgrade !== 'foo') return
    sockets.push(socket)
    socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n')
  })
  const url = await listen(app)
  const client = await upgrade(t, url, '/elsewhere', { protocol: 'foo' })
  await until(() => client.text().includes('101'), soon)
  await pause(handshake * 3)
  t.notOk(client.closed())
  t.notMatch(client.text(), /404/, 'no other listener answers')
  t.equal(sockets[0]!.timeout ?? 0, 0)
  client.socket.destroy()
  sockets[0]!.destroy()
})

for (const hosted of [false, true]) {
  const where = hosted ? ', if the host registered @fastify/websocket' : ''

  t.test(`an upgrade to an unknown protocol is answered, and cut within limits.handshake${where}`, async t => {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms', limits: { handshake } })
    const url = await listen(app)
    const paths = { '/nowhere': 404, '/%zz': 400, '/rooms/news': 400 }
    for (const [path, status] of Object.entries(paths)) {
      const client = await upgrade(t, url, path, { protocol: 'foo' })
      await until(() => client.closed(), soon)
      t.match(client.text(), new RegExp(`^HTTP/1\\.1 ${status} `), path)
    }
  })

  t.test(`an upgrade to an unknown protocol does not delay app.close${where}`, async t => {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms', limits: { handshake: 60_000 } })
    const url = await listen(app)
    const client = await upgrade(t, url, '/nowhere', { protocol: 'foo' })
    await until(() => client.text() !== '', soon)
    let over = false
    const closing = app.close().then(() => { over = true })
    await until(() => over, soon)
    await closing
    await until(() => client.closed(), soon)
  })
}

t.test('after app.close() the server has no listener of the plugin, and keeps other ones', async t => {
  const count = (app: FastifyInstance) => app.server.listenerCount('upgrade')
  const app = createApp(t)
  const host = () => {}
  app.server.on('upgrade', host)
  await app.register(async scope => { await scope.register(plugin, { prefix: '/one' }) })
  await app.register(async scope => { await scope.register(plugin, { prefix: '/two' }) })
  await app.ready()
  t.equal(count(app), 3, 'both hubs share one guard and one upgrade listener')
  await app.close()
  t.same(app.server.listeners('upgrade'), [host])
  t.same(Object.getOwnPropertySymbols(app.server).filter(symbol => symbol.description?.startsWith('fastify-rooms')), [])

  const failed = createApp(t)
  failed.get('/:page', async () => 'page')
  await t.rejects(async () => { await failed.register(plugin) }, { code: 'FST_ROOMS_ROUTE_TAKEN' })
  await failed.close()
  t.equal(count(failed), 0, 'a failed registration leaves no listener')
})

t.test('the first hub of a server sets the deadline', async t => {
  const app = createApp(t)
  await app.register(async scope => { await scope.register(plugin, { prefix: '/one', limits: { handshake } }) })
  await app.register(async scope => { await scope.register(plugin, { prefix: '/two', limits: { handshake: 60_000 } }) })
  const url = await listen(app)
  const client = await upgrade(t, url, '/two/%zz')
  await until(() => client.closed(), soon)
  t.match(client.text(), /^HTTP\/1\.1 400 /)
})

for (const hosted of [false, true]) {
  for (const protocol of ['websocket', 'foo']) {
    t.test(`upgrades to ${protocol} during a drain are refused with 503, and their sockets are ended${hosted ? ', if the host registered @fastify/websocket' : ''}`, async t => {
      const app = createApp(t)
      if (hosted) await app.register(fastifyWebsocket)
      await app.register(plugin, { prefix: '/rooms', drain: { timeout: 8_000 } } satisfies AnyOptions)
      const url = await listen(app)
      const mute = await upgrade(t, url, '/rooms/news')
      await until(() => mute.text().includes('"hello"'), soon)
      let over = false
      const closing = app.close().then(() => { over = true })
      await until(() => app.rooms.health().state === 'draining')
      const sockets: Socket[] = []
      app.server.on('connection', (socket: Socket) => { sockets.push(socket) })
      const late = await upgrade(t, url, '/rooms/news', { protocol })
      await until(() => late.closed())
      t.doesNotThrow(() => { sockets[0]!.emit('error', new Error('reset')) }, 'one that is reset meanwhile ends nothing else')
      t.match(late.text(), /^HTTP\/1\.1 503 Service Unavailable\r\n/)
      t.match(late.text(), /\r\nconnection: close\r\n/i)
      t.notOk(over, 'upgrades are refused before the app has closed')
      mute.socket.destroy()
      await closing
      t.match(app.rooms.stats(), { connections: 0, refusals: { handshake: 0 } })
    })
  }
}

t.test('after app.rooms.drain() joins are refused with 503, and other routes keep working', async t => {
  const app = await createRooms(t)
  app.get('/page', async () => 'page')
  const url = await listen(app)
  const member = await join(t, `${url}/rooms/news`)
  await app.rooms.drain()
  t.equal((await member.closed).code, 1001)
  t.match(await refused(`${url}/rooms/news`), { status: 503, body: { code: 'FST_ROOMS_DRAINING', statusCode: 503 } })
  t.match((await app.inject('/rooms/news')).json(), { code: 'FST_ROOMS_DRAINING' })
  t.equal((await app.inject('/page')).body, 'page')
  t.match((await app.inject({ method: 'POST', url: '/rooms/news', payload: {} })).json(), { local: 0 })
})

t.test('issue 8: a hook of the host that sets a time-out on the socket does not disable the guard, or hide a kick', async t => {
  let settle: (() => void) | undefined
  const app = createApp(t)
  app.addHook('onRequest', async request => { request.raw.socket.setTimeout(60_000) })
  await app.register(fastifyRooms as any, { prefix: '/rooms', limits: { handshake: 400 }, identify: () => new Promise(resolve => { settle = () => { resolve({ user: 'eve' }) } }) })
  const url = await listen(app)
  const socket = new WebSocket(`ws://${url}/rooms/news`)
  socket.on('error', () => {})
  await until(() => settle !== undefined)
  await app.rooms.kick({ user: 'eve' })
  await new Promise(resolve => setTimeout(resolve, 800))
  const closed = new Promise(resolve => { socket.once('close', resolve) })
  settle!()
  await closed
  t.match(app.rooms.stats(), { members: 0, joined: 0, refusals: { handshake: 1 } })
})
