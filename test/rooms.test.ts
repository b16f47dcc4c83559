import { getEventListeners } from 'node:events'
import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import { createRefusals } from '../lib/limits/refusals.ts'
import type { Session } from '../types/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'

const identify: NonNullable<AnyOptions['identify']> = request => {
  const user = request.headers['x-user']
  return typeof user === 'string' ? { user } : null
}

async function create (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, { identify, ...options })
  const url = await listen(app)
  const as = (user: string, topic = 'news') => join(t, `${url}/rooms/${topic}`, { headers: { 'x-user': user } })
  return { app, rooms: app.rooms, url, as }
}

const turns = async (): Promise<void> => { for (let i = 0; i < 5; i++) await new Promise(resolve => setImmediate(resolve)) }

t.test('send reaches one session', async t => {
  const { rooms, as } = await create(t)
  const [one, two] = [await as('anna'), await as('anna')]
  t.equal(await rooms.send(one.hello.session, { n: 1 }), undefined)
  t.same(await one.next('direct'), { type: 'direct', data: { n: 1 } })
  await rooms.send(two.hello.session, 2)
  t.same(await two.next('direct'), { type: 'direct', data: 2 }, 'no earlier message came')
  t.equal(rooms.stats().directs, 2)
  await t.rejects(rooms.send('nobody', 1), { code: 'FST_ROOMS_NO_SUCH_SESSION', statusCode: 404, message: 'there is no session "nobody" here' })
  await t.rejects(rooms.send('x'.repeat(500), 1), { message: `there is no session "${'x'.repeat(64)}" here` })
  await t.rejects(rooms.send(one.hello.session, undefined), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
})

t.test('a send to a joining member follows its hello', async t => {
  let open!: () => void
  const gate = new Promise<void>(resolve => { open = resolve })
  let joining!: Session
  const { rooms, url } = await create(t, { onJoin: session => { joining = session; return gate } })
  const client = await connect(t, `${url}/rooms/news`)
  await until(() => joining !== undefined)
  await rooms.send(joining.id, 'early')
  open()
  t.equal((await client.next()).type, 'hello')
  t.equal((await client.next('direct')).data, 'early')
})

t.test('sendToUser reaches all sessions of one user, in all topics', async t => {
  const { rooms, as } = await create(t)
  const [one, two, other] = [await as('anna'), await as('anna', 'sports'), await as('ben')]
  t.same(await rooms.sendToUser('anna', { n: 1 }), { local: 2, published: true })
  for (const client of [one, two]) t.same(await client.next('direct'), { type: 'direct', data: { n: 1 } })
  t.same(await rooms.sendToUser('nobody', 1), { local: 0, published: true }, 'a user without a session is not an error')
  await rooms.sendToUser('ben', 2)
  t.equal((await other.next('direct')).data, 2)
  await one.close()
  await until(async () => await rooms.count('news') === 1)
  t.same(await rooms.sendToUser('anna', 1), { local: 1, published: true })
})

t.test('if one topic of a user refuses a payload, no session gets it', async t => {
  const { rooms, as } = await create(t, { topics: { any: {}, numbers: { message: Type.Number() } } })
  const [any, numbers] = [await as('anna', 'any'), await as('anna', 'numbers')]
  await t.rejects(rooms.sendToUser('anna', 'text'), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.same(await rooms.sendToUser('anna', 7), { local: 2, published: true })
  for (const client of [any, numbers]) t.equal((await client.next('direct')).data, 7, 'the first message')
})

t.test('issue 8: sendToUser with a topic reaches only the sessions of the user in that topic', async t => {
  const { rooms, as } = await create(t, { topics: { any: {}, numbers: { message: Type.Number() }, 'chat:*': {} } })
  const [any, numbers, ben] = [await as('anna', 'any'), await as('anna', 'numbers'), await as('ben', 'any')]
  await as('anna', 'chat:1')
  await as('anna', 'chat:2')
  const send = rooms.sendToUser.bind(rooms) as (user: string, payload: unknown, options?: unknown) => Promise<{ local: number }>
  t.same(await send('anna', 'text', { topic: 'any' }), { local: 1, published: true }, 'another topic of the user refuses the payload')
  t.same(await send('anna', 7, { topic: 'numbers' }), { local: 1, published: true })
  t.same(await send('anna', 1, { topic: 'chat:2' }), { local: 1, published: true }, 'a topic of a family')
  t.same(await send('anna', 1, { topic: 'chat:3' }), { local: 0, published: true }, 'a topic without a session of the user')
  t.same(await send('cleo', 1, { topic: 'any' }), { local: 0, published: true })
  t.same(await send('anna', 1, {}), { local: 4, published: true }, 'without a topic all sessions get it')
  t.same(await any.next('direct'), { type: 'direct', data: 'text' })
  t.same(await numbers.next('direct'), { type: 'direct', data: 7 })
  await ben.ask({ type: 'ping' })
  t.notOk(ben.received.some(text => text.includes('"direct"')))
  for (const user of ['anna', 'cleo']) await t.rejects(send(user, 'text', { topic: 'numbers' }), { code: 'FST_ROOMS_INVALID_PAYLOAD' }, 'the result is the same with and without sessions of the user')
  await t.rejects(send('anna', 1, { topic: 'weather' }), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  for (const [options, name] of [[{ topic: undefined }, 'topic'], [{ topic: 1 }, 'topic'], [{ topics: 'any' }, 'options'], ['any', 'options'], [null, 'options'], [[], 'options']] as const) {
    await t.rejects(send('anna', 1, options), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: new RegExp(`^"${name}" takes`) }, JSON.stringify(options))
  }
})

t.test('ask resolves with the answer of the session', async t => {
  const { rooms, as } = await create(t)
  const client = await as('anna')
  const answer = rooms.ask(client.hello.session, { question: '?' })
  const frame = await client.next('direct')
  t.match(frame, { type: 'direct', data: { question: '?' }, ref: String })
  client.send({ type: 'ack', ref: frame.ref, data: { answer: 42 } })
  t.same(await answer, { answer: 42 })

  const second = rooms.ask(client.hello.session, 1)
  const { ref } = await client.next('direct')
  t.not(ref, frame.ref)
  client.send({ type: 'ack', ref })
  t.equal(await second, undefined, 'an answer may be empty')
})

t.test('ask rejects after its timeout, and a later answer is ignored', async t => {
  const { rooms, as } = await create(t)
  const client = await as('anna')
  await t.rejects(rooms.ask(client.hello.session, 1, { timeout: 5 }), { code: 'FST_ROOMS_ASK_TIMEOUT', statusCode: 504, message: `session "${client.hello.session}" did not answer within 5 ms` })
  const { ref } = await client.next('direct')
  client.send({ type: 'ack', ref, data: 'late' })
  t.match(await client.ask({ type: 'ping' }), { ok: true }, 'the connection stays open')
  t.equal(rooms.stats().invalid, 0)
})

t.test('ask is aborted by its signal, before or after the request is sent', async t => {
  const { rooms, as } = await create(t)
  const client = await as('anna')
  const reason = new Error('not needed any more')
  await t.rejects(rooms.ask(client.hello.session, 1, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const pending = rooms.ask(client.hello.session, 2, { signal: controller.signal })
  t.equal((await client.next('direct')).data, 2, 'the first request was never sent')
  controller.abort(reason)
  await t.rejects(pending, reason)

  const answered = rooms.ask(client.hello.session, 3, { signal: new AbortController().signal })
  const { ref } = await client.next('direct')
  client.send({ type: 'ack', ref, data: 'yes' })
  t.equal(await answered, 'yes')
})

t.test('ask rejects at the end of its session', async t => {
  const { rooms, as } = await create(t)
  const [one, two] = [await as('anna'), await as('ben')]
  const pending = [rooms.ask(one.hello.session, 1), rooms.ask(one.hello.session, 2)]
  const kicked = rooms.ask(two.hello.session, 3)
  one.socket.close()
  for (const ask of pending) await t.rejects(ask, { code: 'FST_ROOMS_SESSION_CLOSED' })
  await Promise.all([t.rejects(kicked, { code: 'FST_ROOMS_SESSION_CLOSED' }), rooms.kick({ session: two.hello.session })])
  await t.rejects(rooms.ask(one.hello.session, 1), { code: 'FST_ROOMS_NO_SUCH_SESSION' })
})

t.test('ask refuses invalid arguments', async t => {
  const sessions: Session[] = []
  const { rooms, url, as } = await create(t, { topics: { news: { message: Type.Number() } }, onJoin: session => { sessions.push(session) } })
  const client = await as('anna')
  await connect(t, `${url}/rooms/news`, 'rooms.raw')
  await until(() => sessions.length === 2)
  await t.rejects(rooms.ask(sessions[1]!.id, 1), { code: 'FST_ROOMS_NOT_ASKABLE', statusCode: 409 })
  await t.rejects(rooms.ask(client.hello.session, 'text'), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  for (const timeout of [0, -1, 1.5, NaN, Infinity, 2 ** 31, '5']) {
    await t.rejects(rooms.ask(client.hello.session, 1, { timeout: timeout as number }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: '"timeout" takes a whole number from 1' }, String(timeout))
  }
  t.equal(rooms.stats().directs, 0)
})

t.test('an answer is accepted only from the session that was asked', async t => {
  const { rooms, as } = await create(t)
  const [asked, stranger] = [await as('anna'), await as('ben')]
  const answer = rooms.ask(asked.hello.session, 1)
  const { ref } = await asked.next('direct')
  stranger.send({ type: 'ack', ref, data: 'forged' })
  await stranger.ask({ type: 'ping' })
  asked.send({ type: 'ack', ref: 'another', data: 'wrong' })
  asked.send({ type: 'ack', ref, data: 'true' })
  t.equal(await answer, 'true')
})

t.test('an answer does not wait for unfinished messages of its member', async t => {
  let open!: () => void
  const gate = new Promise<void>(resolve => { open = resolve })
  const { rooms, as } = await create(t, {
    onMessage: { '*': async session => { const answer = await rooms.ask(session.id, 'sure?'); await gate; return answer } }
  })
  const client = await as('anna')
  client.send({ type: 'message', data: 1, ref: 'm' })
  const { ref } = await client.next('direct')
  client.send({ type: 'message', data: 'unfinished' })
  client.send({ type: 'ack', ref, data: 'yes' })
  open()
  t.match(await client.next('ack'), { ref: 'm', ok: true, data: 'yes' })
})

t.test('members, count and topics tell the members of each topic', async t => {
  const { rooms, as } = await create(t, { identify: request => ({ user: String(request.headers['x-user']), info: { age: 1 } }) })
  t.same(await rooms.members('news'), [])
  t.equal(await rooms.count('news'), 0)
  t.same(await rooms.topics(), [])
  const [anna, ben] = [await as('anna'), await as('ben')]
  await as('cleo', 'sports')
  const members = await rooms.members('news')
  t.same(new Set(members.map(({ session }) => session)), new Set([anna.hello.session, ben.hello.session]))
  t.same(members.find(({ user }) => user === 'anna'), { session: anna.hello.session, user: 'anna', info: { age: 1 } })
  t.equal(await rooms.count('news'), 2)
  t.same(new Set(await rooms.topics()), new Set(['news', 'sports']))
  t.equal((await rooms.members('news', { limit: 1 })).length, 1)
  t.equal((await rooms.members('news', {})).length, 2)
  for (const limit of [0, 1.5, '1']) await t.rejects(rooms.members('news', { limit: limit as number }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
})

t.test('an anonymous member without info is listed by its session only', async t => {
  const { rooms, url } = await create(t)
  const client = await join(t, `${url}/rooms/news`)
  t.same(await rooms.members('news'), [{ session: client.hello.session }])
})

t.test('a topic with only a subscriber has no members', async t => {
  const { rooms } = await create(t)
  const subscription = rooms.subscribe('news')
  t.same(await rooms.topics(), [])
  t.equal(await rooms.count('news'), 0)
  t.equal(rooms.stats().topics, 1)
  await subscription.return!()
  t.equal(rooms.stats().topics, 0)
})

t.test('has: in the open lobby each well-formed name, otherwise each declared topic', async t => {
  const open = (await create(t)).rooms
  for (const name of ['news', 'a:b', '__proto__', 'constructor', 'x'.repeat(255)]) t.equal(open.has(name), true, name)
  for (const name of ['', ' ', 'a/b', 'ä', 'x'.repeat(256), 7 as never, undefined as never]) t.equal(open.has(name), false, String(name))
  const { rooms } = await create(t, { topics: { news: {}, 'chat:*': {} } })
  for (const name of ['news', 'chat:1', 'chat:*'.replace('*', 'x')]) t.equal(rooms.has(name), true, name)
  for (const name of ['sports', 'chat:', 'chat', 'newsx', 'chat:*', '__proto__', 'toString']) t.equal(rooms.has(name), false, name)
})

t.test('undeclared topics are refused in each method', async t => {
  const { rooms } = await create(t, { topics: { news: {} } })
  const expected = { code: 'FST_ROOMS_NO_SUCH_TOPIC', statusCode: 404, message: 'there is no topic "weather"' }
  for (const call of [() => rooms.broadcast('weather', 1), () => rooms.members('weather'), () => rooms.count('weather')] as (() => Promise<unknown>)[]) await t.rejects(call(), expected)
  t.throws(() => rooms.subscribe('weather'), expected)
  await t.rejects(rooms.broadcast('x'.repeat(999), 1), { message: `there is no topic "${'x'.repeat(255)}"` })
})

t.test('subscribe starts at the call', async t => {
  const { rooms, as } = await create(t)
  await as('anna')
  await rooms.broadcast('news', 'before')
  const subscription = rooms.subscribe('news')
  t.match(await rooms.broadcast('news', 1), { local: 1 }, 'a subscriber is not a member')
  await rooms.broadcast('sports', 'elsewhere')
  await rooms.broadcast('news', { n: 2 })
  t.same(await subscription.next(), { done: false, value: 1 })
  t.same(await subscription.next(), { done: false, value: { n: 2 } })
  await subscription.return!()
})

t.test('a subscriber reads messages of members, in a loop that it can leave', async t => {
  const { rooms, as } = await create(t)
  const client = await as('anna')
  const seen: unknown[] = []
  const worker = (async () => {
    for await (const payload of rooms.subscribe('news')) {
      seen.push(payload)
      if (payload === 'stop') break
    }
  })()
  for (const data of [1, 'stop', 'more']) await client.ask({ type: 'message', data })
  await worker
  t.same(seen, [1, 'stop'])
  await client.close()
  await until(() => rooms.stats().topics === 0)
})

t.test('each of several subscribers gets all messages', async t => {
  const { rooms } = await create(t)
  const [one, two] = [rooms.subscribe('news'), rooms.subscribe('news')]
  await rooms.broadcast('news', 1)
  t.same([(await one.next()).value, (await two.next()).value], [1, 1])
  await one.return!()
  await rooms.broadcast('news', 2)
  t.same((await two.next()).value, 2)
  t.same(await one.next(), { done: true, value: undefined })
})

t.test('a signal ends the subscription, before or during the loop', async t => {
  const { rooms } = await create(t)
  const controller = new AbortController()
  const subscription = rooms.subscribe('news', { signal: controller.signal })
  const next = subscription.next()
  controller.abort()
  t.same(await next, { done: true, value: undefined })
  t.same(await rooms.subscribe('news', { signal: AbortSignal.abort() }).next(), { done: true, value: undefined })
  t.equal(rooms.stats().topics, 0)
})

t.test('a subscription that has ended keeps no listener on its signal', async t => {
  const { rooms } = await create(t)
  const { signal } = new AbortController()
  const subscription = rooms.subscribe('news', { signal })
  t.equal(getEventListeners(signal, 'abort').length, 1)
  await subscription.return!()
  t.equal(getEventListeners(signal, 'abort').length, 0)
})

t.test('a slow subscriber gets its queued messages, and then an error', async t => {
  const { rooms } = await create(t)
  const subscription = rooms.subscribe('news', { buffer: 2 })
  for (const n of [1, 2, 3]) await rooms.broadcast('news', n)
  t.equal(rooms.stats().topics, 0, 'the subscriber leaves the room at once')
  t.equal((await subscription.next()).value, 1)
  t.equal((await subscription.next()).value, 2)
  await t.rejects(subscription.next(), { code: 'FST_ROOMS_SUBSCRIBER_SLOW' })
  t.same(await subscription.next(), { done: true, value: undefined })
  for (const buffer of [0, '1', 0.5]) t.throws(() => rooms.subscribe('news', { buffer: buffer as number }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  t.equal(rooms.stats().topics, 0, 'a refused subscription leaves no state behind')
})

t.test('a subscription queues a thousand messages by default', async t => {
  const { rooms } = await create(t)
  const subscription = rooms.subscribe('news')
  for (let n = 0; n < 1_000; n++) await rooms.broadcast('news', n)
  t.equal(rooms.stats().topics, 1)
  await rooms.broadcast('news', 'one too many')
  t.equal(rooms.stats().topics, 0)
  let count = 0
  await t.rejects(async () => { for await (const payload of subscription) count += payload === undefined ? 0 : 1 }, { code: 'FST_ROOMS_SUBSCRIBER_SLOW' })
  t.equal(count, 1_000)
})

t.test('a subscription keeps the epoch of its topic', async t => {
  const { rooms, as } = await create(t)
  const subscription = rooms.subscribe('news')
  const first = await as('anna')
  await first.close()
  await until(async () => await rooms.count('news') === 0)
  const { id } = await rooms.broadcast('news', 1)
  t.ok(id, 'the topic has a subscriber')
  t.equal((await as('anna')).hello.id, id)
  await subscription.return!()
})

t.test('subscriptions end when the app closes', async t => {
  const { app, rooms } = await create(t)
  const subscription = rooms.subscribe('news')
  await rooms.broadcast('news', 'last')
  const waiting = rooms.subscribe('sports').next()
  await app.close()
  t.equal((await subscription.next()).value, 'last')
  t.same(await subscription.next(), { done: true, value: undefined })
  t.same(await waiting, { done: true, value: undefined })
  t.throws(() => rooms.subscribe('news'), { code: 'FST_ROOMS_CLOSED' })
})

t.test('kick ends the sessions that match all given fields', async t => {
  const { rooms, as } = await create(t)
  const [anna, annaSports, ben] = [await as('anna'), await as('anna', 'sports'), await as('ben')]
  t.equal(await rooms.kick({ user: 'anna', topic: 'weather' }), 0)
  t.equal(await rooms.kick({ session: ben.hello.session, user: 'anna' }), 0)
  t.equal(await rooms.kick({ session: ben.hello.session, topic: 'sports' }), 0)
  t.equal(await rooms.kick({ session: 'nobody' }), 0)
  t.equal(await rooms.kick({ user: 'nobody' }), 0)
  t.equal(rooms.stats().members, 3)
  t.equal(await rooms.kick({ user: 'anna', topic: 'sports' }), 1)
  t.match(await annaSports.next('bye'), { code: 4005, reason: 'kicked' })
  t.same(await annaSports.closed, { code: 4005, reason: 'kicked' })
  t.equal(await rooms.kick({ session: ben.hello.session, user: 'ben', topic: 'news' }, { code: 4301 }), 1)
  t.same(await ben.closed, { code: 4301, reason: 'token_revoked' })
  t.equal(await rooms.kick({ topic: 'news' }, { code: 4900, reason: 'own' }), 1)
  t.same(await anna.closed, { code: 4900, reason: 'own' })
  t.equal(rooms.stats().members, 0)
})

t.test('kick by user ends all sessions of that user, including joining ones', async t => {
  let open!: () => void
  const gate = new Promise<void>(resolve => { open = resolve })
  const { rooms, url, as } = await create(t, { onJoin: session => session.topic === 'slow' ? gate : undefined })
  const one = await as('anna')
  const joining = await connect(t, `${url}/rooms/slow`, [], { headers: { 'x-user': 'anna' } })
  await until(() => rooms.stats().connections === 2)
  t.equal(await rooms.kick({ user: 'anna' }), 2)
  t.equal((await one.closed).code, 4005)
  t.equal((await joining.closed).code, 4005)
  t.notMatch(joining.received.join(), 'hello')
  open()
  await turns()
  t.same(await rooms.topics(), [])
})

t.test('kick twice ends a session once', async t => {
  const { rooms, as } = await create(t)
  const client = await as('anna')
  t.same(await Promise.all([rooms.kick({ user: 'anna' }), rooms.kick({ session: client.hello.session }, { code: 4301 }), rooms.kick({ topic: 'news' })]), [1, 0, 0])
  t.same(await client.closed, { code: 4005, reason: 'kicked' })
  t.equal(client.received.filter(frame => frame.includes('"bye"')).length, 1)
})

t.test('kick of a raw session sends only the close', async t => {
  const { rooms, url } = await create(t)
  const client = await connect(t, `${url}/rooms/news`, 'rooms.raw', { headers: { 'x-user': 'anna' } })
  await until(async () => await rooms.count('news') === 1)
  t.equal(await rooms.kick({ user: 'anna', topic: 'news' }, { code: 4007 }), 1)
  t.same(await client.closed, { code: 4007, reason: 'topic_closed' })
  t.same(client.received, [])
})

t.test('queued messages of a room are sent before all of it is kicked', async t => {
  const { rooms, as } = await create(t)
  const clients = [await as('anna'), await as('ben')]
  await rooms.broadcast('news', 'last words')
  t.equal(await rooms.kick({ topic: 'news' }), 2)
  for (const client of clients) {
    t.match(await client.next('message'), { data: 'last words' })
    t.match(await client.next('bye'), { code: 4005 })
  }
})

t.test('kick may be called from each hook of a session, also for that session itself', async t => {
  const kicks: [string, number][] = []
  const left: string[] = []
  const kick = async (session: any, hook: string, user: string): Promise<void> => { kicks.push([hook, await session.rooms.kick({ user })]) }
  const { rooms, as, url } = await create(t, {
    onJoin: session => session.user === 'joiner' ? kick(session, 'onJoin', 'joiner') : undefined,
    onMessage: { '*': session => kick(session, 'onMessage', 'writer') },
    onLeave: async session => {
      left.push(session.user!)
      if (session.user === 'first') await kick(session, 'onLeave', 'second')
    }
  })
  const joiner = await connect(t, `${url}/rooms/news`, [], { headers: { 'x-user': 'joiner' } })
  t.same(await joiner.closed, { code: 4005, reason: 'kicked' })
  t.notMatch(joiner.received.join(), 'hello')

  const writer = await as('writer')
  writer.send({ type: 'message', data: 1, ref: 1 })
  t.same(await writer.closed, { code: 4005, reason: 'kicked' })
  t.notMatch(writer.received.join(), 'ack')

  const [first, second, third] = [await as('first'), await as('second'), await as('third')]
  t.equal(await rooms.kick({ topic: 'news' }), 2, 'sessions that onLeave ends are counted there')
  for (const client of [first, second, third]) t.equal((await client.closed).code, 4005)
  t.same(kicks, [['onJoin', 1], ['onMessage', 1], ['onLeave', 1]])
  t.same(left.sort(), ['first', 'joiner', 'second', 'third', 'writer'], 'each session left once')
  t.match(rooms.stats(), { members: 0, topics: 0 })
})

t.test('kick refuses a selector without fields, and a close that cannot be sent', async t => {
  const { rooms, as } = await create(t)
  await as('anna')
  await t.rejects(rooms.kick({}), { code: 'FST_ROOMS_INVALID_SELECTOR' })
  await t.rejects(rooms.kick(undefined as never), { code: 'FST_ROOMS_INVALID_SELECTOR' })
  await t.rejects(rooms.kick({ user: undefined, topic: undefined } as never), { code: 'FST_ROOMS_INVALID_SELECTOR' })
  for (const narrower of [{ user: undefined }, { user: null }, { user: 7 }, { usr: 'anna' }]) {
    await t.rejects(rooms.kick({ topic: 'news', ...narrower } as never), { code: 'FST_ROOMS_INVALID_SELECTOR', message: /^kick takes/ }, 'a wrong field must not select the whole topic')
  }
  await t.rejects(rooms.kick({ topic: 'no topic' }), { code: 'FST_ROOMS_NO_SUCH_TOPIC' })
  await t.rejects(rooms.kick({ user: 'anna' }, { code: 1006 }), { code: 'FST_ROOMS_INVALID_CLOSE' })
  await t.rejects(rooms.kick({ user: 'anna' }, { reason: 'x'.repeat(124) }), { code: 'FST_ROOMS_INVALID_CLOSE' })
  t.equal(rooms.stats().members, 1)
})

t.test('stats count events, and current members, topics and connections', async t => {
  const { rooms, as } = await create(t, { onMessage: { '*': (_session, payload) => { if (payload === 'fail') throw new Error('no') } }, onError: () => {} })
  const outcomes = { ok: 0, duplicate: 0, stale: 0, ended: 0, failed: 0, unknown: 0 }
  const broker = { state: 'up', stateFor: 0, outages: 0, lag: 0, queued: 0, queuedBytes: 0, topics: 0, reconnects: 0, resubscribed: 0, missedProbes: 0, mended: 0, holes: 0, resets: 0, fenced: 0, dropped: 0, unreadable: 0, entries: 0, outcomes }
  const zero = { connections: 0, topics: 0, members: 0, queuedBytes: 0, working: 0, history: { topics: 0, messages: 0, bytes: 0, evicted: 0 }, broker, joined: 0, recovered: 0, unrecovered: 0, replayed: 0, broadcasts: 0, duplicates: 0, deliveries: 0, directs: 0, received: 0, receivedBytes: 0, paused: 0, sentBytes: 0, invalid: 0, refused: 0, lagging: 0, slow: 0, dropped: 0, conflated: 0, silent: 0, expired: 0, errors: 0, publishing: 0, waiting: 0, streams: 0, unanswered: 0, repeated: 0, losses: 0, brokerFaults: 0, unreadable: 0, refusals: createRefusals() }
  t.match(rooms.stats().broker.stateFor, Number)
  t.same({ ...rooms.stats(), broker: { ...rooms.stats().broker, stateFor: 0 } }, zero)
  const [anna, ben] = [await as('anna'), await as('ben')]
  await as('cleo', 'sports')
  await rooms.broadcast('news', 1)
  await rooms.broadcast('nowhere', 1)
  await rooms.sendToUser('anna', 1)
  await anna.ask({ type: 'message', data: 'ok' })
  await anna.ask({ type: 'message', data: 'fail' })
  anna.send('no JSON')
  await ben.ask({ type: 'ping' })
  await anna.next('error')
  await until(() => rooms.stats().queuedBytes === 0)
  t.match(rooms.stats(), { ...zero, broker: { ...broker, stateFor: Number, entries: 1, outcomes: { ...outcomes, ok: 2 } }, sentBytes: Number, receivedBytes: Number, connections: 3, topics: 2, members: 3, joined: 3, broadcasts: 2, deliveries: 2, directs: 1, received: 4, invalid: 1, errors: 1, refusals: { ...zero.refusals, badFrames: 1, failed: 1 } })
})

t.test('health tells whether joins are accepted', async t => {
  const { app, rooms, as } = await create(t)
  const { brokerFor, ...health } = rooms.health()
  t.ok(Number.isInteger(brokerFor) && brokerFor >= 0)
  t.same(health, { ok: true, state: 'open', broker: 'up', detail: 'The app is open; the broker is up. This has been so for 0 s.' })
  const client = await as('anna')
  await rooms.drain()
  t.match(await client.closed, { code: 1001, reason: 'going_away' })
  t.match(rooms.health(), { ok: false, state: 'draining', broker: 'up', detail: /^The app lets its members go, and refuses joins; the broker is up/ })
  t.match(await rooms.broadcast('news', 1), { local: 0, published: true }, 'a broadcast of a handler in flight still resolves')
  await rooms.drain()
  await app.close()
  t.match(rooms.health(), { ok: false, state: 'closed', detail: /^The app has closed; / })
  await t.rejects(rooms.broadcast('news', 1), { code: 'FST_ROOMS_CLOSED', statusCode: 503 })
})
