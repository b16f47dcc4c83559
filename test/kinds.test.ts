import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import * as Type1 from 'typebox'
import * as zod from 'zod'
import { payloadCompiler, schemaCompiler, type PayloadType } from '../lib/topics/payload.ts'
import { tellKindsApart } from '../lib/schema/kinds.ts'
import { createRooms, join, listen } from './helpers/app.ts'

const string = { type: 'string' }
const object = (properties: object, required: string[] = Object.keys(properties)): object => ({ type: 'object', properties, required })
const text = object({ kind: { const: 'text' }, text: string })
const typing = object({ kind: { const: 'typing' }, on: { type: 'boolean' } })

function compile (schema: object, shared: Record<string, object> = {}): PayloadType {
  return payloadCompiler(schemaCompiler(shared), shared)(schema)
}

/** The details of a refused payload. */
function details (type: PayloadType, payload: unknown): string[] {
  try {
    type.check(payload)
  } catch (error) {
    return (error as { details: { path: string, message: string }[] }).details.map(({ path, message }) => `${path} ${message}`.trim())
  }
  return []
}

/** One detail for each fault: a wrong kind lists the allowed kinds, a missing kind is named, and for a known kind only its own faults are listed. */
function namesOneFault (t: Test, type: PayloadType, at = '', wrap = (payload: unknown): unknown => payload): void {
  const told = (payload: unknown): string[] => details(type, wrap(payload))
  t.same(told({ kind: 'text', text: 'x' }), [])
  t.same(told({ kind: 'typing', on: true }), [])
  t.same(told({ kind: 'txt', text: 'x' }), [`${at}/kind must be equal to one of the allowed values ("text", "typing")`])
  t.same(told({ text: 'x' }), [`${at} must have required property 'kind'`.trim()])
  t.same(told({ kind: 'text', text: 1 }), [`${at}/text must be string`])
  t.same(told({ kind: 'typing' }), [`${at} must have required property 'on'`.trim()])
  t.same(told({ kind: 'typing', on: true, text: 'x' }), [`${at} must NOT have additional properties ("text")`.trim()])
  t.same(told('text'), [`${at} must be object`.trim()])
}

t.test('a fault in one kind of message gives one detail, with any schema builder (issue 8)', async t => {
  const unions: [string, object][] = [
    ['@sinclair/typebox', Type.Union([Type.Object({ kind: Type.Literal('text'), text: Type.String() }), Type.Object({ kind: Type.Literal('typing'), on: Type.Boolean() })])],
    ['typebox', Type1.Union([Type1.Object({ kind: Type1.Literal('text'), text: Type1.String() }), Type1.Object({ kind: Type1.Literal('typing'), on: Type1.Boolean() })])],
    ['Zod, discriminatedUnion', zod.toJSONSchema(zod.discriminatedUnion('kind', [zod.object({ kind: zod.literal('text'), text: zod.string() }), zod.object({ kind: zod.literal('typing'), on: zod.boolean() })]), { target: 'draft-7' })],
    ['Zod, union', zod.toJSONSchema(zod.union([zod.object({ kind: zod.literal('text'), text: zod.string() }), zod.object({ kind: zod.literal('typing'), on: zod.boolean() })]), { target: 'draft-7' })],
    ['anyOf', { anyOf: [text, typing] }],
    ['oneOf', { oneOf: [text, typing] }],
    ['a type beside it', { type: 'object', oneOf: [{ ...text, type: undefined }, { ...typing, type: undefined }] }],
    ['enum', { anyOf: [object({ kind: { enum: ['text'] }, text: string }), typing] }],
    ['parts', { anyOf: [{ allOf: [object({ kind: { const: 'text' } }), object({ text: string })] }, typing] }],
    ['references', { anyOf: [{ $ref: '#/definitions/text' }, { $ref: '#/definitions/typing' }], definitions: { text, typing } }],
  ]
  for (const [name, schema] of unions) {
    t.test(name, async t => {
      const before = JSON.stringify(schema)
      namesOneFault(t, compile(schema))
      namesOneFault(t, compile(object({ list: { type: 'array', items: JSON.parse(before.replaceAll('#/', '#/properties/list/items/')) } })), '/list/0', payload => ({ list: [payload] }))
      t.equal(JSON.stringify(schema), before, 'the plugin does not change the given schema')
    })
  }
})

t.test('unions in unions are discriminated by the kinds of both (issue 8)', async t => {
  const type = compile({ anyOf: [text, { oneOf: [typing, object({ kind: { const: 'left' } })] }] })
  t.same(details(type, { kind: 'left' }), [])
  t.same(details(type, { kind: 'gone' }), ['/kind must be equal to one of the allowed values ("text", "typing", "left")'])
  t.same(details(type, { kind: 'typing', on: 1 }), ['/on must be boolean'])
})

t.test('kinds are found in shared schemas and by their $id (issue 8)', async t => {
  const shared = { Text: { $id: 'Text', ...text, additionalProperties: false }, Typing: { $id: 'Typing', ...typing, additionalProperties: false } }
  namesOneFault(t, compile({ anyOf: [{ $ref: 'Text#' }, { $ref: 'Typing' }] }, shared))
  namesOneFault(t, compile({ anyOf: [{ $ref: 'A' }, { $ref: 'B' }], $defs: { a: { $id: 'A', ...text }, b: { $id: 'B', ...typing } } }))
})

t.test('kinds may be numbers and booleans, several in a branch, and stand beside other literals (issue 8)', async t => {
  const versions = compile({ anyOf: [object({ v: { enum: [1, 2] }, a: string }), object({ v: { const: 3 }, a: { type: 'number' } }), object({ v: { const: true } })] })
  t.same(details(versions, { v: 4 }), ['/v must be equal to one of the allowed values (1, 2, 3, true)'])
  t.same(details(versions, { v: '1', a: 'x' }), ['/v must be equal to one of the allowed values (1, 2, 3, true)'])
  t.same(details(versions, { v: 3, a: 'x' }), ['/a must be number'])
  const second = compile({ anyOf: [object({ app: { const: 'x' }, kind: { const: 'a' } }), object({ app: { const: 'x' }, kind: { const: 'b' }, n: { type: 'number' } })] })
  t.same(details(second, { app: 'x', kind: 'b', n: 'x' }), ['/n must be number'])
  const inner = compile({ anyOf: [object({ kind: { anyOf: [{ const: 'a' }, { const: 'b' }] } }), object({ kind: { const: 'c' } })] })
  t.same(details(inner, { kind: 'd' }), ['/kind must be equal to one of the allowed values ("a", "b", "c")'])
  const odd = compile({ anyOf: [object({ kind: { const: 'constructor' } }), object({ kind: { const: '' } })] })
  t.same(details(odd, { kind: '' }), [])
  t.same(details(odd, { kind: 'toString' }), ['/kind must be equal to one of the allowed values ("constructor", "")'])
})

t.test('a value outside a union of literals gives one detail, with the allowed values (issue 8)', async t => {
  const words = compile(object({ level: { anyOf: [{ const: 'low', type: 'string' }, { const: 'high' }, { enum: ['off', null] }] } }))
  for (const level of ['low', 'high', 'off', null]) t.same(details(words, { level }), [])
  t.same(details(words, { level: 'mid' }), ['/level must be equal to one of the allowed values ("low", "high", "off", null)'])
  const long = compile({ enum: Array.from({ length: 100 }, (_, index) => `word ${index}`) })
  t.match(details(long, 'x'), [/^must be equal to one of the allowed values \("word 0", .{230,256}…\)$/])
  t.same(details(compile({ const: 'x' }), 'y'), ['must be equal to constant ("x")'])
})

t.test('schemas whose kinds are not certain keep the details of Ajv (issue 8)', async t => {
  const left: object[] = [
    { anyOf: [text, { type: 'null' }] },
    { anyOf: [text, true] },
    { anyOf: [text] },
    { anyOf: [text, text] },
    { anyOf: [text, object({ kind: string })] },
    { anyOf: [text, object({ kind: { const: 'typing' } }, [])] },
    { anyOf: [{ ...text, type: undefined }, typing] },
    { anyOf: [{ ...text, nullable: true }, typing] },
    { anyOf: [object({ kind: { const: { a: 1 } } }), object({ kind: { const: { a: 2 } } })] },
    { anyOf: [{ const: 'a', enum: ['b'] }, { const: 'c' }] },
    { anyOf: [{ const: 1, type: 'integer' }, { const: 'c' }] },
    { anyOf: [{ const: 1, type: 'string' }, { const: 'c' }] },
    { anyOf: [{ const: 'a', minLength: 1 }, { const: 'c' }] },
    { oneOf: [{ enum: ['a', 'b'] }, { enum: ['b', 'c'] }] },
    { oneOf: [text, typing], discriminator: { propertyName: 'kind' } },
    { anyOf: [text, typing], allOf: 'nonsense' },
    { anyOf: [text, typing], properties: { again: { $ref: '#/anyOf/0' } } },
    { anyOf: [{ $ref: '#' }, { $ref: '#/definitions/nothing' }] }
  ]
  for (const schema of left) t.same(tellKindsApart(schema as never, {}), schema, JSON.stringify(schema))
})

t.test('`discriminator` in a schema of the host works as in Ajv (issue 8)', async t => {
  const type = compile({ type: 'object', discriminator: { propertyName: 'kind' }, oneOf: [text, typing] })
  t.same(details(type, { kind: 'text', text: 'x' }), [])
  t.same(details(type, { kind: 'typing', on: 1 }), ['/on must be boolean'])
  t.same(details(type, { kind: 'x' }), ['value of tag "kind" must be in oneOf'])
  t.throws(() => compile({ type: 'object', discriminator: { propertyName: 'kind' }, oneOf: [text, object({ on: string })] }), /discriminator/)
})

t.test('a failed condition is not listed beside the fault inside it (issue 8)', async t => {
  const inUnion = compile({ anyOf: [{ type: 'object', properties: { a: string }, if: { required: ['a'] }, then: { minProperties: 2 } }] })
  t.same(details(inUnion, { a: '1' }), ['must NOT have fewer than 2 properties', 'must match a schema in anyOf'])
})

t.test('code, the broadcast route and members get the same single detail (issue 8)', async t => {
  const app = await createRooms(t, { authorize: () => true, topics: { chat: { message: { anyOf: [text, typing] }, publish: true, post: true } } })
  const url = await listen(app)
  const member = await join(t, `${url}/rooms/chat`)
  const message = '/kind must be equal to one of the allowed values ("text", "typing")'
  const fault = { path: '/kind', message: message.slice('/kind '.length) }
  await t.rejects(app.rooms.broadcast('chat', { kind: 'txt' }), { message: `invalid payload: ${message}`, details: [fault] })
  const response = await app.inject({ method: 'POST', url: '/rooms/chat', headers: { 'content-type': 'application/json' }, payload: '{"kind":"txt"}' })
  t.match(response.json(), { code: 'FST_ERR_VALIDATION', message: `body${message}` })
  const ack = await member.ask({ type: 'message', data: { kind: 'txt' } })
  t.match(ack, { ok: false, error: { code: 'FST_ROOMS_INVALID_PAYLOAD', details: [fault] } })
})

t.test('a thousand kinds are discriminated, and a host with allErrors gets one detail for a wrong kind (issue 8)', async t => {
  const many = { anyOf: Array.from({ length: 1_000 }, (_, index) => object({ kind: { const: `k${index}` } })) }
  t.same(details(compile(many), { kind: 'k999' }), [])
  t.match(details(compile(many), { kind: 'k1000' }), [/^\/kind must be equal to one of the allowed values \("k0", /])
  const all = payloadCompiler(schemaCompiler({}, { customOptions: { allErrors: true } }), {})({ anyOf: [text, typing] })
  t.same(details(all, { kind: 'txt' }), ['/kind must be equal to one of the allowed values ("text", "typing")'])
  t.same(details(all, { kind: 'typing', on: 1, x: 1 }).sort(), ['/on must be boolean', 'must NOT have additional properties ("x")'])
})
