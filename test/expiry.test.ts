import fastifyWebsocket from '@fastify/websocket'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import fastifyRooms from '../lib/index.ts'
import type { AnySession, Identity } from '../types/index.ts'
import { connect, createApp, createRooms, join, listen, refused, until, type AnyOptions } from './helpers/app.ts'

/** An app whose members' credentials expire as the query says: `?expires=` as JSON, `?in=` in milliseconds from now. */
async function create (t: Test, options: AnyOptions = {}): Promise<{ app: FastifyInstance, url: string, sessions: AnySession<any>[] }> {
  const sessions: AnySession<any>[] = []
  const app = await createRooms(t, {
    identify: request => identityOf(request),
    onJoin: session => { sessions.push(session) },
    ...options
  })
  return { app, url: await listen(app), sessions }
}

function identityOf (request: FastifyRequest): Identity {
  const query = request.query as { in?: string, expires?: string }
  return { user: 'ann', expires: query.in === undefined ? JSON.parse(query.expires!) : Date.now() + Number(query.in) }
}

t.test('a session ends with its credentials: 4300, which asks the client for new credentials', async t => {
  const { app, url } = await create(t, { expiry: { notice: 0 } })
  const begin = Date.now()
  const client = await join(t, `${url}/rooms/news?in=2000`)
  const bye = await client.next('bye')
  t.ok(Date.now() - begin >= 2_000)
  t.same(bye, { type: 'bye', code: 4300, reason: 'token_expired', id: client.hello.id })
  t.same(await client.closed, { code: 4300, reason: 'token_expired' })
  t.match(app.rooms.stats(), { expired: 1, members: 0, refused: 0 })
})

t.test('the member gets a notice before the end', async t => {
  const { url } = await create(t, { expiry: { notice: 3_000 } })
  const begin = Date.now()
  const client = await join(t, `${url}/rooms/news?in=4000`)
  const notice = await client.next('expiring')
  t.ok(Date.now() - begin >= 1_000, 'the notice does not come at once')
  t.ok(notice.in > 0 && notice.in <= 3_000, String(notice.in))
  t.match(await client.next('bye'), { code: 4300 })
  t.equal(client.received.filter(frame => frame.includes('expiring')).length, 1)
})

t.test('for a lifetime shorter than the notice, the notice follows hello before any other frame', async t => {
  const { url } = await create(t, { onJoin: async session => { session.send('welcome') } })
  const client = await join(t, `${url}/rooms/news?in=20000&presence=1`)
  await client.next('presence')
  const frames = client.received.map(frame => JSON.parse(frame))
  t.same(frames.map(({ type }) => type).slice(0, 4), ['hello', 'expiring', 'direct', 'presence'])
  t.ok(frames[1].in > 10_000 && frames[1].in <= 20_000)
})

t.test('a raw member gets only the close', async t => {
  const { url } = await create(t)
  const client = await connect(t, `${url}/rooms/news?in=1500`, 'rooms.raw')
  t.same(await client.closed, { code: 4300, reason: 'token_expired' })
  t.same(client.received, [])
})

t.test('expires is a Date, milliseconds, or seconds as in a JWT', async t => {
  const seconds = Math.floor(Date.now() / 1_000) + 3_600
  const hour = new Date(seconds * 1_000)
  let expires: Date | number | undefined
  const { url, sessions } = await create(t, { identify: () => ({ user: 'ann', expires }) })
  for (const given of [hour, hour.getTime(), seconds, seconds + 0.5]) {
    expires = given
    await join(t, `${url}/rooms/news`)
    t.same(sessions.pop()!.expires, given === seconds + 0.5 ? new Date(hour.getTime() + 500) : hour, String(given))
  }
  for (const [given, year] of [[99_999_999_999, 5138], [8.64e15, 275760], [new Date(8.64e15), 275760]] as const) {
    expires = given
    await join(t, `${url}/rooms/news`)
    t.equal(sessions.pop()!.expires!.getUTCFullYear(), year, 'a time beyond the range of timers')
  }
  expires = undefined
  await join(t, `${url}/rooms/news`)
  t.equal(sessions.pop()!.expires, undefined)
})

t.test('session.expires returns a copy', async t => {
  const { url, sessions } = await create(t)
  const expires = new Date(Date.now() + 3_600_000)
  await join(t, `${url}/rooms/news?expires=${expires.getTime()}`)
  const [session] = sessions
  session!.expires!.setTime(0)
  t.same(session!.expires, expires)
})

t.test('expired credentials are refused before the upgrade, in every way, and no further hook is called', async t => {
  let asked = 0
  const { app, url } = await create(t, { authorize: () => ++asked > 0 })
  const expected = { code: 'FST_ROOMS_TOKEN_EXPIRED', statusCode: 401, message: 'these credentials have expired' }
  const past = [Date.now(), Math.floor(Date.now() / 1_000), 0, 100_000_000_000]
  for (const expires of past) {
    t.match(await refused(`${url}/rooms/news?expires=${expires}`), { status: 401, body: expected })
    for (const method of ['GET', 'POST'] as const) {
      const response = await app.inject({ method, url: `/rooms/news?expires=${expires}`, payload: {} })
      t.equal(response.statusCode, 401)
      t.match(response.json(), expected)
    }
  }
  t.equal(asked, 0)
  t.match(app.rooms.stats(), { connections: 0, refused: 0, expired: 0 })
})

t.test('a value of expires that is not a time is an error of the host, with a message that says so', async t => {
  let expires: unknown
  const { url } = await create(t, { identify: () => ({ user: 'ann', expires: expires as never }) })
  for (const wrong of [NaN, Infinity, -Infinity, -1, -1e12, 8.64e15 + 1, new Date(NaN), new Date(-1), '2030-01-01', null, true, {}, 10n]) {
    expires = wrong
    t.match(await refused(`${url}/rooms/news`), { status: 500, body: { code: 'FST_ROOMS_INVALID_IDENTITY', message: /^identify returned an "expires" that is no Date/ } }, String(wrong))
  }
})

t.test('authorize gets a Date', async t => {
  const identities: unknown[] = []
  const { url } = await create(t, { authorize: context => identities.push('identity' in context && context.identity) > 0 })
  await join(t, `${url}/rooms/news?expires=4102444800`)
  t.same(identities, [{ user: 'ann', expires: new Date('2100-01-01') }])
})

t.test('a join whose credentials expire while it is under way is refused, and other members do not see it', async t => {
  const left: unknown[] = []
  const { app, url, sessions } = await create(t, {
    onJoin: session => {
      sessions.push(session)
      return new Promise(() => {})
    },
    onLeave: session => { left.push(session) }
  })
  const client = await connect(t, `${url}/rooms/news?in=1500`)
  t.match(await client.next(), { type: 'bye', code: 4300 })
  t.same(await client.closed, { code: 4300, reason: 'token_expired' })
  t.equal(sessions[0]!.state, 'closed')
  t.same(left, [])
  t.match(app.rooms.stats(), { refused: 1, expired: 1, topics: 0 })
})

t.test('credentials that end during the upgrade begin no connection of several topics', async t => {
  const real = Date.now
  t.teardown(() => { Date.now = real })
  const expires = real() + 60_000
  const app = createApp(t)
  await app.register(fastifyWebsocket)
  app.websocketServer.on('connection', () => { Date.now = () => expires })
  await app.register(fastifyRooms as any, { prefix: '/rooms', identify: identityOf })
  const client = await connect(t, `${await listen(app)}/rooms?expires=${expires}`)
  t.match(await client.closed, { code: 4300, reason: 'token_expired' })
  Date.now = real
  t.match(client.received.map(text => JSON.parse(text)), [{ type: 'bye', code: 4300 }])
  t.match(app.rooms.stats(), { expired: 1, members: 0 })
})

t.test('credentials that expire between the check and the join, or by the end of onJoin, do not admit a member', async t => {
  const real = Date.now
  t.teardown(() => { Date.now = real })
  const expires = real() + 60_000
  for (const hook of ['authorize', 'onJoin'] as const) {
    const { app, url } = await create(t, { [hook]: () => { Date.now = () => expires; return true } })
    const client = await connect(t, `${url}/rooms/news?expires=${expires}`)
    t.match(await client.next(), { type: 'bye', code: 4300 }, `in ${hook}`)
    t.match(await client.closed, { code: 4300 })
    Date.now = real
    t.match(app.rooms.stats(), { refused: 1, expired: 1, members: 0 })
  }
})

t.test('an hour that passes at once, as after a sleep of the machine, ends the expired sessions', async t => {
  const { app, url } = await create(t)
  const real = Date.now
  t.teardown(() => { Date.now = real })
  const [hour, day] = [await join(t, `${url}/rooms/news?in=3600000`), await join(t, `${url}/rooms/news?in=86400000`)]
  Date.now = () => real() + 4_000_000
  t.match(await hour.closed, { code: 4300 })
  t.notMatch(hour.received.join(), 'expiring', 'too late for a notice')
  t.equal(app.rooms.stats().members, 1)
  Date.now = () => real() + 86_400_000 - 10_000
  t.match(await day.next('expiring'), { in: Number })
})

t.test('a member that leaves earlier is no longer waited for', async t => {
  const { app, url } = await create(t)
  const real = Date.now
  t.teardown(() => { Date.now = real })
  const client = await join(t, `${url}/rooms/news?in=60000`)
  await client.close()
  await until(() => app.rooms.stats().connections === 0)
  const other = await join(t, `${url}/rooms/news?in=120000`)
  Date.now = () => real() + 200_000
  await other.closed
  t.equal(app.rooms.stats().expired, 1)
})

t.test('expiry.notice is a whole number from 0', async t => {
  for (const notice of [-1, 0.5, '30s', null]) await t.rejects(createRooms(t, { expiry: { notice: notice as never } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /expiry.notice/ })
})
