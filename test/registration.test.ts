import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { z } from 'zod'
import fastifyRooms, { defineTopics, errorCodes, memoryBroker } from '../lib/index.ts'
import { optionsSchema, resolveOptions } from '../lib/options.ts'
import type { Broker, BrokerHandlers } from '../types/index.ts'
import { createApp, createRooms, join, listen, type AnyOptions, type LogLine } from './helpers/app.ts'

const plugin = fastifyRooms as any
const authorize = () => true
const noop = () => {}

/** The error of a registration. */
async function failure (t: Test, options: unknown, appOptions: FastifyServerOptions = {}): Promise<Error & { code?: string }> {
  const app = createApp(t, appOptions)
  try {
    await app.register(plugin, options as any)
    await app.ready()
  } catch (error) {
    return error as Error
  }
  throw new Error(`it was accepted: ${JSON.stringify(options)}`)
}

t.test('a wrong option is refused with a coded error that names it and the accepted values', async t => {
  const table: [unknown, string, RegExp][] = [
    [{ unknown: 1 }, 'unknown', /takes nothing: there is no such option; got 1/],
    [{ Prefix: '/a' }, 'Prefix', /no such option; got "\/a"/],
    [{ prefix: 'rooms' }, 'prefix', /a path of literal segments, beginning with "\/"; got "rooms"/],
    [{ prefix: '/:tenant' }, 'prefix', /literal segments/],
    [{ prefix: '/a//b' }, 'prefix', /literal segments/],
    [{ prefix: '/*' }, 'prefix', /literal segments/],
    [{ prefix: 7 }, 'prefix', /got 7/],
    [{ topics: [] }, 'topics', /a topic map, such as defineTopics returns; got an array/],
    [{ topics: 'news' }, 'topics', /defineTopics/],
    [{ topics: { news: 1 } }, 'topics.news', /a topic: an object with "message"/],
    [{ topics: { news: { mesage: {} } } }, 'topics.news.mesage', /no such option/],
    [{ topics: { news: { message: 'string' } } }, 'topics.news.message', /a JSON Schema object; got "string"/],
    [{ topics: { news: { publish: false } } }, 'topics.news.publish', /true or a JSON Schema object; got false/],
    [{ topics: { news: { presence: 1 } } }, 'topics.news.presence', /true, a JSON Schema object, or an object with "info" and "grace"; got 1/],
    [{ topics: { news: { post: false } } }, 'topics.news.post', /true or a path of literal segments/],
    [{ topics: { news: { post: 'news' } } }, 'topics.news.post', /beginning with "\/"/],
    [{ topics: { news: { post: '/:id' } } }, 'topics.news.post', /literal segments/],
    [{ topics: { news: { limits: 7 } } }, 'topics.news.limits', /"members", "payload", "messages" and "per"/],
    [{ topics: { news: { limits: { members: 0 } } } }, 'topics.news.limits.members', /a whole number from 1; got 0/],
    [{ topics: { news: { limits: { messages: 0 } } } }, 'topics.news.limits.messages', /a whole number from 1; got 0/],
    [{ topics: { news: { limits: { per: 2 ** 31 } } } }, 'topics.news.limits.per', /milliseconds, a whole number from 1/],
    [{ limits: { perAddress: 0 } }, 'limits.perAddress', /a whole number from 1; got 0/],
    [{ limits: { messages: 1.5 } }, 'limits.messages', /a whole number from 1; got 1.5/],
    [{ limits: { per: 0 } }, 'limits.per', /a whole number from 1; got 0/],
    [{ limits: { addressMessages: -1 } }, 'limits.addressMessages', /a whole number from 1; got -1/],
    [{ limits: { work: 0 } }, 'limits.work', /a whole number from 1; got 0/],
    [{ limits: { topicLength: 0 } }, 'limits.topicLength', /a whole number from 1 to 255; got 0/],
    [{ topics: { news: { limits: { payload: 1.5 } } } }, 'topics.news.limits.payload', /bytes, a whole number from 1/],
    [{ topics: { news: { limits: { rate: 1 } } } }, 'topics.news.limits.rate', /no such option/],
    [{ identify: true }, 'identify', /a function of the request/],
    [{ authorize: 'yes' }, 'authorize', /a function of \{ action, topic, … \} that returns a boolean; got "yes"/],
    [{ onJoin: 1 }, 'onJoin', /a function of \(session, request\)/],
    [{ onLeave: {} }, 'onLeave', /a function of \(session, \{ code, reason \}\); got an object/],
    [{ onError: [] }, 'onError', /a function of \(error, session\); got an array/],
    [{ onMessage: noop }, 'onMessage', /by topic key \("\*" in the open lobby\); got a function/],
    [{ onMessage: { '*': 1 } }, 'onMessage.*', /a function of \(session, payload\); got 1/],
    [{ onInvalid: 'drop' }, 'onInvalid', /"answer", "ignore", "close", or a function/],
    [{ origin: true }, 'origin', /"same", "any", an array of origins/],
    [{ origin: 'http://a.example' }, 'origin', /an array of origins/],
    [{ origin: [7] }, 'origin', /strings and RegExps.*got an array/],
    [{ heartbeat: true }, 'heartbeat', /false, or an object/],
    [{ heartbeat: 25_000 }, 'heartbeat', /milliseconds from 10/],
    [{ heartbeat: { interval: 9 } }, 'heartbeat', /milliseconds from 10/],
    [{ heartbeat: { timeout: '10' } }, 'heartbeat', /milliseconds from 10/],
    [{ heartbeat: { every: 10 } }, 'heartbeat', /"interval" and "timeout"/],
    [{ limits: [] }, 'limits', /an object of bounds; got an array/],
    [{ limits: null }, 'limits', /an object of bounds; got null/],
    [{ limits: { members: 1 } }, 'limits.members', /no such option/],
    ...['connections', 'topics', 'payload', 'info', 'pending', 'badFrames'].flatMap((name): [unknown, string, RegExp][] => [0, -1, 1.5, '1', NaN, Infinity, null].map(value => [{ limits: { [name]: value } }, `limits.${name}`, /a whole number from 1/])),
    [{ limits: { handshake: 99 } }, 'limits.handshake', /a whole number from 100/],
    [{ limits: { handshake: 2 ** 31 } }, 'limits.handshake', /a whole number from 100; got 2147483648/],
    [{ slow: { policy: 'keep' } }, 'slow.policy', /"close", "latest", "drop", or a function .*; got "keep"/],
    [{ topics: { news: { slow: { policy: () => 'drop' } } } }, 'topics.news.slow.policy', /"close", "latest" or "drop"; got/],
    [{ topics: { news: { slow: { bytes: 0 } } } }, 'topics.news.slow.bytes', /buffered bytes of one member/],
    [{ slow: { bytes: 0 } }, 'slow.bytes', /buffered bytes of one member/],
    [{ slow: 'close' }, 'slow', /"policy" and "bytes"/],
    [{ drain: { timeout: -1 } }, 'drain.timeout', /a whole number from 0/],
    [{ drain: { batch: 0 } }, 'drain.batch', /members closed at a time/],
    [{ drain: { interval: -1 } }, 'drain.interval', /milliseconds from one batch/],
    [{ drain: { size: 1 } }, 'drain.size', /no such option/],
    [{ broker: 'redis://' }, 'broker', /memoryBroker\(\)/],
    [{ websocket: { option: {} } }, 'websocket.option', /no such option/],
    [{ websocket: { options: 1 } }, 'websocket.options', /ws server options/],
    [{ routes: { websocket: {} } }, 'routes.websocket', /no such option/],
    [{ routes: { socket: { onRequest: 'hook' } } }, 'routes.socket.onRequest', /a hook or an array of hooks/],
    [{ routes: { broadcast: { preHandler: [1] } } }, 'routes.broadcast.preHandler', /a hook or an array of hooks/],
    [{ routes: { socket: { config: 1 } } }, 'routes.socket.config', /an object/],
    [{ routes: { socket: { logLevel: 7 } } }, 'routes.socket.logLevel', /a log level/],
    [{ asyncapi: '/docs' }, 'asyncapi', /true, false, or an object with "routePrefix", "info", "servers", "hooks" and "transform"; got "\/docs"/],
    [{ asyncapi: null }, 'asyncapi', /true, false, or an object/],
    [{ asyncapi: [] }, 'asyncapi', /an object with "routePrefix"/],
    [{ asyncapi: { prefix: '/docs' } }, 'asyncapi.prefix', /no such option/],
    [{ asyncapi: { routePrefix: 'docs' } }, 'asyncapi.routePrefix', /a path of literal segments, beginning with "\/"; got "docs"/],
    [{ asyncapi: { routePrefix: '/' } }, 'asyncapi.routePrefix', /literal segments/],
    [{ asyncapi: { routePrefix: '/docs/' } }, 'asyncapi.routePrefix', /literal segments/],
    [{ asyncapi: { info: 'Rooms' } }, 'asyncapi.info', /"title", "version".*; got "Rooms"/],
    [{ asyncapi: { servers: [] } }, 'asyncapi.servers', /AsyncAPI servers by name; got an array/],
    [{ asyncapi: { hooks: { onSend: noop } } }, 'asyncapi.hooks.onSend', /no such option/],
    [{ asyncapi: { hooks: { onRequest: 7 } } }, 'asyncapi.hooks.onRequest', /a hook or an array of hooks; got 7/],
    [{ asyncapi: { transform: {} } }, 'asyncapi.transform', /a function of \(document, request\) that returns the document; got an object/]
  ]
  for (const [options, name, takes] of table) {
    const error = await failure(t, options)
    t.match(error, { code: 'FST_ROOMS_INVALID_OPTION', message: takes }, `${name}: ${error.message}`)
    t.ok(error.message.startsWith(`option "${name}" takes `), `${name}: ${error.message}`)
    t.ok(error instanceof TypeError)
  }
})

t.test('options of the host cannot switch validation off', async t => {
  for (const name of ['schema', 'attachValidation', 'validatorCompiler', 'serializerCompiler', 'bodyLimit', 'handler', 'errorHandler', 'method', 'url', 'prefixTrailingSlash', 'preSerialization', 'exposeHeadRoute', 'websocket', 'wsHandler']) {
    for (const route of ['socket', 'broadcast']) {
      t.match(await failure(t, { routes: { [route]: { [name]: noop } } }), { code: 'FST_ROOMS_INVALID_OPTION', message: new RegExp(`"routes.${route}.${name}" takes nothing`) })
    }
  }
})

t.test('values other than an object of options are refused, and no options at all make the open lobby', async t => {
  for (const options of [7, 'rooms', [], true]) t.throws(() => resolveOptions(options), { code: 'FST_ROOMS_INVALID_OPTION', message: /^option "options" takes an object/ })
  t.same(resolveOptions(undefined), resolveOptions({}))
  t.same(resolveOptions(null), resolveOptions({}))
  t.same(resolveOptions({ topics: undefined, limits: { payload: undefined } }), resolveOptions({}), 'undefined counts as absent')
})

t.test('defaults are as documented, also in a group that is given in part', async t => {
  t.strictSame(resolveOptions({}), {
    history: false,
    asyncapi: false,
    onInvalid: 'answer',
    origin: 'same',
    heartbeat: { interval: 25_000, timeout: 10_000 },
    limits: {
      connections: 100_000,
      messages: 10_000,
      per: 1_000,
      topics: 100_000,
      topicsPerConnection: 100,
      payload: 65_536,
      info: 1_024,
      pending: 16,
      work: 10_000,
      mids: 100_000,
      topicLength: 255,
      badFrames: 10,
      handshake: 10_000,
      publish: 5_000,
      history: 268_435_456,
      waiters: 10_000,
      unfinished: 30_000
    },
    slow: { policy: 'close', bytes: 1_048_576 },
    expiry: { notice: 30_000 },
    drain: { timeout: 5_000, batch: 500, interval: 50, retry: { min: 100, max: 15_000 } },
    websocket: {},
    routes: { socket: {}, broadcast: {} }
  })
  const some = resolveOptions({ limits: { payload: 1 }, heartbeat: { interval: 50 }, slow: {}, routes: { socket: { logLevel: 'warn' } } })
  t.match(some, { limits: { payload: 1, pending: 16 }, heartbeat: { interval: 50, timeout: 10_000 }, slow: { bytes: 1_048_576 }, routes: { socket: { logLevel: 'warn' }, broadcast: {} } })
  t.equal(resolveOptions({ heartbeat: false }).heartbeat, false)
  t.equal(resolveOptions({ asyncapi: true }).asyncapi, true)
  t.strictSame(resolveOptions({ asyncapi: {} }).asyncapi, { routePrefix: '/asyncapi', hooks: {} })
  for (const [name, { description }] of Object.entries(optionsSchema.properties as Record<string, { description?: string }>)) t.ok(description, `${name} has a description`)
})

t.test('functions, schemas, RegExps and instances in options are kept as they are', async t => {
  const [message, publish, presence, broker, config, pattern] = [Type.String(), Type.Number(), Type.Boolean(), memoryBroker(), { mark: 1 }, /a/g]
  const hooks = [async () => {}, async () => {}]
  const given = {
    topics: { news: { message, publish, presence, post: '/here' } },
    identify: noop,
    onMessage: { news: noop },
    onInvalid: noop,
    origin: ['http://a.example', pattern],
    broker,
    websocket: { options: { maxPayload: 7 } },
    routes: { socket: { onRequest: hooks, preHandler: noop, config }, broadcast: { preHandler: hooks[0] } },
    logLevel: 'warn',
    logSerializers: { a: noop }
  }
  const options = resolveOptions(given) as any
  for (const [kept, original] of [
    [options.topics.news.message, message], [options.topics.news.publish, publish], [options.topics.news.presence, presence], [options.identify, noop], [options.onInvalid, noop], [options.onMessage.news, noop], [options.origin[1], pattern],
    [options.broker, broker], [options.websocket.options, given.websocket.options], [options.routes.socket.onRequest, hooks], [options.routes.socket.config, config], [options.routes.broadcast.preHandler, hooks[0]]
  ]) t.equal(kept, original)
  t.equal(resolveOptions({ origin: noop }).origin, noop)
  t.ok(Object.isFrozen(options))
  for (const group of ['limits', 'heartbeat', 'slow', 'drain', 'websocket', 'routes']) t.ok(Object.isFrozen(options[group]), `${group} is frozen`)
  t.notOk(Object.isFrozen(config), 'objects of the host are not frozen')
})

t.test('objects of the host are not written to, frozen or not', async t => {
  const freeze = <T>(value: T): T => {
    if (typeof value !== 'object' || value === null || value instanceof RegExp) return value
    for (const member of Object.values(value)) freeze(member)
    return Object.freeze(value)
  }
  const make = () => ({
    prefix: '/rooms',
    topics: { news: { message: { type: 'object', properties: { a: { type: 'string', default: 'x' } } }, publish: { type: 'string' }, presence: { type: 'object', properties: { name: { type: 'string' } } }, post: true, limits: { members: 3 } } },
    onMessage: { news: noop },
    authorize,
    origin: ['http://a.example', /a/],
    heartbeat: { interval: 1_000 },
    limits: { payload: 100 },
    slow: {},
    drain: {},
    websocket: { options: {} },
    routes: { socket: { onRequest: [async () => {}], config: { a: 1 } }, broadcast: {} }
  })
  const given = make()
  const before = JSON.stringify(given)
  await createRooms(t, given as AnyOptions)
  t.equal(JSON.stringify(given), before)

  const app = await createRooms(t, freeze(make()) as AnyOptions)
  t.match((await app.inject({ method: 'POST', url: '/rooms/news', payload: { a: 'b' } })).json(), { published: true }, 'deeply frozen objects work')
})

t.test('one options object registers two hubs', async t => {
  const options = Object.freeze({ topics: defineTopics({ news: { message: Type.Object({ a: Type.String() }), post: true } }), authorize })
  for (let n = 0; n < 2; n++) {
    const app = await createRooms(t, options as AnyOptions)
    t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload: { a: 'b' } })).statusCode, 200)
  }
})

t.test('prefix, logLevel and logSerializers, which Fastify passes in, are accepted', async t => {
  const logs: LogLine[] = []
  const app = createApp(t, {}, logs)
  await app.register(plugin, { prefix: '/rooms', logLevel: 'debug', logSerializers: { session: (value: string) => `<${value}>` } } as any)
  const url = await listen(app)
  t.equal((await join(t, `${url}/rooms/news`)).hello.topic, 'news')
})

t.test('a bad topic name is refused', async t => {
  const bad = ['', ' ', 'a b', 'a/b', 'café', 'a*b', '*a', '**', 'a**', 'x'.repeat(256), `${'x'.repeat(255)}*`, '.', '..', 'a\n', 'a%3A', '{a}', '?']
  for (const name of bad) {
    t.match(await failure(t, { topics: { [name]: {} } }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: /1 to 255 characters of letters, digits and _ \. : ~ -, a family is a name with a trailing \*/ }, JSON.stringify(name.slice(0, 20)))
  }
  for (const name of ['a', 'x'.repeat(255), `${'x'.repeat(254)}*`, '*', '__proto__', 'a.b~c-d_e:f']) t.ok(await createRooms(t, { topics: { [name]: {} } }), name.slice(0, 20))
})

t.test('a family with a path in post, and overlapping families, are refused', async t => {
  t.match(await failure(t, { topics: { 'chat:*': { post: '/chat' } }, authorize }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: /"chat:\*".*for a family give true/ })
  for (const [one, two] of [['chat:*', 'chat:room:*'], ['chat:room:*', 'chat:*'], ['*', 'a*'], ['a*', '*'], ['ch*', 'chat:*']] as const) {
    t.match(await failure(t, { topics: { [one]: {}, [two]: {} } }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: `topic "${two}": it overlaps with the family "${one}"` })
  }
  t.ok(await createRooms(t, { topics: { 'a:*': {}, 'b:*': {}, 'a:x': {}, ab: {} } }))
})

t.test('a Zod or other Standard Schema object is refused with a hint, for message, publish and presence', async t => {
  const standard = { '~standard': { version: 1, vendor: 'any', validate: () => ({ value: 1 }) } }
  const parser = { parse: () => 1 }
  for (const schema of [z.object({ a: z.string() }), z.string(), standard, parser]) {
    for (const option of ['message', 'publish', 'presence']) {
      t.match(await failure(t, { topics: { news: { [option]: schema } }, onMessage: { news: noop } }), { code: 'FST_ROOMS_INVALID_SCHEMA', message: new RegExp(`topic "news": "${option}".*z\\.toJSONSchema`) })
    }
  }
  const app = await createRooms(t, { topics: { news: { message: z.toJSONSchema(z.object({ a: z.string() }), { target: 'draft-7' }), post: true } }, authorize })
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload: { a: 1 } })).statusCode, 400, 'the hint\'s advice works')
  t.equal((await app.inject({ method: 'POST', url: '/rooms/news', payload: { a: 'b' } })).statusCode, 200)
})

t.test('presence is true, a schema, or options: an object with grace, and nothing else but info', async t => {
  const Info = Type.Object({ name: Type.String() })
  for (const presence of [true, {}, Info, { info: Info, grace: 0 }, { grace: 5_000 }, { info: true, grace: 2 ** 31 - 1 }, { info: undefined, grace: 1 }]) {
    const app = await createRooms(t, { topics: { news: { presence: presence as never } } })
    const client = await app.rooms.inject('/rooms/news')
    client.send({ type: 'presence', info: { name: 1 }, ref: 1 })
    const takesAny = !JSON.stringify(presence).includes('name')
    t.match(await client.next('ack'), { ok: takesAny }, JSON.stringify(presence))
  }

  const refused: [unknown, RegExp][] = [
    [{ info: Info }, /"presence" with "info" also takes "grace", in milliseconds \(0: off\)/],
    [{ ...Info, grace: 5_000 }, /"presence" with "grace" takes the schema in "info", and nothing else; got "type"/],
    [{ info: Info, grace: 5_000, greace: 1 }, /got "greace"/],
    ...[-1, 1.5, NaN, 2 ** 31].map((grace): [unknown, RegExp] => [{ grace }, /"presence\.grace" takes milliseconds, a whole number from 0 to 2147483647; got /]),
    [{ grace: '5s' }, /got "5s"/],
    [{ grace: true }, /got a value of type boolean/],
    [{ grace: null, info: Info }, /got a value of type object/],
    ...[false, 'any', null, [], 1].map((info): [unknown, RegExp] => [{ info, grace: 1 }, /"presence\.info" takes true or a JSON Schema object/])
  ]
  for (const [presence, message] of refused) t.match(await failure(t, { topics: { news: { presence } } }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message }, JSON.stringify(presence))

  for (const presence of [{ info: { type: 'strin' } }, { info: { type: 'strin' }, type: 'object' }, { info: { type: 'strin' }, grace: 1 }, { info: z.string(), grace: 1 }]) {
    const error = await failure(t, { topics: { news: { presence } } })
    t.match(error.message, 'grace' in presence || 'type' in presence ? /"presence" is not a JSON Schema that can be compiled/ : /also takes "grace"/)
  }
})

t.test('a schema with a keyword "grace" of the host is never taken for options', async t => {
  const ajv = { customOptions: { keywords: [{ keyword: 'grace', type: 'number', schemaType: 'number', validate: (grace: number, value: number) => value >= grace }] } } as never
  t.match(await failure(t, { topics: { news: { presence: { grace: 5_000 } } } }, { ajv }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: /topic "news": "presence" with "grace" may be options or a schema, because this app has a keyword "grace"/ })
  t.match(await failure(t, { topics: { news: { presence: { info: Type.String(), grace: 5_000 } } } }, { ajv }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: /may be options or a schema/ })
  const app = createApp(t, { ajv })
  await app.register(plugin, { topics: { news: { presence: { type: 'number', grace: 5 } } } })
  const client = await app.rooms.inject('/news')
  for (const [info, ok] of [[4, false], [5, true]]) {
    client.send({ type: 'presence', info, ref: 1 })
    t.match(await client.next('ack'), { ok })
  }
})

t.test('a schema that cannot be compiled is refused with its place and the reason', async t => {
  const table: [object, RegExp][] = [
    [{ type: 'strin' }, /type/], [{ type: 'string', format: 'no-such-format' }, /no-such-format/], [{ typ: 'string' }, /unknown keyword: "typ"/], [{ $ref: 'nowhere#' }, /nowhere/],
    [{ type: 'object', properties: { a: { type: 'string', pattern: '(' } } }, /regular expression|pattern/i], [{ required: 'a' }, /required/]
  ]
  for (const [schema, why] of table) {
    for (const option of ['message', 'publish', 'presence']) {
      const error = await failure(t, { topics: { news: { [option]: schema } }, onMessage: { news: noop } })
      t.match(error, { code: 'FST_ROOMS_INVALID_SCHEMA', message: why })
      t.match(error.message, new RegExp(`topic "news": "${option}" is not a JSON Schema that can be compiled`))
    }
  }
})

t.test('a broadcast route without a guard is refused, and one visible line opens it', async t => {
  const topics = { news: { post: true as const }, silent: {} }
  t.match(await failure(t, { topics }), { code: 'FST_ROOMS_OPEN_BROADCAST', message: /"news".*authorize: \(\) => true/ })
  for (const routes of [{ socket: { onRequest: noop } }, { broadcast: {} }, { broadcast: { preHandler: [] } }, { broadcast: { onSend: noop, onResponse: [noop], config: { onRequest: noop } } }]) {
    t.match(await failure(t, { topics, routes }), { code: 'FST_ROOMS_OPEN_BROADCAST' }, 'a hook that runs elsewhere or later, or does not exist, guards nothing')
  }
  t.match(await failure(t, { topics, identify: () => null }), { code: 'FST_ROOMS_OPEN_BROADCAST' })
  t.match(await failure(t, { topics: { 'chat:*': { post: true } } }), { code: 'FST_ROOMS_OPEN_BROADCAST' })
  t.ok(await createRooms(t, { topics, authorize }))
  for (const hook of ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const) {
    t.ok(await createRooms(t, { topics, routes: { broadcast: { [hook]: async () => {} } } }))
    t.ok(await createRooms(t, { topics, routes: { broadcast: { [hook]: [async () => {}] } } }))
  }
  t.ok(await createRooms(t, { topics: { silent: {} } }), 'without post no guard is needed')
})

t.test('if publish differs from message, onMessage is required for each such topic', async t => {
  for (const name of ['chat', 'chat:*', 'constructor', '__proto__', 'toString']) {
    const topics = { [name]: { message: Type.Object({ text: Type.String(), at: Type.String() }), publish: Type.Object({ text: Type.String() }) }, other: { publish: true as const } }
    for (const onMessage of [undefined, {}, { other: noop }]) {
      t.match(await failure(t, { topics, onMessage }), { code: 'FST_ROOMS_HANDLER_MISSING', message: new RegExp(`topic "${name.replace('*', '\\*')}".*"onMessage"`) })
    }
    t.ok(await createRooms(t, { topics, onMessage: { [name]: noop } }))
  }
  const schema = Type.String()
  t.ok(await createRooms(t, { topics: { same: { message: schema, publish: schema }, alike: { message: schema, publish: true } } }), 'publish and message with one schema need no onMessage')
  t.match(await failure(t, { topics: { any: { publish: Type.String() } } }), { code: 'FST_ROOMS_HANDLER_MISSING' }, 'a publish schema without a message schema differs')
})

t.test('onMessage of an unknown topic, or of one without publish, is refused', async t => {
  const topics = { news: {}, 'chat:*': { publish: true as const } }
  for (const name of ['weather', 'chat:lobby', '*', 'chat']) t.match(await failure(t, { topics, onMessage: { [name]: noop } }), { code: 'FST_ROOMS_INVALID_OPTION', message: `option "onMessage" takes functions by topic key; got "${name}"` })
  t.match(await failure(t, { topics, onMessage: { news: noop } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /"onMessage.news" takes nothing: members of this topic may not publish/ })
  t.match(await failure(t, { onMessage: { news: noop } }), { code: 'FST_ROOMS_INVALID_OPTION', message: /got "news"/ }, 'the open lobby has one key, *')
  t.ok(await createRooms(t, { onMessage: { '*': noop } }))
  t.ok(await createRooms(t, { topics, onMessage: { 'chat:*': noop } }))
})

t.test('a drain that exceeds Fastify\'s pluginTimeout is refused', async t => {
  t.match(await failure(t, { drain: { timeout: 10_000 } }), { code: 'FST_ROOMS_DRAIN_TOO_LONG', message: /drain\.timeout \(10000 ms\).*pluginTimeout \(10000 ms\)/ })
  t.match(await failure(t, {}, { pluginTimeout: 5_000 }), { code: 'FST_ROOMS_DRAIN_TOO_LONG', message: /\(5000 ms\).*\(5000 ms\)/ })
  for (const [pluginTimeout, timeout] of [[10_000, 9_999], [5_001, 5_000], [0, 60_000]] as const) {
    const app = createApp(t, { pluginTimeout })
    await app.register(plugin, { drain: { timeout } })
    t.ok(app.rooms)
  }
})

t.test('the open lobby warns once at start about its openness and how to close it', async t => {
  const warnings = async (options: object): Promise<LogLine[]> => {
    const logs: LogLine[] = []
    const app = createApp(t, {}, logs)
    await app.register(plugin, options as any)
    t.same(logs.filter(({ level }) => level >= 40), [], 'no warning before the start')
    await app.ready()
    await listen(app)
    return logs.filter(({ level }) => level >= 40)
  }
  const lobby = await warnings({ prefix: '/rooms' })
  t.equal(lobby.length, 1)
  t.match(lobby[0], { level: 40, msg: /every client may join any topic, publish and broadcast.*"topics".*"authorize".*"routes"/ })
  const hook = async () => {}
  // identify does not restrict access, and a guard of one route leaves the other one open.
  for (const options of [{ identify: () => null }, { routes: { socket: { onRequest: hook } } }]) t.equal((await warnings(options)).length, 1, Object.keys(options).join())
  for (const options of [{ authorize }, { routes: { socket: { onRequest: hook }, broadcast: { preHandler: [hook] } } }, { topics: { news: {} } }, { topics: {} }]) t.same(await warnings(options), [], Object.keys(options).join())
})

t.test('an empty map of topics is not an open lobby', async t => {
  const app = await createRooms(t, { topics: {} })
  t.equal((await app.inject('/rooms/news')).statusCode, 404)
  t.equal(app.rooms.has('news'), false)
})

t.test('a broker that fails to start fails the registration', async t => {
  const broken = (start: Broker['start']): Broker => Object.assign(Object.create(memoryBroker()), { start, close: async () => {} })
  t.match(await failure(t, { broker: broken(async () => { throw new Error('no broker') }) }), { message: 'no broker' })
  t.match(await failure(t, { broker: broken(() => { throw new Error('no broker at all') }) }), { message: 'no broker at all' })
})

t.test('a broker that another hub uses is refused', async t => {
  const broker = memoryBroker()
  const app = await createRooms(t, { broker })
  t.match(await failure(t, { broker }), { code: 'FST_ROOMS_INVALID_OPTION', message: /"broker" takes a broker of its own/ })
  t.match(await app.rooms.broadcast('news', 1), { published: true }, 'the first hub keeps working')
})

t.test('a broker of the host is called through its interface, and closed with the app', async t => {
  const calls: string[] = []
  let handlers: BrokerHandlers
  const inner = memoryBroker()
  const broker: Broker = {
    capabilities: inner.capabilities,
    start: async (node, given) => { calls.push('start'); handlers = given; return inner.start(node, given) },
    attach: async topics => { calls.push(`attach ${topics.join()}`); return inner.attach(topics) },
    detach: async topics => { calls.push(`detach ${topics.join()}`); return inner.detach(topics) },
    publish: batch => { calls.push(`publish ${batch.map(({ topic }) => topic).join()}`); return inner.publish(batch) },
    control: async (to, bytes) => inner.control(to, bytes),
    close: async () => { calls.push('close'); return inner.close() }
  }
  const app = await createRooms(t, { broker })
  t.ok(handlers!)
  const client = await app.rooms.inject('/rooms/news')
  await client.next('hello')
  await app.rooms.broadcast('news', 1)
  await app.close()
  t.same(calls, ['start', 'attach news', 'publish news', 'detach news', 'close'])
})

t.test('each error of this package has its code as its name, and a status', async t => {
  for (const [code, Coded] of Object.entries(errorCodes)) {
    const error = new (Coded as unknown as new (...values: unknown[]) => Error & { code: string, statusCode: number })('a', 'b', 'c')
    t.equal(error.code, code)
    t.ok(error.statusCode >= 400 && error.statusCode < 600)
  }
})

t.test('Fastify knows the plugin by its name, and refuses it in another major version', async t => {
  const app = await createRooms(t)
  t.ok(app.hasPlugin('fastify-rooms'))
  const meta = (fastifyRooms as any)[Symbol.for('plugin-meta')]
  t.match(meta, { name: 'fastify-rooms', fastify: '5.x' })
})

t.test('registration works without await', async t => {
  const app = Fastify() as FastifyInstance
  t.teardown(() => app.close())
  app.register(plugin, { prefix: '/rooms' })
  app.after(() => { app.get('/count', async () => app.rooms.count('news')) })
  t.equal((await app.inject('/count')).body, '0')
})
