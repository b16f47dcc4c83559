import { Type } from '@sinclair/typebox'
import t, { type Test } from 'tap'
import * as Type1 from 'typebox'
import { strictSchema } from '../../lib/schema/strict-schema.ts'
import { schemaCompiler } from '../../lib/topics/payload.ts'

const string = { type: 'string' }
const object = (properties: object, more: object = {}): object => ({ type: 'object', properties, ...more })

/** Asserts the values that a closed schema accepts and refuses, and that the given schema is not changed. */
function closed (t: Test, schema: object, { takes, refuses }: { takes: unknown[], refuses: unknown[] }): void {
  const before = structuredClone(JSON.parse(JSON.stringify(schema)))
  const validate = schemaCompiler({})(strictSchema(schema) as object)
  for (const value of takes) t.equal(validate(value), true, `accepts ${JSON.stringify(value)}`)
  for (const value of refuses) t.equal(validate(value), false, `refuses ${JSON.stringify(value)}`)
  t.same(JSON.parse(JSON.stringify(schema)), before, 'the given schema is not changed')
}

t.test('values other than schema objects stay as they are', async t => {
  for (const value of [true, false, null, undefined, 'x', 7]) t.equal(strictSchema(value), value)
  const list = [object({ a: string })]
  t.equal(strictSchema(list), list)
  t.same(strictSchema(string), string)
})

t.test('an object with declared properties refuses others, at every depth', async t => {
  closed(t, object({ a: object({ b: { type: 'array', items: object({ c: string }) } }) }), {
    takes: [{}, { a: { b: [{ c: '1' }] } }],
    refuses: [{ x: 1 }, { a: { x: 1 } }, { a: { b: [{ c: '1', x: 1 }] } }]
  })
  closed(t, { type: 'array', minItems: 0, items: [object({ a: string })], additionalItems: object({ b: string }) }, {
    takes: [[], [{ a: '1' }, { b: '1' }]],
    refuses: [[{ x: 1 }], [{ a: '1' }, { x: 1 }]]
  })
  t.match(strictSchema({ prefixItems: [object({ a: string })] }), { prefixItems: [{ additionalProperties: false }] })
})

t.test('an object without "properties", and one with its own "additionalProperties", stay as open as declared', async t => {
  closed(t, { type: 'object' }, { takes: [{}, { x: 1 }], refuses: [[]] })
  closed(t, object({ a: string }, { additionalProperties: true }), { takes: [{ x: 1 }], refuses: [{ a: 1 }] })
  closed(t, object({ a: string }, { additionalProperties: object({ b: string }) }), { takes: [{ x: { b: '1' } }], refuses: [{ x: 1 }, { x: { y: 1 } }] })
  t.notOk('additionalProperties' in (strictSchema(object({ a: string }, { unevaluatedProperties: true })) as object))
  closed(t, object({}), { takes: [{}], refuses: [{ x: 1 }] })
})

t.test('a record accepts any name that matches its pattern, and its values are closed', async t => {
  closed(t, { type: 'object', patternProperties: { '^x': object({ a: string }) } }, { takes: [{ x1: { a: '1' } }], refuses: [{ y: 1 }, { x1: { b: 1 } }] })
})

t.test('definitions are closed, and so are references to them', async t => {
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

t.test('a composition is closed as a whole: each part may declare properties', async t => {
  const one = object({ a: string, deep: object({ x: string }) }, { required: ['a'] })
  const two = object({ b: string })
  closed(t, { allOf: [one, two] }, {
    takes: [{ a: '1' }, { a: '1', b: '2', deep: { x: '1' } }],
    refuses: [{ a: '1', c: 1 }, { b: '1' }, { a: '1', deep: { y: 1 } }]
  })
  closed(t, object({ own: string }, { allOf: [one] }), { takes: [{ own: '1', a: '1' }], refuses: [{ a: '1', c: 1 }] })
  closed(t, { allOf: [{ allOf: [one, two] }, object({ c: string })] }, { takes: [{ a: '1', b: '1', c: '1' }], refuses: [{ a: '1', d: 1 }] })
})

t.test('a property that several parts declare stays as open as declared, because together they may list more', async t => {
  closed(t, { allOf: [object({ deep: object({ x: string }) }), object({ deep: object({ y: string }) })] }, {
    takes: [{ deep: { x: '1', y: '1' } }],
    refuses: [{ other: 1 }, { deep: { x: 1 } }]
  })
})

t.test('alternatives inside a composition are closed over the properties that each declares', async t => {
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

t.test('conditions and dependencies may declare properties', async t => {
  closed(t, object({ a: string }, { if: { required: ['a'] }, then: { properties: { b: string } }, else: { properties: { c: string } } }), {
    takes: [{ a: '1', b: '1' }, { c: '1' }],
    refuses: [{ a: '1', x: 1 }, { c: 1 }]
  })
  t.match(strictSchema(object({ a: string }, { dependentSchemas: { a: { properties: { b: string } } } })), { properties: { a: string, b: {} }, additionalProperties: false })
  t.match(strictSchema(object({ a: string }, { dependentSchemas: { a: false, b: { properties: { c: string } } } })), { dependentSchemas: { a: false, b: { properties: { c: string } } }, additionalProperties: false })
  t.match(strictSchema(object({ a: string }, { dependentSchemas: false, else: { properties: { b: string } } })), { properties: { a: string, b: {} }, additionalProperties: false })
})

t.test('a composition with a part of its own "additionalProperties", and one that declares nothing, stay as they are', async t => {
  const unknown: object[] = [
    { allOf: [{ $dynamicRef: '#x' }] },
    { allOf: [object({ a: string }, { additionalProperties: true })] },
    { allOf: [object({ a: string }, { unevaluatedProperties: true })] },
    { allOf: [object({ a: object({ b: string }) }), { additionalProperties: object({ c: string }, { additionalProperties: true }) }] },
    { anyOf: [object({ a: string }, { required: ['b'] })], additionalProperties: true },
    { allOf: [string] },
    { allOf: [] },
    { allOf: 'nonsense' }
  ]
  for (const schema of unknown) t.same(strictSchema(schema), schema, JSON.stringify(schema))
  const half = { allOf: [true, object({ a: string })], anyOf: [true] }
  t.match(strictSchema(half), { allOf: [true, { properties: { a: string } }], anyOf: [true], additionalProperties: false })
})

t.test('dependencies may be schemas or names (issue 8)', async t => {
  closed(t, object({ a: string, b: string }, { dependencies: { a: ['b'] } }), { takes: [{}, { b: '1' }, { a: '1', b: '1' }], refuses: [{ a: '1' }, { a: '1', b: '1', x: 1 }] })
  closed(t, object({ a: string }, { dependencies: { a: { properties: { b: object({ c: string }) }, required: ['b'] }, z: true } }), {
    takes: [{}, { a: '1', b: { c: '1' } }],
    refuses: [{ a: '1' }, { a: '1', b: { x: 1 } }, { a: '1', b: {}, x: 1 }]
  })
})

t.test('properties that a closed object requires have to be declared (issue 8)', async t => {
  const demands = (keyword: string) => ({ message: `"${keyword}" requires "b", which is not declared, so that every value would be refused: declare it in "properties", or give "additionalProperties"` })
  t.throws(() => strictSchema(object({ a: string }, { dependencies: { a: ['b'] } })), demands('dependencies'))
  t.throws(() => strictSchema(object({ a: string }, { dependentRequired: { a: ['b'] } })), demands('dependentRequired'))
  t.throws(() => strictSchema(object({ a: string }, { required: ['a', 'b'] })), demands('required'))
  t.throws(() => strictSchema({ allOf: [{ required: ['b'] }, object({ a: string })] }), demands('required'))
  t.throws(() => strictSchema({ type: 'array', items: object({ a: string }, { required: ['b'] }) }), demands('required'))
  closed(t, { allOf: [{ required: ['b'] }, object({ b: string })] }, { takes: [{ b: '1' }], refuses: [{}, { b: '1', x: 1 }] })
  closed(t, object({ a: string }, { required: ['b'], patternProperties: { '^b': string } }), { takes: [{ b: '1' }], refuses: [{ a: '1' }, { b: '1', x: 1 }] })
  closed(t, object({ a: string }, { not: { required: ['b'] } }), { takes: [{ a: '1' }], refuses: [{ b: '1' }] })
  closed(t, object({ a: string }, { required: ['b'], additionalProperties: true }), { takes: [{ b: '1' }], refuses: [{}] })
})

t.test('a reference beside other keywords is part of the composition (issue 8)', async t => {
  const definitions = { base: object({ a: object({ x: string }) }, { required: ['a'] }), own: object({ a: string }, { additionalProperties: true }), list: { items: object({ c: string }) } }
  const whole = { takes: [{ a: {}, b: '1' }, { a: { x: '1' } }], refuses: [{ b: '1' }, { a: { y: 1 } }, { a: {}, z: 1 }] }
  closed(t, { $ref: '#/definitions/base', properties: { b: string }, definitions }, whole)
  closed(t, { allOf: [{ $ref: '#/definitions/base' }, object({ b: string })], definitions }, whole)
  closed(t, { $ref: '#/definitions/base', anyOf: [object({ b: string }), { type: 'null' }], definitions }, whole)
  closed(t, { properties: { one: { $ref: '#/definitions/base' }, both: { $ref: '#/definitions/base', properties: { b: string } } }, definitions }, {
    takes: [{ one: { a: {} }, both: { a: {}, b: '1' } }],
    refuses: [{ one: { a: {}, b: '1' } }, { both: { a: {}, z: 1 } }]
  })
  closed(t, { $ref: '#/definitions/own', properties: { b: string }, definitions }, { takes: [{ b: '1', z: 1 }], refuses: [{ b: 1 }] })
  closed(t, { $ref: '#/definitions/base', description: 'no composition', definitions }, { takes: [{ a: {} }], refuses: [{ a: {}, b: '1' }] })
  closed(t, { $ref: '#/definitions/list', items: object({ d: string }), definitions }, { takes: [[{ c: '1', d: '1' }]], refuses: [[{ c: 1 }], [{ d: 1 }]] })
  closed(t, { $ref: '#/$defs/a%20b~1c', properties: { b: string }, $defs: { 'a b/c': object({ a: string }) } }, { takes: [{ a: '1', b: '1' }], refuses: [{ z: 1 }] })
  closed(t, { $ref: 'Base', properties: { b: string }, $defs: { base: { $id: 'Base', ...object({ a: string }) } } }, { takes: [{ a: '1', b: '1' }], refuses: [{ z: 1 }] })
})

t.test('a shared schema beside other keywords declares properties as well, and stays open below (issue 8)', async t => {
  const shared = { Base: { $id: 'Base', ...object({ a: object({ x: string }), more: { $ref: '#/definitions/more' } }), definitions: { more: object({ y: string }) } } }
  const validate = schemaCompiler(shared)(strictSchema({ $ref: 'Base#', properties: { b: string } }, shared) as object)
  t.equal(validate({ a: { z: 1 }, b: '1', more: {} }), true)
  t.equal(validate({ c: '1' }), false)
  t.equal(validate({ a: 1 }), false)
  const part = schemaCompiler(shared)(strictSchema({ $ref: 'Base#/definitions/more', properties: { b: string } }, shared) as object)
  t.equal(part({ y: '1', b: '1' }), true)
  t.equal(part({ a: {} }), false)
})

t.test('an unresolvable reference beside other keywords is refused by name (issue 8)', async t => {
  const cases: [object, Record<string, unknown>?][] = [
    [{ $ref: '#/definitions/x', properties: { a: string } }],
    [{ $ref: 'Other', properties: { a: string } }],
    [{ $ref: '#/definitions/%', properties: { a: string }, definitions: {} }],
    [{ $ref: '#/type/x', type: 'object', properties: { a: string } }],
    [{ $ref: '#anchor', properties: { a: string } }],
    [{ $ref: 7, properties: { a: string } }],
    [{ $ref: '#/definitions/x', properties: { a: string }, definitions: { x: true } }],
    [{ $ref: '#/definitions/x', properties: { a: string }, definitions: { x: { $id: 'Inner', ...object({ b: string }) } } }],
    [{ $ref: 'Inner#/properties/b', properties: { a: string }, definitions: { x: { $id: 'Inner', ...object({ b: object({}) }) } } }],
    [{ $ref: 'Inner', properties: { a: string }, definitions: { x: { $id: 'Inner', ...object({ b: string }) } } }, { Inner: {} }],
    [{ $ref: '#/definitions/x', properties: { a: string }, definitions: { x: { $id: 'http://example.com/x', ...object({ b: string }) } } }],
    [{ allOf: [{ $ref: '#/definitions/x' }, object({ a: string })] }],
    [{ ...object({ a: string }), anyOf: [{ $ref: '#/definitions/x' }] }]
  ]
  for (const [schema, shared] of cases) t.throws(() => strictSchema(schema, shared), { message: /^"\$ref": .* is composed with other keywords/ }, JSON.stringify(schema))
  t.throws(() => strictSchema({ allOf: [{ $ref: '#' }], properties: { a: string } }), { message: '"$ref": "#" composes a schema with itself' })
})

t.test('conditions, negations and "contains" keep their meaning, with any references (issue 8)', async t => {
  const definitions = { a: object({ a: string }, { required: ['a'] }) }
  const a = { $ref: '#/definitions/a' }
  closed(t, object({ a: string, b: string }, { not: a, definitions }), { takes: [{ b: '1' }], refuses: [{ a: '1', b: '1' }, { a: '1' }] })
  closed(t, object({ a: string, b: string }, { if: a, then: { required: ['b'] }, definitions }), { takes: [{ b: '1' }, { a: '1', b: '1' }], refuses: [{ a: '1' }, { x: 1 }] })
  closed(t, { type: 'array', items: object({ a: string, b: string }), contains: a, definitions }, { takes: [[{ a: '1', b: '1' }]], refuses: [[{ b: '1' }], [{ a: '1', x: 1 }]] })
  t.throws(() => strictSchema(object({ a: string }, { not: { properties: { a: { $ref: '#' } } } })), { message: /refers to itself in a place that cannot be made strict/ })
  t.throws(() => strictSchema({ oneOf: [object({ a: { $ref: '#' } }), object({ b: string })] }), { message: /overlapping "oneOf"/ })
})

t.test('a value that two branches of "oneOf" accept is also refused if they are closed (issue 8)', async t => {
  closed(t, { oneOf: [object({ a: string }), object({ a: string, b: string }, { required: ['a'] })] }, {
    takes: [{}],
    refuses: [{ a: '1' }, { a: '1', b: '1' }, { x: 1 }]
  })
  closed(t, { oneOf: [object({ a: string }), { ...object({ a: string, b: string }), $ref: '#/definitions/x' }, true], definitions: { x: { type: 'object' } } }, { takes: [1], refuses: [{ a: '1' }] })
  closed(t, { type: 'object', oneOf: [true, object({ a: string }, { required: ['a'] })] }, { takes: [{}], refuses: [{ a: '1' }] })
  for (const apart of [
    [object({ k: { const: 1 } }, { required: ['k'] }), object({ k: { enum: [2, 3] } }, { required: ['k'] })],
    [object({ a: string }), { type: ['array', 'integer'], items: object({ b: string }) }, false, { enum: ['x', 'y'] }, { const: 'z' }],
    [object({ a: string }, { required: ['a'] }), object({ b: string }, { required: ['b'] })],
    [object({ a: string }, { additionalProperties: false }), object({ a: string, b: string }, { additionalProperties: false })]
  ]) t.notOk('allOf' in (strictSchema({ oneOf: apart }) as object), JSON.stringify(apart))
  t.ok('allOf' in (strictSchema({ oneOf: [{ properties: { a: string } }, { properties: { b: string } }] }) as object), 'both branches accept values other than objects')
  t.ok('allOf' in (strictSchema({ oneOf: [object({ a: string }, { required: ['a'] }), { type: 'object', required: ['b'] }] }) as object))
})

t.test('patterns are part of a composition; a property that a name and a pattern, or two patterns, declare together stays open (issue 8)', async t => {
  closed(t, { allOf: [{ type: 'object', patternProperties: { '^x': object({ a: string }) } }, object({ b: object({ c: string }) })] }, {
    takes: [{ x1: { a: '1' }, b: { c: '1' } }],
    refuses: [{ y: 1 }, { x1: { z: 1 } }, { b: { z: 1 } }]
  })
  closed(t, object({ b: string }, { patternProperties: { '^x': object({ a: string }) }, allOf: [object({ c: string })] }), { takes: [{ b: '1', c: '1', x1: { a: '1' } }], refuses: [{ y: 1 }, { x1: { z: 1 } }] })
  closed(t, { allOf: [object({ x1: object({ b: string }), b: object({}) }), { patternProperties: { '^x': object({ a: string }) } }] }, { takes: [{ x1: { a: '1', b: '1' } }], refuses: [{ y: 1 }, { x1: { a: 1 } }, { b: { z: 1 } }] })
  closed(t, { type: 'object', patternProperties: { '^x': object({ a: string }), '1$': object({ b: string }) } }, { takes: [{ x1: { a: '1', b: '1' } }], refuses: [{ y: 1 }, { x1: { a: 1 } }] })
  closed(t, { type: 'object', patternProperties: { '^x-': object({ a: string }), '^y-': object({ b: string }) } }, { takes: [{ 'x-1': { a: '1' }, 'y-1': { b: '1' } }], refuses: [{ 'x-1': { b: '1' } }, { z: 1 }] })
  t.match(strictSchema({ patternProperties: { '(': object({ a: string }) }, properties: { a: object({ b: string }) } }), { properties: { a: { additionalProperties: undefined } } }, 'an invalid pattern is reported by the compiler')
})

t.test('alternatives of two keywords, and items of two parts, are closed together (issue 8)', async t => {
  closed(t, { anyOf: [object({ a: string }), { type: 'null' }], oneOf: [object({ b: string }), { type: 'null' }] }, { takes: [{ a: '1', b: '1' }, null], refuses: [{ z: 1 }, { a: 1 }] })
  closed(t, { items: object({ a: string }), allOf: [{ items: object({ b: string }) }] }, { takes: [[{ a: '1', b: '1' }]], refuses: [[{ a: 1 }]] })
  closed(t, { allOf: [{ items: object({ a: string }) }] }, { takes: [[{ a: '1' }]], refuses: [[{ b: '1' }]] })
})

t.test('properties may have names of keywords, and schemas true or false (issue 8)', async t => {
  closed(t, object({ $ref: string, allOf: string, properties: object({ items: string }), dependencies: true, never: false }), {
    takes: [{ $ref: '1', allOf: '1', properties: { items: '1' }, dependencies: [{ x: 1 }] }],
    refuses: [{ never: 1 }, { properties: { x: 1 } }, { x: 1 }]
  })
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
