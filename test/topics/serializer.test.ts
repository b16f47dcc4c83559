import { Type } from '@sinclair/typebox'
import t from 'tap'
import { compileSerialiser } from '../../lib/topics/serializer.ts'

const closed = { additionalProperties: false }

t.test('a compiled serializer writes the same as JSON.stringify, except for the order of properties', async t => {
  const schema = Type.Object({
    n: Type.Number(),
    i: Type.Integer(),
    s: Type.String({ maxLength: 1_000 }),
    b: Type.Boolean(),
    o: Type.Optional(Type.Object({ deep: Type.Null() }, closed)),
    list: Type.Array(Type.Object({ x: Type.Number() }, closed)),
    kind: Type.Optional(Type.String({ enum: ['a', 'b'] }))
  }, { ...closed, $id: 'Given', title: 'a title' })
  const write = compileSerialiser(schema)!
  for (const value of [
    { n: 1.5, i: 3, s: 'plain', b: true, list: [] },
    { n: -0, i: 2 ** 53, s: 'with "quotes", \\ and \n', b: false, o: { deep: null }, list: [{ x: 1e21 }, { x: 1e-7 }], kind: 'a' },
    { n: 5e-324, i: -1, s: 'ü — 😀 and a lone \ud800, \u2028', b: true, list: [{ x: 1 }] },
    { n: 1, i: 1, s: '"'.repeat(50) + '\u0007'.repeat(50), b: true, o: undefined, list: [] }
  ]) {
    const [text, usual] = [write(value), JSON.stringify(value)]
    t.same(JSON.parse(text), JSON.parse(usual))
    t.same([...text].sort(), [...usual].sort(), 'the texts have the same characters, in any order of properties')
  }
  t.equal(compileSerialiser(Type.Array(Type.Number()))!([1, 2.5]), '[1,2.5]')
  t.equal(compileSerialiser({ type: 'object', additionalProperties: false })!({}), '{}')
})

t.test('schemas that are too vague, or faster with it, use JSON.stringify', async t => {
  const within = (schema: object): object => Type.Object({ a: schema as never }, closed)
  for (const schema of [
    Type.Object({ a: Type.Number() }),
    within(Type.Object({})),
    within({}),
    within(Type.Union([Type.String(), Type.Null()])),
    within({ type: ['string', 'null'] }),
    within(Type.Array(Type.String())),
    within(Type.Array(Type.Integer())),
    within({ type: 'array' }),
    within({ type: 'array', items: [{ type: 'number' }] }),
    within(Type.String({ format: 'date-time' })),
    within(Type.Number({ default: 1 })),
    within(Type.Any()),
    within({ $ref: 'Other' }),
    within(true as never),
    within(null as never),
    Type.Record(Type.String(), Type.Number()),
    Type.String(),
    true as never
  ]) t.equal(compileSerialiser(schema), null, JSON.stringify(schema))
})
