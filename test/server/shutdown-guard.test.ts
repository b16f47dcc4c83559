import { EventEmitter, once } from 'node:events'
import { connect as connectHttp2, type ClientHttp2Stream, type SecureClientSessionOptions } from 'node:http2'
import { request as requestHttps } from 'node:https'
import { connect, type Socket } from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../../lib/index.ts'
import { ShutdownGuard } from '../../lib/server/shutdown-guard.ts'
import { createApp, createRooms, join, listen, until, type AnyOptions } from '../helpers/app.ts'
import { tls, tlsClient } from '../helpers/tls.ts'
import { joinMute } from '../helpers/wire.ts'

const plugin = fastifyRooms as any
/** Milliseconds: longer than each of these closes may take, and shorter than an unbounded delay would be. */
const soon = 20_000
const body = 'POST /rooms/news HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"a'

interface Peer { socket: Socket, text (): string, closed (): boolean }

async function dial (t: Test, url: string, ...parts: string[]): Promise<Peer> {
  const socket = connect(Number(url.split(':')[1]), '127.0.0.1')
  let received = ''
  let closed = false
  socket.on('data', chunk => { received += chunk }).on('error', () => {}).on('close', () => { closed = true })
  t.teardown(() => { socket.destroy() })
  await once(socket, 'connect')
  for (const part of parts) socket.write(part)
  return { socket, text: () => received, closed: () => closed }
}

for (const hosted of [false, true]) {
  const where = hosted ? ', if the host registered @fastify/websocket' : ''

  t.test(`peers without a request, or with half of one, do not delay app.close${where}`, async t => {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms' })
    app.get('/page', async () => 'page')
    const url = await listen(app)
    const peers = [
      await dial(t, url),
      await dial(t, url, 'G'),
      await dial(t, url, 'GET /rooms/news HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgr'),
      await dial(t, url, 'GET /page HTTP/1.1\r\nhost: x\r\n\r\n'),
      await dial(t, url, 'GET /page HTTP/1.1\r\nhost: x\r\n\r\n', 'GET /page HTTP/1.1\r\nho'),
      await dial(t, url, 'GET /rooms/%zz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n')
    ]
    await until(() => peers.slice(3).every(peer => peer.text().length > 0))
    let over = false
    const closing = app.close().then(() => { over = true })
    await until(() => over, soon)
    await closing
    await until(() => peers.every(peer => peer.closed()), soon)
  })
}

t.test('a member that has stopped reading, with buffered bytes, is cut at drain.timeout', async t => {
  const app = await createRooms(t, { drain: { timeout: 200 } })
  const url = await listen(app)
  const stopped = await joinMute(t, `${url}/rooms/news`)
  stopped.socket.pause()
  await until(async () => {
    await app.rooms.broadcast('news', 'x'.repeat(50_000))
    return app.rooms.stats().queuedBytes > 100_000
  }, soon)
  const member = await join(t, `${url}/rooms/news`)
  let over = false
  const closing = app.close().then(() => { over = true })
  t.match(await member.closed, { code: 1001 })
  await until(() => over, soon)
  await closing
  t.match(app.rooms.stats(), { connections: 0, queuedBytes: 0 })
})

t.test('a request in flight at the close is answered, however long its handler takes, and may broadcast', async t => {
  const app = await createRooms(t)
  let finish = (): void => {}
  let results: unknown
  app.get('/slow', async () => {
    await new Promise<void>(resolve => { finish = resolve })
    results = await app.rooms.broadcast('news', 1)
    return 'done'.repeat(100_000)
  })
  const url = await listen(app)
  const peer = await dial(t, url, 'GET /slow HTTP/1.1\r\nhost: x\r\n\r\n')
  const started = finish
  await until(() => finish !== started)
  const idle = await dial(t, url)
  const closing = app.close()
  await until(() => idle.closed(), soon)
  t.notOk(peer.closed(), 'connections without a request have closed meanwhile')
  finish()
  await closing
  await until(() => peer.closed(), soon)
  t.match(peer.text(), /^HTTP\/1\.1 200 /)
  t.ok(peer.text().endsWith('done'.repeat(100_000)))
  t.match(results, { local: 0, published: true })
})

t.test('the body of a broadcast must end within limits.handshake, or the response is 408 and the connection is closed', async t => {
  const app = await createRooms(t, { limits: { handshake: 500 } } satisfies AnyOptions)
  app.post('/own', async () => 1)
  const url = await listen(app)
  const member = await join(t, `${url}/rooms/news`)
  const peers = [await dial(t, url, body), await dial(t, url, body)]
  const host = await dial(t, url, body.replace('/rooms/news', '/own'))
  const trickle = setInterval(() => { peers[1]!.socket.write(' ') }, 20)
  t.teardown(() => { clearInterval(trickle) })
  await until(() => peers.every(peer => peer.closed()), soon)
  for (const peer of peers) {
    t.match(peer.text(), /^HTTP\/1\.1 408 /)
    t.match(JSON.parse(peer.text().split('\r\n\r\n')[1]!), { statusCode: 408, code: 'FST_ROOMS_BODY_TIMEOUT', message: 'the body did not arrive within 500 ms' })
  }
  t.match(app.rooms.stats().refusals, { handshake: 2, badRequest: 0 })
  t.notOk(host.closed(), 'bodies of the host\'s own routes have no deadline of the plugin')
  host.socket.destroy()

  const whole = await dial(t, url, body.replace('100', '1').replace('{"a', '1'))
  await until(() => whole.text().includes('"local":1'))
  t.match(await member.next('message'), { data: 1 })
  await new Promise(resolve => setTimeout(resolve, 1_000))
  t.notOk(whole.closed(), 'a connection stays open after its requests')
})

t.test('an unfinished body that a hook of the host reads, or that no code reads, is cut', async t => {
  const app = await createRooms(t, {
    limits: { handshake: 500 },
    routes: { broadcast: { preParsing: async (_request, _reply, payload) => payload.pipe(new PassThrough()) } }
  })
  const url = await listen(app)
  const peers = [await dial(t, url, body), await dial(t, url, body.replace('application/json', 'text/plain'))]
  await until(() => peers.every(peer => peer.closed()), soon)
  t.equal(peers[0]!.text(), '')
  t.match(peers[1]!.text(), /^HTTP\/1\.1 415 /)
})

for (const [who, refuse] of [['the app', (app: FastifyInstance, no: () => never) => { app.addHook('onRequest', async () => { no() }) }], ['the route', () => {}]] as const) {
  t.test(`a body that a hook of ${who} refused before it was read also has to end within limits.handshake`, async t => {
    const no = (): never => { throw Object.assign(new Error('no'), { statusCode: 401 }) }
    const app = createApp(t)
    refuse(app, no)
    await app.register(plugin, { prefix: '/rooms', limits: { handshake: 500 }, routes: { broadcast: { onRequest: async () => { no() } } } })
    const url = await listen(app)
    const peers = [await dial(t, url, body), await dial(t, url, body)]
    const trickle = setInterval(() => { peers[1]!.socket.write(' ') }, 20)
    t.teardown(() => { clearInterval(trickle) })
    await until(() => peers.every(peer => peer.closed()), soon)
    for (const peer of peers) t.match(peer.text(), /^HTTP\/1\.1 401 /)
    const whole = await dial(t, url, body.replace('100', '3'))
    await until(() => whole.text().includes('401'))
    await new Promise(resolve => setTimeout(resolve, 1_000))
    t.notOk(whole.closed(), 'a complete body keeps its connection')
  })
}

t.test('the http server limits the head of a request, and of an upgrade: headersTimeout of Node.js, which Fastify passes on', async t => {
  const app = createApp(t, { http: { headersTimeout: 200, connectionsCheckingInterval: 50 } } as FastifyServerOptions)
  await app.register(plugin, { prefix: '/rooms' })
  const url = await listen(app)
  const peers = [await dial(t, url, 'GET /rooms/news HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgr'), await dial(t, url, body.slice(0, 40))]
  const trickle = setInterval(() => { peers[1]!.socket.write('x') }, 20)
  t.teardown(() => { clearInterval(trickle) })
  await until(() => peers.every(peer => peer.closed()), soon)
  for (const peer of peers) t.match(peer.text(), /^HTTP\/1\.1 408 /)
  t.equal(createApp(t).server.headersTimeout, 60_000, 'the default of headersTimeout stays')
})

t.test('a connection whose refused body arrives completely is not cut', async t => {
  const requests = [true, false, false].map((complete, index) => ({ complete, destroyed: index === 1, destroy () { this.destroyed = true }, listenerCount: () => 0 }))
  const guard = new ShutdownGuard(new EventEmitter(), 1, 1)
  for (const request of requests) guard.beginBody(request as never, { headersSent: false })
  await until(() => requests[2]!.destroyed, soon)
  t.notOk(requests[0]!.destroyed)
  guard.beginShutdown()
})

t.test('an unfinished body does not delay app.close beyond limits.handshake', async t => {
  const app = await createRooms(t, { limits: { handshake: 500 } })
  const url = await listen(app)
  const peer = await dial(t, url, body)
  await until(async () => await new Promise<number>((resolve, reject) => { app.server.getConnections((error, count) => { if (error === null) resolve(count); else reject(error) }) }) === 1)
  let over = false
  const closing = app.close().then(() => { over = true })
  await until(() => over, soon)
  await closing
  await until(() => peer.closed(), soon)
})

t.test('a server that has closed, or never listened, keeps no listener of the guard', async t => {
  for (const listening of [true, false]) {
    const app = createApp(t)
    const own = app.server.listenerCount('connection')
    await app.register(plugin, { prefix: '/rooms' })
    if (listening) await listen(app)
    else await app.ready()
    t.equal(app.server.listenerCount('connection'), own + 1)
    await app.close()
    t.equal(app.server.listenerCount('connection'), own)
    for (const event of ['close', 'session']) t.equal(app.server.listenerCount(event), 0)
  }
})

t.test('on a TLS server the guard watches decrypted connections, and connections before the handshake', async t => {
  const server = createTlsServer()
  const counts = (): number[] => ['connection', 'secureConnection'].map(event => server.listenerCount(event))
  const before = counts()
  const guard = new ShutdownGuard(server, 1_000, 1_000)
  t.same(counts(), before.map(count => count + 1))
  guard.beginShutdown()
  t.same(counts(), before)
})

/** More bytes than the buffers of two sockets hold. */
const large = 'x'.repeat(30_000_000)

interface Slow { app: FastifyInstance, url: string, asked: () => number, isWaiting: () => boolean, finish: () => void }

/** An app with the plugin, a route that responds by hand, and routes with large responses. */
async function createSlow (t: Test, options: object, rooms: object = {}): Promise<Slow> {
  const app = createApp(t, options)
  await app.register(plugin, { prefix: '/rooms', ...rooms })
  let finish: (() => void) | undefined
  app.get('/slow', async () => {
    await new Promise<void>(resolve => { finish = resolve })
    return 'done'
  })
  app.get('/large', async () => large)
  app.get('/endless', async () => Readable.from((function * () { for (;;) yield Buffer.alloc(65_536) })()))
  let asked = 0
  app.server.on('request', () => { asked++ })
  return { app, url: await listen(app), asked: () => asked, isWaiting: () => finish !== undefined, finish: () => { finish!() } }
}

/** Reads a little at a time, with a pause in between. */
function sip (stream: Readable, pause: number): { bytes: number } {
  const got = { bytes: 0 }
  stream.on('data', (chunk: Buffer) => {
    got.bytes += chunk.length
    stream.pause()
    setTimeout(() => { stream.resume() }, pause)
  }).resume()
  return got
}

for (const secure of [false, true]) {
  t.test(`a peer that does not read its responses${secure ? ' over TLS' : ''} does not delay app.close; a slow reader gets all, and a response in progress is awaited`, async t => {
    const { app, url, asked, finish } = await createSlow(t, secure ? { https: tls } : {}, { drain: { timeout: 2_000 } })
    const port = Number(url.split(':')[1])
    const ask = (text: string): { socket: Socket, closed: () => boolean } => {
      let closed = false
      const socket = secure ? connectTls({ ...tlsClient, host: '127.0.0.1', port } as never) : connect(port, '127.0.0.1')
      socket.on('error', () => {}).on('close', () => { closed = true }).pause()
      t.teardown(() => { socket.destroy() })
      socket.write(text)
      return { socket, closed: () => closed }
    }
    const request = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`
    ask(`${request('/large')}GET /roo`)
    ask(request('/large') + request('/large'))
    ask(request('/endless'))
    const slow = ask(`${request('/large')}GET /roo`) // without further bytes Node.js itself would cut it, because its response is finished
    const waiting = ask(request('/slow'))
    await until(() => asked() === 6)
    const open = (): Promise<number> => new Promise((resolve, reject) => { app.server.getConnections((error, count) => { if (error === null) resolve(count); else reject(error) }) })
    t.equal(await open(), 5)
    const got = sip(slow.socket, 8) // reading all takes longer than a peer may read nothing
    const closing = app.close()
    await until(async () => await open() === 1, 2 * soon)
    await until(() => slow.closed(), soon)
    t.ok(got.bytes > large.length)
    t.notOk(waiting.closed())
    finish()
    await closing
    await until(() => waiting.socket.read() !== null, soon)
  })
}

t.test('a peer of HTTP/2 that does not read its responses does not delay app.close; a slow reader gets all, and a response in progress is awaited', async t => {
  const { app, url, asked, finish } = await createSlow(t, { http2: true }, { drain: { timeout: 1_000 } })
  const ask = (settings: object, ...paths: string[]): ClientHttp2Stream[] => {
    const session = connectHttp2(`http://${url}`, { settings })
    t.teardown(() => { session.destroy() })
    session.on('error', () => {})
    return paths.map(path => session.request({ ':path': path }).on('error', () => {}))
  }
  const [mute] = ask({ initialWindowSize: 0 }, '/large')
  const [unread] = ask({}, '/large')
  const [busy, waiting] = ask({}, '/large', '/slow') // reads none of the first response; app.close waits because of the second
  const [slow] = ask({}, '/large')
  await until(() => asked() === 5)
  const got = sip(slow!, 2)
  const closing = app.close()
  await until(() => mute!.closed && unread!.closed, soon)
  await until(() => got.bytes === large.length, 2 * soon)
  t.notOk(waiting!.closed)
  busy!.resume()
  finish()
  let answer = ''
  waiting!.on('data', chunk => { answer += chunk })
  await closing
  t.equal(answer, 'done')
})

t.test('over TLS peers that send nothing, or half a request, do not delay app.close, and a request in flight is answered', async t => {
  const { app, url, isWaiting, finish } = await createSlow(t, { https: tls })
  const gone = await dial(t, url)
  gone.socket.destroy()
  const mute = [await dial(t, url), await dial(t, url, '\x16\x03\x01')]
  let answer = ''
  const request = requestHttps(`https://${url}/slow`, { ...tlsClient, agent: false }, response => { response.on('data', chunk => { answer += chunk }) }).end()
  await until(isWaiting)
  let over = false
  const closing = app.close().then(() => { over = true })
  await until(() => mute.every(peer => peer.closed()), soon)
  t.notOk(over)
  finish()
  await once(request, 'close')
  t.equal(answer, 'done')
  await until(() => over, soon)
  await closing
})

for (const secure of [false, true]) {
  t.test(`a request of HTTP/2 ${secure ? 'over TLS ' : ''}in flight is answered at the close, and its session ends then`, async t => {
    const { app, url, isWaiting, finish } = await createSlow(t, { http2: true, ...(secure ? { https: { ...tls, allowHTTP1: true } } : {}) })
    const open = () => {
      const session = connectHttp2(`${secure ? 'https' : 'http'}://${url}`, (secure ? tlsClient : {}) as SecureClientSessionOptions)
      t.teardown(() => { session.destroy() })
      return session.on('error', () => {})
    }
    const idle = open()
    await once(idle, 'remoteSettings')
    const stream = open().request({ ':path': '/slow' })
    let answer = ''
    stream.on('data', chunk => { answer += chunk })
    await until(isWaiting)
    let over = false
    const closing = app.close().then(() => { over = true })
    await until(() => idle.closed, soon)
    t.notOk(over)
    finish()
    await once(stream, 'close')
    t.equal(answer, 'done')
    await until(() => over, soon)
    await closing
  })
}

for (const secure of [false, true]) {
  t.test(`a peer of HTTP/2 ${secure ? 'over TLS ' : ''}that does not close its connection when its session has ended does not delay app.close`, async t => {
    const { app, url } = await createSlow(t, { http2: true, ...(secure ? { https: tls } : {}) }, { drain: { timeout: 1_000 } })
    const options = { host: '127.0.0.1', port: Number(url.split(':')[1]), allowHalfOpen: true }
    const socket = secure ? connectTls({ ...options, ...tlsClient, ALPNProtocols: ['h2'] } as object) : connect(options)
    t.teardown(() => { socket.destroy() })
    socket.on('error', () => {})
    await once(socket, secure ? 'secureConnect' : 'connect')
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0', 'latin1') // the preface, and empty settings
    socket.resume()
    await once(socket, 'data')
    const alive = setInterval(() => {}, 1_000) // the socket alone would not keep this process going
    t.teardown(() => { clearInterval(alive) })
    const begin = Date.now()
    await app.close()
    t.ok(Date.now() - begin < 2 * soon)
  })
}

t.test('a session and a connection of HTTP/2 that do not belong together are left to Node.js', async t => {
  const server = Object.assign(new EventEmitter(), { listening: true, updateSettings: () => {} })
  const guard = new ShutdownGuard(server, 1_000, 1_000)
  const socket = new PassThrough()
  server.emit('connection', socket)
  let closes = 0
  server.emit('session', Object.assign(new EventEmitter(), { destroyed: true, close: () => { closes++ } }))
  guard.beginShutdown()
  await until(() => closes > 12)
  t.notOk(socket.destroyed)
  server.emit('close')
})
