import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { AnySession, Identity } from '../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions, type LogLine } from './helpers/app.ts'

const hour = 3_600_000

interface Served { app: FastifyInstance, url: string, sessions: AnySession<any>[], errors: Error[], tokens: string[] }

/** An app whose members are all ann, with credentials for an hour unless `?in=` differs. A token is the JSON of an identity. */
async function create (t: Test, options: AnyOptions = {}, logs: LogLine[] = []): Promise<Served> {
  const sessions: AnySession<any>[] = []
  const errors: Error[] = []
  const tokens: string[] = []
  const app = await createRooms(t, {
    identify: request => ({ user: 'ann', expires: Date.now() + Number((request.query as { in?: string }).in ?? hour) }),
    onAuth: (_session, token) => {
      tokens.push(token)
      return JSON.parse(token)
    },
    onJoin: session => { sessions.push(session) },
    onError: error => { errors.push(error) },
    ...options
  }, logs)
  return { app, url: await listen(app), sessions, errors, tokens }
}

const auth = (identity: Identity | null | Record<string, unknown>) => ({ type: 'auth', token: JSON.stringify(identity) })

/** A function that counts its calls and is answered by hand. */
function gate<T> (): { calls: number, ask: () => Promise<T>, answer: (value: T) => void, fail: (error: Error) => void } {
  const waiting: { resolve (value: T): void, reject (error: Error): void }[] = []
  const self = {
    calls: 0,
    ask: () => {
      self.calls++
      return new Promise<T>((resolve, reject) => { waiting.push({ resolve, reject }) })
    },
    answer: (value: T) => { waiting.shift()!.resolve(value) },
    fail: (error: Error) => { waiting.shift()!.reject(error) }
  }
  return self
}

t.test('new credentials replace the old ones', async t => {
  const { app, url, sessions, tokens } = await create(t, { expiry: { notice: 0 } })
  const client = await join(t, `${url}/rooms/news?in=3000`)
  const old = sessions[0]!.expires!
  const expires = Date.now() + hour
  const ack = await client.ask(auth({ user: 'ann', expires }))
  t.match(ack, { type: 'ack', ok: true, data: { in: Number } })
  const { in: left } = (ack as { data: { in: number } }).data
  t.ok(left > hour - 10_000 && left <= hour, String(left))
  t.same(sessions[0]!.expires, new Date(expires))
  t.same(tokens, [JSON.stringify({ user: 'ann', expires })])
  await until(() => Date.now() > old.getTime() + 300)
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: true }, 'the session outlives its first credentials')
  t.equal(app.rooms.stats().expired, 0)
})

t.test('new credentials may expire earlier, and the session then ends at that time', async t => {
  const { url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask(auth({ user: 'ann', expires: Date.now() + 1_500 })), { ok: true })
  t.same(await client.closed, { code: 4300, reason: 'token_expired' })
})

t.test('credentials without an expiry make a session that does not expire', async t => {
  const { url, sessions } = await create(t, { expiry: { notice: 0 } })
  const client = await join(t, `${url}/rooms/news?in=3000`)
  const old = sessions[0]!.expires!.getTime()
  t.same(await client.ask(auth({ user: 'ann' }), 1), { type: 'ack', ref: 1, ok: true }, 'the ack has no data')
  t.equal(sessions[0]!.expires, undefined)
  await until(() => Date.now() > old + 300)
  t.match(await client.ask({ type: 'ping' }), { ok: true })
})

t.test('new credentials may give an expiry to a session without one', async t => {
  const { url } = await create(t, { identify: () => ({ user: 'ann' }) })
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask(auth({ user: 'ann', expires: Date.now() + 1_500 })), { ok: true, data: { in: Number } })
  t.match(await client.closed, { code: 4300 })
})

t.test('the notice is sent again before the new expiry', async t => {
  const { url } = await create(t, { expiry: { notice: 10_000 } })
  const client = await join(t, `${url}/rooms/news?in=9000`)
  await client.next('expiring')
  const begin = Date.now()
  await client.ask(auth({ user: 'ann', expires: begin + 11_500 }))
  const notice = await client.next('expiring')
  t.ok(Date.now() - begin >= 1_500 && notice.in <= 10_000, String(notice.in))
})

t.test('for credentials with less time left than the notice, the notice is sent after half of it', async t => {
  const { url } = await create(t, { expiry: { notice: hour } })
  const client = await join(t, `${url}/rooms/news`)
  await client.next('expiring')
  const begin = Date.now()
  await client.ask(auth({ user: 'ann', expires: begin + 6_000 }))
  const notice = await client.next('expiring')
  t.ok(Date.now() - begin >= 3_000 && notice.in <= 3_000, String(notice.in))
})

t.test('credentials of another user, or without a user, are refused, and the old ones stay valid', async t => {
  const { url, sessions, errors } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  const { expires } = sessions[0]!
  for (const identity of [{ user: 'ben', expires: Date.now() + 2 * hour }, { user: 'Ann' }, null]) {
    t.match(await client.ask(auth(identity)), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN', message: /same user/ } })
  }
  t.same(sessions[0]!.expires, expires)
  t.equal(sessions[0]!.user, 'ann')
  t.same(errors, [])
})

t.test('an anonymous member cannot get a user', async t => {
  const { url, sessions } = await create(t, { identify: () => null })
  const client = await join(t, `${url}/rooms/news`)
  for (const identity of [{ user: 'ann' }, null]) t.match(await client.ask(auth(identity)), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  t.equal(sessions[0]!.user, undefined)
})

t.test('expired credentials are refused, and the old ones stay valid', async t => {
  const { url, sessions } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  const { expires } = sessions[0]!
  t.match(await client.ask(auth({ user: 'ann', expires: Date.now() - 1 })), { ok: false, error: { code: 'FST_ROOMS_TOKEN_EXPIRED' } })
  t.same(sessions[0]!.expires, expires)
})

t.test('an error of onAuth is answered like an error of onMessage', async t => {
  const thrown = Object.assign(new Error('not valid any more'), { statusCode: 401, code: 'REVOKED' })
  let next: () => any = () => { throw thrown }
  const { url, sessions, errors } = await create(t, { onAuth: () => next() })
  const client = await join(t, `${url}/rooms/news`)
  const { expires } = sessions[0]!
  const refusal = { ok: false, error: { code: 'REVOKED', message: 'not valid any more' } }
  t.match(await client.ask(auth({})), refusal)
  next = () => Promise.reject(thrown)
  t.match(await client.ask(auth({})), refusal)
  t.same(errors, [])

  const broken = new Error('the database is down')
  next = () => { throw broken }
  t.match(await client.ask(auth({})), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' } })
  t.same(errors, [broken])
  for (const wrong of [undefined, 'ann', {}, { user: 'ann', expires: NaN }, { user: 'ann', role: 'admin' }]) {
    next = () => wrong
    t.match(await client.ask(auth({})), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
    t.match(errors.pop(), { code: 'FST_ROOMS_INVALID_IDENTITY', message: /^onAuth returned/ })
  }
  t.same(sessions[0]!.expires, expires)
})

t.test('without onAuth every auth frame is refused', async t => {
  const { url } = await create(t, { onAuth: undefined as never })
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask(auth({ user: 'ann' })), { ok: false, error: { code: 'FST_ROOMS_NO_AUTH' } })
  client.send(auth({ user: 'ann' }))
  t.match(await client.next('error'), { error: { code: 'FST_ROOMS_NO_AUTH' } }, 'a frame without a ref is answered with an error frame')
})

t.test('a successful auth frame without a ref is not answered', async t => {
  const { url, tokens } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  const before = client.received.length
  client.send(auth({ user: 'ann' }))
  await client.ask({ type: 'ping' }, 'p')
  t.equal(tokens.length, 1)
  t.equal(client.received.slice(before).filter(frame => !frame.includes('presence')).length, 1, 'the first ack answers the ping')
})

t.test('new credentials do not wait for unfinished messages', async t => {
  const messages = gate<void>()
  const { url } = await create(t, { onMessage: { '*': messages.ask } })
  const client = await join(t, `${url}/rooms/news`)
  for (const ref of [1, 2, 3]) client.send({ type: 'message', data: ref, ref })
  t.match(await client.ask(auth({ user: 'ann' })), { ok: true })
  t.equal(messages.calls, 1)
  for (const ref of [1, 2, 3]) {
    messages.answer()
    t.match(await client.next('ack'), { ref, ok: true })
  }
})

t.test('a session has at most one auth frame in flight: a second one is refused until the first is answered', async t => {
  const asked = gate<Identity>()
  const { url, sessions } = await create(t, { onAuth: asked.ask })
  const client = await join(t, `${url}/rooms/news`)
  client.send({ ...auth({}), ref: 'first' })
  t.match(await client.ask(auth({}), 'second'), { ok: false, error: { code: 'FST_ROOMS_RATE_LIMITED' } })
  t.equal(asked.calls, 1)
  const expires = Date.now() + 2 * hour
  asked.answer({ user: 'ann', expires })
  t.match(await client.next('ack'), { ref: 'first', ok: true })
  t.same(sessions[0]!.expires, new Date(expires))

  client.send({ ...auth({}), ref: 'third' })
  await until(() => asked.calls === 2)
  asked.fail(Object.assign(new Error('no'), { statusCode: 403 }))
  t.match(await client.next('ack'), { ref: 'third', ok: false })
  client.send({ ...auth({}), ref: 'fourth' })
  await until(() => asked.calls === 3)
  asked.answer({ user: 'ann' })
  t.match(await client.next('ack'), { ref: 'fourth', ok: true }, 'another frame is taken after a failure')
})

t.test('info is checked as at the join, set, and announced to the room', async t => {
  const topics = { people: { presence: Type.Object({ name: Type.String() }) }, silent: {} }
  const { app, url, errors } = await create(t, { topics, limits: { info: 30 } })
  const watcher = await join(t, `${url}/rooms/people?presence=1`)
  const client = await join(t, `${url}/rooms/people`)
  const { session } = client.hello
  t.match(await client.ask(auth({ user: 'ann', info: { name: 'Ann' } })), { ok: true })
  await until(() => watcher.received.some(frame => frame.includes('"name":"Ann"')))
  const told = JSON.parse(watcher.received.find(frame => frame.includes('"name":"Ann"'))!)
  t.match(told, { type: 'presence', count: 2, join: [{ session, user: 'ann', info: { name: 'Ann' } }] })
  t.match(await client.ask(auth({ user: 'ann' })), { ok: true })
  t.match((await app.rooms.members('people')).find(member => member.session === session), { info: { name: 'Ann' } }, 'fields that the identity does not give keep their values')

  for (const info of [{ name: 1 }, { name: 'x'.repeat(30) }]) {
    t.match(await client.ask(auth({ user: 'ann', info, expires: 1 })), { ok: false, error: { code: 'FST_ROOMS_TOKEN_EXPIRED' } })
    t.match(await client.ask(auth({ user: 'ann', info, expires: Date.now() + hour })), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
    t.match(errors.pop(), { code: 'FST_ROOMS_INVALID_IDENTITY', message: /^onAuth returned an "info" that this topic does not take/ })
  }
  t.match((await app.rooms.members('people')).find(member => member.session === session), { info: { name: 'Ann' } })

  const alone = await join(t, `${url}/rooms/silent`)
  t.match(await alone.ask(auth({ user: 'ann', info: { name: 1 } })), { ok: true }, 'members do not see the info of a topic without presence')
})

t.test('a token is a string of 1 to 8,192 characters', async t => {
  const { app, url, tokens } = await create(t, { onAuth: (_session, token) => { tokens.push(token); return { user: 'ann' } } })
  const client = await join(t, `${url}/rooms/news`)
  for (const token of [undefined, null, 7, '', {}, ['x'], 'x'.repeat(8_193)]) {
    t.match(await client.ask({ type: 'auth', token }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /"token" is a string of 1 to 8192 characters/ } })
  }
  t.same(tokens, [])
  for (const token of ['x', 'x'.repeat(8_192)]) t.match(await client.ask({ type: 'auth', token }), { ok: true })
  t.same(tokens.map(({ length }) => length), [1, 8_192])
  t.equal(app.rooms.stats().invalid, 7)
})

t.test('raw mode has no auth frames: each frame is a payload', async t => {
  const { app, url, tokens } = await create(t)
  const client = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(async () => await app.rooms.count('news') === 1)
  client.send(auth({ user: 'ann' }))
  t.same(JSON.parse(await client.text()), auth({ user: 'ann' }))
  t.same(tokens, [])
})

t.test('an answer of onAuth after the end of the session changes nothing', async t => {
  for (const way of ['leaves', 'is kicked'] as const) {
    const asked = gate<Identity>()
    const { app, url, sessions, errors } = await create(t, { onAuth: asked.ask })
    const client = await join(t, `${url}/rooms/news`)
    const { expires } = sessions[0]!
    client.send({ ...auth({}), ref: 1 })
    await until(() => asked.calls === 1)
    if (way === 'leaves') await client.close()
    else await app.rooms.kick({ user: 'ann' })
    await until(() => sessions[0]!.state === 'closed')
    asked.answer({ user: 'ann', info: 'new', expires: Date.now() + 9 * hour })
    await new Promise(resolve => setImmediate(resolve))
    t.same(sessions[0]!.expires, expires, way)
    t.equal(sessions[0]!.info, undefined)
    t.same(errors, [])
    t.notMatch(client.received.join(), '"ref":1')
  }
})

t.test('an answer of onAuth after the old credentials expired is too late, even if no timer has noticed the expiry yet', async t => {
  const real = Date.now
  t.teardown(() => { Date.now = real })
  const { app, url } = await create(t, {
    onAuth: () => {
      Date.now = () => real() + hour
      return { user: 'ann', expires: real() + 9 * hour }
    }
  })
  const client = await join(t, `${url}/rooms/news`)
  client.send({ ...auth({}), ref: 1 })
  t.match(await client.next('bye'), { code: 4300 })
  t.match(await client.closed, { code: 4300 })
  t.notMatch(client.received.join(), '"ref":1')
  t.equal(app.rooms.stats().expired, 1)
})

t.test('auth frames that arrive before hello are handled after it', async t => {
  const door = gate<void>()
  const { url, tokens } = await create(t, { onJoin: door.ask })
  const client = await connect(t, `${url}/rooms/news`)
  client.send({ ...auth({ user: 'ann' }), ref: 1 })
  await until(() => door.calls === 1)
  t.same(tokens, [])
  door.answer()
  t.match(await client.next(), { type: 'hello' })
  t.match(await client.next('ack'), { ref: 1, ok: true })
})

t.test('onAuth is not called while the app closes', async t => {
  const messages = gate<void>()
  const { app, url, tokens } = await create(t, { onMessage: { '*': messages.ask } })
  const client = await join(t, `${url}/rooms/news`)
  client.send({ type: 'message', data: 1 })
  await until(() => messages.calls === 1)
  const drained = app.rooms.drain()
  client.send(auth({ user: 'ann' }))
  await client.ask({ type: 'ping' })
  messages.answer()
  await drained
  t.same(tokens, [])
})

t.test('the token appears in no log line, error or frame', async t => {
  const logs: LogLine[] = []
  const token = 'only-the-host-may-see-this'
  const outcomes: (() => unknown)[] = [() => ({ user: 'ann' }), () => ({ user: 'ben' }), () => null, () => 7, () => { throw new Error('broken') }, () => { throw Object.assign(new Error('no'), { statusCode: 401 }) }]
  const seen: unknown[] = []
  const { app, url } = await create(t, { onAuth: () => outcomes.shift()!() as never, onError: undefined as never, onInvalid: (_session, fault) => { seen.push(fault); return 'answer' } }, logs)
  const client = await join(t, `${url}/rooms/news`)
  while (outcomes.length > 0) await client.ask({ type: 'auth', token })
  await client.ask({ type: 'auth', token: token.repeat(400) })
  await client.ask({ type: 'auth', token: { token } })
  for (const malformed of [`{"type":"auth","token":${token}}`, `{"type":"auth","token":"${token}`, `{"type":"auth","token":"${token}"x}`, `{"type":"auth","token":"\n${token}"}`]) {
    client.send(malformed)
    t.match(await client.next('error'), { error: { code: 'FST_ROOMS_BAD_FRAME', message: /^bad frame: no JSON \([^"]+\); a frame looks like \{"type":"message","data":…\}$/ } })
  }
  await client.close()
  await until(() => app.rooms.stats().connections === 0)
  t.equal(seen.length, 6)
  t.ok(logs.some(({ msg }) => msg === 'a hook of fastify-rooms failed'))
  for (const text of [JSON.stringify(logs), JSON.stringify(seen), client.received.join()]) t.notMatch(text, token.slice(0, 6))
})
