import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import fastifyWebsocket from '@fastify/websocket'
import t, { type Test } from 'tap'
import type { WebSocket } from 'ws'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, join, listen, until } from './helpers/app.ts'
import { stopClock } from './helpers/fakes.ts'
import { clientFrame, joinMute } from './helpers/wire.ts'

const plugin = fastifyRooms as any

/** Frames that ws answers with an error. */
const malformed: Record<string, Buffer> = {
  'a frame with reserved bits and an unknown opcode': Buffer.of(0xff, 0x80, 0, 0, 0, 0),
  'an unmasked frame': Buffer.of(0x81, 1, 0x61),
  'a text that is not UTF-8': clientFrame(1, Buffer.of(0xff, 0xfe)),
  'a length over the limit': Buffer.of(0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0)
}

/** Sends an upgrade and bytes behind it in one write. */
async function upgradeWith (t: Test, url: string, bytes: Buffer, header = '', path = '/rooms/news'): Promise<Socket> {
  const [host, port] = url.split(':') as [string, string]
  const socket = connectTcp(Number(port), host)
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {}).resume()
  await once(socket, 'connect')
  const head = `GET ${path} HTTP/1.1\r\nHost: ${url}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${header}\r\n`
  socket.write(Buffer.concat([Buffer.from(head), bytes]))
  return socket
}

async function gone (socket: Socket): Promise<void> {
  if (!socket.destroyed) await once(socket, 'close')
}

/** Collects errors that no listener and no handler catches. */
function watchProcess (t: Test): Error[] {
  const uncaught: Error[] = []
  const note = (error: Error): void => { uncaught.push(error) }
  process.setUncaughtExceptionCaptureCallback(note)
  t.teardown(() => { process.setUncaughtExceptionCaptureCallback(null) })
  return uncaught
}

for (const hosted of [false, true]) {
  const where = hosted ? ', with the @fastify/websocket of the host' : ''
  for (const [name, bytes] of Object.entries(malformed)) {
    t.test(`issue 8: ${name} behind an upgrade whose hook settles after limits.handshake ends one connection${where}`, async t => {
      const uncaught = watchProcess(t)
      const handshake = 60_000
      let settle: (() => void) | undefined
      const app = createApp(t)
      if (hosted) await app.register(fastifyWebsocket)
      await app.register(plugin, { prefix: '/rooms', limits: { handshake }, identify: () => new Promise(resolve => { settle = () => { resolve(null) } }) })
      const url = await listen(app)
      const socket = await upgradeWith(t, url, bytes)
      await until(() => settle !== undefined)
      // The deadline passes before the guard checks again.
      const start = stopClock(performance.now() + handshake + 1)
      t.teardown(start)
      settle!()
      await gone(socket)
      start()
      await pause(20)
      t.same(uncaught, [])
      t.match(app.rooms.stats(), { connections: 0, refusals: { handshake: 1 } })
    })

    t.test(`issue 8: ${name} behind an upgrade ends one connection${where}`, async t => {
      const uncaught = watchProcess(t)
      const app = createApp(t)
      if (hosted) await app.register(fastifyWebsocket)
      await app.register(plugin, { prefix: '/rooms' })
      const url = await listen(app)
      const socket = await upgradeWith(t, url, bytes)
      await gone(socket)
      t.same(uncaught, [])
      await until(() => app.rooms.stats().connections === 0)
      t.match(app.rooms.stats(), { invalid: 1, refusals: { protocol: 1 } })
    })

    t.test(`issue 8: ${name} behind an upgrade that fails in code of the host ends one connection${where}`, async t => {
      const uncaught = watchProcess(t)
      const app = createApp(t, { disableRequestLogging: true, trustProxy: () => { throw new Error('the host has failed') } })
      // An error handler that sends no response.
      if (hosted) await app.register(fastifyWebsocket, { errorHandler: () => {} })
      await app.register(plugin, { prefix: '/rooms', origin: 'any' })
      const url = await listen(app)
      const socket = await upgradeWith(t, url, bytes, 'X-Forwarded-For: 192.0.2.1\r\n')
      await gone(socket)
      t.same(uncaught, [])
      t.match(app.rooms.stats(), { connections: 0 })
    })
  }
}

t.test('an upgrade to a connection of several topics whose hook settles after limits.handshake ends', async t => {
  const handshake = 60_000
  let settle: (() => void) | undefined
  const app = createApp(t)
  await app.register(plugin, { prefix: '/rooms', limits: { handshake }, identify: () => new Promise(resolve => { settle = () => { resolve(null) } }) })
  const socket = await upgradeWith(t, await listen(app), Buffer.alloc(0), '', '/rooms')
  await until(() => settle !== undefined)
  const start = stopClock(performance.now() + handshake + 1)
  t.teardown(start)
  settle!()
  await gone(socket)
  t.match(app.rooms.stats(), { connections: 0, refusals: { handshake: 1 } })
})

t.test('issue 8: hooks that settle exactly at limits.handshake do not end the process', async t => {
  const uncaught = watchProcess(t)
  const handshake = 200
  const app = createApp(t)
  await app.register(plugin, {
    prefix: '/rooms',
    limits: { handshake },
    identify: async () => {
      await once(AbortSignal.timeout(handshake), 'abort')
      return null
    }
  })
  const url = await listen(app)
  const sockets: Socket[] = []
  for (let n = 0; n < 40; n++) {
    sockets.push(await upgradeWith(t, url, Object.values(malformed)[n % 4]!))
    await pause(7)
  }
  await Promise.all(sockets.map(gone))
  await pause(20)
  t.same(uncaught, [])
  t.equal(app.rooms.stats().connections, 0)
})

t.test('issue 8: an error in a connection listener of the host ends the plugin\'s WebSocket, and the host\'s own WebSockets keep working', async t => {
  const uncaught = watchProcess(t)
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  let failing = true
  app.websocketServer.on('connection', () => { if (failing) throw new Error('the host has failed') })
  for (const prefix of ['/rooms', '/others']) await app.register(async scope => { await scope.register(plugin, { prefix }) })
  app.get('/own', { websocket: true }, socket => {
    socket.on('message', data => { socket.send(`${data}, and ${socket.listenerCount('error')} listener`) })
  })
  const url = await listen(app)
  const socket = await upgradeWith(t, url, malformed['an unmasked frame']!)
  await gone(socket)
  t.same(uncaught, [])
  failing = false
  const own = await connect(t, `${url}/own`)
  own.send('echo')
  t.equal(await own.text(), 'echo, and 1 listener')
  await join(t, `${url}/rooms/news`)
  await join(t, `${url}/others/news`)
})

t.test('issue 8: a peer that resets its connection while no listener answers its upgrade does not end the process', async t => {
  const uncaught = watchProcess(t)
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  await app.register(plugin, { prefix: '/rooms' })
  // A listener that ignores upgrades of others.
  let seen = 0
  app.server.on('upgrade', () => { seen++ })
  const url = await listen(app)
  const member = await joinMute(t, `${url}/rooms/news`)
  const closing = app.close() // the member does not answer, and the host's @fastify/websocket no longer listens
  await until(() => app.server.listenerCount('upgrade') === 2)
  const socket = await upgradeWith(t, url, Buffer.alloc(0))
  await until(() => seen === 2)
  socket.resetAndDestroy()
  await pause(50)
  t.same(uncaught, [])
  member.socket.destroy()
  await closing
})

t.test('a WebSocket and its TCP socket have one error listener each', async t => {
  const sockets: WebSocket[] = []
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  app.websocketServer.on('connection', socket => { sockets.push(socket) })
  await app.register(plugin, { prefix: '/rooms' })
  await join(t, `${await listen(app)}/rooms/news`)
  await app.rooms.inject('/rooms/news')
  t.same(sockets.map(socket => socket.listenerCount('error')), [1, 1])
  t.same(sockets.map(socket => (socket as unknown as { _socket: Socket })._socket.listenerCount('error')), [1, 1])
})

t.test('issue 8: a connection listener of the host that runs first and throws leaves no WebSocket without an error listener', async t => {
  const uncaught = watchProcess(t)
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  await app.register(plugin, { prefix: '/rooms' })
  app.websocketServer.prependListener('connection', () => { throw new Error('of the host') })
  const url = await listen(app)
  for (const bytes of [Buffer.alloc(0), ...Object.values(malformed)]) await gone(await upgradeWith(t, url, bytes))
  t.same(uncaught.filter(({ message }) => message !== 'of the host'), [])
  t.equal(app.rooms.stats().connections, 0)
})

t.test('issue 8: an upgrade behind a request in flight, with a log that cannot serialize its error, ends one connection', async t => {
  const uncaught = watchProcess(t)
  const app = createApp(t, { logger: { level: 'warn', stream: { write () {} }, serializers: { err: () => { throw new Error('a serializer') } } } })
  app.get('/slow', async () => { await new Promise(resolve => setTimeout(resolve, 50)) })
  await app.register(plugin, { prefix: '/rooms' })
  const url = await listen(app)
  const [host, port] = url.split(':') as [string, string]
  const socket = connectTcp(Number(port), host)
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {})
  socket.write('GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /rooms/news HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
  await gone(socket)
  t.same(uncaught, [])
})
