import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { join as joinPath } from 'node:path'
import t, { type Test } from 'tap'
import type { FastifyServerOptions } from 'fastify'
import { WebSocket } from 'ws'
import fastifyRooms from '../lib/index.ts'
import { maxDeclined } from '../lib/limits/admission.ts'
import { refusedAddress } from '../lib/routes/client-address.ts'
import { connect, createApp, join, listen, refused, until, type AnyOptions, type LogLine } from './helpers/app.ts'
import { stopClock } from './helpers/fakes.ts'
import { emptyFolder } from './helpers/folder.ts'
import { joinMute } from './helpers/wire.ts'

const full = { code: 4104, reason: 'connection_limit' }

async function serve (t: Test, options: AnyOptions = {}, server: FastifyServerOptions = {}, logs: LogLine[] = []) {
  const app = createApp(t, server, logs)
  await app.register(fastifyRooms as any, { prefix: '/rooms', ...options })
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

const from = (address: string): { headers: Record<string, string> } => ({ headers: { 'x-forwarded-for': address } })
const hints = (logs: LogLine[]): LogLine[] => logs.filter(({ msg }) => msg.includes('trustProxy'))

t.test('a join over limits.perAddress is closed with 4104 until another connection of the address has closed; other addresses are not affected', async t => {
  const { rooms, url } = await serve(t, { limits: { perAddress: 2 } }, { trustProxy: true })
  const one = await join(t, `${url}/rooms/a`, from('203.0.113.1'))
  const two = await join(t, `${url}/rooms/b`, from('203.0.113.1'))
  const third = await connect(t, `${url}/rooms/c`, [], from('203.0.113.1'))
  t.same(await third.closed, full)
  t.match(third.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 4104, retry: { min: 1_000 } }])
  await join(t, `${url}/rooms/a`, from('203.0.113.2'))
  t.match(rooms.stats().refusals, { perAddress: 1, connections: 0 })
  await two.close()
  await until(() => rooms.stats().connections === 2)
  await join(t, `${url}/rooms/c`, from('203.0.113.1'))
  t.match(await one.ask({ type: 'ping' }), { ok: true })
})

t.test('if no proxy is trusted, a forwarded header does not change the address, and the first such refusal logs one hint', async t => {
  const logs: LogLine[] = []
  const { rooms, url } = await serve(t, { limits: { perAddress: 1 } }, {}, logs)
  await join(t, `${url}/rooms/a`)
  t.same(await (await connect(t, `${url}/rooms/a`)).closed, full)
  t.equal(hints(logs).length, 0, 'a request without a forwarded header gives no hint')
  for (const headers of [{ 'x-forwarded-for': '203.0.113.1' }, { forwarded: 'for=203.0.113.2' }, { 'x-forwarded-for': '203.0.113.3' }]) {
    t.same(await (await connect(t, `${url}/rooms/a`, [], { headers })).closed, full)
  }
  t.match(hints(logs), [{ level: 40, address: '127.0.0.1' }])
  t.equal(hints(logs).length, 1)
  t.equal(rooms.stats().refusals.perAddress, 4)
})

t.test('if the proxy is trusted, the limit applies to the client\'s address, and no hint is logged', async t => {
  const logs: LogLine[] = []
  const { url } = await serve(t, { limits: { perAddress: 1 } }, { trustProxy: '127.0.0.1' }, logs)
  await join(t, `${url}/rooms/a`, from('203.0.113.1'))
  t.same(await (await connect(t, `${url}/rooms/a`, [], from('203.0.113.1'))).closed, full)
  t.same(await (await connect(t, `${url}/rooms/a`, [], from('198.51.100.1, 203.0.113.1'))).closed, full, 'an address that the client itself wrote does not count')
  t.equal(hints(logs).length, 0)
})

t.test('by default an address may have 100 connections, and this machine any number', async t => {
  const { rooms, url } = await serve(t, {}, { trustProxy: true })
  for (let i = 0; i < 100; i++) await join(t, `${url}/rooms/a`, from('2001:db8::1'))
  t.same(await (await connect(t, `${url}/rooms/a`, [], from('2001:db8::2'))).closed, full, 'a network of 64 bits counts as one address')
  await join(t, `${url}/rooms/a`, from('2001:db8:0:1::1'))
  for (let i = 0; i < 101; i++) await join(t, `${url}/rooms/a`)
  t.equal(rooms.stats().refusals.perAddress, 1)
})

t.test('a client that claims to be this machine in a trusted header is not exempt', async t => {
  const { rooms, url } = await serve(t, {}, { trustProxy: '127.0.0.1' })
  for (let i = 0; i < 100; i++) await join(t, `${url}/rooms/a`, from('127.0.0.1'))
  t.same(await (await connect(t, `${url}/rooms/a`, [], from('127.0.0.1, 127.0.0.1'))).closed, full)
  await join(t, `${url}/rooms/a`)
  t.equal(rooms.stats().refusals.perAddress, 1)
})

t.test('issue 8: connections through a unix socket belong to this machine, and their address is the string "unix"', { skip: process.platform === 'win32' && 'Windows has no unix sockets at a path' }, async t => {
  const logs: LogLine[] = []
  const app = createApp(t, {}, logs)
  const addresses: unknown[] = []
  const note = (event: unknown): void => { addresses.push((event as { address: unknown }).address) }
  for (const name of ['fastify-rooms:join', 'fastify-rooms:refused']) {
    subscribe(name, note)
    t.teardown(() => { unsubscribe(name, note) })
  }
  await app.register(fastifyRooms as any, {
    prefix: '/rooms',
    limits: { perAddress: 1 },
    authorize: ({ topic }: { topic: string }) => topic === 'a',
    onJoin: ({ connection }: any) => { addresses.push(connection.address) }
  })
  // Not in t.testdir(): the system accepts no path of more than 107 bytes, and Node 20 truncates a longer one silently.
  const path = joinPath(await emptyFolder(t), 'socket')
  await app.listen({ path })
  const options = { headers: { host: 'localhost' } }
  const url = `ws+unix:${path}:/rooms/a`
  const open = async (): Promise<any> => new Promise(resolve => {
    const socket = new WebSocket(url, [], options)
    t.teardown(() => { socket.terminate() })
    socket.once('message', data => { resolve(JSON.parse(data.toString())) })
  })
  t.match(await open(), { type: 'hello' })
  t.match(await open(), { type: 'bye', code: 4104 })
  t.same(addresses, ['unix', 'unix', 'unix'], 'onJoin, the join channel and the refused channel give the address')
  t.match(logs.find(({ msg }) => msg === 'member joined'), { address: 'unix' })
  addresses.length = 0
  const status = await new Promise(resolve => {
    new WebSocket(url.replace(/a$/, 'b'), [], options).on('unexpected-response', (_request, response) => { resolve(response.statusCode) }).on('error', () => {})
  })
  t.equal(status, 403)
  await until(() => addresses.length === 1)
  t.same(addresses, ['unix'])
})

t.test('a refused request has no address if its TCP connection has closed', async t => {
  const request = (address: unknown, ip?: string) => ({ ip, server: { server: { address: () => address } } }) as never
  t.equal(refusedAddress(request({ port: 80 })), undefined)
  t.equal(refusedAddress(request(null)), undefined)
  t.equal(refusedAddress(request('/run/socket')), 'unix')
  t.equal(refusedAddress(request({ port: 80 }, '192.0.2.1')), '192.0.2.1')
})

t.test('a connection that is refused for lack of room does not count for any limit', async t => {
  const { rooms, url } = await serve(t, { limits: { connections: 1 } })
  const member = await join(t, `${url}/rooms/a`)
  const mute = await Promise.all([...Array(5)].map(() => joinMute(t, `${url}/rooms/a`)))
  t.equal(rooms.stats().connections, 6, 'refused peers keep their connections open')
  await member.close()
  await until(() => rooms.stats().connections === 5)
  await join(t, `${url}/rooms/a`)
  t.ok(mute.every(({ socket }) => !socket.destroyed))
})

t.test('a bounded number of refused peers is held for the close code; the next join gets 503, and a topic with a free place takes members', async t => {
  let open = (): void => {}
  const gate = new Promise<null>(resolve => { open = () => { resolve(null) } })
  const { app, rooms, url } = await serve(t, {
    limits: { connections: 3 },
    topics: { one: { limits: { members: 1 } }, two: { limits: { members: 1 } } },
    identify: request => request.headers['x-wait'] === undefined ? null : gate
  })
  await join(t, `${url}/rooms/one`)
  const waiting = t.rejects(connect(t, `${url}/rooms/one`, [], { headers: { 'x-wait': '1' } }), 'a join that was under way when the topic got full is cut')
  // The stopped clock keeps refused peers from being cut, however long this takes.
  const startClock = stopClock()
  t.teardown(startClock)
  while (rooms.stats().refusals.members < maxDeclined) await Promise.all([...Array(50)].map(() => joinMute(t, `${url}/rooms/one`)))
  t.equal(rooms.stats().connections, maxDeclined + 1)

  const answer = await app.inject('/rooms/one')
  t.match(answer, { statusCode: 503, headers: { 'retry-after': '5' } })
  t.match(answer.json(), { code: 'FST_ROOMS_OVERLOADED' })
  t.match(await refused(`${url}/rooms/one`), { status: 503, body: { code: 'FST_ROOMS_OVERLOADED' } })
  const several = await Promise.all([1, 2].map(() => join(t, `${url}/rooms`)))
  t.match(await refused(`${url}/rooms`), { status: 503, body: { code: 'FST_ROOMS_OVERLOADED' } }, 'a connection of several topics is one more')
  t.match(await app.inject('/rooms'), { statusCode: 503, headers: { 'retry-after': '5' } })
  await until(() => rooms.stats().refusals.overloaded === 4)
  t.equal(rooms.stats().refusals.members, maxDeclined)
  for (const client of several) await client.close()

  open()
  await waiting
  await until(() => rooms.stats().connections === maxDeclined + 1)
  t.equal(rooms.stats().refusals.members, maxDeclined + 1)
  startClock()
  t.match((await join(t, `${url}/rooms/two`)).hello, { topic: 'two' })

  // Refused peers are cut 5 s after their bye.
  await until(() => rooms.stats().connections === 2)
  t.same(await (await connect(t, `${url}/rooms/one`)).closed, { code: 4102, reason: 'room_full' })
})
