import { channel } from 'node:diagnostics_channel'
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { Parser } from '@asyncapi/parser'
import AjvCompiler from '@fastify/ajv-compiler'
import fastifySwagger from '@fastify/swagger'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { schemaCompiler } from '../lib/topics/payload.ts'
import { exampleOf } from '../lib/asyncapi/example.ts'
import { follow } from '../lib/asyncapi/schemas.ts'
import { textOfPattern } from '../lib/asyncapi/text-of-pattern.ts'
import { toYaml } from '../lib/asyncapi/yaml.ts'
import fastifyRooms from '../lib/index.ts'
import { closeCodes } from '../lib/protocol/close-codes.ts'
import type { AsyncApiDocument } from '../types/index.ts'
import { createApp, createRooms, type AnyOptions } from './helpers/app.ts'
import { launch, patience } from './helpers/browser.ts'

const authorize = () => true
const parser = new Parser()
/** The reader of YAML that the parser uses. */
const yaml = createRequire(createRequire(import.meta.url).resolve('@asyncapi/parser'))('js-yaml') as { load (text: string): unknown }

/** All references in a document. */
function refsOf (value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  const { $ref } = value as { $ref?: unknown }
  return [...(typeof $ref === 'string' ? [$ref] : []), ...Object.values(value).flatMap(refsOf)]
}

/** Returns a compiler of schemas that refer to places in a document. */
function compilerFor ({ components: { schemas, messages } }: AsyncApiDocument): (schema: unknown) => ((value: unknown) => boolean) & { errors?: unknown } {
  const within = <T>(schema: T): T => JSON.parse(JSON.stringify(schema).replaceAll('"$ref":"#/', '"$ref":"document#/')) as T
  const compile = AjvCompiler()({ document: within({ $id: 'document', components: { schemas, messages } }) } as never, { customOptions: { strict: false, coerceTypes: false, removeAdditional: false, useDefaults: false } })
  return schema => (compile as any)({ schema: within(schema) })
}

/** Checks a document: by the parser of AsyncAPI, its references, and its examples by their schemas. */
async function checkDocument (t: Test, document: AsyncApiDocument): Promise<void> {
  const { diagnostics } = await parser.parse(JSON.stringify(document))
  // A warning that there is a newer version of AsyncAPI is expected: 3.1.0 has only added bindings of another protocol.
  t.same(diagnostics.filter(({ code }) => code !== 'asyncapi-latest-version').map(({ code, message, path }) => `${path.join('/')} ${code}: ${message}`), [])
  for (const ref of refsOf(document)) t.ok(follow(document, ref), ref)
  const compile = compilerFor(document)
  let examples = 0
  for (const [name, { payload, examples: given = [] }] of Object.entries(document.components.messages)) {
    const validate = compile(payload)
    for (const example of given) {
      t.equal(validate(example.payload), true, `${name}: ${JSON.stringify(example.payload)} ${JSON.stringify(validate.errors)}`)
      examples++
    }
  }
  t.ok(examples > 0)
}

/** Frames that an operation, or its reply, names. */
const frames = (from: { messages?: { $ref: string }[] } | undefined): string[] => (from?.messages ?? []).map(({ $ref }) => $ref.split('/').at(-1)!)

const topics = {
  news: { message: Type.Array(Type.Object({ name: Type.String(), value: Type.Number() }), { description: 'Numbers of the day.' }), post: '/dashboard' as const, history: { size: 10, ttl: 60_000 } },
  'chat:*': {
    message: Type.Object({ name: Type.String(), text: Type.String() }, { title: 'Line' }),
    publish: Type.Object({ text: Type.String({ minLength: 1, pattern: '\\S' }) }),
    presence: { info: Type.Object({ name: Type.String() }), grace: 100 },
    post: true as const,
    limits: { payload: 1_234_567 }
  },
  chat: { message: { type: 'string' }, publish: true as const },
  plain: {},
  values: { message: Type.Number(), history: { latest: true as const } },
  'run:*': { message: Type.String(), stream: true as const },
  'a.b-c_d~e': { publish: { type: 'integer' }, presence: true as const }
}
const everything: AnyOptions = { topics, authorize, identify: () => null, onAuth: () => null, onMessage: { 'chat:*': () => {}, 'a.b-c_d~e': () => {} } } as never

t.test('the document of topics with every option is valid, and says who sends what', async t => {
  const app = createApp(t)
  await app.register(async scope => { await scope.register(fastifyRooms as any, { prefix: '/rooms/', ...everything }) }, { prefix: '/api' })
  let document!: AsyncApiDocument
  app.register(async scope => { await scope.register(fastifyRooms as any, { prefix: '/rooms/', ...everything }); scope.addHook('onReady', async () => { document = scope.rooms.asyncapi() }) }, { prefix: '/v2' })
  await app.ready()
  await checkDocument(t, document)
  t.equal(document.asyncapi, '3.0.0')
  t.match(document.info, { title: 'Rooms', version: '0.0.0' })
  for (const [code, name] of Object.entries(closeCodes)) t.match(document.info.description, `| ${code} | \`${name}\` |`)
  t.notOk('servers' in document, 'no server is known')

  t.same(Object.entries(document.channels).map(([name, { title, address }]) => [name, title, address]), [
    ['news', 'news', '/v2/rooms/news'],
    ['chat-2', 'chat:*', '/v2/rooms/chat:{topic}'],
    ['chat', 'chat', '/v2/rooms/chat'],
    ['plain', 'plain', '/v2/rooms/plain'],
    ['values', 'values', '/v2/rooms/values'],
    ['run', 'run:*', '/v2/rooms/run:{topic}'],
    ['a.b-c_d-e', 'a.b-c_d~e', '/v2/rooms/a.b-c_d~e'],
    ['rooms', 'Several topics on one connection', '/v2/rooms']
  ])
  const { news, 'chat-2': chat, values, run, plain } = document.channels
  t.match(chat!.parameters, { topic: { description: /after `chat:`: 1 to 250 characters/ } })
  t.notOk('parameters' in news!)
  t.match(news!.description, 'POST /v2/rooms/dashboard broadcasts')
  t.match(news!.description, /^Numbers of the day\.\n/)
  t.match(news!.description, 'its newest messages, until 60,000 ms')
  t.match(chat!.description, 'POST /v2/rooms/chat:{topic} broadcasts')
  t.match(chat!.description, 'at most 1,234,567 bytes')
  t.match(values!.description, 'the newest message of each key')
  t.match(run!.description, 'is a stream')
  t.match(plain!.description, 'keeps no messages')
  t.same(Object.keys((chat!.bindings!.ws!.query as any).properties), ['since', 'presence'])
  t.same(Object.keys((news!.bindings!.ws!.query as any).properties), ['since'])

  const said = (name: string): Record<string, unknown> => Object.fromEntries(Object.entries(document.operations)
    .filter(([, { channel }]) => channel.$ref === `#/channels/${name}`)
    .map(([key, { action, reply, ...operation }]) => [key.slice(name.length + 1), [action, frames(operation), frames(reply)]]))
  const ask = ['send', ['direct'], ['answer']]
  const auth = ['receive', ['auth'], ['ack']]
  const ping = ['receive', ['ping'], ['ack']]
  t.same(said('news'), { send: ['send', ['hello', 'message', 'direct', 'error', 'gap', 'expiring', 'bye'], []], ask, receiveHistory: ['receive', ['history'], ['page']], receiveAuth: auth, receivePing: ping })
  t.same(said('chat-2'), {
    send: ['send', ['hello', 'message', 'direct', 'presence', 'error', 'gap', 'expiring', 'bye'], []],
    ask,
    receive: ['receive', ['publish'], ['ack']],
    receiveDirect: ['receive', ['sendDirect'], ['ack']],
    receivePresence: ['receive', ['setPresence'], ['ack']],
    receiveAuth: auth,
    receivePing: ping
  })
  t.same(said('run'), { send: ['send', ['hello', 'message', 'direct', 'end', 'error', 'gap', 'expiring', 'bye'], []], ask, receiveHistory: ['receive', ['history'], ['page']], receiveAuth: auth, receivePing: ping })

  t.same(said('rooms'), {
    send: ['send', ['connected', 'deliver', 'expiring', 'error', 'bye'], []],
    join: ['receive', ['join'], ['joined', 'refused']],
    leave: ['receive', ['leave'], ['ack']],
    receive: ['receive', ['publish'], ['ack']],
    receiveAuth: auth,
    receivePing: ping
  })
  t.match(document.channels['rooms']!.description, 'at most 100 at a time')

  const { messages, schemas } = document.components as any
  const named = (frame: string): string[] => messages[`rooms.${frame}`].payload.anyOf.map(({ $ref }: any) => /^#\/components\/messages\/(.*)\/payload$/.exec($ref)![1])
  t.same(named('publish').sort(), ['a.b-c_d-e.publish', 'a.b-c_d-e.sendDirect', 'a.b-c_d-e.setPresence', 'answer', 'chat-2.publish', 'chat-2.sendDirect', 'chat-2.setPresence', 'chat.publish', 'chat.sendDirect', 'history'])
  for (const frame of ['news.message', 'run.end', 'chat-2.presence', 'run.page', 'ack', 'error', 'gap', 'bye']) t.ok(named('deliver').includes(frame), frame)
  for (const frame of ['hello', 'expiring', 'answer', 'ping']) t.notOk(named('deliver').includes(frame), frame)
  t.same(Object.keys(messages['rooms.deliver'].examples[0].payload), ['type', 'topic', 'id', 'data'])
  t.equal(messages['chat-2.message'].title, 'Line')
  t.same(messages['chat.publish'].payload.properties.data, { $ref: '#/components/schemas/chat.message' }, 'members send what they receive')
  t.same(messages['chat-2.publish'].payload.properties.data, { $ref: '#/components/schemas/chat-2.publish' })
  t.same(messages['chat-2.direct'].payload.properties.data, { anyOf: [{ $ref: '#/components/schemas/chat-2.message' }, { $ref: '#/components/schemas/chat-2.publish' }] }, 'from the server, or from a member')
  t.same(schemas['chat-2.presence'], { type: 'object', required: ['name'], properties: { name: { type: 'string' } }, additionalProperties: false })
  t.same(messages['plain.message'].payload.properties.data, { description: 'any JSON' })
  t.notOk('plain.message' in schemas)
  t.ok('ended' in messages['run.page'].payload.properties.data.properties)
  t.notOk('ended' in messages['news.page'].payload.properties.data.properties)
})

t.test('without identify, onAuth and history the document has no frames of these', async t => {
  const app = await createRooms(t)
  const document = app.rooms.asyncapi()
  await checkDocument(t, document)
  t.same(Object.entries(document.channels).map(([name, { title, address }]) => [name, title, address]), [['topic', '*', '/rooms/{topic}'], ['rooms', 'Several topics on one connection', '/rooms']])
  t.match(document.channels['topic']!.parameters, { topic: { description: /^The topic: 1 to 255/ } })
  for (const name of ['expiring', 'auth', 'history']) t.notOk(name in document.components.messages, name)
})

t.test('the channel of several topics is in the document where the route is', async t => {
  const none = await createRooms(t, { multiplex: false } as never)
  t.same(Object.keys(none.rooms.asyncapi().channels), ['topic'])
  const root = createApp(t)
  await root.register(fastifyRooms as any, {})
  t.same(Object.keys(root.rooms.asyncapi().channels), ['topic'])
  const app = await createRooms(t, { multiplex: '/connect', topics: { rooms: { message: { not: {} } }, 'rooms-2': { publish: true }, 'rooms:*': {} }, limits: { topicsPerConnection: 7, topicLength: 9 } } as never)
  const document = app.rooms.asyncapi()
  await checkDocument(t, document)
  t.same(Object.entries(document.channels).map(([name, { address }]) => [name, address]), [['rooms', '/rooms/rooms'], ['rooms-2', '/rooms/rooms-2'], ['rooms-3', '/rooms/rooms:{topic}'], ['rooms-4', '/rooms/connect']])
  t.match(document.channels['rooms-4']!.description, 'at most 7 at a time')
  t.same(document.channels['rooms-3']!.parameters!['topic']!.examples, ['exa'])
  t.notOk('examples' in document.components.messages['rooms-4.deliver']!, 'without an example of the first topic')
  t.match(document.components.messages['rooms-4.join'], { examples: [{ payload: { type: 'join', topic: 'rooms', ref: 1 } }] })
})

t.test('the documents of all examples are valid', async t => {
  // An example is a program: it is imported, its app is caught when Fastify makes it, and closed.
  const { log } = console
  const { PORT } = process.env
  const caught: FastifyInstance[] = []
  const onMade = (message: unknown): void => { caught.push((message as { fastify: FastifyInstance }).fastify) }
  channel('fastify.initialization').subscribe(onMade)
  Object.assign(process.env, { PORT: '0' })
  console.log = () => {}
  t.teardown(() => {
    channel('fastify.initialization').unsubscribe(onMade)
    console.log = log
    if (PORT === undefined) delete process.env.PORT
    else process.env.PORT = PORT
  })
  for (const name of ['server', 'small/minimal', 'small/auth', 'small/streams', 'small/ai-stream', 'small/raw']) {
    await import(pathToFileURL(`example/${name}.ts`).href)
    const app = caught.pop()!
    await checkDocument(t, app.rooms.asyncapi())
    await app.close()
  }
  t.same(caught, [])
})

t.test('references of the host\'s schemas lead to places in the document, and mean the same', async t => {
  const app = createApp(t, { ajv: { plugins: [(ajv: any) => ajv.addSchema({ $id: 'hidden', type: 'integer' })] } as never })
  app.addSchema({ $id: 'https://host.example/point', type: 'object', required: ['x'], properties: { x: { $ref: '#/definitions/number' }, next: { $ref: 'point' } }, definitions: { number: { type: 'number' } } })
  app.addSchema({ $id: 'unused', type: 'string' })
  app.addSchema({ $id: 'base', type: 'object', required: ['x'], properties: { x: {}, next: {} } })
  app.addSchema({ $id: 'local.message', type: 'string' })
  const cases: Record<string, { message: object, valid: unknown[], invalid: unknown[] }> = {
    local: { message: { type: 'array', items: { $ref: '#/definitions/a~1 b' }, definitions: { 'a/ b': { type: 'number' } } }, valid: [[1]], invalid: [['1']] },
    tree: { message: { $id: 'tree', type: 'object', properties: { kids: { type: 'array', items: { $ref: '#' } }, other: { $ref: 'tree' } } }, valid: [{ kids: [{ kids: [] }], other: {} }], invalid: [{ kids: [1] }, { other: 1 }] },
    nested: { message: { $id: 'outer', type: 'object', properties: { a: { $id: 'inner', type: 'array', items: { $ref: '#/definitions/one' }, definitions: { one: { type: 'number' } } }, b: { $ref: 'inner' } } }, valid: [{ a: [1], b: [2] }], invalid: [{ a: ['1'] }, { b: [''] }] },
    anchors: { message: { type: 'object', properties: { a: { $id: '#one', type: 'number' }, b: { $ref: '#one' } } }, valid: [{ a: 1, b: 2 }], invalid: [{ b: '' }] },
    shared: { message: { type: 'array', items: { $ref: 'https://host.example/point#' } }, valid: [[{ x: 1, next: { x: 2 } }]], invalid: [[{}], [{ x: 1, next: {} }]] },
    part: { message: { type: 'array', items: { $ref: 'https://host.example/point#/properties/x' } }, valid: [[1]], invalid: [['']] },
    sharedBeside: { message: { $ref: 'base#', allOf: [{ required: ['next'] }] }, valid: [{ x: 1, next: 2 }], invalid: [{ x: 1 }, { next: 2 }] },
    sameName: { message: { type: 'array', items: { $ref: 'local.message#' } }, valid: [['']], invalid: [[1]] },
    beside: { message: { type: 'object', properties: { a: { $ref: '#/definitions/one', maximum: 7, description: 'at most 7' } }, definitions: { one: { type: 'number', minimum: 3 } } }, valid: [{ a: 5 }], invalid: [{ a: 8 }, { a: 2 }] },
    nullable: { message: { type: 'string', nullable: true }, valid: ['', null], invalid: [1] },
    nullables: { message: { type: ['string', 'null'], nullable: true }, valid: ['', null], invalid: [1] },
    composed: { message: { allOf: [{ type: 'object', required: ['a'], properties: { a: { type: 'number' } } }, { type: 'object', properties: { b: { type: 'string' } } }] }, valid: [{ a: 1, b: '' }], invalid: [{ b: '' }, { a: 1, c: 1 }] },
    typebox: { message: Type.Recursive(This => Type.Object({ value: Type.Integer(), kids: Type.Array(This) })), valid: [{ value: 1, kids: [{ value: 2, kids: [] }] }], invalid: [{ value: 1, kids: [{}] }] }
  }
  const hidden = { message: { type: 'array', items: { $ref: 'hidden#' } } }
  await app.register(fastifyRooms as any, { prefix: '/rooms', topics: { ...Object.fromEntries(Object.entries(cases).map(([name, { message }]) => [name, { message }])), hidden } })
  await app.ready()
  const document = app.rooms.asyncapi()
  await checkDocument(t, document)
  const { schemas } = document.components
  for (const [name, { valid, invalid }] of Object.entries(cases)) {
    const validate = compilerFor(document)({ $ref: `#/components/schemas/${name}.message` })
    for (const value of valid) {
      t.equal(validate(value), true, `${name}: ${JSON.stringify(value)}`)
      await app.rooms.broadcast(name, value)
    }
    for (const value of invalid) {
      t.equal(validate(value), false, `${name}: ${JSON.stringify(value)}`)
      await t.rejects(app.rooms.broadcast(name, value), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
    }
  }
  t.notOk('unused' in schemas)
  t.ok('https-host.example-point' in schemas, 'added when a reference leads to it')
  t.match((schemas['hidden.message'] as any).items, { description: 'the schema hidden#, which is not part of this document' })
  t.notMatch(JSON.stringify(schemas), /"\$id"|"nullable":true/)
  t.match((schemas['beside.message'] as any).properties.a, { maximum: 7, allOf: [{ $ref: '#/components/schemas/beside.message/definitions/one' }] })
})

t.test('schemas that are not only JSON are in the document as JSON', async t => {
  const app = await createRooms(t, { topics: { a: { message: { type: 'number', maximum: 7, default: 3n, examples: [3] } }, 'b:*': { message: { $id: 'same', type: 'string' } }, b: { message: { $id: 'same2', type: 'string' } } } } as never)
  const { schemas } = app.rooms.asyncapi().components
  t.same(schemas['a.message'], { type: 'number', maximum: 7, default: 3, examples: [3] })
  const typed = await createRooms(t, { topics: { a: { message: Type.Object({ b: Type.Optional(Type.Literal('c')) }) } } } as never)
  const schema = typed.rooms.asyncapi().components.schemas['a.message']!
  t.same(Object.getOwnPropertySymbols(schema), [])
  t.strictSame(schema, { type: 'object', properties: { b: { const: 'c', type: 'string' } }, additionalProperties: false })
})

t.test('rooms.asyncapi returns a copy each time, with the info and servers that it is given', async t => {
  const servers = { live: { host: 'a.example', protocol: 'wss' } }
  const app = await createRooms(t, { asyncapi: { info: { title: 'News', description: 'All of it.', license: { name: 'MIT' } }, servers } } as never)
  const document = app.rooms.asyncapi()
  t.match(document, { info: { title: 'News', version: '0.0.0', license: { name: 'MIT' }, description: /^All of it\.\n\nEach channel[^]*## Close codes/ }, servers })
  document.channels['topic']!.address = 'changed'
  delete document.components.schemas['topic.message']
  t.equal(app.rooms.asyncapi().channels['topic']!.address, '/rooms/{topic}')
  const other = app.rooms.asyncapi({ info: { title: 'Other', version: '2' }, servers: { test: { host: 'b.example', protocol: 'ws' } } })
  t.match(other, { info: { title: 'Other', version: '2' }, servers: { test: { host: 'b.example' } } })
  t.notOk('license' in other.info)
  t.notOk('live' in other.servers!)
  await checkDocument(t, other)
  for (const [options, message] of [[7, '"options" takes an object'], [null, '"options" takes'], [{ title: 'x' }, '"title" takes nothing'], [{ info: 'x' }, '"info" takes an object'], [{ servers: [] }, '"servers" takes an object']] as const) {
    t.throws(() => app.rooms.asyncapi(options as never), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: new RegExp(message) })
  }
  t.equal(app.rooms.asyncapi({ info: undefined } as never).info.title, 'News')
})

t.test('examples are valid, the same each time, and left out if none is found', async t => {
  const none = (): undefined => undefined
  const compile = schemaCompiler({})
  const deep = (levels: number): object => levels === 0 ? { type: 'string' } : { type: 'object', required: ['a'], properties: { a: deep(levels - 1) } }
  const found: [object, unknown][] = [
    [{}, 'text'],
    [{ type: 'string', minLength: 6 }, 'text t'],
    [{ type: 'string', maxLength: 2 }, 'te'],
    [{ type: 'string', format: 'date-time' }, '2026-01-31T12:00:00Z'],
    [{ type: 'string', pattern: '\\S' }, 'text'],
    [{ type: 'string', pattern: '^[A-Z]{3}-\\d{4}$' }, 'AAA-1111'],
    [{ type: 'string', default: 'usual', examples: ['given'] }, 'given'],
    [{ type: 'string', default: 'usual' }, 'usual'],
    [{ type: 'string', maxLength: 3, examples: ['too long'] }, 'tex'],
    [{ const: { a: 1 } }, { a: 1 }],
    [{ enum: ['b', 'a'] }, 'b'],
    [{ type: 'integer' }, 1],
    [{ type: 'integer', minimum: 3 }, 3],
    [{ type: 'integer', exclusiveMinimum: 3 }, 4],
    [{ type: 'integer', minimum: 2.5 }, 3],
    [{ type: 'integer', maximum: -3 }, -3],
    [{ type: 'integer', exclusiveMaximum: -3 }, -4],
    [{ type: 'number', exclusiveMinimum: 0, exclusiveMaximum: 1 }, 0.5],
    [{ type: 'number', exclusiveMinimum: 0.2, maximum: 0.6 }, 0.4],
    [{ type: 'number', minimum: 0, exclusiveMaximum: 1 }, 0.5],
    [{ type: 'integer', exclusiveMinimum: 3, maximum: 4 }, 4],
    [{ type: 'number', minimum: -9, maximum: -3 }, -9],
    [{ type: 'number', multipleOf: 5, minimum: 7 }, 10],
    [{ type: 'number', multipleOf: 5, exclusiveMaximum: 20, minimum: 11 }, 15],
    [{ type: 'number', multipleOf: 5, exclusiveMaximum: 0 }, -5],
    [{ maximum: 3 }, 1],
    [{ type: 'boolean' }, true],
    [{ type: 'null' }, null],
    [{ type: ['string', 'null'] }, 'text'],
    [{ type: 'array', items: { type: 'number' }, minItems: 3, uniqueItems: true }, [1, 2, 3]],
    [{ type: 'array', items: { type: 'string' }, minItems: 2, uniqueItems: true }, ['text', 'text 2']],
    [{ type: 'array', items: { enum: ['a', 'b'] }, minItems: 2, uniqueItems: true }, ['a', 'b']],
    [{ type: 'array', items: { type: 'string', examples: ['x', 'y'] }, minItems: 3, uniqueItems: true }, ['x', 'y', 'text 3']],
    [{ type: 'array', items: { type: 'boolean', default: false }, minItems: 2 }, [false, false]],
    [{ type: 'array', items: { type: 'string' }, maxItems: 0 }, []],
    [{ type: 'array', items: { type: 'string' }, contains: { const: 'a' } }, ['a']],
    [{ type: 'array' }, []],
    [{ items: { type: 'number' } }, [1]],
    [{ type: 'array', items: true }, ['text']],
    [{ type: 'array', items: [{ type: 'string' }, { type: 'number' }], additionalItems: false }, ['text', 1]],
    [{ type: 'array', items: [{ type: 'string' }], additionalItems: { type: 'number' } }, ['text']],
    [{ type: 'array', items: [{ type: 'string' }], additionalItems: { type: 'number' }, minItems: 2 }, ['text', 1]],
    [{ type: 'object', required: ['a'], properties: { a: { type: 'string' }, b: { type: 'number' } } }, { a: 'text', b: 1 }],
    [{ required: ['a'], properties: { a: { type: 'string' } } }, { a: 'text' }],
    [{ required: ['a'], additionalProperties: { type: 'number' } }, { a: 1 }],
    [{ type: 'object', additionalProperties: { type: 'number' } }, { text: 1 }],
    [{ type: 'object', patternProperties: { '^[a-z]{2}$': { type: 'number' } } }, { aa: 1 }],
    [{ type: 'object', patternProperties: {} }, {}],
    [{ type: 'object' }, {}],
    [{ type: 'object', properties: { a: { type: 'string' }, b: false } }, { a: 'text' }],
    [{ type: 'object', required: ['a'], properties: { a: { type: 'string' }, b: { type: 'string' } }, maxProperties: 1 }, { a: 'text' }],
    [{ anyOf: [{ type: 'number', minimum: 3 }, { type: 'string' }] }, 3],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }, { type: 'string' }] }, 'text'],
    [{ type: 'object', required: ['kind'], properties: { kind: { type: 'string' } }, oneOf: [{ required: ['a'], properties: { a: { const: 1 }, kind: { const: 'a' } } }, { properties: { kind: { const: 'b' } } }] }, { kind: 'a', a: 1 }],
    [{ allOf: [{ type: 'object', properties: { a: { type: 'string' }, b: {} } }, { properties: { a: {}, b: { type: 'number' } }, required: ['b'] }] }, { a: 'text', b: 1 }],
    [deep(10), { a: { a: { a: { a: { a: { a: { a: { a: { a: { a: 'text' } } } } } } } } } }]
  ]
  for (const [schema, value] of found) {
    const validate = compile(schema)
    const check = (given: unknown): void => { if (validate(given) !== true) throw new Error('refused') }
    t.strictSame(exampleOf(schema, none, check), { value }, JSON.stringify(schema).slice(0, 120))
    t.strictSame(exampleOf(schema, none, check), { value })
  }
  const wide = { type: 'object', properties: Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`m${index}`, { $ref: 'wide' }])) }
  t.strictSame(exampleOf(wide, () => wide, () => {}), { value: {} }, 'an example has a bounded size')
  for (const schema of [false, { not: {} }, { type: 'string', minLength: 2_000 }, { type: 'string', pattern: '^(?=a)(?<!b)[^\\s\\S]$' }, deep(20), { type: 'array', minItems: 1 + 100, uniqueItems: true, items: { type: 'number' } }, { type: 'string', format: 'email', pattern: '^x$' }]) {
    const validate = schema === false ? () => false : compile(schema as object)
    t.equal(exampleOf(schema, none, given => { if (validate(given) !== true) throw new Error('refused') }), undefined, JSON.stringify(schema).slice(0, 120))
  }
})

t.test('texts of patterns', async t => {
  const table: [string, number, number][] = [
    ['^abc$', 0, Infinity], ['^a|b$', 0, 1], ['^(?:x|y)+$', 3, 5], ['^[^a-z]+$', 2, 2], ['^[\\w-]{3,8}$', 5, 8], ['^\\p{L}+$', 4, 4], ['^\\u0041\\x42\\u{43}$', 0, 9],
    ['^(?<year>\\d{4})-(?:\\d\\d)?$', 0, 9], ['^.{5}$', 0, 9], ['^a*b?c+$', 0, 9], ['^[\\]x]$', 0, 1], ['^(?!b)a$', 0, 1], ['^(?=a)a$', 0, 1], ['^\\$\\d+\\.\\d{2}$', 0, 9], ['^a{2,}?$', 0, 9], ['\\bword\\b', 0, 9],
    ['^[^\\d]$', 0, 1], ['^\\t\\S\\W\\D$', 0, 9], ['^a{0,3}$', 2, 3], ['^(?<=^)a$', 0, 1], ['^(?<!b)a$', 0, 1], ['^[^]$', 0, 1]
  ]
  for (const [pattern, minimum, maximum] of table) {
    const text = textOfPattern(pattern, minimum, maximum)
    t.ok(text !== undefined && new RegExp(pattern, 'u').test(text) && text.length >= minimum && text.length <= maximum, `${pattern}: ${text}`)
  }
  for (const pattern of ['^(?:a{1000}){1000}$', '^(', '^[^\\s\\S]$', '^[]$', '^\\P{L}$(?=x)', '^(a)\\1b$']) t.equal(textOfPattern(pattern, 0, Infinity), undefined, pattern)
})

t.test('YAML is what the JSON is', async t => {
  const values = [
    null, true, 'text', 7, [], {}, [[]], [[1, [2, { a: [] }]], {}], { a: { b: { c: null } }, d: [{ e: 1, f: [2] }, 'g'] },
    { yes: 'no', n: 'null', '': '', 'a: b': '# c', '- d': '- e', 1: '1', '?': '!', '&a': '*b', '%': '@', '"q"': '\'q\'', _ok: '~', on: 'off' },
    { text: 'two\nlines\r\n\ttab \\ " \u0000 \u007f \u0085 \u00a0 \u2028 \u2029 \ufeff \uffff 😀' },
    { numbers: [0, -1, 1.5, 1e21, -2.5e-9, 1e-7] },
    { ['k'.repeat(2_000)]: { ['l'.repeat(2_000)]: [{ ['m'.repeat(2_000)]: 1, n: 2 }] } },
    JSON.parse('{"__proto__":{"a":1}}')
  ]
  for (const value of values) t.strictSame(yaml.load(toYaml(value)), value, toYaml(value).slice(0, 60))
  t.equal(toYaml({ a: [{ b: 'c', d: [1] }], yes: 1e21 }), 'a:\n  - b: "c"\n    d:\n      - 1\n"yes": 1.0e+21\n')
})

const html = async (app: FastifyInstance, url = '/rooms/asyncapi', headers: Record<string, string> = {}): Promise<string> => (await app.inject({ url, headers })).body

t.test('the routes of the document are off unless the option is given', async t => {
  const app = await createRooms(t, { topics: { news: {} } })
  for (const url of ['/rooms/asyncapi', '/rooms/asyncapi/', '/rooms/asyncapi/json', '/rooms/asyncapi/yaml']) t.equal((await app.inject(url)).statusCode, 404)
})

t.test('the document is served as JSON, as YAML and as a page, with the server of the request', async t => {
  const app = await createRooms(t, { ...everything, asyncapi: true } as never)
  const json = await app.inject({ url: '/rooms/asyncapi/json', headers: { host: 'a.example:81' } })
  t.match(json.headers, { 'content-type': 'application/json; charset=utf-8', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
  const document = json.json<AsyncApiDocument>()
  t.same(document.servers, { default: { host: 'a.example:81', protocol: 'ws' } })
  const { servers, ...others } = document
  t.same(others, app.rooms.asyncapi())

  const text = await app.inject({ url: '/rooms/asyncapi/yaml', headers: { host: 'a.example:81' } })
  t.equal(text.headers['content-type'], 'application/yaml; charset=utf-8')
  t.same(yaml.load(text.body), document)

  const page = await app.inject({ url: '/rooms/asyncapi', headers: { host: 'a.example:81' } })
  t.match(page.headers, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' })
  const [, style] = /<style>([^]*?)<\/style>/.exec(page.body)!
  t.equal(page.headers['content-security-policy'], `default-src 'none'; style-src 'sha256-${createHash('sha256').update(style!).digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`)
  t.notMatch(page.body, /<script|<link|<img|style="|javascript:/)
  for (const part of ['<h2 id="topic-chat-2">chat:*</h2>', '<code>/rooms/chat:{topic}</code>', 'npx wscat -c \'ws://a.example:81/rooms/chat:example\'', '&gt; {&quot;type&quot;:&quot;message&quot;,&quot;data&quot;:{&quot;text&quot;:&quot;text&quot;},&quot;ref&quot;:7}', '<code>4201</code>', 'Answered by <code>ack</code>', '<strong>Line</strong>', 'Numbers of the day.', 'href="asyncapi/json"', 'href="#topic-a.b-c_d-e"']) t.ok(page.body.includes(part), part)
  t.match(await html(app, '/rooms/asyncapi/?a=b'), 'href="json"', 'links hold with and without a slash')
  for (const host of ['a b', '<i>', 'a\'b']) t.notOk('servers' in (await app.inject({ url: '/rooms/asyncapi/json', headers: { host } })).json(), host)
  t.match(await html(app, '/rooms/asyncapi', { host: '<i>' }), 'ws://&lt;host&gt;/rooms')
  t.equal((await app.inject({ method: 'HEAD', url: '/rooms/asyncapi/json' })).statusCode, 200)
})

t.test('behind a proxy that ends TLS, the server is that of the browser', async t => {
  const app = createApp(t, { trustProxy: true })
  await app.register(fastifyRooms as any, { asyncapi: { routePrefix: '/docs/rooms' } })
  const headers = { 'x-forwarded-host': 'b.example', 'x-forwarded-proto': 'https' }
  t.match((await app.inject({ url: '/docs/rooms/json', headers })).json(), { servers: { default: { host: 'b.example', protocol: 'wss' } }, channels: { topic: { address: '/{topic}' } } })
  const page = await html(app, '/docs/rooms', headers)
  t.match(page, 'wss://b.example/example')
  t.match(page, 'href="rooms/json"')
})

t.test('a router that ignores trailing slashes has the routes once', async t => {
  for (const options of [{ ignoreTrailingSlash: true }, { routerOptions: { ignoreTrailingSlash: true } }]) {
    const app = createApp(t, options)
    await app.register(fastifyRooms as any, { prefix: '/rooms', asyncapi: {} })
    t.match(await html(app, '/rooms/asyncapi/'), 'href="json"')
    t.match(await html(app), 'href="asyncapi/json"')
  }
})

t.test('a route of the host, or a topic, with the path of the document is an error', async t => {
  const app = createApp(t)
  app.get('/rooms/docs/yaml', async () => '')
  await t.rejects(async () => { await app.register(fastifyRooms as any, { prefix: '/rooms', asyncapi: { routePrefix: '/docs' } }) }, { code: 'FST_ROOMS_ROUTE_TAKEN', message: /GET \/rooms\/docs\/yaml/ })
  await t.rejects(createRooms(t, { topics: { asyncapi: {} }, asyncapi: true } as never), { code: 'FST_ROOMS_ROUTE_TAKEN', message: /GET \/rooms\/asyncapi/ })
})

t.test('hooks guard the routes, transform changes what a client sees, and OpenAPI does not show them', async t => {
  const app = createApp(t)
  const order: string[] = []
  await app.register(fastifySwagger, {})
  await app.register(fastifyRooms as any, {
    prefix: '/rooms',
    topics: { news: { message: { type: 'string' } }, admins: { publish: true } },
    asyncapi: {
      servers: { live: { host: 'live.example', protocol: 'wss', pathname: '/base/' } },
      hooks: {
        onRequest: [async () => { order.push('onRequest') }, async ({ headers }: any) => { if (headers.authorization === undefined) throw Object.assign(new Error('who are you?'), { statusCode: 401 }) }],
        preHandler: async () => { order.push('preHandler') }
      },
      async transform (document: AsyncApiDocument, { headers }: any) {
        order.push('transform')
        switch (headers.authorization) {
          case 'ann': return
          case 'other': return { ...document, info: { title: 'Another', version: '9' } }
          case 'null': return null
          case 'text': return 'a document'
          case 'throw': throw Object.assign(new Error('not you'), { statusCode: 403 })
        }
        delete document.channels['admins']
        for (const name of Object.keys(document.operations)) if (name.startsWith('admins.')) delete document.operations[name]
      }
    }
  })
  const get = async (path: string, authorization?: string) => app.inject({ url: `/rooms/asyncapi${path}`, headers: authorization === undefined ? {} : { authorization } })
  for (const path of ['', '/', '/json', '/yaml']) t.equal((await get(path)).statusCode, 401)
  order.length = 0
  t.same(Object.keys((await get('/json', 'ann')).json().channels), ['news', 'admins', 'rooms'])
  t.same(order, ['onRequest', 'preHandler', 'transform'])
  t.match((await get('/json', 'ann')).json().servers, { live: { host: 'live.example' } })
  t.same(Object.keys((await get('/json', 'bob')).json().channels), ['news', 'rooms'])
  t.same(Object.keys(yaml.load((await get('/yaml', 'bob')).body) as object).length, 7)
  const page = (await get('', 'bob')).body
  t.notMatch(page, 'admins')
  t.match(page, 'wss://live.example/base/rooms/news')
  t.match((await get('', 'ann')).body, 'admins')
  t.match((await get('/json', 'other')).json(), { info: { title: 'Another', version: '9' } })
  t.match((await get('/json', 'null')).json(), { statusCode: 500, code: 'FST_ROOMS_INVALID_OPTION', message: /"asyncapi.transform" takes a function that returns a document, or nothing; got null/ })
  t.match((await get('/json', 'text')).json(), { statusCode: 500, message: /got string/ })
  t.match((await get('/json', 'throw')).json(), { statusCode: 403, message: 'not you' })
  t.same(Object.keys(app.rooms.asyncapi().channels), ['news', 'admins', 'rooms'], 'transform is for requests')
  await app.ready()
  t.same(Object.keys((app.swagger() as { paths: object }).paths), ['/rooms/news', '/rooms/admins'])
})

t.test('the page escapes all texts of the host', async t => {
  const evil = '</style><script>alert(1)</script>" onload=\'x\' `<b>`'
  const app = await createRooms(t, {
    topics: { news: { message: { type: 'object', title: evil, description: evil, required: [evil], properties: { [evil]: { type: 'string', title: evil, description: evil, pattern: '<i>|.', default: evil }, b: { enum: [evil] }, c: { const: evil } }, patternProperties: { '^<u>': { type: 'string' } } }, publish: true } },
    asyncapi: { info: { title: evil, version: evil, description: evil }, transform: (document: AsyncApiDocument) => { document.channels[evil] = { ...document.channels['news']!, title: evil, description: evil, address: evil }; document.servers = { a: { host: evil, protocol: evil, pathname: evil } }; for (const operation of Object.values(document.operations)) operation.summary = evil } }
  } as never)
  const page = await html(app)
  t.ok(page.split('&lt;script&gt;alert(1)').length > 15)
  t.notMatch(page, /<script|<b>|<i>|<u>|" onload/)
  t.equal(page.split('</style>').length, 2)
})

t.test('the page shows any document that transform returns', async t => {
  let changed: unknown
  const app = await createRooms(t, { topics: { news: { publish: true } }, asyncapi: { transform: () => changed } } as never)
  const part = { title: 7, version: null, description: 7 }
  for (const document of [
    {}, { channels: { a: null, b: {}, c: { messages: 1 }, d: { messages: { x: null, y: { $ref: '#/a/b' }, z: { payload: 7, examples: [null] }, 'é%': { $ref: '#/%' } }, parameters: { p: 1 }, address: '/{p}/{q}' } }, operations: { a: null, b: {}, c: { channel: null, messages: 7 }, d: { channel: { $ref: '#/channels/d' }, messages: [null, { $ref: 7 }, { $ref: '#/channels/d/messages/z' }], reply: { messages: [{}] } } } },
    { info: { description: ' ' }, channels: { a: { description: '', messages: { x: { payload: { $ref: '#/loop' } } } } }, loop: { allOf: [{ $ref: '#/loop' }, { type: 'string' }] } },
    { channels: { a: { messages: { x: { payload: {} } } } }, operations: { b: { channel: { $ref: '#/channels/a' }, messages: [{ $ref: '#/channels/a/messages/x' }], reply: { messages: [{ $ref: '#/channels/a/messages/x' }] } }, c: { channel: { $ref: '#/channels/a' }, messages: [{ $ref: '#/channels/a/messages/x' }] } } },
    { info: part, components: { messages: { hello: {}, x: 1 } }, channels: { a: { messages: { hello: { $ref: '#/components/messages/hello' }, publish: { $ref: '#/components/messages/text' } } } } },
    { channels: { a: { messages: { x: { payload: { $ref: '#/s' } } } } }, s: { type: 'object', properties: { self: { $ref: '#/s' }, list: { type: 'array', items: { $ref: '#/s' } }, text: { $ref: '#/lost/place' } } } }
  ]) {
    changed = document
    const response = await app.inject('/rooms/asyncapi')
    t.equal(response.statusCode, 200, response.body.slice(0, 300))
    t.match(response.body, '<h2 id="close-codes">')
    t.match(await app.inject('/rooms/asyncapi/yaml'), { statusCode: 200 })
  }
})

t.test('the page describes schemas of every kind', async t => {
  const members = Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`m${index}`, { type: 'string' }]))
  const deep = (levels: number): object => ({ type: 'object', properties: { [`level${levels}`]: levels === 0 ? {} : deep(levels - 1) } })
  const app = await createRooms(t, {
    topics: {
      kinds: {
        message: {
          anyOf: [
            { type: 'object', required: ['kind'], properties: { kind: { const: 'a' }, tuple: { type: 'array', items: [{ type: 'string' }, { type: 'number', minimum: 3 }], additionalItems: false } } },
            { type: 'object', required: ['kind'], properties: { kind: { enum: ['b', 'c'] }, map: { type: 'object', additionalProperties: { type: 'number' } }, pattern: { type: 'object', patternProperties: { '^x': { type: ['string', 'null'] } } }, list: { type: 'array', items: { anyOf: [{ type: 'string' }, { type: 'number' }] }, uniqueItems: true, maxItems: 7 }, lines: { type: 'array', items: { type: 'string', description: 'one line' } }, grid: { type: 'array', items: { type: 'array', items: { type: 'integer' } } }, any: {}, bare: { properties: { x: {} } } } }
          ]
        }
      },
      tree: { message: { $id: 'tree', type: 'object', properties: { kids: { type: 'array', items: { $ref: '#' } }, next: { $ref: '#', description: 'the next one' } } } },
      never: { message: { type: 'object', properties: { a: false } } },
      impossible: { message: { not: {} } },
      wide: { message: { type: 'object', properties: members } },
      deep: { message: deep(12) }
    },
    asyncapi: true
  } as never)
  const page = await html(app)
  const row = (path: string): string => new RegExp(`<tr><th scope="row"><code>${path.replace(/[()[\]*.^/]/g, '\\$&')}</code></th>(.*)</tr>`).exec(page)?.[1]?.replace(/(?:<[^>]*>)+/g, '|') ?? 'none'
  t.equal(row('data'), '|one of|required|')
  t.equal(row('data (1).kind'), '|&quot;a&quot;|required|')
  t.equal(row('data (1).tuple[1]'), '|number|from |3|')
  t.equal(row('data (2).kind'), '|&quot;b&quot; | &quot;c&quot;|required|')
  t.equal(row('data (2).map.*'), '|number|')
  t.equal(row('data (2).pattern./^x/'), '|string | null|')
  t.equal(row('data (2).list'), '|array|items up to |7|, without duplicates: |true|')
  t.equal(row('data (2).list[] (2)'), '|number|')
  t.equal(row('data (2).lines[]'), '|string|one line|')
  t.equal(row('data (2).grid'), '|array of array of integer|')
  t.equal(row('data (2).grid[]'), 'none')
  t.equal(row('data (2).any'), '|any|')
  t.equal(row('data (2).bare'), '|object|')
  t.equal(row('data.kids'), '|array of object|')
  t.equal(row('data.kids[]'), '|object|as above|')
  t.equal(row('data.next'), '|object|the next one; as above|')
  t.equal(row('data.a'), '|never|')
  t.match(page, 'and more: see the document')
  t.match(page, '<code>data.level12.level11.level10')
  t.notMatch(page, 'level2.level1')
  t.notMatch(page.split('id="topic-impossible"')[1]!.split('</details>')[0], 'Example:', 'without an example if none is found')
})

t.test('the page is readable under its own policy: wide and narrow, light and dark, by keyboard', async t => {
  const browser = await launch(t)
  if (browser === undefined) return
  const app = await createRooms(t, { ...everything, asyncapi: { info: { title: 'Example', description: 'All topics.' } } } as never)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const url = `${app.listeningOrigin}/rooms/asyncapi`
  for (const options of [{ viewport: { width: 1280, height: 800 } }, { viewport: { width: 360, height: 740 }, colorScheme: 'dark' as const }]) {
    const context = await browser.newContext(options)
    context.setDefaultTimeout(patience)
    const page = await context.newPage()
    const heard: string[] = []
    page.on('console', message => { heard.push(message.text()) })
    page.on('request', request => { if (request.url() !== url && !request.url().endsWith('/favicon.ico')) heard.push(request.url()) })
    await page.goto(url)
    t.same(heard.filter(text => !text.includes('favicon')), [], 'nothing is refused by the policy, nothing else is loaded')
    const seen = await page.evaluate(`(() => {
      const parts = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
      const light = colour => parts(colour).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0)
      const behind = node => { for (; node !== null; node = node.parentElement) { const { backgroundColor } = getComputedStyle(node); if (!backgroundColor.endsWith(', 0)')) return backgroundColor } }
      const faint = [...document.body.querySelectorAll('*')].filter(node => node.checkVisibility() && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim() !== '')).filter(node => {
        const [low, high] = [light(getComputedStyle(node).color), light(behind(node))].sort((one, other) => one - other)
        return (high + 0.05) / (low + 0.05) < 4.5
      }).map(node => node.outerHTML.slice(0, 80))
      const levels = [...document.querySelectorAll('h1, h2, h3')].map(({ tagName }) => Number(tagName[1]))
      return {
        wide: document.documentElement.scrollWidth > innerWidth,
        clipped: [...document.querySelectorAll('table, pre')].filter(node => node.checkVisibility() && node.scrollWidth > node.clientWidth + 1).length,
        faint,
        skipped: levels.filter((level, index) => level > (levels[index - 1] ?? 0) + 1),
        background: getComputedStyle(document.body).backgroundColor,
        targets: [...document.querySelectorAll('nav a')].filter(({ hash }) => document.getElementById(decodeURIComponent(hash.slice(1))) === null).length,
        links: document.querySelectorAll('nav a').length
      }
    })()`) as Record<string, unknown>
    t.same(seen, { wide: false, clipped: 0, faint: [], skipped: [], background: 'colorScheme' in options ? 'rgb(20, 24, 29)' : 'rgb(255, 255, 255)', targets: 0, links: 10 })
    await page.keyboard.press('Tab')
    t.equal(await page.evaluate('document.activeElement.textContent'), 'Skip to the topics')
    await page.keyboard.press('Enter')
    await page.locator('summary', { hasText: 'A private message to this member' }).first().focus()
    await page.keyboard.press('Enter')
    await page.locator('details[open] summary', { hasText: 'A private message to this member' }).waitFor()
    await context.close()
  }
})
