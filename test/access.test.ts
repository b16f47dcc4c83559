import fastifyWebsocket from '@fastify/websocket'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import { connect, createApp, createRooms, join, listen, refused, until, type AnyOptions, type LogLine } from './helpers/app.ts'

const plugin = fastifyRooms as any

interface Answer { status: number, body: any }

/** Requests a topic in its three ways: an upgrade, a plain GET of the same URL, and a broadcast. */
async function asker (t: Test, options: AnyOptions): Promise<(headers?: Record<string, string>) => Promise<{ join: Answer, get: Answer, post: Answer }>> {
  const app = await createRooms(t, options)
  const url = await listen(app)
  return async (headers = {}) => askAll(app, url, headers)
}

/** The refusal that all three ways answer with. */
async function answers (t: Test, options: AnyOptions, headers: Record<string, string> = {}): Promise<{ join: Answer, get: Answer, post: Answer }> {
  return (await asker(t, options))(headers)
}

async function askAll (app: FastifyInstance, url: string, headers: Record<string, string>): Promise<{ join: Answer, get: Answer, post: Answer }> {
  const get = await app.inject({ url: '/rooms/news', headers: { host: url, ...headers } })
  const post = await app.inject({ method: 'POST', url: '/rooms/news', headers: { host: url, ...headers }, payload: { a: 1 } })
  return { join: await refused(`${url}/rooms/news`, [], { headers }), get: { status: get.statusCode, body: get.json() }, post: { status: post.statusCode, body: post.json() } }
}

const problem = (status: number, message: string, code?: string) => Object.assign(new Error(message), { statusCode: status }, code === undefined ? {} : { code })

t.test('identify returns the identity of a member, synchronously or as a promise; null is an anonymous member', async t => {
  for (const identify of [
    (request: FastifyRequest) => ({ user: String(request.headers['x-user']), info: { name: 'A' } }),
    async (request: FastifyRequest) => ({ user: String(request.headers['x-user']), info: { name: 'A' } })
  ]) {
    const app = await createRooms(t, { identify })
    const url = await listen(app)
    const client = await join(t, `${url}/rooms/news`, { headers: { 'x-user': 'ann' } })
    t.match(await app.rooms.members('news'), [{ session: client.hello.session, user: 'ann', info: { name: 'A' } }])
    t.match(await app.rooms.sendToUser('ann', 1), { local: 1 })
  }
  for (const identify of [() => null, async () => null]) {
    const app = await createRooms(t, { identify })
    const url = await listen(app)
    const client = await join(t, `${url}/rooms/news`)
    t.same(await app.rooms.members('news'), [{ session: client.hello.session }])
  }
})

t.test('a member has no info if identify returns none', async t => {
  const app = await createRooms(t, { identify: () => ({ user: 'x'.repeat(255) }) })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  t.same(await app.rooms.members('news'), [{ session: client.hello.session, user: 'x'.repeat(255) }])
})

t.test('an error of identify refuses with its own status, in every way', async t => {
  for (const [status, message] of [[401, 'log in first'], [429, 'slow down'], [410, 'gone']] as const) {
    for (const identify of [() => { throw problem(status, message, 'HOST_CODE') }, async () => { throw problem(status, message, 'HOST_CODE') }]) {
      const all = await answers(t, { identify })
      for (const answer of Object.values(all)) t.match(answer, { status, body: { statusCode: status, code: 'HOST_CODE', message } })
    }
  }
})

t.test('an error of identify or authorize without a status is answered with 500', async t => {
  for (const options of [{ identify: () => { throw new Error('broken') } }, { authorize: () => { throw new Error('broken') } }]) {
    for (const answer of Object.values(await answers(t, options))) t.match(answer, { status: 500, body: { statusCode: 500, error: 'Internal Server Error' } })
  }
})

t.test('a return value of identify that is not an identity is a coded 500, so that the host notices', async t => {
  const bad: [unknown, RegExp][] = [
    [undefined, /undefined/], ['ann', /string/], [7, /number/], [true, /boolean/], [() => {}, /function/], [{}, /"user"/], [[], /"user"/], [{ user: '' }, /"user"/], [{ user: 7 }, /"user"/], [{ user: null }, /"user"/],
    [{ user: 'x'.repeat(256) }, /"user"/], [{ user: 'a', name: 'b' }, /"name", which it does not take/]
  ]
  let returned: unknown
  const ask = await asker(t, { identify: () => returned as never })
  for (const [identity, message] of bad) {
    returned = identity
    for (const answer of Object.values(await ask())) t.match(answer, { status: 500, body: { code: 'FST_ROOMS_INVALID_IDENTITY', message } })
  }
})

t.test('presence info is checked by the topic\'s schema and by limits.info', async t => {
  const app = await createRooms(t, {
    topics: { people: { presence: Type.Object({ name: Type.String() }) }, any: { presence: true }, none: {} },
    identify: request => {
      const { info } = request.query as { info?: string }
      return info === undefined ? { user: 'a' } : { user: 'a', info: JSON.parse(info) }
    },
    limits: { info: 30 }
  })
  const url = await listen(app)
  const refusedFor = async (topic: string, info: unknown) => refused(`${url}/rooms/${topic}?info=${encodeURIComponent(JSON.stringify(info))}`)
  const invalid = { status: 500, body: { code: 'FST_ROOMS_INVALID_IDENTITY' } }

  t.match(await refusedFor('people', { name: 1 }), { ...invalid, body: { ...invalid.body, message: /an "info" that this topic does not take.*name must be string/ } })
  t.match(await refusedFor('people', { name: 'a', age: 1 }), invalid)
  t.match(await refusedFor('people', { name: 'x'.repeat(30) }), { ...invalid, body: { ...invalid.body, message: /over the limit of 30/ } })
  t.match(await refusedFor('any', 'x'.repeat(29)), invalid)
  t.match(app.rooms.stats(), { connections: 0 })

  await join(t, `${url}/rooms/people?info=${encodeURIComponent('{"name":"x"}')}`)
  await join(t, `${url}/rooms/people`)
  t.match(await app.rooms.members('people'), [{ user: 'a', info: { name: 'x' } }, { user: 'a' }])
  await join(t, `${url}/rooms/any?info=${encodeURIComponent(JSON.stringify('x'.repeat(28)))}`)
  t.ok(await join(t, `${url}/rooms/none?info=${encodeURIComponent(JSON.stringify('x'.repeat(100)))}`), 'members do not see the info of a topic without presence')
})

t.test('authorize gets the documented context for a join and for a broadcast', async t => {
  const contexts: any[] = []
  const app = await createRooms(t, {
    topics: { 'chat:*': { post: true } },
    identify: () => ({ user: 'ann', info: 1 }),
    authorize: context => {
      contexts.push(context)
      return true
    }
  })
  const url = await listen(app)
  await join(t, `${url}/rooms/chat%3Alobby?presence=1`)
  await app.inject({ method: 'POST', url: '/rooms/chat:lobby', payload: {} })
  t.same(contexts.map(context => Object.keys(context).sort()), [['action', 'identity', 'request', 'topic'], ['action', 'identity', 'request', 'topic']])
  t.match(contexts[0], { action: 'join', topic: 'chat:lobby', identity: { user: 'ann', info: 1 } })
  t.match(contexts[1], { action: 'broadcast', topic: 'chat:lobby', identity: { user: 'ann', info: 1 } })
  t.same(contexts.map(({ request }) => request.method), ['GET', 'POST'])
  t.equal(contexts[0].request.query.presence, '1')
})

t.test('authorize without identify gets a null identity', async t => {
  const identities: unknown[] = []
  const app = await createRooms(t, { authorize: ({ action, ...context }) => action === 'join' && identities.push('identity' in context ? context.identity : undefined) > 0 })
  const url = await listen(app)
  await join(t, `${url}/rooms/news`)
  t.same(identities, [null])
})

t.test('authorize permits only with true, synchronously or as a promise', async t => {
  const refusals: unknown[] = [false, undefined, null, 0, '', 1, 'yes', {}]
  let returned: unknown
  const ask = await asker(t, { authorize: () => returned as never })
  for (const answer of [...refusals, ...refusals.map(async value => value)]) {
    returned = answer
    const all = await ask()
    t.match(all.join, { status: 403, body: { statusCode: 403, code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: join' } })
    t.match(all.get, all.join, 'a plain GET of the same URL tells the reason')
    t.match(all.post, { status: 403, body: { code: 'FST_ROOMS_FORBIDDEN', message: 'not allowed: broadcast' } })
  }
  const app = await createRooms(t, { authorize: async () => true })
  const url = await listen(app)
  await join(t, `${url}/rooms/news`)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload: {} })).statusCode, 200)
})

t.test('an error of authorize refuses with its own status', async t => {
  const all = await answers(t, { authorize: () => { throw problem(402, 'pay first') } })
  for (const answer of Object.values(all)) t.match(answer, { status: 402, body: { statusCode: 402, message: 'pay first' } })
})

t.test('authorize may permit a join and refuse a broadcast', async t => {
  const app = await createRooms(t, { authorize: ({ action }) => action === 'join' })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload: {} })).statusCode, 403)
  t.match(await app.rooms.broadcast('news', 'from code'), { local: 1 }, 'calls in the host\'s code are not authorized')
  t.match(await client.next('message'), { data: 'from code' })
})

t.test('hooks of the host run before the plugin\'s: onRequest, then preHandler, then identify, then authorize', async t => {
  const order: string[] = []
  const note = (name: string) => async () => { order.push(name) }
  const app = createApp(t)
  app.addHook('onRequest', note('host onRequest'))
  app.addHook('preHandler', note('host preHandler'))
  await app.register(plugin, {
    prefix: '/rooms',
    identify: () => { order.push('identify'); return null },
    authorize: ({ action }: { action: string }) => { order.push(`authorize ${action}`); return true },
    onJoin: () => { order.push('onJoin') },
    routes: {
      socket: { onRequest: note('socket onRequest'), preParsing: note('socket preParsing'), preValidation: [note('socket preValidation 1'), note('socket preValidation 2')], preHandler: [note('socket preHandler 1'), note('socket preHandler 2')] },
      broadcast: { onRequest: [note('broadcast onRequest')], preValidation: note('broadcast preValidation'), preHandler: note('broadcast preHandler'), onSend: note('broadcast onSend'), onResponse: note('broadcast onResponse') }
    }
  } as any)
  const url = await listen(app)
  await join(t, `${url}/rooms/news`)
  t.same(order.splice(0), [
    'host onRequest', 'socket onRequest', 'socket preParsing', 'socket preValidation 1', 'socket preValidation 2', 'host preHandler', 'socket preHandler 1', 'socket preHandler 2', 'identify', 'authorize join', 'onJoin'
  ])
  await app.inject({ method: 'POST', url: '/rooms/news', payload: {} })
  await until(() => order.includes('broadcast onResponse'))
  t.same(order, ['host onRequest', 'broadcast onRequest', 'broadcast preValidation', 'host preHandler', 'broadcast preHandler', 'identify', 'authorize broadcast', 'broadcast onSend', 'broadcast onResponse'])
})

t.test('a hook of the host that refuses ends the request, and no function of the plugin runs', async t => {
  let ours = 0
  const count = () => { ours++; return null }
  const refuse = async () => { throw problem(401, 'no token') }
  for (const options of [{ routes: { socket: { onRequest: refuse }, broadcast: { onRequest: [refuse] } } }, { routes: { socket: { preHandler: [refuse] }, broadcast: { preHandler: refuse } } }]) {
    for (const answer of Object.values(await answers(t, { ...options, identify: count }))) t.match(answer, { status: 401, body: { message: 'no token' } })
  }
  t.equal(ours, 0)
})

t.test('identify and onJoin see what a hook of the host wrote to the request', async t => {
  const app = createApp(t)
  app.decorateRequest('account', '')
  app.addHook('onRequest', async request => { (request as any).account = request.headers.authorization?.slice(7) })
  await app.register(plugin, { prefix: '/rooms', identify: (request: any) => ({ user: request.account }), onJoin: (session: any, request: any) => session.send(`${session.user} by ${request.account}`) })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`, { headers: { authorization: 'Bearer ann' } })
  t.match(await client.next('direct'), { data: 'ann by ann' })
})

t.test('config, constraints and logLevel of a route are passed on to Fastify', async t => {
  const seen: unknown[] = []
  const logs: LogLine[] = []
  const app = createApp(t, {}, logs)
  app.addHook('onRequest', async request => { seen.push((request.routeOptions.config as any).mark) })
  await app.register(plugin, {
    prefix: '/rooms',
    routes: {
      socket: { config: { mark: 'socket' }, constraints: { host: 'rooms.example' }, logLevel: 'silent' },
      broadcast: { config: { mark: 'broadcast' }, constraints: { host: 'admin.example' } }
    }
  })
  const url = await listen(app)
  await join(t, `${url}/rooms/news`, { headers: { host: 'rooms.example' } })
  t.equal((await refused(`${url}/rooms/news`, [], { headers: { host: 'admin.example' } })).status, 404)
  t.equal(logs.filter(({ msg, req }) => msg === 'incoming request' && (req as any).host === 'rooms.example').length, 0)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', headers: { host: 'admin.example' }, payload: {} })).statusCode, 200)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', headers: { host: 'rooms.example' }, payload: {} })).statusCode, 404)
  t.equal(logs.filter(({ msg, req }) => msg === 'incoming request' && (req as any).host === 'admin.example' && (req as any).method === 'POST').length, 1)
  t.ok(seen.includes('socket'))
  t.ok(seen.includes('broadcast'))
})

t.test('an error of the origin function refuses with its status, or with 500 if it has none', async t => {
  for (const [origin, status] of [[() => { throw problem(429, 'too many') }, 429], [async () => { throw problem(429, 'too many') }, 429], [() => { throw new Error('broken') }, 500]] as const) {
    for (const answer of Object.values(await answers(t, { origin }, { origin: 'http://a.example' }))) t.equal(answer.status, status)
  }
})

t.test('the origin is checked before identify is asked', async t => {
  let asked = 0
  const all = await answers(t, { identify: () => { asked++; return null } }, { origin: 'http://evil.example' })
  for (const answer of Object.values(all)) t.equal(answer.status, 403)
  t.equal(asked, 0)
})

for (const hosted of [false, true]) {
  const where = hosted ? ', if the host registered @fastify/websocket' : ''
  const rooms = async (t: Test, options: AnyOptions = {}) => {
    const app = createApp(t)
    if (hosted) await app.register(fastifyWebsocket)
    await app.register(plugin, { prefix: '/rooms', ...options })
    return { app, url: await listen(app) }
  }

  t.test(`the subprotocol selects the mode, and the server answers with the name of that mode only${where}`, async t => {
    const { app, url } = await rooms(t)
    const table: [string[], string, boolean][] = [
      [[], '', false], [['rooms.v1'], 'rooms.v1', false], [['rooms.raw'], 'rooms.raw', true], [['rooms.v1', 'rooms.raw'], 'rooms.v1', false], [['rooms.raw', 'rooms.v1'], 'rooms.raw', true],
      [['other', 'rooms.raw'], 'rooms.raw', true], [['rooms.v1', 'bearer.c2VjcmV0'], 'rooms.v1', false], [['bearer.c2VjcmV0', 'rooms.v1'], 'rooms.v1', false], [['bearer.c2VjcmV0', 'rooms.raw'], 'rooms.raw', true]
    ]
    for (const [offer, answer, raw] of table) {
      const client = await connect(t, `${url}/rooms/${raw ? 'raw' : 'v1'}`, offer)
      t.equal(client.socket.protocol, answer, `${offer.join()} → ${answer}`)
      if (!raw) t.match(await client.next('hello'), { v: 1 })
      else {
        await until(async () => await app.rooms.count('raw') === 1)
        await app.rooms.broadcast('raw', { first: true })
        t.equal(await client.text(), '{"first":true}')
        await client.close()
        await until(async () => await app.rooms.count('raw') === 0)
      }
    }
  })

  t.test(`an offer without a known subprotocol is refused with 400, in every way${where}`, async t => {
    const { app, url } = await rooms(t)
    for (const offer of [['other'], ['rooms.v2'], ['ROOMS.V1'], ['bearer.c2VjcmV0'], ['graphql-ws', 'other']]) {
      t.match(await refused(`${url}/rooms/news`, offer), { status: 400, body: { statusCode: 400, code: 'FST_ROOMS_BAD_SUBPROTOCOL', message: 'none of the subprotocols offered is known: offer rooms.v1 or rooms.raw, or none at all' } }, offer.join())
      t.equal((await app.inject({ url: '/rooms/news', headers: { 'sec-websocket-protocol': offer.join(', ') } })).statusCode, 400)
    }
    t.equal((await app.inject({ url: '/rooms/news', headers: { 'sec-websocket-protocol': '' } })).statusCode, 400)
    t.equal((await app.inject({ url: '/rooms/news', headers: { 'sec-websocket-protocol': ' rooms.raw ,rooms.v1' } })).statusCode, 200)
  })

  t.test(`a token in the offer reaches the host's hooks, and is not echoed${where}`, async t => {
    const tokens: unknown[] = []
    const { url } = await rooms(t, {
      routes: { socket: { onRequest: async request => { tokens.push(request.headers['sec-websocket-protocol']) } } },
      identify: request => {
        tokens.push(request.headers['sec-websocket-protocol'])
        return { user: 'ann' }
      },
      authorize: ({ action, ...context }) => {
        if (action === 'join' && 'request' in context) tokens.push(context.request.headers['sec-websocket-protocol'])
        return true
      }
    })
    const { WebSocket } = await import('ws')
    const socket = new WebSocket(`ws://${url}/rooms/news`, ['bearer.c2VjcmV0', 'rooms.v1'])
    t.teardown(() => { socket.terminate() })
    const answer = await new Promise<{ rawHeaders: string[] }>((resolve, reject) => {
      socket.on('upgrade', resolve)
      socket.on('error', reject)
    })
    t.same(tokens, Array(3).fill('bearer.c2VjcmV0,rooms.v1'))
    t.notMatch(answer.rawHeaders.join('\n'), /bearer|c2VjcmV0/)
    t.match(answer.rawHeaders.join('\n'), /sec-websocket-protocol\nrooms\.v1/i)
  })
}

t.test('an undeclared topic is answered with 404 before any hook is called', async t => {
  let asked = 0
  const app = await createRooms(t, { topics: { 'chat:*': { post: true }, 'chat:a:b': {} }, authorize: () => { asked++; return true } })
  for (const headers of [{}, { origin: 'http://evil.example' }, { 'sec-websocket-protocol': 'other' }]) t.equal((await app.inject({ url: '/rooms/chat:a%3Ab', headers })).statusCode, 404)
  t.equal(asked, 0)
})

t.test('a hook that throws undefined or null refuses as well', async t => {
  for (const nothing of [undefined, null]) {
    for (const name of ['identify', 'authorize', 'origin'] as const) {
      for (const hook of [() => { throw nothing }, async () => { throw nothing }]) {
        const { join, get, post } = await answers(t, { origin: 'any', [name]: hook } as AnyOptions, { origin: 'http://else.where' })
        t.same([join.status, get.status, post.status], [500, 500, 500], `${name} throws ${nothing}`)
      }
    }
  }
})
