import { setTimeout as wait } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { Outcome, Publication } from '../types/index.ts'
import { memoryBroker } from '../lib/index.ts'
import { connect, createRooms, join, listen, until, type AnyOptions, type Client } from './helpers/app.ts'
import { HostileBroker } from './helpers/hostile-broker.ts'

const mid = '5c0ae6b5-26fd-4f1f-8d93-9d1c4a2b7a10'
const identify: NonNullable<AnyOptions['identify']> = request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null
const as = (user: string) => ({ headers: { 'x-user': user } })
const turn = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

async function create (t: Test, options: AnyOptions = {}) {
  const errors: Error[] = []
  const app = await createRooms(t, { identify, onError: error => { errors.push(error) }, ...options })
  const url = `${await listen(app)}/rooms/news`
  const post = (payload: unknown, key?: string | string[], headers: Record<string, string> = {}) => app.inject({ method: 'POST', url: '/rooms/news', payload: payload as object, headers: { ...headers, ...(key === undefined ? {} : { 'idempotency-key': key as string }) } })
  return { app, url, post, errors }
}

/** The messages that a member has received. */
const messages = (client: Client): unknown[] => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data)

/** An `onMessage` whose calls the test decides about. */
function handler () {
  const calls: { payload: unknown, mid: unknown, resolve: (answer?: unknown) => void, reject: (error: Error) => void }[] = []
  const onMessage = { '*': (_session: unknown, payload: unknown, { mid }: { mid: unknown }) => new Promise((resolve, reject) => { calls.push({ payload, mid, resolve, reject }) }) }
  return { calls, onMessage }
}

t.test('a message that is sent again gets the first ack again, and reaches members once', async t => {
  const { app, url } = await create(t)
  const reader = await join(t, url)
  const ann = await join(t, url, as('ann'))
  const first = await ann.ask({ type: 'message', data: 'hi', mid })
  t.match(first, { ok: true, id: /-1$/ })
  t.notOk('duplicate' in first)
  const second = await ann.ask({ type: 'message', data: 'other', key: 'k', mid })
  t.same(second, { ...first, ref: second.ref, duplicate: true }, 'another payload does not count')

  await ann.close()
  const again = await join(t, url, as('ann'))
  t.match(await again.ask({ type: 'message', data: 'hi', mid }), { ok: true, id: (first as { id: string }).id, duplicate: true }, 'on another connection')
  again.send({ type: 'message', data: 'hi', mid })
  t.match(await again.ask({ type: 'message', data: 'end', mid: 'short' }), { ok: true, id: /-2$/ }, 'a message without a ref is not answered, and not published')
  await until(() => messages(reader).includes('end'))
  t.same(messages(reader), ['hi', 'end'])
  t.notMatch(reader.received.join(), mid, 'members do not see it')
  t.match(app.rooms.stats(), { broadcasts: 2, duplicates: 3, invalid: 0 })
})

t.test('a mid belongs to a user and a topic; anonymous members share theirs', async t => {
  const { app, url } = await create(t)
  const other = url.replace('news', 'sports')
  const clients = await Promise.all([join(t, url, as('ann')), join(t, url, as('bob')), join(t, other, as('ann')), join(t, url), join(t, other)])
  for (const [index, client] of clients.entries()) t.notOk('duplicate' in await client.ask({ type: 'message', data: index, mid }), `client ${index}`)
  t.match(await (await join(t, url)).ask({ type: 'message', data: 1, mid }), { duplicate: true }, 'another anonymous member')
  t.match(await (await join(t, url, as('bob'))).ask({ type: 'message', data: 1, mid }), { duplicate: true }, 'the same user')
  t.notOk('duplicate' in await app.rooms.broadcast('news', 1, { mid }), 'the host')
})

t.test('a malformed mid is a bad frame', async t => {
  const { app, url } = await create(t)
  const ann = await join(t, url, as('ann'))
  for (const bad of ['', 'x'.repeat(65), 7, null, {}]) {
    t.match(await ann.ask({ type: 'message', data: 1, mid: bad }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /"mid" is a string of 1 to 64 characters/ } })
  }
  t.match(await ann.ask({ type: 'message', data: 1, mid: 'x' }), { ok: true })
  const anonymous = await join(t, url)
  t.match(await anonymous.ask({ type: 'message', data: 1, mid: 'x'.repeat(15) }), { ok: false, error: { code: 'FST_ROOMS_BAD_FRAME', message: /"mid" of an anonymous member is a string of at least 16 characters/ } })
  t.match(await anonymous.ask({ type: 'message', data: 1, mid: 'x'.repeat(16) }), { ok: true })
  t.match(app.rooms.stats(), { invalid: 6, refusals: { badFrames: 6 }, broadcasts: 2 })
  for (let n = 0; n < 10; n++) anonymous.send({ type: 'message', data: 1, mid: 'x' })
  t.equal((await anonymous.closed).code, 4000, 'it counts as any bad frame')
})

t.test('raw members have no mid: it is part of their payload', async t => {
  const { url } = await create(t)
  const raw = await connect(t, url, 'rooms.raw')
  const frame = JSON.stringify({ type: 'message', data: 1, mid })
  raw.send(frame)
  raw.send(frame)
  t.equal(await raw.text(), frame)
  t.equal(await raw.text(), frame)
})

t.test('onMessage gets the mid, is called once for it, and its answer is repeated', async t => {
  const seen: unknown[] = []
  const { app, url } = await create(t, { onMessage: { '*': (session, payload, details) => { seen.push([payload, details]); return { n: seen.length, by: session.user } } } })
  const ann = await join(t, url, as('ann'))
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { data: { n: 1, by: 'ann' } })
  const again = await ann.ask({ type: 'message', data: 2, mid })
  t.same(again, { type: 'ack', ref: again.ref, ok: true, data: { n: 1, by: 'ann' }, duplicate: true })
  t.match(await ann.ask({ type: 'message', data: 3, key: 'k' }), { data: { n: 2 } })
  t.same(seen, [[1, { key: undefined, mid }], [3, { key: 'k', mid: undefined }]])
  t.equal(app.rooms.stats().broadcasts, 0)
})

t.test('a second message waits for the first one, and gets its answer', async t => {
  const { calls, onMessage } = handler()
  const { url, post } = await create(t, { onMessage })
  const [one, two, other] = await Promise.all([join(t, url, as('ann')), join(t, url, as('ann')), join(t, url, as('bob'))])
  const first = one.ask({ type: 'message', data: 1, mid })
  await until(() => calls.length === 1)
  two.send({ type: 'message', data: 1, mid, ref: 'second' })
  const third = post(1, mid, { 'x-user': 'ann' })
  const ofBob = other.ask({ type: 'message', data: 2, mid })
  await until(() => calls.length === 2)
  t.equal(calls[1]!.payload, 2, 'another user does not wait')
  two.send({ type: 'ping', ref: 'ping' })
  t.match(await two.next('ack'), { ref: 'ping' })
  calls[0]!.resolve({ n: 1 })
  t.match(await first, { ok: true, data: { n: 1 } })
  t.match(await two.next('ack'), { ref: 'second', ok: true, data: { n: 1 }, duplicate: true })
  t.same((await third).json(), { topic: 'news', local: 0, published: true, duplicate: true }, 'the response of a request has no data')
  calls[1]!.resolve()
  t.notOk('duplicate' in await ofBob)
  t.equal(calls.length, 2)
})

t.test('if the first one is refused or fails, the second one is handled', async t => {
  const { calls, onMessage } = handler()
  const { app, url, errors } = await create(t, { onMessage })
  const clients = await Promise.all([join(t, url, as('ann')), join(t, url, as('ann')), join(t, url, as('ann')), join(t, url, as('ann'))])
  const acks: Promise<unknown>[] = []
  for (const client of clients) {
    acks.push(client.ask({ type: 'message', data: acks.length, mid }))
    await until(() => app.rooms.stats().received === acks.length)
  }
  t.same(calls.map(({ payload }) => payload), [0])
  calls[0]!.reject(Object.assign(new Error('not now'), { statusCode: 403, code: 'APP_NO' }))
  t.match(await acks[0], { ok: false, error: { code: 'APP_NO' } })
  await until(() => calls.length === 2)
  calls[1]!.reject(new Error('broken'))
  t.match(await acks[1], { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  await until(() => calls.length === 3)
  calls[2]!.resolve('stored')
  t.match(await acks[2], { ok: true, data: 'stored' })
  t.match(await acks[3], { ok: true, data: 'stored', duplicate: true })
  t.same(calls.map(({ payload }) => payload), [0, 1, 2])
  t.same(errors.map(({ message }) => message), ['broken'])
})

t.test('a message that is refused before it is handled is not remembered', async t => {
  let permits = false
  const { app, url } = await create(t, { topics: { news: { message: { type: 'number' }, publish: true, post: true } }, authorize: ({ action }) => action === 'join' || permits })
  const ann = await join(t, url, as('ann'))
  t.match(await ann.ask({ type: 'message', data: 'x', mid }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } })
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  permits = true
  t.notOk('duplicate' in await ann.ask({ type: 'message', data: 1, mid }))
  t.match(await ann.ask({ type: 'message', data: 'x', mid }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD' } }, 'the schema is asked about each message')
  permits = false
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } }, 'and so is authorize')
  t.equal(app.rooms.stats().broadcasts, 1)
})

t.test('an answer of onMessage that cannot be written as JSON is a failure, and is not remembered', async t => {
  let answer: unknown = 1n
  const { url, errors } = await create(t, { onMessage: { '*': () => answer } })
  const ann = await join(t, url, as('ann'))
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { ok: false, error: { code: 'FST_ROOMS_HANDLER_FAILED' } })
  answer = 'fine'
  const ack = await ann.ask({ type: 'message', data: 1, mid })
  t.match(ack, { ok: true, data: 'fine' })
  t.notOk('duplicate' in ack)
  t.match(errors, [{ message: /BigInt/ }])
})

t.test('a reader of the session gets a message once', async t => {
  const read: unknown[] = []
  const { url } = await create(t, { onJoin: async session => { for await (const payload of session) read.push(payload) } })
  const ann = await join(t, url, as('ann'))
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { ok: true })
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { ok: true, duplicate: true })
  t.match(await ann.ask({ type: 'message', data: 2 }), { ok: true })
  t.same(read, [1, 2])
})

t.test('a session that the server ends while it waits sends nothing more; the next one that waits is handled', async t => {
  const { calls, onMessage } = handler()
  const { app, url, errors } = await create(t, { onMessage })
  const clients = [await join(t, url, as('ann')), await join(t, url, as('ann')), await join(t, url, as('ann'))]
  for (const [index, client] of clients.entries()) {
    client.send({ type: 'message', data: index, mid, ref: index })
    await until(() => app.rooms.stats().received === index + 1)
  }
  await app.rooms.kick({ session: clients[1]!.hello.session })
  await clients[1]!.closed
  calls[0]!.reject(new Error('broken'))
  await until(() => calls.length === 2)
  calls[1]!.resolve('stored')
  t.match(await clients[2]!.next('ack'), { ok: true, data: 'stored' })
  t.same(calls.map(({ payload }) => payload), [0, 2], 'the message of the kicked member is not handled')
  t.notMatch(clients[1]!.received.join(), '"ack"')
  t.same(errors.map(({ message }) => message), ['broken'])
})

t.test('a message of a peer that has left while it waits is still handled', async t => {
  const { calls, onMessage } = handler()
  const left: unknown[] = []
  const { app, url } = await create(t, { onMessage, onLeave: session => { left.push(session.id) } })
  const [one, two] = [await join(t, url, as('ann')), await join(t, url, as('ann'))]
  one.send({ type: 'message', data: 1, mid })
  await until(() => calls.length === 1)
  two.send({ type: 'message', data: 2, mid })
  await until(() => app.rooms.stats().received === 2)
  await two.close()
  await until(() => app.rooms.stats().members === 1)
  t.same(left, [], 'onLeave comes after its messages')
  calls[0]!.reject(new Error('broken'))
  await until(() => calls.length === 2)
  calls[1]!.resolve()
  await until(() => left.length === 1)
  t.match(await one.ask({ type: 'message', data: 3, mid }), { ok: true, duplicate: true })
})

t.test('a broadcast of the host with a mid is sent once', async t => {
  const { app, url } = await create(t)
  const reader = await join(t, url)
  const first = await app.rooms.broadcast('news', 1, { mid })
  t.match(first, { topic: 'news', id: /-1$/, local: 1, published: true })
  t.notOk('duplicate' in first)
  await join(t, url)
  t.same(await app.rooms.broadcast('news', 2, { mid, key: 'k' }), { ...first, duplicate: true })
  t.notOk('duplicate' in await app.rooms.broadcast('news', 3, { mid: `${mid}-2` }))
  await until(() => messages(reader).length === 2)
  t.same(messages(reader), [1, 3])
  await t.rejects(app.rooms.broadcast('news', undefined, { mid }), { code: 'FST_ROOMS_INVALID_PAYLOAD' }, 'an invalid payload is refused all the same')
  for (const bad of ['', 'x'.repeat(15), 'x'.repeat(65), 7, null]) {
    await t.rejects(app.rooms.broadcast('news', 1, { mid: bad as never }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /"mid" takes a string of 16 to 64 characters/ })
  }
  const empty = await app.rooms.broadcast('empty', 1, { mid })
  t.same(await app.rooms.broadcast('empty', 1, { mid }), { ...empty, duplicate: true })
})

t.test('request.rooms.broadcast takes a mid, which is the same as that of app.rooms', async t => {
  const errors: Error[] = []
  const app = await createRooms(t, { onError: error => { errors.push(error) } })
  app.get('/run', async request => {
    request.rooms.broadcast('news', 1, { mid })
    return 'done'
  })
  app.get('/bad', async request => { request.rooms.broadcast('news', 1, { mid: 'short' }) })
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  await app.inject('/run')
  await app.inject('/run')
  t.match(await app.rooms.broadcast('news', 1, { mid }), { duplicate: true })
  await app.rooms.broadcast('news', 'end')
  t.equal((await client.next('message')).data, 1)
  t.equal((await client.next('message')).data, 'end')
  t.match((await app.inject('/bad')).json(), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  t.same(errors, [])
})

t.test('a request with an Idempotency-Key gets the first response again', async t => {
  const { app, url, post } = await create(t)
  const reader = await join(t, url)
  const first = await post({ n: 1 }, mid)
  t.equal(first.statusCode, 200)
  t.match(first.json(), { topic: 'news', id: /-1$/, local: 1, published: true })
  t.notOk('duplicate' in first.json())
  for (const key of [mid, `"${mid}"`]) {
    const again = await post({ n: 2 }, key)
    t.equal(again.statusCode, 200)
    t.same(again.json(), { ...first.json(), duplicate: true }, 'quotes do not count')
  }
  t.notOk('duplicate' in (await post({ n: 3 })).json(), 'a request without the header is never a repetition')
  t.notOk('duplicate' in (await post({ n: 4 }, mid, { 'x-user': 'ann' })).json(), 'another user')
  await until(() => messages(reader).length === 3)
  t.same(messages(reader), [{ n: 1 }, { n: 3 }, { n: 4 }])
  t.match(app.rooms.stats(), { broadcasts: 3, duplicates: 2 })
})

t.test('an Idempotency-Key and a mid are the same', async t => {
  const { url, post } = await create(t)
  const ann = await join(t, url, as('ann'))
  const ack = await ann.ask({ type: 'message', data: 1, mid: 'first' }) as { id: string }
  t.same((await post(1, 'first', { 'x-user': 'ann' })).json(), { topic: 'news', id: ack.id, local: 1, published: true, duplicate: true })
  const { id } = (await post(1, '"a \\"second\\" one \\\\"', { 'x-user': 'ann' })).json()
  t.match(await ann.ask({ type: 'message', data: 1, mid: 'a "second" one \\' }), { ok: true, id, duplicate: true })
})

t.test('a malformed Idempotency-Key is refused with 400', async t => {
  const { app, url, post } = await create(t)
  await join(t, url)
  const ofUser = ['', '""', '"', '"a', 'a"', 'a"b', '"a"b', '"a" "b"', '"a", "b"', 'a, b', 'a,b', 'a b', '"a\\b"', '"a\\"', '"a";p=1', 'ä', '"ä"', '"\t"', 'x'.repeat(65), `"${'x'.repeat(65)}"`]
  for (const key of ofUser) {
    const response = await post(1, key, { 'x-user': 'ann' })
    t.equal(response.statusCode, 400, key)
    t.match(response.json(), { code: 'FST_ROOMS_BAD_IDEMPOTENCY_KEY', message: 'the header Idempotency-Key takes one string of 1 to 64 characters of ASCII, with or without quotes' }, key)
  }
  for (const key of ['x'.repeat(15), `"${'x'.repeat(15)}"`]) t.match((await post(1, key)).json(), { code: 'FST_ROOMS_BAD_IDEMPOTENCY_KEY', message: /16 to 64/ })
  t.match((await post(1, ['a', 'b'], { 'x-user': 'ann' })).json(), { code: 'FST_ROOMS_BAD_IDEMPOTENCY_KEY' }, 'two headers')
  t.match(app.rooms.stats(), { broadcasts: 0, refusals: { badRequest: ofUser.length + 3 } })
  for (const key of ['a', '"a b"', "!#$%&'()*+-./:;<=>?@[\\]^_`{|}~", 'x'.repeat(64), `"${'\\"'.repeat(64)}"`]) {
    t.notOk('duplicate' in (await post(1, key, { 'x-user': 'ann' })).json(), key)
    t.match((await post(1, key, { 'x-user': 'ann' })).json(), { duplicate: true }, key)
  }
  const socketAddress = url.split('/')[0]
  const response = await fetch(`http://${socketAddress}/rooms/news`, { method: 'POST', body: '1', headers: [['content-type', 'application/json'], ['idempotency-key', mid], ['idempotency-key', mid]] })
  t.equal(response.status, 400, 'the same header twice')
})

t.test('requests at the same time: one is published, and all have its id', async t => {
  const { app, post } = await create(t)
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  const results = (await Promise.all(Array.from({ length: 50 }, () => post(1, mid)))).map(response => response.json())
  t.equal(new Set(results.map(({ id }) => id)).size, 1)
  t.equal(results.filter(({ duplicate }) => duplicate === true).length, 49)
  t.equal(app.rooms.stats().broadcasts, 1)
})

/** A broker whose outcomes the test decides about. */
class DecidedBroker extends HostileBroker {
  readonly waiting: { resolve: (outcome: Outcome) => void, publication: Publication }[] = []
  constructor () { super(() => 1) }
  override publish ([publication]: Publication[]): Promise<Outcome[]> {
    return new Promise(resolve => { this.waiting.push({ publication: publication!, resolve: outcome => { resolve([outcome]) } }) })
  }
}

t.test('results of a broker: unknown, failed and stale ones are not remembered, and the next one is published', async t => {
  const broker = new DecidedBroker()
  const { app, url, post } = await create(t, { broker })
  const ann = await join(t, url, as('ann'))
  const position = { epoch: 'epoch0000001', offset: 7 }
  for (const state of ['unknown', 'failed', 'stale'] as const) {
    const first = app.rooms.broadcast('news', 1, { mid })
    const second = app.rooms.broadcast('news', 1, { mid })
    await turn()
    t.equal(broker.waiting.length, 1, 'the second one waits')
    broker.waiting.shift()!.resolve({ state })
    t.match(await first, { published: false })
    await until(() => broker.waiting.length === 1)
    broker.waiting.shift()!.resolve({ state })
    t.same(await second, { topic: 'news', local: 0, published: false, outcome: state === 'unknown' ? 'unknown' : 'none' }, 'it had a publication of its own')

    const refused = ann.ask({ type: 'message', data: 1, mid })
    await until(() => broker.waiting.length === 1)
    broker.waiting.shift()!.resolve({ state })
    t.match(await refused, { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })
  }
  const responses = [post(1, mid, { 'x-user': 'ann' }), post(1, mid, { 'x-user': 'ann' })]
  await until(() => broker.waiting.length === 1)
  broker.waiting.shift()!.resolve({ state: 'duplicate', position })
  const [one, two] = (await Promise.all(responses)).map(response => response.json())
  t.same(one, { topic: 'news', id: 'epoch0000001-7', local: 0, published: true, duplicate: true }, 'a duplicate that the broker knows')
  t.same(two, one)
  t.match(await ann.ask({ type: 'message', data: 1, mid }), { ok: true, id: 'epoch0000001-7', duplicate: true })
})

t.test('the outcome duplicate of a broker shows in results and acks, with and without a mid', async t => {
  const broker = new DecidedBroker()
  const { app, url } = await create(t, { broker })
  const ann = await join(t, url, as('ann'))
  for (const more of [{}, { mid }]) {
    const result = app.rooms.broadcast('news', 1, more)
    const ack = ann.ask({ type: 'message', data: 1, ...more })
    await until(() => broker.waiting.length === 2)
    for (const { resolve } of broker.waiting.splice(0)) resolve({ state: 'duplicate', position: { epoch: 'epoch0000001', offset: 7 } })
    t.same(await result, { topic: 'news', id: 'epoch0000001-7', local: 0, published: true, duplicate: true })
    t.match(await ack, { ok: true, id: 'epoch0000001-7', duplicate: true })
  }
  t.equal(app.rooms.stats().duplicates, 4)
})

t.test('a POST that the broker has not accepted: 503 if the topic keeps messages, and published: false if it keeps none', async t => {
  for (const history of [true, false]) {
    for (const [state, outcome, text] of [['failed', 'none', /try again/], ['unknown', 'unknown', /may have accepted/]] as const) {
      const broker = Object.assign(memoryBroker(), { publish: async () => [{ state }] })
      const errors: unknown[] = []
      const onError = (_request: unknown, _reply: unknown, error: unknown, done: () => void): void => { errors.push(error); done() }
      const { app, post } = await create(t, { broker, topics: { news: { post: true, history } }, authorize: () => true, routes: { broadcast: { onError } } })
      for (const key of [mid, undefined]) {
        const answer = await post(1, key)
        if (history) t.match([answer.statusCode, answer.headers['retry-after'], answer.json(), errors.pop()], [503, '2', { code: 'FST_ROOMS_BROKER_DOWN', message: text }, { outcome }])
        else t.same([answer.statusCode, answer.json()], [200, { topic: 'news', local: 0, published: false, outcome }])
      }
      t.equal(app.rooms.stats().refusals.broker, history ? 2 : 0)
    }
  }
})

t.test('a publication that the broker does not answer in time can be sent again', async t => {
  const broker = new DecidedBroker()
  const { app, post } = await create(t, { broker, limits: { publish: 100 } })
  t.match((await post(1, mid)).json(), { published: false })
  const second = post(1, mid)
  await until(() => broker.waiting.length === 2)
  broker.waiting[0]!.resolve({ state: 'ok' }) // too late
  broker.waiting[1]!.resolve({ state: 'ok' })
  t.same((await second).json(), { topic: 'news', local: 0, published: true })
  t.match((await post(1, mid)).json(), { duplicate: true })
  t.equal(app.rooms.stats().unanswered, 1)
})

t.test('limits.mids bounds the answers that are remembered', async t => {
  const { app } = await create(t, { limits: { mids: 2 } })
  for (const n of [1, 2, 3]) await app.rooms.broadcast('news', n, { mid: `${mid}-${n}` })
  t.match(await app.rooms.broadcast('news', 3, { mid: `${mid}-3` }), { duplicate: true })
  t.notOk('duplicate' in await app.rooms.broadcast('news', 1, { mid: `${mid}-1` }))
  await t.rejects(createRooms(t, { limits: { mids: 0 } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /limits.mids/ })
})

t.test('a drain waits for a first one that is handled, and for those that wait for it', async t => {
  const { calls, onMessage } = handler()
  const { app, url, errors } = await create(t, { onMessage, drain: { timeout: 5_000 } })
  const [one, two] = [await join(t, url, as('ann')), await join(t, url, as('ann'))]
  one.send({ type: 'message', data: 1, mid, ref: 1 })
  two.send({ type: 'message', data: 1, mid, ref: 2 })
  await until(() => app.rooms.stats().received === 2)
  const drained = app.rooms.drain()
  await turn()
  calls[0]!.resolve('stored')
  t.match(await one.next('ack'), { ok: true, data: 'stored' })
  t.match(await two.next('ack'), { ok: true, data: 'stored', duplicate: true })
  t.equal((await two.next('bye')).code, 1001)
  await drained
  t.same(errors, [])
})

t.test('a message that is never decided holds up neither the drain nor the closing of the app', async t => {
  const { calls, onMessage } = handler()
  const { app, url, post, errors } = await create(t, { onMessage, drain: { timeout: 400 }, limits: { handshake: 200 } })
  const [one, two] = [await join(t, url, as('ann')), await join(t, url, as('ann'))]
  one.send({ type: 'message', data: 1, mid })
  await until(() => calls.length === 1)
  two.send({ type: 'message', data: 1, mid })
  await until(() => app.rooms.stats().received === 2)
  const address = `http://${url}`
  const request = fetch(address, { method: 'POST', body: '1', headers: { 'content-type': 'application/json', 'idempotency-key': mid, 'x-user': 'ann' } })
  await wait(50)
  const injected = post(1, mid, { 'x-user': 'ann' })
  await app.close()
  const response = await request
  t.equal(response.status, 503)
  t.match(await response.json(), { code: 'FST_ROOMS_CLOSED' })
  t.match((await injected).json(), { code: 'FST_ROOMS_CLOSED', statusCode: 503 })
  t.equal((await two.closed).code, 1001)
  calls[0]!.resolve()
  await turn()
  t.equal(calls.length, 1)
  t.same(errors, [])
})

t.test('after the app has closed, a broadcast with a known mid is refused like any other', async t => {
  const broker = memoryBroker()
  const { app } = await create(t, { broker })
  await app.rooms.broadcast('news', 1, { mid })
  await app.close()
  await t.rejects(app.rooms.broadcast('news', 1, { mid }), { code: 'FST_ROOMS_CLOSED' })
  t.equal(app.rooms.stats().duplicates, 0)
})

t.test('a broadcast that waits when the hub closes is refused', async t => {
  const broker = new DecidedBroker()
  const { app } = await create(t, { broker, limits: { publish: 60_000 }, drain: { timeout: 100 } })
  const first = app.rooms.broadcast('news', 1, { mid })
  const second = app.rooms.broadcast('news', 1, { mid })
  const refused = t.rejects(second, { code: 'FST_ROOMS_CLOSED', statusCode: 503 })
  await app.close()
  await refused
  t.match(await first, { published: false })
  t.equal(broker.waiting.length, 1)
})
