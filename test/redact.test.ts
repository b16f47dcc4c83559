import { connect as dial } from 'node:net'
import fastifyWebsocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { redactUrl } from '../lib/server/redact-logs.ts'
import { querySchema } from '../lib/routes/schemas.ts'
import { createApp, join, listen, refused, until, type LogLine } from './helpers/app.ts'

const plugin = fastifyRooms as any
const secret = 'c2VjcmV0LXRva2Vu'
const asked = `/rooms/news?since=0&token=${secret}&presence=1`
const written = '/rooms/news?since=0&token=[redacted]&presence=1'

/** An app whose log is kept as the written lines. */
function logged (t: Test, logger: object = {}, options: FastifyServerOptions = {}): { app: FastifyInstance, lines: LogLine[] } {
  const lines: LogLine[] = []
  const stream = { write: (line: string) => { lines.push(JSON.parse(line)) } }
  const app = Fastify({ logger: { level: 'trace', stream, ...logger }, ...options } as FastifyServerOptions) as FastifyInstance
  t.teardown(() => app.close())
  return { app, lines }
}

const requests = (lines: LogLine[]): any[] => lines.filter(({ req }) => req !== undefined).map(({ req }) => req)

t.test('a redacted URL keeps its path, the names of its query, and the values of the plugin\'s parameters', async t => {
  const table: [string, string][] = [
    ['/news', '/news'], ['/news?', '/news?'], ['/news?since=0&presence=1', '/news?since=0&presence=1'], ['/news?since=latest', '/news?since=latest'], ['/news?limit=5&wait=60000', '/news?limit=5&wait=60000'], ['/news?limit=x&wait=1x', '/news?limit=[redacted]&wait=[redacted]'], ['/news?since=9f86d081884c7d65-1042', '/news?since=9f86d081884c7d65-1042'],
    ['/news?token=x', '/news?token=[redacted]'], ['/news?token=', '/news?token=[redacted]'], ['/news?a=x&b=y', '/news?a=[redacted]&b=[redacted]'], ['/news?a=x&&since=0&', '/news?a=[redacted]&&since=0&'], ['/news?t=a=b', '/news?t=[redacted]'],
    ['/news?x', '/news?[redacted]'], ['/news?=x', '/news?=[redacted]'], ['/news?since', '/news?[redacted]'], ['/news?since=x', '/news?since=[redacted]'], ['/news?presence=1?token=x', '/news?presence=[redacted]'], ['/news?presence=1;token=x', '/news?presence=[redacted]'],
    ['/news?presence=1#x', '/news?presence=[redacted]'], ['/news#x', '/news#[redacted]'], ['/news;token=x', '/news;token=[redacted]'], ['/news?s%69nce=0', '/news?s%69nce=[redacted]'], ['/news?SINCE=0', '/news?SINCE=[redacted]'],
    ['http://h/news?token=x', 'http://h/news?token=[redacted]'], ['/news?__proto__=x&constructor=y', '/news?__proto__=[redacted]&constructor=[redacted]'], ['?x', '?[redacted]'], ['', '']
  ]
  for (const [url, text] of table) t.equal(redactUrl(url), text, url)
  t.same(Object.keys(querySchema.properties), ['since', 'presence', 'limit', 'wait'], 'a further parameter of the plugin must not carry a secret')
})

for (const hosted of [false, true]) {
  t.test(`no line of the log contains a token, wherever it was sent and whatever the outcome${hosted ? ', if the host registered @fastify/websocket' : ''}`, async t => {
    const { app, lines } = logged(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, {
      prefix: '/rooms',
      topics: { news: { post: true, message: { type: 'object', properties: { a: { type: 'integer' } } } } },
      identify: (request: any) => {
        const { status } = request.query
        if (status !== undefined) throw Object.assign(new Error('refused'), { statusCode: Number(status) })
        return null
      },
      authorize: () => true
    })
    const url = await listen(app)
    const headers = { authorization: `Bearer ${secret}`, cookie: `token=${secret}` }

    const member = await join(t, url + asked, { headers })
    await member.close()
    for (const [query, status] of [['', 400], ['&since=x', 400], ['&status=401', 401], ['&status=503', 503], ['&status=500', 500]] as const) {
      const protocols = query === '' ? [`bearer.${secret}`] : ['rooms.v1', `bearer.${secret}`]
      t.equal((await refused(`${url}/rooms/news?token=${secret}${query}`, protocols, { headers })).status, status)
      t.equal((await app.inject({ url: `/rooms/news?token=${secret}${query}`, headers })).statusCode, query === '' ? 200 : status)
      if (query.startsWith('&status')) t.equal((await app.inject({ method: 'POST', url: `/rooms/news?token=${secret}${query}`, headers, payload: { a: 1 } })).statusCode, status)
    }
    for (const [payload, status] of [[{ a: 1 }, 200], [{ a: 'x' }, 400], ['no object', 415]] as const) {
      t.equal((await app.inject({ method: 'POST', url: `/rooms/news?${secret}`, headers, payload })).statusCode, status)
    }
    // A violation of the protocol, an invalid upgrade, and an upgrade that is cut.
    const socket = dial(Number(url.split(':')[1]), '127.0.0.1')
    t.teardown(() => { socket.destroy() })
    socket.write(`GET ${asked} HTTP/1.1\r\nHost: ${url}\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: no key\r\n\r\n`)
    await new Promise(resolve => { socket.once('close', resolve).resume() })
    await until(() => lines.some(({ msg }) => msg === 'member left') && lines.filter(({ msg }) => msg === 'request completed').length >= 8)

    t.ok(requests(lines).length >= 15)
    for (const line of lines) t.notMatch(JSON.stringify(line), secret)
    t.equal(requests(lines).filter(({ url }) => url === written).length, 2)
    t.ok(lines.some(({ msg, req }) => msg === 'refused' && (req as any)?.url === '/rooms/news?token=[redacted]&status=[redacted]'), 'lines of errors have the redacted request')
    t.match(requests(lines)[0], { method: 'GET', url: written, host: url, remoteAddress: '127.0.0.1', remotePort: Number }, 'all other fields are Fastify\'s own')
  })
}

t.test('routes of the host are logged unchanged', async t => {
  const { app, lines } = logged(t)
  await app.register(plugin, { prefix: '/rooms' })
  app.get('/other', async () => 1)
  await app.inject('/other?token=x')
  t.match(requests(lines), [{ url: '/other?token=x' }])
})

t.test('serializers of the host still decide how a request is logged, and get it without tokens', async t => {
  const req: (request: any) => any = request => ({ mine: request.url, original: request.originalUrl, raw: request.raw.url, query: request.query, id: request.id, agent: request.headers['user-agent'], address: request.ip, route: request.routeOptions.url })
  const mine = { mine: written, original: written, raw: written, query: { since: '0', token: '[redacted]', presence: '1' }, id: String, agent: 'lightMyRequest', address: '127.0.0.1', route: '/rooms/:topic' }
  const ask = async ({ app, lines }: ReturnType<typeof logged>) => {
    t.equal((await app.inject(asked)).statusCode, 200)
    return requests(lines)
  }

  const given = logged(t, { serializers: { req } })
  await given.app.register(plugin, { prefix: '/rooms' })
  t.match(await ask(given), [mine], 'a serializer of the logger')

  const scoped = logged(t, { serializers: { req: () => 'not this' } })
  await scoped.app.register(async scope => { await scope.register(plugin, { prefix: '/rooms' }) }, { logSerializers: { req } })
  t.match(await ask(scoped), [mine], 'a serializer of an outer scope')

  const own = logged(t)
  await own.app.register(plugin, { prefix: '/rooms', logSerializers: { req, res: () => 'res' } })
  t.match(await ask(own), [mine], 'a serializer of the registration')
  t.match(own.lines.find(({ msg }) => msg === 'request completed'), { res: 'res' }, 'other serializers are kept')

  const hooked = logged(t)
  hooked.app.addHook('onRequest', async request => {
    request.log.info({ req: request.raw }, 'raw')
    request.log.info({ req: { url: asked, method: 'GET' } }, 'plain')
    request.log.info({ req: null }, 'nothing')
  })
  await hooked.app.register(plugin, { prefix: '/rooms', logSerializers: { req: (request: any) => request === null ? 'none' : request.url } })
  t.same(await ask(hooked), [written, written, written, 'none'], 'any value logged as a request is serialized')
})

t.test('a logger other than pino gets redacted requests', async t => {
  for (const serializers of [undefined, { req: (request: any) => ({ mine: request.url }) }]) {
    const lines: unknown[] = []
    const make = (bound: Record<string, (value: any) => unknown>): any => {
      const log = (object: any) => { if (object?.req !== undefined) lines.push(bound.req === undefined ? object.req.url : bound.req(object.req)) }
      return { level: 'info', serializers, info: log, error: log, debug: log, fatal: log, warn: log, trace: log, silent () {}, child: (_bindings: object, options: any = {}) => make({ ...bound, ...flat(options.serializers) }) }
    }
    const flat = (given: Record<string, any> = {}) => { const own: Record<string, any> = {}; for (const name in given) own[name] = given[name]; return own }
    const app = createApp(t, { logger: undefined, loggerInstance: make({}) } as never)
    await app.register(plugin, { prefix: '/rooms' })
    await app.inject(asked)
    t.match(lines, [serializers === undefined ? { method: 'GET', url: written, remoteAddress: '127.0.0.1' } : { mine: written }])
  }
})

t.test('logLevel of the registration applies to its routes', async t => {
  const { app, lines } = logged(t)
  await app.register(plugin, { prefix: '/rooms', logLevel: 'warn' })
  app.get('/other', async () => 1)
  await app.inject(asked)
  t.same(requests(lines), [])
  await app.inject('/other')
  t.equal(requests(lines).length, 1)
})

t.test('registration works without a logger, and without lines for requests', async t => {
  const silent = createApp(t, { logger: false })
  await silent.register(plugin, { prefix: '/rooms' })
  t.equal((await silent.inject(asked)).statusCode, 200)

  const { app, lines } = logged(t, {}, { disableRequestLogging: true })
  await app.register(plugin, { prefix: '/rooms', identify: () => { throw new Error('broken') } })
  t.equal((await app.inject(asked)).statusCode, 500)
  for (const line of lines) t.notMatch(JSON.stringify(line), secret)
})

for (const messageKey of [undefined, 'message']) {
  t.test(`an answer that is sent twice is logged without the query${messageKey === undefined ? '' : ', with any key of messages'}`, async t => {
    const errors: unknown[] = []
    const { app, lines } = logged(t, messageKey === undefined ? {} : { messageKey, serializers: { err: (error: (Error & { code?: string }) | null) => { errors.push(error?.message); return { code: error?.code, stack: error?.stack } } } })
    await app.register(plugin, {
      prefix: '/rooms',
      routes: {
        broadcast: {
          onRequest: async (request: any, reply: any) => {
            request.log.warn(5)
            request.log.warn({ err: new Error('another') })
            request.log.warn({ err: null }, 'none')
            reply.code(401).send({ no: true })
            reply.send({ no: true })
            return reply
          }
        }
      }
    })
    const url = `${asked}&quote="&x`
    t.equal((await app.inject({ method: 'POST', url, payload: {} })).statusCode, 401)
    const twice: any = lines.find(({ err }) => (err as any)?.code === 'FST_ERR_REP_ALREADY_SENT')
    const text = `Reply was already sent, did you forget to "return reply" in "${written}&quote=[redacted]&[redacted]" (POST)?`
    t.equal(twice[messageKey ?? 'msg'], text)
    t.match(twice.err.stack, text)
    if (messageKey === undefined) t.match(twice.err, { type: 'FastifyError', message: text })
    else t.same(errors, ['another', undefined, text])
    for (const line of lines) t.notMatch(JSON.stringify(line), secret)
    t.ok(lines.some(line => line[messageKey ?? 'msg'] === 'another'))
  })
}

t.test('a body that is late after Fastify has answered is cut, and logs nothing', async t => {
  const { app, lines } = logged(t, {}, { handlerTimeout: 100 })
  await app.register(plugin, { prefix: '/rooms', limits: { handshake: 1_000 } })
  const url = await listen(app)
  let text = ''
  let closed = false
  const socket = dial(Number(url.split(':')[1]), '127.0.0.1').on('error', () => {}).on('close', () => { closed = true })
  socket.on('data', chunk => { text += chunk })
  t.teardown(() => { socket.destroy() })
  socket.write(`POST ${asked} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{`)
  await until(() => closed)
  t.match(text, /^HTTP\/1\.1 503 /)
  t.match(app.rooms.stats().refusals, { failed: 1, handshake: 0 })
  t.notOk(lines.some(({ err }) => (err as any)?.code === 'FST_ERR_REP_ALREADY_SENT'))
  for (const line of lines) t.notMatch(JSON.stringify(line), secret)
})
