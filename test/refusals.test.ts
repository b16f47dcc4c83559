import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { createRefusals } from '../lib/limits/refusals.ts'
import fastifyRooms, { memoryBroker } from '../lib/index.ts'
import type { Refusal, RefusedEvent } from '../types/index.ts'
import { connect, createApp, createRooms, join, listen, refused, until, type AnyOptions } from './helpers/app.ts'
import { joinMute } from './helpers/wire.ts'

const withStatus = (statusCode: number) => Object.assign(new Error('no'), { statusCode })

async function serve (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, options)
  return { app, rooms: app.rooms as any, url: await listen(app) }
}

/** Counters above zero. */
const counted = (rooms: any): Partial<Record<Refusal, number>> => Object.fromEntries(Object.entries(rooms.stats().refusals).filter(([, count]) => count !== 0))

// The refused channel reports each counted refusal.
const told: RefusedEvent[] = []
const tell = (event: unknown): void => { told.push(event as RefusedEvent) }
subscribe('fastify-rooms:refused', tell)
t.teardown(() => { unsubscribe('fastify-rooms:refused', tell) })

/** Waits until exactly these refusals are counted. */
async function expect (t: Test, rooms: any, refusals: Partial<Record<Refusal, number>>): Promise<void> {
  const total = (counts: object): number => Object.values(counts).reduce((sum, count) => sum + count, 0)
  await until(() => total(counted(rooms)) >= total(refusals))
  t.same(counted(rooms), refusals)
  const events: Partial<Record<Refusal, number>> = {}
  for (const event of told) if (event.rooms === rooms) events[event.reason] = (events[event.reason] ?? 0) + 1
  t.same(events, refusals, 'each refusal is reported')
}

t.test('all reasons exist from the start, and the object is a copy', async t => {
  const { rooms } = await serve(t)
  t.same(rooms.stats().refusals, createRefusals())
  t.ok(Object.values(createRefusals()).every(count => count === 0))
  rooms.stats().refusals.origin = 7
  t.equal(rooms.stats().refusals.origin, 0)
})

t.test('an upgrade that is refused over HTTP is counted by its reason, and so is a plain GET that asks for the reason', async t => {
  const { app, rooms, url } = await serve(t, {
    identify: request => {
      const status = Number(request.headers['x-status'])
      if (status === 500) throw new Error('broken')
      if (status > 0) throw withStatus(status)
      return null
    },
    authorize: ({ topic }) => topic !== 'private'
  })
  const upgrade = (path: string, headers: Record<string, string> = {}, protocols: string[] = []) => refused(`${url}${path}`, protocols, { headers })
  await upgrade('/rooms/news', { origin: 'https://elsewhere.example' })
  await upgrade('/rooms/news', { 'x-status': '401' })
  await upgrade('/rooms/private')
  await upgrade('/rooms/news', { 'x-status': '429' })
  await upgrade('/rooms/news', { 'x-status': '418' })
  await upgrade('/rooms/news', { 'x-status': '500' })
  await upgrade('/rooms/n*ws')
  await upgrade('/rooms/news?since=nonsense')
  await upgrade('/rooms/news', {}, ['graphql-ws'])
  await app.inject('/rooms/private')
  t.equal((await app.inject('/rooms/news')).statusCode, 200)
  t.equal((await app.inject({ url: '/rooms/news', headers: { upgrade: 'foo' } })).statusCode, 426, 'which is not counted')
  await expect(t, rooms, { origin: 1, unauthorized: 1, forbidden: 2, rateLimited: 1, badRequest: 4, failed: 1 })
  t.equal(rooms.stats().refused, 0, 'none of them became a connection')
})

t.test('a refused broadcast is counted by its reason', async t => {
  const { app, rooms } = await serve(t, {
    topics: { small: { message: { type: 'number' }, post: true, limits: { payload: 10 } }, 'chat:*': { post: true }, 'chat:one': {} },
    authorize: ({ topic }) => topic !== 'chat:private'
  })
  const post = (path: string, payload: string, type = 'application/json') => app.inject({ method: 'POST', url: `/rooms/${path}`, payload, headers: { 'content-type': type } })
  t.equal((await post('small', '1')).statusCode, 200)
  t.equal((await post('small', '"x"')).statusCode, 400)
  t.equal((await post('small', '12345678901')).statusCode, 413)
  t.equal((await post('small', '{')).statusCode, 400)
  t.equal((await post('small', '1', 'text/plain')).statusCode, 415)
  t.equal((await post('chat:private', '1')).statusCode, 403)
  t.equal((await post('chat:%6Fne', '1')).statusCode, 404)
  await expect(t, rooms, { invalid: 1, payload: 1, badRequest: 2, forbidden: 1, notFound: 1 })
})

t.test('a refusal of a host\'s hook without an error is counted by its status, and the host\'s error handler does not hide the reason', async t => {
  const seen: string[] = []
  const app = createApp(t)
  app.setErrorHandler((_error, _request, reply) => reply.code(422).send({}))
  await app.register(fastifyRooms as any, {
    prefix: '/rooms',
    authorize: ({ topic }: { topic: string }) => topic !== 'private',
    routes: {
      socket: { onRequest: async (request: FastifyRequest, reply: FastifyReply) => request.headers['x-who'] === undefined ? reply.code(401).send({ who: 'are you' }) : undefined },
      broadcast: {
        onError: async (_request: FastifyRequest, _reply: FastifyReply, error: { code?: string }) => { seen.push(`error ${error.code}`) },
        onResponse: [async (_request: FastifyRequest, reply: FastifyReply) => { seen.push(`response ${reply.statusCode}`) }]
      }
    }
  })
  const url = await listen(app)
  t.match(await refused(`${url}/rooms/news`), { status: 401 })
  t.equal((await app.inject({ method: 'POST', url: '/rooms/private', payload: {} })).statusCode, 422)
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload: {} })).statusCode, 200)
  await expect(t, app.rooms, { unauthorized: 1, forbidden: 1 })
  t.same(seen, ['error FST_ROOMS_FORBIDDEN', 'response 422', 'response 200'], 'hooks of the host run as before')
})

t.test('a join that is refused after the upgrade is counted once, by its reason', async t => {
  const ends: Record<string, (session: any) => unknown> = {
    no: () => false,
    anonymous: () => { throw withStatus(401) },
    missing: () => { throw withStatus(404) },
    fast: () => { throw withStatus(429) },
    broken: () => { throw new Error('broken') },
    closed: session => { session.close(4007) }
  }
  const { rooms, url } = await serve(t, {
    topics: { ...Object.fromEntries(Object.keys(ends).map(topic => [topic, {}])), duel: { limits: { members: 1 } }, news: {}, held: { publish: true, limits: { payload: 10 } } },
    limits: { connections: 3, topics: 2, handshake: 1_000 },
    onJoin: session => session.topic === 'held' ? new Promise(() => {}) : ends[session.topic]?.(session),
    onError: () => {}
  })
  const closed = async (topic: string, protocol = 'rooms.v1') => (await (await connect(t, `${url}/rooms/${topic}`, protocol)).closed).code
  for (const [topic, code] of Object.entries({ no: 4003, anonymous: 4001, missing: 4004, fast: 4101, broken: 4003, closed: 4007 })) t.equal(await closed(topic), code, topic)
  t.equal(await closed('held'), 4100)
  const large = await connect(t, `${url}/rooms/held`)
  large.send('x'.repeat(11))
  t.equal((await large.closed).code, 1009)
  const kicked = await connect(t, `${url}/rooms/held`)
  await until(async () => await rooms.kick({ topic: 'held' }) === 1)
  t.equal((await kicked.closed).code, 4005)
  await until(() => rooms.stats().connections === 0)

  const duel = await join(t, `${url}/rooms/duel`)
  t.equal(await closed('duel'), 4102)
  await join(t, `${url}/rooms/news`)
  t.equal(await closed('no'), 4100)
  t.equal(await closed('news?since=9f86d081884c7d65-1', 'rooms.raw'), 4202)
  await join(t, `${url}/rooms/news`)
  t.equal(await closed('news'), 4104)
  await duel.close()
  await expect(t, rooms, { forbidden: 1, unauthorized: 1, notFound: 1, rateLimited: 1, failed: 1, other: 2, handshake: 1, payload: 1, members: 1, topics: 1, position: 1, connections: 1 })
  t.equal(rooms.stats().refused, 13)
})

t.test('a join whose credentials end before hello is counted as unauthorized', async t => {
  const { rooms, url } = await serve(t, { identify: () => ({ user: 'anna', expires: (Date.now() + 1_500) / 1_000 }), onJoin: () => new Promise(() => {}) })
  t.equal((await (await connect(t, `${url}/rooms/news`)).closed).code, 4300)
  await expect(t, rooms, { unauthorized: 1 })
})

t.test('joins that a drain or a broker ends are counted', async t => {
  const broker = memoryBroker()
  const { attach } = broker
  let down = true
  broker.attach = topics => down ? Promise.reject(new Error('down')) : attach.call(broker, topics)
  const { app, rooms, url } = await serve(t, { broker, onJoin: () => new Promise(() => {}), onError: () => {} })
  t.equal((await (await connect(t, `${url}/rooms/news`)).closed).code, 4103)
  down = false
  const joining = await connect(t, `${url}/rooms/news`)
  await until(() => rooms.stats().connections === 1)
  await rooms.drain()
  t.equal((await joining.closed).code, 1001)
  t.equal((await refused(`${url}/rooms/news`)).status, 503)
  t.equal((await app.inject('/rooms/news')).statusCode, 503)
  await expect(t, rooms, { broker: 1, draining: 3 })
})

t.test('a refused frame is counted once, by its reason, for each result of onInvalid', async t => {
  for (const onInvalid of ['answer', 'ignore'] as const) {
    const { rooms, url } = await serve(t, {
      topics: { numbers: { message: { type: 'number' }, publish: true, presence: true, limits: { payload: 200 } }, silent: {} },
      limits: { info: 10, badFrames: 3 },
      onInvalid,
      onMessage: { numbers: (_session, payload) => { if (payload > 0) throw payload === 500 ? new Error('broken') : withStatus(payload) } },
      onError: () => {}
    })
    const client = await join(t, `${url}/rooms/numbers`)
    for (const data of [401, 429, 500]) await client.ask({ type: 'message', data })
    client.send({ type: 'message', data: 'x' })
    client.send('x'.repeat(201))
    await client.ask({ type: 'presence', info: 'too much of it' })
    await client.ask({ type: 'direct', to: 'nobody', data: 1 })
    const silent = await join(t, `${url}/rooms/silent`)
    await silent.ask({ type: 'message', data: 1 })
    await silent.ask({ type: 'presence' })
    for (let i = 0; i < 3; i++) client.send('no JSON')
    t.equal((await client.closed).code, 4000)
    await expect(t, rooms, { unauthorized: 1, rateLimited: 1, failed: 1, invalid: 1, payload: 1, info: 1, notFound: 1, forbidden: 1, badRequest: 1, badFrames: 3 })
    t.match(rooms.stats(), { refused: 0, invalid: 5 }, 'the close of a member does not count as a refused join')
  }
})

t.test('a raw message that the broker refuses, and a violation of RFC 6455, are counted', async t => {
  const broker = memoryBroker()
  broker.publish = () => [{ state: 'failed' as never }]
  const { rooms, url } = await serve(t, { broker })
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(() => rooms.stats().members === 1)
  raw.send('1')
  t.equal((await raw.closed).code, 4103)
  const peer = await joinMute(t, `${url}/rooms/news`)
  await until(() => rooms.stats().members === 1)
  peer.send(3, 'an opcode that does not exist')
  await expect(t, rooms, { broker: 1, protocol: 1 })
})

t.test('an upgrade that is cut is counted once', async t => {
  const { rooms, url } = await serve(t, { limits: { handshake: 100 }, identify: () => new Promise(() => {}) })
  await t.rejects(connect(t, `${url}/rooms/news`))
  await expect(t, rooms, { handshake: 1 })
})
