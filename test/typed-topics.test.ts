import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import * as Type1 from 'typebox'
import fastifyRooms, { defineTopics } from '../lib/index.ts'
import * as shared from '../lib/topics/index.ts'
import { createApp, createRooms, connect, join, listen, type AnyOptions, type Client } from './helpers/app.ts'

// The builders are alike in the parts that these tests use.
const lines: [string, typeof Type][] = [['@sinclair/typebox', Type], ['typebox', Type1.Type as unknown as typeof Type]]

/** Sends a payload through each of the three entrances; returns the ones that accepted it. */
async function entrances (t: Test, options: AnyOptions, shared: object[] = []) {
  const app = createApp(t)
  for (const schema of shared) app.addSchema(schema)
  await app.register(fastifyRooms as any, { prefix: '/rooms', authorize: () => true, ...options })
  const url = await listen(app)
  const members = new Map<string, Client>()
  const through = async (topic: string, payload: unknown): Promise<{ code: boolean, post: boolean, member: boolean }> => {
    if (!members.has(topic)) members.set(topic, await join(t, `${url}/rooms/${topic}`))
    const invalid: unknown[] = []
    const code = await app.rooms.broadcast(topic, payload).then(() => true, error => { invalid.push(error.code); return false })
    const response = await app.inject({ method: 'POST', url: `/rooms/${topic}`, headers: { 'content-type': 'application/json' }, payload: JSON.stringify(payload) })
    const ack = await members.get(topic)!.ask({ type: 'message', data: payload })
    if (!ack.ok) invalid.push(ack.error.code)
    t.ok(invalid.every(one => one === 'FST_ROOMS_INVALID_PAYLOAD'))
    t.ok([200, 400].includes(response.statusCode), `${response.statusCode}`)
    return { code, post: response.statusCode === 200, member: ack.ok }
  }
  return { app, url, through, received: (topic: string) => members.get(topic)!.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'message').map(({ data }) => data) }
}

const all = { code: true, post: true, member: true }
const none = { code: false, post: false, member: false }

t.test('fastify-rooms/topics has one value, the defineTopics of the main entry; a fault in its topics is told at registration', async t => {
  t.same(Object.keys(shared), ['defineTopics'])
  t.equal(shared.defineTopics, defineTopics)
  const app = createApp(t)
  const topics = shared.defineTopics({ 'a b': {} })
  await t.rejects((async () => app.register(fastifyRooms as any, { topics }))(), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION' })
})

t.test('defineTopics returns its argument', async t => {
  const topics = { news: { post: true } } as const
  t.equal(defineTopics(topics), topics)
})

t.test('an exact name comes before a family', async t => {
  const { through } = await entrances(t, {
    topics: { 'chat:*': { message: Type.String(), publish: true, post: true }, 'chat:count': { message: Type.Number(), publish: true, post: true } }
  })
  t.same(await through('chat:lobby', 'text'), all)
  t.same(await through('chat:lobby', 1), none)
  t.same(await through('chat:count', 1), all)
  t.same(await through('chat:count', 'text'), none)
})

t.test('undeclared topics do not exist', async t => {
  const app = await createRooms(t, { topics: { news: {}, 'chat:*': {} } })
  for (const topic of ['weather', 'chat', 'News', '__proto__']) {
    await t.rejects(app.rooms.broadcast(topic, 1), { code: 'FST_ROOMS_NO_SUCH_TOPIC' }, topic)
    t.equal((await app.inject(`/rooms/${topic}`)).statusCode, 404, topic)
  }
  await t.rejects(app.rooms.broadcast('chat:', 1), { code: 'FST_ROOMS_NO_SUCH_TOPIC' }, 'a family does not include the empty name')
  await t.rejects(app.rooms.broadcast(7 as never, 1), { code: 'FST_ROOMS_NO_SUCH_TOPIC', message: 'there is no topic "7"' })
  t.match(await app.rooms.broadcast('chat:x', 1), { topic: 'chat:x' })
})

t.test('code, the broadcast route and members refuse the same payloads, for both lines of TypeBox and plain JSON Schema', async t => {
  const variants: [string, object][] = [
    ...lines.map(([name, T]): [string, object] => [name, T.Object({ n: T.Number(), s: T.Optional(T.String({ default: 'x' })), deep: T.Optional(T.Object({ list: T.Array(T.Object({ b: T.Boolean() })) })) })]),
    ['JSON Schema', {
      type: 'object',
      required: ['n'],
      properties: { n: { type: 'number' }, s: { type: 'string', default: 'x' }, deep: { type: 'object', required: ['list'], properties: { list: { type: 'array', items: { type: 'object', required: ['b'], properties: { b: { type: 'boolean' } } } } } } }
    }]
  ]
  for (const [name, message] of variants) {
    t.test(name, async t => {
      const { through, received } = await entrances(t, { topics: { news: { message, publish: true, post: true } } })
      t.same(await through('news', { n: 3 }), all)
      t.same(await through('news', { n: 3, deep: { list: [{ b: true }] } }), all)
      const bad: unknown[] = [{ n: '3' }, { n: 3, x: 1 }, {}, null, [], [{ n: 3 }], 'text', { n: 3, s: 1 }, { n: 3, deep: { list: { b: true } } }, { n: 3, deep: { list: [{ b: 'true' }] } }, { n: 3, deep: { list: [{ b: true, x: 1 }] } }, { n: 3, deep: { list: [], x: 1 } }, { n: null }]
      for (const payload of bad) t.same(await through('news', payload), none, JSON.stringify(payload))
      t.same(received('news'), [...Array(3).fill({ n: 3 }), ...Array(3).fill({ n: 3, deep: { list: [{ b: true }] } })], 'no value was defaulted, coerced or removed, and refused payloads were delivered to no member')
    })
  }
})

t.test('undeclared properties are refused in compositions, records and recursive types as well', async t => {
  const node = Type.Recursive(self => Type.Object({ kids: Type.Array(self) }))
  const { through } = await entrances(t, {
    topics: {
      both: { message: Type.Intersect([Type.Object({ a: Type.Number() }), Type.Object({ b: Type.Number() })]), publish: true, post: true },
      either: { message: Type.Union([Type.Object({ a: Type.Number() }), Type.Object({ b: Type.Number() })]), publish: true, post: true },
      record: { message: Type.Record(Type.String(), Type.Object({ a: Type.Number() })), publish: true, post: true },
      open: { message: Type.Object({ a: Type.Number() }, { additionalProperties: true }), publish: true, post: true },
      tree: { message: node, publish: true, post: true }
    }
  })
  const cases: [string, unknown, object][] = [
    ['both', { a: 1, b: 2 }, all], ['both', { a: 1, b: 2, x: 1 }, none],
    ['either', { b: 1 }, all], ['either', { a: 1, b: 1 }, none],
    ['record', { any: { a: 1 } }, all], ['record', { any: { a: 1, x: 1 } }, none],
    ['open', { a: 1, x: 1 }, all], ['open', { x: 1 }, none],
    ['tree', { kids: [{ kids: [] }] }, all], ['tree', { kids: [{ kids: [], x: 1 }] }, none]
  ]
  for (const [topic, payload, expected] of cases) t.same(await through(topic, payload), expected, `${topic} ${JSON.stringify(payload)}`)
})

t.test('$ref refers to shared schemas of the host, from several topics', async t => {
  const { through } = await entrances(t, {
    topics: {
      stat: { message: { $ref: 'Stat#' }, publish: true, post: true },
      stats: { message: { type: 'array', items: { $ref: 'Stat#' } }, publish: true, post: true },
      same: { message: Type.Object({ n: Type.Number() }, { $id: 'Stat' }), publish: true, post: true },
      one: { message: Type.Object({ n: Type.Number() }, { $id: 'Twice' }), publish: true, post: true },
      two: { message: Type.Object({ s: Type.String() }, { $id: 'Twice' }), publish: true, post: true }
    }
  }, [{ $id: 'Stat', type: 'object', required: ['n'], properties: { n: { type: 'number' } } }])
  t.same(await through('stat', { n: 1 }), all)
  t.same(await through('stat', { n: '1' }), none)
  t.same(await through('stats', [{ n: 1 }]), all)
  t.same(await through('stats', [{}]), none)
  t.same(await through('same', { n: 1, x: 1 }), none)
  t.same(await through('one', { n: 1 }), all)
  t.same(await through('two', { s: '1' }), all)
  t.same(await through('two', { n: 1 }), none)
})

t.test('a topic without a message schema accepts any JSON', async t => {
  const { through } = await entrances(t, { topics: { any: { publish: true, post: true } } })
  for (const payload of [null, 0, '', { x: [1] }, [], false]) t.same(await through('any', payload), all, JSON.stringify(payload))
})

t.test('without publish, members may only listen', async t => {
  const app = await createRooms(t, { topics: { news: { message: Type.Number() } } })
  const url = await listen(app)
  const client = await join(t, `${url}/rooms/news`)
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: false, error: { code: 'FST_ROOMS_FORBIDDEN' } })
  await app.rooms.broadcast('news', 2)
  t.equal((await client.next('message')).data, 2)
  const raw = await connect(t, `${url}/rooms/news`, 'rooms.raw')
  raw.send('1')
  t.equal((await raw.closed).code, 4003)
})

t.test('if members send another type than they receive, onMessage converts it', async t => {
  const app = await createRooms(t, {
    topics: { 'chat:*': { message: Type.Object({ text: Type.String(), at: Type.Number() }), publish: Type.Object({ text: Type.String() }) } },
    onMessage: { 'chat:*': async (session, { text }) => { await session.rooms.broadcast(session.topic, { text, at: 7 }) } }
  })
  const client = await join(t, `${await listen(app)}/rooms/chat:1`)
  t.match(await client.ask({ type: 'message', data: { text: 'hi', at: 7 } }), { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '' }] } })
  client.send({ type: 'message', data: { text: 'hi' }, ref: 1 })
  t.same((await client.next('message')).data, { text: 'hi', at: 7 })
  t.match(await client.next('ack'), { ref: 1, ok: true })
  await t.rejects(app.rooms.broadcast('chat:1', { text: 'hi' }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  await t.rejects(createRooms(t, { topics: { chat: { message: Type.Number(), publish: Type.String() } } }), { code: 'FST_ROOMS_HANDLER_MISSING' })
})

t.test('publish by the same schema object needs no onMessage', async t => {
  const schema = Type.Number()
  const app = await createRooms(t, { topics: { news: { message: schema, publish: schema } } })
  const client = await join(t, `${await listen(app)}/rooms/news`)
  t.match(await client.ask({ type: 'message', data: 1 }), { ok: true })
  t.match(await client.ask({ type: 'message', data: '1' }), { ok: false })
})

t.test('each topic has its own limits', async t => {
  const app = await createRooms(t, { topics: { small: { publish: true, limits: { payload: 100, members: 1 } }, large: { publish: true } } })
  const url = await listen(app)
  const small = await join(t, `${url}/rooms/small`)
  const large = await join(t, `${url}/rooms/large`)
  t.equal(small.hello.maxPayload, 100)
  t.equal(large.hello.maxPayload, 65_536)
  small.send({ type: 'message', data: 'x'.repeat(100) })
  t.match(await small.next('error'), { error: { code: 'FST_ROOMS_FRAME_TOO_LARGE' } })
  t.match(await large.ask({ type: 'message', data: 'x'.repeat(100) }), { ok: true })
  const second = await connect(t, `${url}/rooms/small`)
  t.same(await second.closed, { code: 4102, reason: 'room_full' })
})

t.test('invalid topics are refused at registration', async t => {
  const refusals: [string, object, string, RegExp][] = [
    ['a bad name', { 'a b': {} }, 'FST_ROOMS_INVALID_TOPIC_OPTION', /1 to 255 characters/],
    ['a star in the middle', { 'a*b': {} }, 'FST_ROOMS_INVALID_TOPIC_OPTION', /trailing \*/],
    ['a long name', { ['x'.repeat(256)]: {} }, 'FST_ROOMS_INVALID_TOPIC_OPTION', /255/],
    ['a family with a path', { 'chat:*': { post: '/chat' } }, 'FST_ROOMS_INVALID_TOPIC_OPTION', /family give true/],
    ['families that overlap', { 'chat:*': {}, 'chat:a:*': {} }, 'FST_ROOMS_INVALID_TOPIC_OPTION', /overlaps with the family "chat:\*"/],
    ['families that overlap the other way', { 'chat:a:*': {}, 'chat:*': {} }, 'FST_ROOMS_INVALID_TOPIC_OPTION', /overlaps/],
    ['a message that cannot be compiled', { news: { message: { type: 'nonsense' } } }, 'FST_ROOMS_INVALID_SCHEMA', /"message"/],
    ['a validator object', { news: { publish: { '~standard': {}, parse: () => {} } } }, 'FST_ROOMS_INVALID_SCHEMA', /"publish".*Zod/],
    ['a presence that is asynchronous', { news: { presence: { $async: true } } }, 'FST_ROOMS_INVALID_SCHEMA', /"presence".*\$async/],
    ['a $ref to nowhere', { news: { message: { $ref: 'Nowhere#' } } }, 'FST_ROOMS_INVALID_SCHEMA', /Nowhere/]
  ]
  for (const [name, topics, code, message] of refusals) await t.rejects(createRooms(t, { topics } as AnyOptions), { code, message }, name)
})
