import Fastify, { type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import * as zod from 'zod'
import fastifyRooms from '../../lib/index.ts'
import { hostAjv } from '../../lib/routes/host-ajv.ts'
import { createApp } from '../helpers/app.ts'

const string = { type: 'string' }

/** Registers one topic in an app with these settings; returns its answers to payloads, in code and over HTTP. */
async function topic (t: Test, ajv: FastifyServerOptions['ajv'], message: object, prepare = (_app: ReturnType<typeof createApp>): void => {}) {
  const app = createApp(t, ajv === undefined ? {} : { ajv })
  prepare(app)
  await app.register(fastifyRooms as any, { prefix: '/rooms', authorize: () => true, topics: { news: { message, post: true } } })
  return async (payload: unknown): Promise<string> => {
    const code = await app.rooms.broadcast('news', payload).then(() => 'taken', error => error.details.map(({ path, message }: any) => `${path} ${message}`).join('; '))
    const response = await app.inject({ method: 'POST', url: '/rooms/news', headers: { 'content-type': 'application/json' }, payload: JSON.stringify(payload) })
    t.equal(response.statusCode, code === 'taken' ? 200 : 400, 'the route refuses the same as code')
    return code
  }
}

const even = { type: 'number' as const, validate: (value: number) => value % 2 === 0 }
/** A plugin for Ajv as a host has it, such as ajv-keywords. */
function odd (ajv: any, name = 'odd'): any {
  return ajv.addKeyword({ keyword: name, type: 'number', schemaType: 'boolean', validate: (_: boolean, value: number) => value % 2 === 1 })
}

t.test('Fastify\'s own formats apply to topics (issue 8)', async t => {
  const ask = await topic(t, undefined, { type: 'object', properties: { at: { format: 'date-time' }, mail: { format: 'email' }, id: { format: 'uuid' } } })
  t.equal(await ask({ at: '2026-11-27T08:00:00Z', mail: 'a@example.com', id: '6ba7b810-9dad-11d1-80b4-00c04fd430c8' }), 'taken')
  t.equal(await ask({ at: 'today' }), '/at must match format "date-time"')
  t.equal(await ask({ mail: 'a' }), '/mail must match format "email"')
  t.equal(await ask({ id: '1' }), '/id must match format "uuid"')
})

t.test('formats, keywords and plugins of the host apply to topics (issue 8)', async t => {
  const n = await topic(t, { customOptions: { formats: { even }, keywords: ['x-note'] }, plugins: [odd as any, [odd, 'uneven']], onCreate (ajv: any) { ajv.addFormat('big', { type: 'number', validate: (value: number) => value > 100 }) } } as any,
    { type: 'object', properties: { a: { type: 'number', format: 'even', 'x-note': 'x' }, b: { odd: true }, c: { uneven: true }, d: { format: 'big' }, e: { format: 'date' } } })
  t.equal(await n({ a: 2, b: 1, c: 1, d: 101, e: '2026-11-27' }), 'taken')
  t.equal(await n({ a: 1 }), '/a must match format "even"')
  t.equal(await n({ b: 2 }), '/b must pass "odd" keyword validation')
  t.equal(await n({ c: 2 }), '/c must pass "uneven" keyword validation')
  t.equal(await n({ d: 2 }), '/d must match format "big"')
  t.equal(await n({ e: 'x' }), '/e must match format "date"')
})

t.test('options of the host that change values or strictness apply to its own routes only (issue 8)', async t => {
  const loose = { coerceTypes: true, useDefaults: true, removeAdditional: 'all', strict: false, strictSchema: false, validateFormats: false, ignoreKeywordsWithRef: true }
  const settings: [string, any][] = [
    ['in customOptions', { customOptions: { ...loose, logger: false } }],
    ['in onCreate', { onCreate (ajv: any) { Object.assign(ajv.opts, loose) } }]
  ]
  for (const [name, ajv] of settings) {
    t.test(name, async t => {
      const ask = await topic(t, ajv, { type: 'object', properties: { n: { type: 'number' }, s: { type: 'string', default: 'x' }, r: { $ref: '#/definitions/one', maxLength: 2 }, at: { format: 'date' } }, definitions: { one: string } })
      t.equal(await ask({ n: 1, r: 'ab' }), 'taken')
      t.equal(await ask({ n: '1' }), '/n must be number')
      t.equal(await ask({ n: 1, x: 1 }), ' must NOT have additional properties ("x")')
      t.equal(await ask({ r: 'abc' }), '/r must NOT have more than 2 characters')
      t.equal(await ask({ at: 'x' }), '/at must match format "date"')
      await t.rejects(topic(t, ajv, { type: 'string', maxLenght: 1 }), { code: 'FST_ROOMS_INVALID_SCHEMA', message: /maxLenght/ })
      await t.rejects(topic(t, ajv, { type: 'string', format: 'nonsense' }), { code: 'FST_ROOMS_INVALID_SCHEMA', message: /nonsense/ })
    })
  }
})

t.test('a keyword that may change the validated value is refused in a topic (issue 8)', async t => {
  const plugins = [(ajv: any) => ajv.addKeyword({ keyword: 'trim', modifying: true, validate: () => true })]
  await t.rejects(topic(t, { plugins } as any, { type: 'string', trim: true }), { code: 'FST_ROOMS_INVALID_SCHEMA', message: /unknown keyword: "trim"/ })
})

t.test('a host with allErrors gets at most 20 errors of a payload (issue 8)', async t => {
  const app = createApp(t, { ajv: { customOptions: { allErrors: true } } })
  await app.register(fastifyRooms as any, { topics: { news: { message: { type: 'array', items: string } } } })
  const error: any = await app.rooms.broadcast('news', Array(1_000).fill(1)).catch(error => error)
  t.equal(error.details.length, 20)
  t.same(error.details[19], { path: '/19', message: 'must be string' })
})

t.test('a validator compiler of the host, and JTD for its routes, do not affect topics (issue 8)', async t => {
  for (const [ajv, prepare] of [
    [{ customOptions: { formats: { even } } }, (app: any) => { app.setValidatorCompiler(() => () => true) }],
    [{ mode: 'JTD', customOptions: {} }, () => {}]
  ] as any[]) {
    const ask = await topic(t, ajv, { type: 'number' }, prepare)
    t.equal(await ask(1), 'taken')
    t.equal(await ask('1'), ' must be number')
  }
})

t.test('the host\'s settings are found from an inner scope, and may be absent (issue 8)', async t => {
  const app = Fastify({ ajv: { customOptions: { formats: { even } } } })
  t.teardown(() => app.close())
  t.match(hostAjv(app), { customOptions: { formats: { even } }, plugins: [] })
  await app.register(async scope => { t.match(hostAjv(scope), { customOptions: { formats: { even } } }) })
  for (const other of [{}, Object.create(null), { [Symbol('fastify.options')]: undefined }, { [Symbol('fastify.options')]: {} }, { [Symbol('fastify.options')]: { ajv: {} } }]) t.same(hostAjv(other), {})
})

/** The error of registration for a schema. */
async function fault (t: Test, message: unknown): Promise<string> {
  return topic(t, undefined, message as object).then(() => 'none', error => `${error.code} ${error.message}`)
}

t.test('a validator object is refused with a hint to its JSON Schema, by its library (issue 8)', async t => {
  const standard = (vendor: string): object => ({ '~standard': { version: 1, vendor, validate: () => ({ value: 1 }) } })
  t.match(await fault(t, zod.string()), /^FST_ROOMS_INVALID_SCHEMA .* z\.toJSONSchema\(schema, { target: "draft-7" }\)$/)
  t.match(await fault(t, standard('valibot')), /toJsonSchema\(schema\) of @valibot\/to-json-schema$/)
  // ArkType schemas are functions.
  t.match(await fault(t, Object.assign(() => {}, standard('arktype'))), /^FST_ROOMS_INVALID_SCHEMA .* schema\.toJsonSchema\({ target: "draft-07" }\)$/)
  t.match(await fault(t, standard('constructor')), /z\.toJSONSchema/)
  t.match(await fault(t, () => {}), /^FST_ROOMS_INVALID_OPTION option "topics\.news\.message" takes a JSON Schema object; got a function$/)
})

t.test('a schema of a newer draft is accepted if it means the same in draft-7, else the error names the draft (issue 8)', async t => {
  const flat = zod.object({ a: zod.string(), at: zod.iso.datetime() })
  const ask = await topic(t, undefined, zod.toJSONSchema(flat))
  t.equal(await ask({ a: 'x', at: '2026-11-27T08:00:00Z' }), 'taken')
  t.equal(await ask({ a: 1, at: '2026-11-27T08:00:00Z' }), '/a must be string')
  t.equal(await fault(t, { $schema: 'https://json-schema.org/draft/2019-09/schema#', type: 'string' }), 'none')
  t.match(await fault(t, zod.toJSONSchema(zod.tuple([zod.string()]))), /prefixItems.*"\$schema" is ".*2020-12.*".*draft-7.*z\.toJSONSchema\(schema, { target: "draft-7" }\)/)
  t.equal(await fault(t, zod.toJSONSchema(zod.tuple([zod.string()]), { target: 'draft-7' })), 'none')
  t.match(await fault(t, zod.toJSONSchema(zod.string(), { target: 'draft-4' })), /draft-04.*topics take draft-7/)
  t.notMatch(await fault(t, { $schema: 'http://json-schema.org/draft-07/schema#', typ: 'string' }), /topics take draft-7/)
  t.match(await fault(t, { $schema: 7, type: 'string' }), /topics take draft-7/)
})
