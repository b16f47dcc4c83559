type Schema = Record<string, unknown>

const alternatives = ['anyOf', 'oneOf'] as const
const branches = ['then', 'else'] as const
const maps = ['properties', 'patternProperties', '$defs', 'definitions'] as const

function isSchema (value: unknown): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function list (value: unknown): Schema[] {
  return Array.isArray(value) ? value.filter(isSchema) : []
}

/** Schemas of which one at a time speaks about the same value as this one, and may declare members of it. */
function choices (schema: Schema): Schema[][] {
  return [
    ...alternatives.map(keyword => list(schema[keyword])),
    branches.map(keyword => schema[keyword]).filter(isSchema)
  ]
}

/** The schemas that all speak about the same value as this one. */
function parts (schema: Schema): Schema[] {
  return [...list(schema.allOf), ...(isSchema(schema.dependentSchemas) ? Object.values(schema.dependentSchemas).filter(isSchema) : [])]
}

/** How often each member is declared for one value; `null` where that cannot be told, or the schema itself says what else may come. */
function declared (schema: Schema): Map<string, number> | null {
  if ('$ref' in schema || '$dynamicRef' in schema || 'patternProperties' in schema || 'additionalProperties' in schema || 'unevaluatedProperties' in schema) return null
  const names = new Map<string, number>()
  const add = (name: string, count: number): void => { names.set(name, (names.get(name) ?? 0) + count) }
  for (const name of Object.keys(isSchema(schema.properties) ? schema.properties : {})) add(name, 1)
  for (const part of parts(schema)) {
    const inner = declared(part)
    if (inner === null) return null
    inner.forEach((count, name) => { add(name, count) })
  }
  for (const choice of choices(schema)) {
    // Of alternatives one speaks at a time: what each of them declares is declared once.
    const most = new Map<string, number>()
    for (const part of choice) {
      const inner = declared(part)
      if (inner === null) return null
      inner.forEach((count, name) => { most.set(name, Math.max(count, most.get(name) ?? 0)) })
    }
    most.forEach((count, name) => { add(name, count) })
  }
  return names
}

function closeMap (map: Schema, skip?: (name: string) => boolean): Schema {
  return Object.fromEntries(Object.entries(map).map(([name, value]) => [name, skip?.(name) === true ? value : closeSchema(value)]))
}

/** One part of a composition: what it declares is closed below it, but not itself, since the other parts declare members, too. */
function closePart (part: Schema, names: Map<string, number>): Schema {
  const copy: Schema = { ...part }
  if (isSchema(part.properties)) copy.properties = closeMap(part.properties, name => names.get(name)! > 1)
  if (Array.isArray(part.allOf)) copy.allOf = part.allOf.map(inner => isSchema(inner) ? closePart(inner, names) : inner)
  for (const keyword of alternatives) {
    if (Array.isArray(part[keyword])) copy[keyword] = part[keyword].map(inner => isSchema(inner) ? closePart(inner, names) : inner)
  }
  for (const keyword of branches) {
    if (isSchema(part[keyword])) copy[keyword] = closePart(part[keyword], names)
  }
  if (isSchema(part.dependentSchemas)) {
    copy.dependentSchemas = Object.fromEntries(Object.entries(part.dependentSchemas).map(([name, inner]) => [name, isSchema(inner) ? closePart(inner, names) : inner]))
  }
  return copy
}

function closeComposition (schema: Schema): Schema {
  const names = declared(schema)
  if (names === null || names.size === 0) return schema
  const copy = closePart(schema, names)
  const own = isSchema(copy.properties) ? copy.properties : {}
  // Members that only a part declares are named here without a demand, so that additionalProperties leaves them to their part;
  // neither keyword says anything about what is no object.
  copy.properties = { ...Object.fromEntries([...names.keys()].map(name => [name, {}])), ...own }
  copy.additionalProperties = false
  return copy
}

/**
 * A copy of a JSON Schema in which an object that lists its members and is silent about others refuses others, at every
 * depth. A schema that says `additionalProperties` itself (`true` included) keeps its word; what stands behind a `$ref` is
 * left as it is. Compositions (`allOf`, and `anyOf` beside `properties`) are closed as a whole.
 */
export function closeSchema (schema: unknown): unknown {
  if (!isSchema(schema)) return schema
  const composed = 'allOf' in schema || 'then' in schema || 'else' in schema || 'dependentSchemas' in schema ||
    ('properties' in schema && ('anyOf' in schema || 'oneOf' in schema))
  if (composed) return closeComposition(schema)

  const copy: Schema = { ...schema }
  for (const keyword of maps) {
    const map = schema[keyword]
    if (isSchema(map)) copy[keyword] = closeMap(map)
  }
  for (const keyword of alternatives) {
    if (Array.isArray(schema[keyword])) copy[keyword] = schema[keyword].map(closeSchema)
  }
  for (const keyword of ['items', 'prefixItems', 'additionalItems', 'additionalProperties']) {
    const value = schema[keyword]
    if (value !== undefined) copy[keyword] = Array.isArray(value) ? value.map(closeSchema) : closeSchema(value)
  }
  if (('properties' in schema || 'patternProperties' in schema) && !('additionalProperties' in schema) && !('unevaluatedProperties' in schema)) {
    copy.additionalProperties = false
  }
  return copy
}
