import fc from 'fast-check'
import t from 'tap'
import { strictSchema } from '../../lib/schema/strict-schema.ts'
import { schemaCompiler } from '../../lib/topics/payload.ts'
import { tellKindsApart } from '../../lib/schema/kinds.ts'

/** FC_SEED repeats a run; a failure prints its seed and the smallest case. */
const seed = process.env['FC_SEED']
fc.configureGlobal({ ...(seed === undefined ? {} : { seed: Number(seed) }) })

type Schema = Record<string, any>

const compile = schemaCompiler({})

const names = ['a', 'b', 'c', 'p1'] as const
const leaf: fc.Arbitrary<Schema> = fc.constantFrom<Schema>({ type: 'string' }, { type: 'string' }, {}, { const: 'x' }, { enum: ['x', 'y'] }, { type: ['string', 'null'] })

/** Schemas with each keyword that strictSchema handles, and two definitions for `$ref`. */
const schemas = fc.letrec<{ any: Schema, object: Schema, composed: Schema, document: Schema }>(tie => ({
  any: fc.oneof({ maxDepth: 3, depthIdentifier: 'schema' }, leaf, tie('object'), tie('composed')),
  object: fc.record({
    type: fc.constant('object'),
    properties: fc.dictionary(fc.constantFrom(...names), tie('any'), { maxKeys: 3 }),
    more: fc.oneof({ weight: 5, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: fc.constant({ additionalProperties: true }) }, { weight: 1, arbitrary: tie('any').map(inner => ({ patternProperties: { '^p': inner } })) }),
    demands: fc.boolean()
  }).map(({ more, demands, ...schema }) => {
    const required = demands ? { required: Object.keys(schema.properties).slice(0, 1) } : {}
    // Ajv in strict mode refuses a property beside a pattern that matches it.
    const { p1, ...others } = schema.properties
    return { ...schema, ...('patternProperties' in more ? { properties: others } : {}), ...more, ...required }
  }),
  composed: fc.tuple(fc.oneof(fc.constant({}), tie('object')), fc.oneof(
    fc.tuple(fc.constantFrom('allOf', 'anyOf', 'oneOf'), fc.array(tie('any'), { minLength: 1, maxLength: 3 })).map(([keyword, list]) => ({ [keyword]: list })),
    fc.record({ if: tie('any'), then: tie('object'), else: tie('any') }),
    tie('any').map(not => ({ not })),
    fc.tuple(fc.constantFrom(...names), fc.oneof(tie('object'), fc.constant(['a']))).map(([name, value]) => ({ dependencies: { [name]: value } })),
    fc.constantFrom({ $ref: '#/definitions/one' }, { $ref: '#/definitions/two' }),
    fc.record({ type: fc.constant('array'), items: tie('any'), contains: tie('any') })
  )).map(([one, other]) => 'type' in other ? other : { ...one, ...other }),
  document: fc.record({ root: tie('any'), one: tie('object'), two: tie('object') }).map(({ root, one, two }) => ({ ...root, definitions: { one: withoutRefs(one), two } }))
}))

/** `one` refers to nothing and `two` only to `one`, so that no schema refers to itself. */
function withoutRefs (schema: unknown, allowed = ''): any {
  return JSON.parse(JSON.stringify(schema), (_, value) => value?.$ref !== undefined && value.$ref !== allowed ? { description: 'a reference' } : value)
}
const documents = schemas.document.map(document => ({ ...document, definitions: { one: document['definitions'].one, two: withoutRefs(document['definitions'].two, '#/definitions/one') } } as Schema))

const values = fc.letrec<{ value: unknown }>(tie => ({
  value: fc.oneof({ maxDepth: 3, depthIdentifier: 'value' },
    fc.constantFrom('x', 'y', null, 1),
    fc.dictionary(fc.constantFrom(...names, 'z', 'p2'), tie('value'), { maxKeys: 3 }),
    fc.array(tie('value'), { maxLength: 2 }))
})).value

/** Whether a value has, in any reading of the schema, an undeclared property: docs/decisions/0002 as code, without closing a schema. */
function hasUndeclared (schema: any, value: any, definitions: Schema): boolean {
  if (typeof schema !== 'object' || typeof value !== 'object' || value === null) return false
  interface Reading { parts: Schema[], choices: Schema[][] }
  const read = (at: any, reading: Reading): Reading => {
    if (typeof at !== 'object') return reading
    reading.parts.push(at)
    for (const part of [...at.allOf ?? [], ...Object.values(at.dependencies ?? {}).filter(inner => !Array.isArray(inner))]) read(part, reading)
    if (at.$ref !== undefined) read(definitions[at.$ref.split('/')[2]], reading)
    for (const choice of [at.anyOf, at.oneOf, [at.then, at.else].filter(inner => inner !== undefined)]) if (choice?.length > 0) reading.choices.push(choice)
    return reading
  }
  const { parts, choices } = read(schema, { parts: [], choices: [] })
  if (choices.length === 0) {
    const under = (inner: Schema[], at: unknown): boolean => inner.length > 0 && hasUndeclared(inner.length === 1 ? inner[0] : { allOf: inner }, at, definitions)
    if (Array.isArray(value)) return value.some(item => under(parts.flatMap(part => part['items'] ?? []), item))
    const declares = parts.some(part => part['properties'] !== undefined || part['patternProperties'] !== undefined)
    const isOpen = parts.some(part => 'additionalProperties' in part)
    const of = (name: string): Schema[] => parts.flatMap(part => [
      ...(Object.hasOwn(part['properties'] ?? {}, name) ? [part['properties'][name]] : []),
      ...Object.entries(part['patternProperties'] ?? {}).filter(([pattern]) => new RegExp(pattern).test(name)).map(([, inner]) => inner as Schema)
    ])
    return Object.keys(value).some(name => (declares && !isOpen && of(name).length === 0) || under(of(name), value[name]))
  }
  // Each choice of alternatives is one reading.
  const [first, ...others] = choices
  const without = parts.map(({ anyOf, oneOf, then, else: _else, allOf, $ref, dependencies, ...rest }) => rest)
  return first!.some(branch => hasUndeclared({ allOf: [...without, branch, ...others.map(anyOf => ({ anyOf }))] }, value, definitions))
}

t.test('a closed schema refuses more values than the given one, and only ones with an undeclared property (issue 8)', async t => {
  const seen = { refused: 0, taken: 0, unclosable: 0 }
  const details = fc.check(fc.property(documents, fc.array(values, { minLength: 20, maxLength: 20 }), (schema, payloads) => {
    let closed
    try {
      closed = strictSchema(schema) as object
    } catch (error) {
      seen.unclosable++
      return /"(required|dependencies)" requires/.test((error as Error).message)
    }
    const [open, strict] = [schema, closed].map(given => compile(given))
    return payloads.every(payload => {
      const [byOpen, byClosed] = [open!(payload), strict!(payload)]
      if (byOpen && byClosed) seen.taken++
      if (byOpen && !byClosed) seen.refused++
      return byClosed ? byOpen : !byOpen || hasUndeclared(schema, payload, schema['definitions'])
    })
  }), { numRuns: 400 })
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `${details.numRuns} schemas`)
  t.ok(seen.refused > 50 && seen.taken > 200 && seen.unclosable < 200, JSON.stringify(seen))
})

/** Unions whose branches are discriminated by a property, or nearly. */
const unions = fc.record({
  keyword: fc.constantFrom('anyOf', 'oneOf'),
  branches: fc.array(fc.record({
    kind: fc.constantFrom<Schema>({ const: 'a' }, { const: 'b' }, { const: 'c' }, { enum: ['d', 1] }, { const: 1 }, { anyOf: [{ const: 'e' }, { const: true }] }, { type: 'string' }),
    member: fc.constantFrom('x', 'y'),
    type: fc.constantFrom<Schema>({ type: 'object' }, { type: 'object' }, { type: 'object' }, {}),
    required: fc.constantFrom(['kind'], ['kind'], ['kind', 'x'], []),
    form: fc.constantFrom('plain', 'plain', 'parts', 'reference')
  }), { minLength: 2, maxLength: 4 }),
  more: fc.constantFrom<Schema>({}, {}, { type: 'object' }, { properties: { z: { type: 'string' } } }),
  at: fc.constantFrom('root', 'member', 'not', 'union')
}).map(({ keyword, branches, more, at }): Schema => {
  const definitions: Schema = {}
  const list = branches.map(({ kind, member, type, required, form }, index) => {
    const plain = { ...type, properties: { kind, [member]: { type: 'string' } }, required }
    if (form === 'parts') return { allOf: [{ ...type, properties: { kind } }, { properties: { [member]: { type: 'string' } }, required }] }
    if (form === 'plain') return plain
    definitions[`d${index}`] = plain
    return { $ref: `#/definitions/d${index}` }
  })
  const union = { [keyword]: list, ...more }
  if (at === 'member') return { properties: { m: union }, definitions }
  if (at === 'not') return { not: union, definitions }
  return at === 'union' ? { anyOf: [union, { const: 'x' }], definitions } : { ...union, definitions }
})

const kinds = fc.oneof(
  fc.record({ kind: fc.constantFrom<unknown>('a', 'b', 'c', 'd', 1, 'e', true, 'f', null), x: fc.constantFrom('x', 1), y: fc.constant('y'), z: fc.constantFrom('z', 1) }, { requiredKeys: [] }),
  fc.constantFrom<unknown>('x', 1, null, [], {})
)

t.test('a schema with discriminated kinds accepts and refuses the same values (issue 8)', async t => {
  const seen = { taken: 0, refused: 0, rewritten: 0 }
  const details = fc.check(fc.property(unions, fc.boolean(), fc.array(kinds, { minLength: 30, maxLength: 30 }), (schema, close, payloads) => {
    let given = schema
    try {
      if (close) given = strictSchema(schema) as Schema
    } catch {
      fc.pre(false)
    }
    const rewritten = tellKindsApart(given, {})
    if (JSON.stringify(rewritten) === JSON.stringify(given)) return true
    seen.rewritten++
    const [before, after] = [given, rewritten].map(one => compile(one))
    return [...payloads, ...payloads.map(m => ({ m }))].every(payload => {
      const taken = before!(payload)
      seen[taken === true ? 'taken' : 'refused']++
      return taken === after!(payload)
    })
  }), { numRuns: 400 })
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `${details.numRuns} schemas`)
  t.ok(seen.rewritten > 50 && seen.taken > 500 && seen.refused > 500, JSON.stringify(seen))
})

t.test('a schema of the first grammar accepts the same values with discriminated kinds, closed or not (issue 8)', async t => {
  const details = fc.check(fc.property(documents, fc.array(values, { minLength: 20, maxLength: 20 }), (schema, payloads) => {
    const [before, after] = [schema, tellKindsApart(schema, {})].map(one => compile(one))
    return payloads.every(payload => before!(payload) === after!(payload))
  }), { numRuns: 200 })
  t.notOk(details.failed, fc.defaultReportMessage(details) ?? `${details.numRuns} schemas`)
})
