import { isSchema, type Schema } from '../schema/walk.ts'
import { merge, type Follow } from './merge.ts'
import { textOfPattern } from './text-of-pattern.ts'

/** How an example is made. If one is refused by its schema, the next way is tried. */
interface Way {
  /** Values that the schema itself gives: `examples` and `default`. */
  readonly given: boolean
  /** Members that are not required. */
  readonly optional: boolean
  /** The branch of each `anyOf` and `oneOf`. */
  readonly branch: number
}

const ways: readonly Way[] = [0, 1, 2].flatMap(branch => [true, false].flatMap(optional => [true, false].map(given => ({ given, optional, branch }))))

/** Depth below which only required members are written, because the schema may refer to itself, and depth that ends the attempt. */
const shallow = 4
const deepest = 12

/** Most values in one example, and most characters of a text in it. */
const maxValues = 200
const maxLength = 1_000

const formats: Readonly<Record<string, string>> = {
  'date-time': '2026-01-31T12:00:00Z',
  'iso-date-time': '2026-01-31T12:00:00Z',
  date: '2026-01-31',
  time: '12:00:00Z',
  'iso-time': '12:00:00Z',
  duration: 'PT15M',
  email: 'ada@example.com',
  hostname: 'example.com',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
  uri: 'https://example.com/',
  'uri-reference': '/path',
  'uri-template': '/path/{name}',
  url: 'https://example.com/',
  uuid: '0b6cf3a2-5d1e-4f0a-9b7c-2f8e6d4c1a35',
  'json-pointer': '/path',
  'relative-json-pointer': '0/path',
  regex: '^a+$',
  byte: 'dGV4dA=='
}

/** Thrown if an attempt cannot lead to an example. */
class NoExample extends Error {}

/** Returns keywords as numbers, with a fallback for those that are absent. */
function bound (schema: Schema, name: string, fallback: number): number {
  const value = schema[name]
  return typeof value === 'number' ? value : fallback
}

function textFor (schema: Schema, index: number): string {
  const { format, pattern } = schema
  const [minimum, maximum] = [bound(schema, 'minLength', 0), bound(schema, 'maxLength', Infinity)]
  if (typeof format === 'string' && Object.hasOwn(formats, format)) return formats[format]!
  if (minimum > maxLength) throw new NoExample()
  const name = index === 0 ? 'text' : `text ${index + 1}`
  const plain = name.padEnd(minimum, ' text').slice(0, maximum)
  if (typeof pattern !== 'string' || new RegExp(pattern, 'u').test(plain)) return plain
  const text = textOfPattern(pattern, minimum, maximum)
  if (text === undefined) throw new NoExample()
  return text
}

function numberFor (schema: Schema, isWhole: boolean, index: number): number {
  const multiple = bound(schema, 'multipleOf', isWhole ? 1 : 0)
  const step = multiple > 0 ? multiple : 1
  const least = Math.max(bound(schema, 'minimum', -Infinity), bound(schema, 'exclusiveMinimum', -Infinity))
  const most = Math.min(bound(schema, 'maximum', Infinity), bound(schema, 'exclusiveMaximum', Infinity))
  const isOpen = least === schema['exclusiveMinimum']
  let value = Math.max(1, least)
  if (value > most) value = least > -Infinity ? least : most
  if (multiple > 0) value = (least > -Infinity ? Math.ceil(value / step) : Math.floor(value / step)) * step
  if (isOpen && value <= least) value = multiple > 0 || least + step < most ? value + step : (least + most) / 2
  if (value >= most && most === schema['exclusiveMaximum']) value = least > -Infinity && multiple === 0 ? (least + most) / 2 : Math.ceil(most / step - 1) * step
  return value + index * step
}

/** Writes values of the schemas of one document. */
class Writer {
  readonly #way: Way
  readonly #follow: Follow
  #values = 0

  constructor (way: Way, follow: Follow) {
    this.#way = way
    this.#follow = follow
  }

  /** @param index - the place among equal items of an array, which may have to differ */
  value (given: unknown, depth = 0, index = 0): unknown {
    if (depth > deepest || ++this.#values > maxValues || given === false) throw new NoExample()
    const schema = this.#oneBranch(isSchema(given) ? given : {})
    if ('const' in schema) return schema['const']
    const { enum: values, examples, default: usual } = schema
    if (Array.isArray(values) && values.length > 0) return values[Math.min(index, values.length - 1)]
    if (this.#way.given) {
      if (Array.isArray(examples) && index < examples.length) return examples[index]
      if (usual !== undefined && index === 0) return usual
    }
    switch (this.#typeOf(schema)) {
      case 'object': return this.#object(schema, depth)
      case 'array': return this.#array(schema, depth)
      case 'integer': return numberFor(schema, true, index)
      case 'number': return numberFor(schema, false, index)
      case 'boolean': return index === 0
      case 'null': return null
      default: return textFor(schema, index)
    }
  }

  /** Returns a schema without `allOf`, `$ref`, `anyOf` and `oneOf`. */
  #oneBranch (schema: Schema): Schema {
    const { anyOf, oneOf, ...merged } = merge(schema, this.#follow)
    const branches = [anyOf, oneOf].filter(Array.isArray)
    if (branches.length === 0) return merged
    return this.#oneBranch({ ...merged, allOf: branches.map(list => list[Math.min(this.#way.branch, list.length - 1)] as unknown) })
  }

  #typeOf ({ type, properties, required, items, minimum, maximum }: Schema): unknown {
    if (type !== undefined) return [type].flat()[0]
    if (properties !== undefined || required !== undefined) return 'object'
    if (items !== undefined) return 'array'
    return minimum === undefined && maximum === undefined ? 'string' : 'number'
  }

  #object ({ properties, required = [], patternProperties, additionalProperties }: Schema, depth: number): object {
    const all: Schema = {}
    const declared = isSchema(properties) ? properties : {}
    for (const name of new Set([...Object.keys(declared), ...required as string[]])) {
      const isRequired = (required as unknown[]).includes(name)
      if (!isRequired && (!this.#way.optional || depth >= shallow)) continue
      try {
        all[name] = this.value(Object.hasOwn(declared, name) ? declared[name] : additionalProperties, depth + 1)
      } catch (error) {
        if (isRequired || this.#values > maxValues) throw error
      }
    }
    if (Object.keys(all).length > 0 || !this.#way.optional || depth >= shallow) return all
    const [pattern, inner] = isSchema(patternProperties) ? Object.entries(patternProperties)[0] ?? [] : []
    if (pattern !== undefined) return { [textFor({ pattern }, 0)]: this.value(inner, depth + 1) }
    return isSchema(additionalProperties) ? { text: this.value(additionalProperties, depth + 1) } : all
  }

  #array (schema: Schema, depth: number): unknown[] {
    const { items, prefixItems, contains } = schema
    const tuple = [prefixItems, items].find(Array.isArray) as unknown[] | undefined ?? []
    const minimum = bound(schema, 'minItems', 0)
    const others = Array.isArray(items) ? schema['additionalItems'] : items
    const hasOthers = others !== undefined && others !== false && depth < shallow
    const most = Math.max(minimum, tuple.length, contains === undefined && !hasOthers ? 0 : 1)
    const length = Math.min(most, bound(schema, 'maxItems', Infinity), 100)
    return Array.from({ length }, (_, index) => {
      if (index < tuple.length) return this.value(tuple[index], depth + 1)
      return this.value(contains !== undefined && index === 0 ? contains : others, depth + 1, index - tuple.length)
    })
  }
}

/**
 * Returns an example of the values that a schema takes: the same one each time. Returns `undefined` if none is found.
 * @param follow - follows the references in the schema
 * @param check - throws if the schema refuses a value
 */
export function exampleOf (schema: unknown, follow: Follow, check: (value: unknown) => void): { readonly value: unknown } | undefined {
  for (const way of ways) {
    try {
      const value = new Writer(way, follow).value(schema)
      check(value)
      return { value }
    } catch {
      // The next way may lead to an example.
    }
  }
  return undefined
}
