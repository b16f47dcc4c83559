import { areDisjoint, factsOf, typeOf, type Facts, type Scalar } from './facts.ts'
import { referencesOf, type Resolve } from './references.ts'
import { mapSchemas, schemasOf, visitSchemas, type Schema } from './walk.ts'

/** Keywords of a branch that only lists values. */
const literal = new Set(['const', 'enum', 'type', 'title', 'description', '$comment', 'examples', 'default', 'deprecated'])

function allDisjoint (sets: ReadonlySet<Scalar>[]): boolean {
  return new Set(sets.flatMap(set => [...set])).size === sets.reduce((sum, { size }) => sum + size, 0)
}

/** Returns the only values that a branch takes; `null` if it does not just list values. */
function valuesOf (branch: Schema, { types, values }: Facts): ReadonlySet<Scalar> | null {
  if (values === null || ('const' in branch && 'enum' in branch) || Object.keys(branch).some(keyword => !literal.has(keyword))) return null
  // Branches with `integer`, or a type that refuses one of the values, are checked as they are.
  const isWhole = (branch['type'] === undefined || ![branch['type']].flat().includes('integer')) && [...values].every(value => types === null || types.has(typeOf(value)))
  return isWhole ? values : null
}

/** Returns the member that tells all branches apart, by values that no two of them share. */
function tagOf (facts: Facts[]): string | undefined {
  const [first, ...others] = facts
  return [...first!.members.keys()].find(name =>
    facts.every(({ required, members }) => required.has(name) && members.has(name)) && allDisjoint([first!, ...others].map(({ members }) => members.get(name)!)))
}

function isOneOf (name: string, kinds: ReadonlySet<Scalar>[]): Schema {
  return { required: [name], properties: { [name]: { enum: kinds.flatMap(set => [...set]) } } }
}

/**
 * Returns a schema that finds the branch of a value by binary search. Conditions side by side would all be evaluated for each message, and
 * nested ones would overflow the compiler's stack.
 */
function choose (tag: string, kinds: ReadonlySet<Scalar>[], branches: Schema[]): Schema {
  if (branches.length === 1) return branches[0]!
  const half = branches.length >> 1
  return { if: isOneOf(tag, kinds.slice(0, half)), then: choose(tag, kinds.slice(0, half), branches.slice(0, half)), else: choose(tag, kinds.slice(half), branches.slice(half)) }
}

function rewrite (schema: Schema, resolve: Resolve): Schema {
  const copy = mapSchemas(schema, inner => rewrite(inner, resolve))
  if ('discriminator' in schema || ('allOf' in schema && !Array.isArray(schema['allOf']))) return copy
  for (const keyword of ['anyOf', 'oneOf']) {
    const branches = schemasOf(schema[keyword])
    if (branches.length < 2 || branches.length !== (schema[keyword] as unknown[]).length) continue
    const facts = branches.map(branch => factsOf(branch, resolve))

    const values = branches.map((branch, index) => valuesOf(branch, facts[index]!))
    if (values.every(set => set !== null) && (keyword === 'anyOf' || allDisjoint(values))) {
      copy['allOf'] = [...(copy['allOf'] as unknown[] ?? []), { enum: [...new Set(values.flatMap(set => [...set]))] }]
      delete copy[keyword]
      continue
    }

    const tag = tagOf(facts)
    const areObjects = schema['type'] === 'object' || facts.every(({ types }) => types !== null && areDisjoint(types, new Set(['string', 'number', 'boolean', 'null', 'array'])))
    if (tag === undefined || !areObjects) continue
    const kinds = facts.map(({ members }) => members.get(tag)!)
    const isKnown = { type: 'object', ...isOneOf(tag, kinds) }
    // `else` repeats the condition to produce its error.
    copy['allOf'] = [...(copy['allOf'] as unknown[] ?? []), { if: isKnown, then: choose(tag, kinds, copy[keyword] as Schema[]), else: isKnown }]
    delete copy[keyword]
  }
  return copy
}

/**
 * Returns a copy of a schema that takes the same values and reports fewer errors. A union (`anyOf`, `oneOf`) of objects that differ in the
 * value of a required member becomes a check of that member, followed by the branch that it selects. A union of literals becomes an `enum`.
 * A schema with a `$ref` into a branch of a union is not changed. Ajv's `discriminator` is not used, because it takes strings only, and each
 * branch would have to declare the member itself.
 */
export function tellKindsApart (schema: Schema, shared: Record<string, unknown>): Schema {
  let pointsIntoUnion = false
  visitSchemas(schema, ({ $ref }) => { if (typeof $ref === 'string' && /#.*\/(?:any|one)Of\//.test($ref)) pointsIntoUnion = true })
  return pointsIntoUnion ? schema : rewrite(schema, referencesOf(schema, shared))
}
