import type { Resolve } from './references.ts'
import { isSchema, schemasOf, type Schema } from './walk.ts'

/** A primitive JSON value. */
export type Scalar = string | number | boolean | null

/** Facts that hold for every value that a schema takes. */
export interface Facts {
  /** JSON types that a value may have, `integer` as `number`; `null`: any. */
  readonly types: ReadonlySet<unknown> | null
  /** The only values that are taken; `null`: not known. */
  readonly values: ReadonlySet<Scalar> | null
  /** Members that an object has. */
  readonly required: ReadonlySet<string>
  /** The only values that these members of an object have, if they are present. */
  readonly members: ReadonlyMap<string, ReadonlySet<Scalar>>
}

const nothing: Facts = { types: null, values: null, required: new Set(), members: new Map() }

function isScalar (value: unknown): value is Scalar {
  return value === null || ['string', 'number', 'boolean'].includes(typeof value)
}

/** Returns the JSON type of a value by its name in `Facts.types`. */
export function typeOf (value: Scalar): string {
  return value === null ? 'null' : typeof value
}

export function areDisjoint (one: ReadonlySet<unknown>, other: ReadonlySet<unknown>): boolean {
  return ![...one].some(value => other.has(value))
}

/** Returns facts of values for which both hold. */
function both (one: Facts, other: Facts): Facts {
  return {
    types: one.types === null || other.types === null ? one.types ?? other.types : new Set([...one.types].filter(type => other.types!.has(type))),
    values: one.values ?? other.values,
    required: new Set([...one.required, ...other.required]),
    members: new Map([...other.members, ...one.members])
  }
}

function union<T> (one: ReadonlySet<T> | null, other: ReadonlySet<T> | null): ReadonlySet<T> | null {
  return one === null || other === null ? null : new Set([...one, ...other])
}

/** Returns facts of values for which one or the other holds. */
function either (one: Facts, other: Facts): Facts {
  return {
    types: union(one.types, other.types),
    values: union(one.values, other.values),
    required: new Set([...one.required].filter(name => other.required.has(name))),
    members: new Map([...one.members].filter(([name]) => other.members.has(name)).map(([name, values]) => [name, union(values, other.members.get(name)!)!]))
  }
}

function own (schema: Schema, resolve: Resolve, seen: readonly unknown[]): Facts {
  const { type, nullable, required, properties } = schema
  const allowed = 'const' in schema ? [schema['const']] : schema['enum']
  const values = Array.isArray(allowed) && allowed.every(isScalar) ? new Set(allowed) : null
  const types = type !== undefined ? new Set([type, nullable === true ? 'null' : type].flat().map(name => name === 'integer' ? 'number' : name)) : values === null ? null : new Set([...values].map(typeOf))
  const members = new Map<string, ReadonlySet<Scalar>>()
  for (const [name, inner] of Object.entries(isSchema(properties) ? properties : {})) {
    const one = factsOf(inner, resolve, seen).values
    if (one !== null) members.set(name, one)
  }
  return { types, values, required: new Set(Array.isArray(required) ? required : []), members }
}

/** Returns facts that a schema states of all values that it takes. There may be further facts that are not found. */
export function factsOf (schema: unknown, resolve: Resolve, seen: readonly unknown[] = []): Facts {
  if (!isSchema(schema) || seen.includes(schema)) return nothing
  const within = [...seen, schema]
  let facts = own(schema, resolve, within)
  for (const part of schemasOf(schema['allOf'])) facts = both(facts, factsOf(part, resolve, within))
  for (const keyword of ['anyOf', 'oneOf']) {
    const branches = schema[keyword]
    if (!Array.isArray(branches) || branches.length === 0) continue
    facts = both(facts, branches.map(branch => factsOf(branch, resolve, within)).reduce(either))
  }
  const target = '$ref' in schema ? resolve(schema['$ref']) : undefined
  return target === undefined ? facts : both(facts, factsOf(target.schema, target.resolve, within))
}
