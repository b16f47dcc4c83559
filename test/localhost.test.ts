import dns from 'node:dns'
import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { otherServersOf } from '../lib/server/bindings.ts'
import { createApp, join, until } from './helpers/app.ts'

const plugin = fastifyRooms as any
const addresses = [{ address: '127.0.0.1', family: 4 }, { address: '::1', family: 6 }]

/** Listens on `localhost` of a machine that resolves it to 127.0.0.1 and ::1. Returns the port. */
async function listenOnBoth (t: Test, app: FastifyInstance): Promise<number> {
  const { lookup } = dns
  dns.lookup = ((host: string, options: { all?: boolean }, done: (...result: unknown[]) => void) => {
    if (host !== 'localhost' || !options.all) return lookup(host, options as never, done as never)
    process.nextTick(done, null, addresses)
  }) as never
  t.teardown(() => { dns.lookup = lookup })
  await app.listen({ port: 0 })
  return (app.server.address() as AddressInfo).port
}

/** Connects to the second server and sends a text. */
async function dial (t: Test, port: number, text = ''): Promise<{ socket: Socket, closed: () => boolean, text: () => string }> {
  const socket = connect(port, '::1')
  t.teardown(() => { socket.destroy() })
  let [closed, received] = [false, '']
  socket.on('error', () => {}).on('close', () => { closed = true }).on('data', chunk => { received += chunk })
  await once(socket, 'connect')
  socket.write(text)
  return { socket, closed: () => closed, text: () => received }
}

const upgrade = 'GET /rooms/news HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
const skip = await new Promise<string | false>(resolve => {
  const probe = connect(1, '::1').on('error', (error: NodeJS.ErrnoException) => { resolve(error.code === 'ECONNREFUSED' ? false : 'this machine has no ::1') })
  probe.on('connect', () => { resolve(false) })
})

t.test('issue 8: idle connections to the second server of localhost do not delay app.close(), and upgrades on it join', { skip }, async t => {
  const app = createApp(t)
  for (const prefix of ['/rooms', '/others']) await app.register(async scope => { await scope.register(plugin, { prefix }) })
  const port = await listenOnBoth(t, app)
  t.equal(app.addresses().length, 2)
  const [second] = otherServersOf(app)
  const member = await join(t, `[::1]:${port}/rooms/news`)
  const peers = [await dial(t, port), await dial(t, port, 'G'), await dial(t, port, 'GET /rooms/news HTTP/1.1\r\nhos')]
  await pause(50)
  t.ok(peers.every(peer => !peer.closed()))
  const ended = once(second!, 'close')
  await app.close()
  t.match(await member.closed, { code: 1001 })
  await ended
  await until(() => peers.every(peer => peer.closed()))
})

t.test('issue 8: an upgrade on the second server of localhost is answered while the first server closes, and its reset does not end the process', { skip }, async t => {
  const uncaught: Error[] = []
  process.setUncaughtExceptionCaptureCallback(error => { uncaught.push(error) })
  t.teardown(() => { process.setUncaughtExceptionCaptureCallback(null) })
  const app = createApp(t)
  await app.register(plugin, { prefix: '/rooms' })
  const finish: (() => void)[] = []
  app.get('/slow', () => new Promise(resolve => { finish.push(() => { resolve('done') }) }))
  const port = await listenOnBoth(t, app)
  const slow = await dial(t, port, 'GET /slow HTTP/1.1\r\nhost: x\r\n\r\n')
  const holding = connect(port, '127.0.0.1')
  t.teardown(() => { holding.destroy() })
  holding.on('error', () => {}).write('GET /slow HTTP/1.1\r\nhost: x\r\n\r\n')
  await until(() => finish.length === 2)
  const closing = app.close()
  await until(() => app.server.listenerCount('upgrade') === 0 && !app.server.listening)
  const refused = await dial(t, port, upgrade)
  await until(() => refused.closed())
  t.match(refused.text(), /^HTTP\/1\.1 503 /)
  const reset = await dial(t, port, upgrade)
  reset.socket.resetAndDestroy()
  await pause(50)
  t.same(uncaught, [])
  for (const end of finish) end()
  holding.destroy()
  slow.socket.destroy()
  await closing
})

t.test('the second server of localhost is found through a symbol of Fastify; without the symbol there is none', async t => {
  const app = createApp(t)
  t.same(otherServersOf(app), [])
  const servers = [{}]
  t.equal(otherServersOf({ ready () {}, [Symbol('fastify.serverBindings')]: servers } as never), servers)
  t.same(otherServersOf({ ready () {}, [Symbol('fastify.serverBindings')]: 'other' } as never), [])
  t.same(otherServersOf({ ready () {} } as never), [])
})
