/** A JSON Schema that is an object, not `true` or `false`. */
export type Schema = Record<string, unknown>

const maps = ['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas', 'dependencies'] as const
const lists = ['allOf', 'anyOf', 'oneOf', 'prefixItems'] as const
const singles = ['items', 'additionalItems', 'additionalProperties', 'unevaluatedItems', 'unevaluatedProperties', 'not', 'if', 'then', 'else', 'contains', 'propertyNames'] as const

export function isSchema (value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Returns the schemas of a list such as `allOf`, or none if the value is not a list. */
export function schemasOf (value: unknown): Schema[] {
  return Array.isArray(value) ? value.filter(isSchema) : []
}

/** Returns a copy of a map of schemas, such as `properties`. */
export function mapValues (map: Schema, each: (value: unknown, name: string) => unknown): Schema {
  return Object.fromEntries(Object.entries(map).map(([name, value]) => [name, each(value, name)]))
}

/**
 * Returns a shallow copy of a schema in which `each` has replaced the schemas directly below it. `const`, `default` and other data stay.
 * @param each - gets a schema, and the keyword with the name or the index under which it stands
 */
export function mapSchemas (schema: Schema, each: (inner: Schema, keyword: string, name?: string | number) => unknown): Schema {
  const one = (value: unknown, keyword: string, name?: string | number): unknown => isSchema(value) ? each(value, keyword, name) : value
  const copy: Schema = { ...schema }
  for (const keyword of maps) {
    const map = schema[keyword]
    if (isSchema(map)) copy[keyword] = mapValues(map, (value, name) => one(value, keyword, name))
  }
  for (const keyword of lists) {
    const list = schema[keyword]
    if (Array.isArray(list)) copy[keyword] = list.map((value, index) => one(value, keyword, index))
  }
  for (const keyword of singles) {
    const value = schema[keyword]
    if (value !== undefined) copy[keyword] = Array.isArray(value) ? value.map((inner, index) => one(inner, keyword, index)) : one(value, keyword)
  }
  return copy
}

/** Calls `visit` for a schema and every schema in it. */
export function visitSchemas (schema: Schema, visit: (inner: Schema) => void): void {
  visit(schema)
  mapSchemas(schema, inner => { visitSchemas(inner, visit) })
}
