import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import * as Type1 from 'typebox'
import { closeSchema } from '../lib/close-schema.ts'
import { schemaCompiler } from '../lib/payload.ts'

const string = { type: 'string' }
const object = (properties: object, more: object = {}): object => ({ type: 'object', properties, ...more })

/** Which values a schema takes once it is closed. The given schema is left as it was. */
function closed (t: Test, schema: object, { takes, refuses }: { takes: unknown[], refuses: unknown[] }): void {
  const before = structuredClone(JSON.parse(JSON.stringify(schema)))
  const validate = schemaCompiler({})(closeSchema(schema) as object)
  for (const value of takes) t.equal(validate(value), true, `takes ${JSON.stringify(value)}`)
  for (const value of refuses) t.equal(validate(value), false, `refuses ${JSON.stringify(value)}`)
  t.same(JSON.parse(JSON.stringify(schema)), before, 'the given schema is not changed')
}

t.test('what is no schema object stays what it is', async t => {
  for (const value of [true, false, null, undefined, 'x', 7]) t.equal(closeSchema(value), value)
  const list = [object({ a: string })]
  t.equal(closeSchema(list), list)
  t.same(closeSchema(string), string)
})

t.test('an object that lists its members refuses others, at every depth', async t => {
  closed(t, object({ a: object({ b: { type: 'array', items: object({ c: string }) } }) }), {
    takes: [{}, { a: { b: [{ c: '1' }] } }],
    refuses: [{ x: 1 }, { a: { x: 1 } }, { a: { b: [{ c: '1', x: 1 }] } }]
  })
  closed(t, { type: 'array', minItems: 0, items: [object({ a: string })], additionalItems: object({ b: string }) }, {
    takes: [[], [{ a: '1' }, { b: '1' }]],
    refuses: [[{ x: 1 }], [{ a: '1' }, { x: 1 }]]
  })
  t.match(closeSchema({ prefixItems: [object({ a: string })] }), { prefixItems: [{ additionalProperties: false }] })
})

t.test('an object that lists nothing, and one that says itself what else may come, keep their word', async t => {
  closed(t, { type: 'object' }, { takes: [{}, { x: 1 }], refuses: [[]] })
  closed(t, object({ a: string }, { additionalProperties: true }), { takes: [{ x: 1 }], refuses: [{ a: 1 }] })
  closed(t, object({ a: string }, { additionalProperties: object({ b: string }) }), { takes: [{ x: { b: '1' } }], refuses: [{ x: 1 }, { x: { y: 1 } }] })
  t.notOk('additionalProperties' in (closeSchema(object({ a: string }, { unevaluatedProperties: true })) as object))
  closed(t, object({}), { takes: [{}], refuses: [{ x: 1 }] })
})

t.test('a record takes any name of its pattern, and its values are closed', async t => {
  closed(t, { type: 'object', patternProperties: { '^x': object({ a: string }) } }, { takes: [{ x1: { a: '1' } }], refuses: [{ y: 1 }, { x1: { b: 1 } }] })
})

t.test('definitions are closed for whoever refers to them', async t => {
  for (const keyword of ['definitions', '$defs']) {
    closed(t, { ...object({ a: { $ref: `#/${keyword}/inner` } }), [keyword]: { inner: object({ b: string }) } }, {
      takes: [{ a: { b: '1' } }],
      refuses: [{ a: { b: '1', x: 1 } }, { x: 1 }]
    })
  }
})

t.test('each alternative is closed on its own', async t => {
  for (const keyword of ['anyOf', 'oneOf']) {
    closed(t, { [keyword]: [object({ a: string }, { required: ['a'] }), object({ b: object({ c: string }) }, { required: ['b'] }), { type: 'null' }] }, {
      takes: [{ a: '1' }, { b: { c: '1' } }, null],
      refuses: [{ a: '1', b: {} }, { b: { x: 1 } }, { a: '1', x: 1 }]
    })
  }
})

t.test('a composition is closed as a whole: each part may declare members', async t => {
  const one = object({ a: string, deep: object({ x: string }) }, { required: ['a'] })
  const two = object({ b: string })
  closed(t, { allOf: [one, two] }, {
    takes: [{ a: '1' }, { a: '1', b: '2', deep: { x: '1' } }],
    refuses: [{ a: '1', c: 1 }, { b: '1' }, { a: '1', deep: { y: 1 } }]
  })
  closed(t, object({ own: string }, { allOf: [one] }), { takes: [{ own: '1', a: '1' }], refuses: [{ a: '1', c: 1 }] })
  closed(t, { allOf: [{ allOf: [one, two] }, object({ c: string })] }, { takes: [{ a: '1', b: '1', c: '1' }], refuses: [{ a: '1', d: 1 }] })
})

t.test('a member that several parts declare is left as open as they have it, since together they may list more', async t => {
  closed(t, { allOf: [object({ deep: object({ x: string }) }), object({ deep: object({ y: string }) })] }, {
    takes: [{ deep: { x: '1', y: '1' } }],
    refuses: [{ other: 1 }, { deep: { x: 1 } }]
  })
})

t.test('alternatives inside a composition: what each of them declares is closed', async t => {
  const base = object({ id: string }, { required: ['id'] })
  const data = (name: string): object => object({ kind: { const: name }, data: object({ [name]: string }, { required: [name] }) }, { required: ['kind', 'data'] })
  for (const keyword of ['anyOf', 'oneOf']) {
    const expected = {
      takes: [{ id: '1', kind: 'one', data: { one: '1' } }, { id: '1', kind: 'two', data: { two: '1' } }],
      refuses: [{ id: '1', kind: 'one', data: { one: '1' }, x: 1 }, { id: '1', kind: 'one', data: { one: '1', x: 1 } }, { id: '1' }]
    }
    closed(t, { allOf: [base, { [keyword]: [data('one'), data('two')] }] }, expected)
    closed(t, { ...base, [keyword]: [data('one'), data('two')] }, expected)
  }
})

t.test('conditions and dependencies may declare members, too', async t => {
  closed(t, object({ a: string }, { if: { required: ['a'] }, then: { properties: { b: string } }, else: { properties: { c: string } } }), {
    takes: [{ a: '1', b: '1' }, { c: '1' }],
    refuses: [{ a: '1', x: 1 }, { c: 1 }]
  })
  t.match(closeSchema(object({ a: string }, { dependentSchemas: { a: { properties: { b: string } } } })), { properties: { a: string, b: {} }, additionalProperties: false })
  t.match(closeSchema(object({ a: string }, { dependentSchemas: { a: false, b: { properties: { c: string } } } })), { dependentSchemas: { a: false, b: { properties: { c: string } } }, additionalProperties: false })
  t.match(closeSchema(object({ a: string }, { dependentSchemas: false, else: { properties: { b: string } } })), { properties: { a: string, b: {} }, additionalProperties: false })
})

t.test('a composition that cannot be told is left as it is', async t => {
  const unknown: object[] = [
    { allOf: [{ $ref: '#/definitions/x' }, object({ a: string })] },
    { allOf: [{ $dynamicRef: '#x' }] },
    { allOf: [object({ a: string }, { additionalProperties: true })] },
    { allOf: [{ type: 'object', patternProperties: { '^a': string } }] },
    { allOf: [object({ a: string }, { unevaluatedProperties: true })] },
    { ...object({ a: string }), anyOf: [{ $ref: '#/definitions/x' }] },
    { allOf: [string] },
    { allOf: [] },
    { allOf: 'nonsense' }
  ]
  for (const schema of unknown) t.equal(closeSchema(schema), schema, JSON.stringify(schema))
  const half = { allOf: [true, object({ a: string })], anyOf: [true] }
  t.match(closeSchema(half), { allOf: [true, { properties: { a: string } }], anyOf: [true], additionalProperties: false })
})

t.test('both lines of TypeBox: objects, unions, intersections, records and tuples', async t => {
  for (const [line, T] of [['0.34', Type], ['1.x', Type1.Type]] as [string, typeof Type][]) {
    t.test(`TypeBox ${line}`, async t => {
      const A = T.Object({ a: T.String() })
      const B = T.Object({ b: T.Number() })
      closed(t, A, { takes: [{ a: '1' }], refuses: [{ a: '1', x: 1 }, {}, { a: 1 }] })
      closed(t, T.Union([A, B]), { takes: [{ a: '1' }, { b: 1 }], refuses: [{ a: '1', x: 1 }, { a: '1', b: 1 }] })
      closed(t, T.Intersect([A, B]), { takes: [{ a: '1', b: 1 }], refuses: [{ a: '1', b: 1, x: 1 }, { a: '1' }] })
      closed(t, T.Intersect([A, T.Union([B, T.Object({ c: T.Object({ d: T.String() }) })])]), {
        takes: [{ a: '1', b: 1 }, { a: '1', c: { d: '1' } }],
        refuses: [{ a: '1', b: 1, x: 1 }, { a: '1', c: { d: '1', x: 1 } }, { a: '1' }]
      })
      closed(t, T.Object({ in: T.Intersect([A, B]) }), { takes: [{ in: { a: '1', b: 1 } }], refuses: [{ in: { a: '1', b: 1, x: 1 } }] })
      closed(t, T.Record(T.String(), A), { takes: [{}, { any: { a: '1' } }], refuses: [{ any: { a: '1', x: 1 } }] })
      closed(t, T.Tuple([A, B]), { takes: [[{ a: '1' }, { b: 1 }]], refuses: [[{ a: '1', x: 1 }, { b: 1 }], [{ a: '1' }, { b: 1 }, {}]] })
      closed(t, T.Object({ a: T.Optional(T.String()) }, { additionalProperties: true }), { takes: [{ x: 1 }], refuses: [{ a: 1 }] })
      closed(t, T.Array(A), { takes: [[], [{ a: '1' }]], refuses: [[{ a: '1', x: 1 }]] })
    })
  }
})

t.test('recursive types are closed at every depth', async t => {
  const expected = { takes: [{ v: 1, kids: [{ v: 2, kids: [] }] }], refuses: [{ v: 1, kids: [], x: 1 }, { v: 1, kids: [{ v: 2, kids: [{ v: 3, kids: [], x: 1 }] }] }] }
  closed(t, Type.Recursive(self => Type.Object({ v: Type.Number(), kids: Type.Array(self) })), expected)
  closed(t, Type.Module({ Node: Type.Object({ v: Type.Number(), kids: Type.Array(Type.Ref('Node')) }) }).Import('Node'), expected)
  closed(t, Type1.Cyclic({ Node: Type1.Object({ v: Type1.Number(), kids: Type1.Array(Type1.Ref('Node')) }) }, 'Node'), expected)
  closed(t, object({ v: { type: 'number' }, kids: { type: 'array', items: { $ref: '#' } } }), expected)
})
