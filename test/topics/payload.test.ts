import { Type } from '@sinclair/typebox'
import t from 'tap'
import * as zod from 'zod'
import { errorCodes } from '../../lib/index.ts'
import { asError, isClientError, wireError } from '../../lib/error-utils.ts'
import { PayloadType, anyPayload, payloadCompiler, schemaCompiler, toJson } from '../../lib/topics/payload.ts'
import { schemaFault } from '../../lib/schema/fault.ts'

function compilerWith (shared: Record<string, object> = {}) {
  return payloadCompiler(schemaCompiler(shared), shared)
}

t.test('a valid payload is serialized unchanged', async t => {
  const type = compilerWith()(Type.Object({ a: Type.Optional(Type.String({ default: 'x' })), n: Type.Number() }))
  t.equal(type.serialise({ n: 3 }), '{"n":3}', 'no defaults are filled in')
  t.equal(type.serialise({ n: 3, a: 'é' }), '{"n":3,"a":"é"}')
})

t.test('a refused payload gets the place and the reason', async t => {
  const type = compilerWith()(Type.Object({ list: Type.Array(Type.Object({ n: Type.Number() })) }))
  t.throws(() => type.check({ list: [{ n: '3' }] }), {
    code: 'FST_ROOMS_INVALID_PAYLOAD',
    statusCode: 400,
    message: 'invalid payload: /list/0/n must be number',
    details: [{ path: '/list/0/n', message: 'must be number' }]
  })
  t.throws(() => type.check([]), { message: 'invalid payload: must be object', details: [{ path: '', message: 'must be object' }] })
})

t.test('an undeclared property is named, truncated if it is long', async t => {
  const type = compilerWith()(Type.Object({}))
  t.throws(() => type.check({ nme: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '', message: 'must NOT have additional properties ("nme")' }] })
  t.throws(() => type.check({ ['x'.repeat(500)]: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ message: `must NOT have additional properties ("${'x'.repeat(64)}")` }] })
})

t.test('a validator without details still refuses', async t => {
  const mute = new PayloadType({}, () => false)
  t.throws(() => mute.check(1), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: refused by its schema', details: [] })
  const terse = new PayloadType({}, Object.assign(() => false, { errors: [{ instancePath: '/a', params: {} }] }))
  t.throws(() => terse.check(1), { message: 'invalid payload: /a is invalid' })
})

t.test('without a schema any JSON is accepted, and nothing else', async t => {
  t.equal(anyPayload.schema, null)
  t.equal(anyPayload.validate, null)
  for (const payload of [null, 0, '', false, [], {}, { a: [1] }]) t.equal(anyPayload.serialise(payload), JSON.stringify(payload))
  const circle: Record<string, unknown> = {}
  circle.circle = circle
  for (const payload of [undefined, () => {}, Symbol('x')]) t.throws(() => toJson(payload), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: `invalid payload: ${typeof payload} is not a JSON value` })
  const cause = new Error('toJSON failed')
  t.throws(() => toJson({ toJSON () { throw cause } }), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: it cannot be serialised as JSON', cause })
  for (const payload of [1n, circle]) t.throws(() => toJson(payload), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
})

t.test('the compiled schema is closed, and the given one is not changed', async t => {
  const schema = { type: 'object', properties: { a: { type: 'string' } } }
  const type = compilerWith()(schema)
  t.same(type.schema, { ...schema, additionalProperties: false })
  t.notOk('additionalProperties' in schema)
  t.equal(type.validate!({ a: '1' }), true)
})

t.test('mistakes in a schema are found: unknown keywords and formats', async t => {
  t.throws(() => compilerWith()({ type: 'string', maxLenght: 3 }), /maxLenght/)
  t.throws(() => compilerWith()({ type: 'string', format: 'no-such-format' }), /no-such-format/)
  t.equal(compilerWith()({ type: 'string', format: 'date-time' }).validate!('2026-11-22T00:00:00Z'), true)
})

t.test('valid schemas are not refused for their form', async t => {
  const compile = compilerWith()
  compile({ properties: { a: {} }, required: ['a', 'b'], additionalProperties: true })
  compile({ type: ['string', 'null'] })
  t.equal(compile({ type: 'array', items: [{ type: 'string' }] }).validate!(['x']), true)
})

t.test('$ref reaches the shared schemas of the host, which stay as open as declared', async t => {
  const shared = { Stat: { $id: 'Stat', type: 'object', properties: { n: { type: 'number' } }, required: ['n'] } }
  const compile = compilerWith(shared)
  const type = compile({ type: 'object', properties: { stat: { $ref: 'Stat#' } } })
  t.doesNotThrow(() => type.check({ stat: { n: 1, x: 1 } }))
  t.throws(() => type.check({ stat: { n: '1' } }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.throws(() => type.check({ x: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.notOk('additionalProperties' in shared.Stat)

  const own = compile(shared.Stat)
  t.throws(() => own.check({ n: 1, x: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD' }, 'a topic with that schema is closed')
  t.doesNotThrow(() => type.check({ stat: { n: 1, x: 1 } }), 'and the shared one is not changed by it')
})

t.test('schemas with the same $id are compiled separately', async t => {
  const compile = compilerWith()
  const string = { $id: 'Thing', type: 'string' }
  const [one, same, other] = [compile(string), compile(string), compile({ $id: 'Thing', type: 'number' })]
  for (const type of [one, same]) {
    t.doesNotThrow(() => type.check('x'))
    t.throws(() => type.check(1))
  }
  t.doesNotThrow(() => other.check(1))
  t.throws(() => other.check('x'))
})

t.test('recursive schemas refer to themselves by their $id; an $id of another schema is refused', async t => {
  const node = (payload: string) => ({ $id: 'Node', type: 'object', properties: { v: { type: payload }, next: { $ref: 'Node' } } })
  const compile = compilerWith()
  const numbers = compile(node('number'))
  t.doesNotThrow(() => numbers.check({ v: 1, next: { v: 2, next: {} } }))
  t.throws(() => numbers.check({ next: { next: { v: 'x' } } }), { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '/next/next/v' }] })
  t.throws(() => numbers.check({ next: { next: { x: 1 } } }), { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [{ path: '/next/next' }] })
  t.throws(() => compile(node('string')), { message: 'it refers to itself as "Node", which is also the $id of another schema' })
  t.throws(() => compilerWith({ Node: node('number') })(node('string')), { message: /refers to itself/ })

  const [one, two] = ['number', 'string'].map(type => compile(Type.Recursive(self => Type.Object({ v: Type.Unsafe({ type }), kids: Type.Array(self) }))))
  t.doesNotThrow(() => one!.check({ v: 1, kids: [{ v: 1, kids: [] }] }))
  t.doesNotThrow(() => two!.check({ v: 'x', kids: [{ v: 'x', kids: [] }] }))
  t.throws(() => two!.check({ v: 'x', kids: [{ v: 1, kids: [] }] }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
})

t.test('validator objects and asynchronous schemas are not JSON Schemas', async t => {
  t.match(schemaFault(zod.object({ a: zod.string() })), /Zod/)
  t.match(schemaFault({ parse: () => {} }), /Standard\s+Schema/)
  t.match(schemaFault({ '~standard': {} }), /toJSONSchema/)
  t.match(schemaFault({ $async: true, type: 'string' }), /\$async/)
  t.equal(schemaFault({ type: 'object', properties: { parse: { type: 'string' } } }), null)
  t.equal(schemaFault({ $schema: 'http://json-schema.org/draft-07/schema#' }), null)
})

t.test('the advice of the hint for Zod works', async t => {
  const schema = zod.object({ a: zod.string() })
  t.match(schemaFault(schema), 'z.toJSONSchema(schema, { target: "draft-7" })')
  const given = zod.toJSONSchema(schema, { target: 'draft-7' })
  t.equal(schemaFault(given), null)
  const type = compilerWith()(given)
  t.doesNotThrow(() => type.check({ a: 'x' }))
  t.throws(() => type.check({ a: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
})

t.test('an error of a hook may be any value', async t => {
  const error = new TypeError('x')
  t.equal(asError(error), error)
  t.equal(asError('text').message, 'text')
  t.equal(asError(undefined).message, 'undefined')
  t.type(asError(Object.create(null)), Error, 'the value cannot be converted to text')
  t.type(asError({ toString () { throw new Error('no') } }), Error)
})

t.test('the peer gets the message only of errors with a status of 400 to 499', async t => {
  for (const statusCode of [400, 401, 499]) t.equal(isClientError(Object.assign(new Error('x'), { statusCode })), true)
  for (const statusCode of [399, 500, '400', undefined, NaN]) t.equal(isClientError(Object.assign(new Error('x'), { statusCode })), false)
})

t.test('the public part of an error contains no inner text, and can always be serialized', async t => {
  t.same(wireError(new Error('password=1')), { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' })
  t.same(wireError(Object.assign(new Error('inner'), { statusCode: 503, code: 'X' })), { code: 'FST_ROOMS_HANDLER_FAILED', message: 'the server failed on this message' })
  t.same(wireError(Object.assign(new Error('go away'), { statusCode: 403, code: 'BANNED' })), { code: 'BANNED', message: 'go away' })
  t.same(wireError(Object.assign(new Error('go away'), { statusCode: 403, code: 7 })), { code: 'FST_ROOMS_HANDLER_FAILED', message: 'go away' })
  const details = [{ path: '/a', message: 'must be string' }]
  t.same(wireError(Object.assign(new errorCodes.FST_ROOMS_INVALID_PAYLOAD('x'), { details })), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: x', details })
  for (const bad of [1n, 'text', null, [1n], [{ path: 1n, message: 'x' }], [{ path: '/a' }]]) {
    t.same(wireError(Object.assign(new Error('no'), { statusCode: 400, code: 'NO', details: bad })), { code: 'NO', message: 'no' }, 'details of another form are not sent')
  }
  t.equal(wireError(Object.assign(new Error('no'), { statusCode: 400, message: 1n })).message, '1')
})

t.test('a payload that is too deep for its recursive schema is refused, and is not a failure of the process', async t => {
  const type = compilerWith()(Type.Recursive(self => Type.Object({ next: Type.Optional(self) })))
  let payload = {}
  for (let depth = 0; depth < 100_000; depth++) payload = { next: payload }
  t.throws(() => type.check(payload), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: 'invalid payload: it is nested too deep' })
})

t.test('values that are not plain JSON are validated as they are sent, and refused payloads get the reason, with a compiled schema as well', async t => {
  const message = compilerWith()(Type.Object({ at: Type.String(), n: Type.Optional(Type.Number()) }))
  t.equal(message.serialise({ n: 1, at: 'x' }), '{"at":"x","n":1}')
  t.equal(message.serialise({ at: 'x', n: undefined }), '{"at":"x"}')
  class Event { at = 'x' }
  t.equal(message.serialise(new Event()), '{"at":"x"}')
  t.equal(message.serialise({ toJSON: () => ({ at: 'y' }) }), '{"at":"y"}')
  t.throws(() => message.serialise({ at: 'x', toJSON: () => ({ at: 1 }) }), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /at must be string/ })
  t.equal(message.serialise({ at: new Date(0) }), '{"at":"1970-01-01T00:00:00.000Z"}')
  t.throws(() => message.serialise({ at: 'x', more: 1 }), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /"more"/ })
  t.throws(() => message.serialise({ at: 'x', n: NaN }), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.throws(() => message.serialise(undefined), { code: 'FST_ROOMS_INVALID_PAYLOAD' })
  t.equal(message.stringify({ at: 'x' }), '{"at":"x"}')
  t.throws(() => message.stringify({ at: 'x', n: 'a hook did that' }), { code: 'FST_ROOMS_INVALID_PAYLOAD', message: /a hook/ })
})
