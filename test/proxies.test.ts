/** A server behind nginx and Caddy, configured as in docs/operations.md. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { join as joinPath } from 'node:path'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket, type ClientOptions } from 'ws'
import fastifyRooms from '../lib/index.ts'
import { Client, listen, until, type AnyOptions } from './helpers/app.ts'
import { EventClient } from './helpers/event-stream.ts'
import { missing, name, startCaddy, startNginx, type Edits, type Proxy } from './proxies/start.ts'

/** Milliseconds for an expected event: many times its duration on a busy machine. */
const patience = 20_000

interface Setting { app: FastifyInstance, proxy: Proxy, left: { code: number }[] }

/** An app as in docs/operations.md, behind a proxy that it trusts by its address. */
async function serve (t: Test, start: (t: Test, upstream: string, edits?: Edits) => Promise<Proxy>, options: AnyOptions = {}, edits?: Edits): Promise<Setting> {
  const app = Fastify({ trustProxy: '127.0.0.1' })
  const left: { code: number }[] = []
  t.teardown(() => app.close())
  await app.register(fastifyRooms as any, { prefix: '/rooms', onLeave: (_session: unknown, reason: { code: number }) => { left.push(reason) }, ...options })
  const upstream = await listen(app)
  return { app, left, proxy: await start(t, upstream, edits) }
}

/** Connection options of a client that was given this name of the proxy. Each loopback address can be a client of its own. */
const origin = ({ port }: Proxy): string => `https://${name}:${port}`
const coming = (proxy: Proxy, { address = '127.0.0.2', host = name, servername = name, headers = {} } = {}): ClientOptions & { servername: string } =>
  ({ ca: proxy.ca, servername, localAddress: address, headers: { host: `${host}:${proxy.port}`, origin: origin(proxy), ...headers } })

async function join (t: Test, proxy: Proxy, as = {}): Promise<Client & { session: string }> {
  const socket = new WebSocket(`wss://127.0.0.1:${proxy.port}/rooms/news?token=secret`, coming(proxy, as))
  const client = new Client(socket)
  t.teardown(() => { socket.terminate() })
  const [error] = await Promise.race([once(socket, 'open').then(() => []), once(socket, 'error')])
  if (error !== undefined) throw error
  return Object.assign(client, { session: (await client.next('hello')).session })
}

/** The HTTP response to a request through the proxy. */
async function ask (proxy: Proxy, { method = 'GET', path = '/rooms/news', body = '', as = {} as Parameters<typeof coming>[1] } = {}): Promise<{ status: number, text: string }> {
  const request = httpsRequest({ host: '127.0.0.1', port: proxy.port, method, path, ...coming(proxy, as), agent: false } as object)
  // A proxy that refuses a body for its length may close before it has read the rest.
  const answer = new Promise<{ status: number, text: string }>((resolve, reject) => {
    request.on('error', reject)
    request.on('upgrade', (_response, socket) => {
      socket.destroy()
      resolve({ status: 101, text: '' })
    })
    request.on('response', async response => {
      response.on('error', () => {})
      let text = ''
      for await (const chunk of response) text += chunk
      resolve({ status: response.statusCode!, text })
    })
  })
  request.end(body)
  return answer
}

const upgrade = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' }
const json = { 'content-type': 'application/json' }

const proxies = [
  // Timeouts short enough to cut a quiet connection within the test.
  { proxy: 'nginx', start: startNginx, short: { 'proxy_read_timeout 60s': 'proxy_read_timeout 3s' }, tooLarge: [413], cut: { client: [1006], server: [1006] } },
  // Caddy closes both sides. Its close frame to the server is not masked (RFC 6455 5.1), which ends with 1002, and a body that is too large is an internal failure of Caddy. Later versions may differ.
  { proxy: 'caddy', start: startCaddy, short: { 'read_header 10s': 'read_header 3s', 'read_body 10s': 'read_body 3s' }, tooLarge: [413, 502], cut: { client: [1001], server: [1001, 1002] } }
] as const

for (const { proxy: kind, start, short, tooLarge, cut } of proxies) {
  const absent = missing(kind)
  const skip = process.env.CI === undefined ? absent : false

  t.test(`${kind} is installed if CI requires it`, async t => {
    if (process.env.CI !== undefined) t.equal(absent, false)
    else if (absent !== false) t.comment(`not tested: ${absent}`)
  })

  t.test(`behind ${kind} messages pass both ways, and bye with 1001 arrives`, { skip }, async t => {
    const { app, proxy } = await serve(t, start)
    const one = await join(t, proxy)
    const two = await join(t, proxy)
    one.send({ type: 'message', data: { text: 'x'.repeat(20_000) }, ref: 1 })
    t.equal((await two.next('message')).from, one.session)
    t.match(await one.next('ack'), { ref: 1, ok: true })

    const answer = await ask(proxy, { method: 'POST', body: '{"from":"HTTP"}', as: { headers: json } })
    t.equal(answer.status, 200)
    t.match(JSON.parse(answer.text), { topic: 'news', local: 2 })
    t.same((await two.next('message')).data, { from: 'HTTP' })
    const { status } = await ask(proxy, { method: 'POST', body: JSON.stringify('x'.repeat(70_000)), as: { headers: json } })
    t.ok((tooLarge as readonly number[]).includes(status), `${status} for a body that is too large`)

    await app.close()
    t.match(await one.next('bye'), { code: 1001, retry: { min: Number, max: Number } })
    t.same(await one.closed, { code: 1001, reason: 'going_away' })
  })

  t.test(`behind ${kind} pages of the same origin may join and broadcast, others may not, whatever they forward`, { skip }, async t => {
    const { proxy } = await serve(t, start)
    const status = async (headers: Record<string, string>, method = 'GET'): Promise<number> =>
      (await ask(proxy, { method, body: method === 'POST' ? '1' : '', as: { headers: { ...method === 'POST' ? json : upgrade, ...headers } } })).status
    for (const method of ['GET', 'POST']) {
      t.equal(await status({}, method), method === 'GET' ? 101 : 200, 'pages of that origin may broadcast')
      for (const page of ['https://evil.example', `http://${name}:${proxy.port}`, `https://${name}`, 'null']) {
        t.equal(await status({ origin: page }, method), 403, page)
      }
      t.equal(await status({ origin: 'https://evil.example', 'x-forwarded-host': 'evil.example', forwarded: 'host=evil.example;proto=https' }, method), 403, 'forwarded by the client')
      t.equal(await status({ origin: 'https://evil.example', forwarded: 'for=127.0.0.1;host=evil.example;proto=https' }, method), 403, 'by RFC 7239')
    }
  })

  t.test(`behind ${kind} each client has its own address, whatever it forwards`, { skip }, async t => {
    const seen: string[] = []
    const { proxy } = await serve(t, start, {
      onJoin: (session: { connection: { address: string } }) => { seen.push(session.connection.address) },
      limits: { perAddress: 2 }
    })
    await join(t, proxy, { address: '127.0.0.2' })
    await join(t, proxy, { address: '127.0.0.3', headers: { 'x-forwarded-for': '203.0.113.9', 'x-real-ip': '203.0.113.9', forwarded: 'for=203.0.113.9' } })
    await join(t, proxy, { address: '127.0.0.3', headers: { 'x-forwarded-for': '127.0.0.1, 127.0.0.1' } })
    t.same(seen, ['127.0.0.2', '127.0.0.3', '127.0.0.3'])
    await t.rejects(join(t, proxy, { address: '127.0.0.3', headers: { 'x-forwarded-for': '203.0.113.10' } }), { message: 'closed' }, 'connections are counted by that address')
  })

  t.test(`behind ${kind} the heartbeat keeps a quiet connection open beyond the proxy's timeouts`, { skip }, async t => {
    const { app, proxy } = await serve(t, start, { heartbeat: { interval: 250, timeout: 10_000 } }, short)
    const client = await join(t, proxy)
    let pings = 0
    client.socket.on('ping', () => { pings++ })
    await until(() => pings > 16, patience)
    await app.rooms.broadcast('news', 'still here')
    t.equal((await client.next('message')).data, 'still here')
  })

  t.test(`behind ${kind} an event stream arrives event by event, outlives the proxy's timeouts, and resumes`, { skip }, async t => {
    const { app, left, proxy } = await serve(t, start, { history: true, heartbeat: { interval: 1_000, timeout: 2_000 } }, short)
    const stream = async (headers: Record<string, string> = {}) => {
      const request = httpsRequest({ host: '127.0.0.1', port: proxy.port, path: '/rooms/news', ...coming(proxy, { headers: { accept: 'text/event-stream', 'accept-encoding': 'gzip', ...headers } }), agent: false } as object)
      t.teardown(() => { request.destroy() })
      request.on('error', () => {})
      request.end()
      const [response] = await once(request, 'response') as [IncomingMessage]
      t.equal(response.headers['content-encoding'], undefined)
      return { request, client: new EventClient(response) }
    }
    const { request, client } = await stream()
    await client.next('hello')
    for (const text of ['a', 'b']) {
      await app.rooms.broadcast('news', text)
      t.equal((await client.next('message')).data, text)
    }
    await until(() => client.events.filter(({ event }) => event === 'ping').length > 4, patience)
    t.notOk(client.isOver, 'longer than the timeout of the proxy')
    const last = client.events.findLast(({ id }) => id !== undefined)!.id!
    request.destroy()
    await until(() => left.length === 1, patience)
    await app.rooms.broadcast('news', 'c')
    const { client: again } = await stream({ 'last-event-id': last })
    t.match(await again.next('hello'), { recovered: true, replayed: 1 })
    t.equal((await again.next('message')).data, 'c')
    await app.rooms.drain()
    t.match(await again.next('bye'), { code: 1001 })
    await again.ended
  })

  t.test(`behind ${kind} a restart of the proxy ends connections on both sides, and new ones are accepted afterwards`, { skip }, async t => {
    const { app, proxy, left } = await serve(t, start)
    const client = await join(t, proxy)
    await proxy.stop()
    const { code } = await client.closed
    t.ok((cut.client as readonly number[]).includes(code), `the client gets ${code}`)
    await until(() => left.length === 1, patience)
    t.ok((cut.server as readonly number[]).includes(left[0]!.code), `the server gets ${left[0]!.code}`)
    t.equal(await app.rooms.count('news'), 0)
    await proxy.start()
    await join(t, proxy)
  })
}

const skip = process.env.CI === undefined ? missing('nginx') : false

t.test('nginx cuts a quiet connection without a heartbeat', { skip }, async t => {
  const { proxy, left } = await serve(t, startNginx, { heartbeat: false }, { 'proxy_read_timeout 60s': 'proxy_read_timeout 1s' })
  const client = await join(t, proxy)
  t.equal((await client.closed).code, 1006)
  await until(() => left.length === 1, patience)
  t.equal(left[0]!.code, 1006)
})

t.test('nginx upgrades only WebSockets, and refuses other host names', { skip }, async t => {
  const { proxy } = await serve(t, startNginx)
  t.equal((await ask(proxy)).status, 200, 'a plain request')
  t.equal((await ask(proxy, { as: { headers: { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAMAAABkAAQCAAAAAAIAAAAA' } } })).status, 200, 'h2c is handled as a plain request')
  t.equal((await ask(proxy, { as: { headers: { ...upgrade, upgrade: 'WebSocket' } } })).status, 101)
  await t.rejects(ask(proxy, { as: { servername: 'evil.example', host: 'evil.example' } }), { message: /unrecognized name/ }, 'TLS refuses an unknown name')
  t.equal((await ask(proxy, { as: { host: 'evil.example', headers: { origin: `https://evil.example:${proxy.port}` } } })).status, 421)
})

t.test('nginx keeps tokens in the query out of its log', { skip }, async t => {
  const { app, proxy } = await serve(t, startNginx)
  await join(t, proxy)
  await app.close() // nginx logs a WebSocket at its end
  const log = async (): Promise<string> => readFile(joinPath(proxy.directory, 'rooms.log'), 'utf8')
  await until(async () => (await log()).includes('"GET /rooms/news" 101'), patience)
  t.notMatch(await log(), 'secret')
})

t.test('nginx limits connections and requests per address', { skip }, async t => {
  const { proxy } = await serve(t, startNginx, {}, { 'limit_conn rooms_open 100': 'limit_conn rooms_open 2' })
  await join(t, proxy)
  const second = await join(t, proxy)
  await t.rejects(join(t, proxy), { message: /429/ })
  await join(t, proxy, { address: '127.0.0.3' })
  await second.close()
  await until(async () => join(t, proxy).then(() => true, () => false), patience)

  // Requests in sequence exceed the rate, not the connection limit: nginx allows a burst of 60, and then 20 per second.
  const statuses = new Set<number>()
  const deadline = Date.now() + patience
  while (!statuses.has(429) && Date.now() < deadline) statuses.add((await ask(proxy, { as: { address: '127.0.0.4' } })).status)
  t.same([...statuses], [200, 429])
})

t.test('after a reload nginx ends WebSockets after worker_shutdown_timeout, and serves new ones meanwhile', { skip }, async t => {
  const { proxy } = await serve(t, startNginx)
  const client = await join(t, proxy)
  proxy.signal('SIGHUP')
  await join(t, proxy)
  t.equal((await client.closed).code, 1006)
})
