import { isSchema, schemasOf, type Schema } from '../schema/walk.ts'
import { code, inline, table } from './markup.ts'
import { merge, type Follow } from './merge.ts'

/** Deepest level of members, and most rows, of a table. */
const deepest = 8
const maxRows = 200

/** Keywords that limit a value, with the words for them. */
const limits: Readonly<Record<string, string>> = {
  format: 'format',
  pattern: 'matches',
  minLength: 'characters from',
  maxLength: 'characters up to',
  minimum: 'from',
  exclusiveMinimum: 'above',
  maximum: 'to',
  exclusiveMaximum: 'below',
  multipleOf: 'multiple of',
  minItems: 'items from',
  maxItems: 'items up to',
  uniqueItems: 'without duplicates:',
  minProperties: 'members from',
  maxProperties: 'members up to',
  default: 'default'
}

function typeText (schema: Schema, follow: Follow): string {
  const { type, items } = schema
  if ('const' in schema) return JSON.stringify(schema['const'])
  if (Array.isArray(schema['enum'])) return schema['enum'].map(value => JSON.stringify(value)).join(' | ')
  if (type === 'array' && isSchema(items) && !('anyOf' in items || 'oneOf' in items)) return `array of ${typeText(merge(items, follow), follow)}`
  if (type !== undefined) return [type].flat().join(' | ')
  if ('anyOf' in schema || 'oneOf' in schema) return 'one of'
  return 'properties' in schema ? 'object' : 'any'
}

function notes (schema: Schema, isRequired: boolean): string {
  const { title, description } = schema
  const texts = [title, description].filter(text => typeof text === 'string').map(inline)
  const bounds = Object.entries(limits).filter(([name]) => schema[name] !== undefined)
    .map(([name, words]) => `${words} ${code(typeof schema[name] === 'string' && name !== 'default' ? schema[name] : JSON.stringify(schema[name]))}`)
  return [isRequired ? '<strong>required</strong>' : '', ...texts, bounds.join(', ')].filter(text => text !== '').join('; ')
}

/** Writes the rows of one table. */
class Rows {
  readonly rows: string[][] = []
  readonly #follow: Follow

  constructor (follow: Follow) {
    this.#follow = follow
  }

  /** @param path - the names from the frame to this value; empty for the frame itself, which has no row */
  add (path: string, given: unknown, isRequired: boolean, seen: readonly unknown[]): void {
    if (this.rows.length >= maxRows) return
    const plain = isSchema(given) ? given : {}
    const schema = merge(plain, this.#follow)
    const refs = [plain, ...schemasOf(plain['allOf'])].map(({ $ref }) => $ref).filter(ref => ref !== undefined)
    const isRepeated = refs.some(ref => seen.includes(ref))
    const text = given === false ? 'never' : typeText(schema, this.#follow)
    const note = [notes(schema, isRequired), isRepeated ? 'as above' : ''].filter(part => part !== '').join('; ')
    // The type of an array names that of its items.
    if (path !== '' && (note !== '' || !path.endsWith('[]'))) this.rows.push([code(path), code(text), note])
    if (isRepeated || seen.length >= deepest) return
    this.#addBelow(path, schema, [...seen, refs[0]])
  }

  #addBelow (path: string, schema: Schema, seen: readonly unknown[]): void {
    const { properties, required, items, prefixItems, additionalProperties, patternProperties } = schema
    const below = (name: string): string => path === '' ? name : `${path}.${name}`
    const names = Array.isArray(required) ? required as unknown[] : []
    for (const [name, inner] of Object.entries(isSchema(properties) ? properties : {})) this.add(below(name), inner, names.includes(name), seen)
    for (const [pattern, inner] of Object.entries(isSchema(patternProperties) ? patternProperties : {})) this.add(below(`/${pattern}/`), inner, false, seen)
    if (isSchema(additionalProperties)) this.add(below('*'), additionalProperties, false, seen)
    const tuple = [prefixItems, items].find(Array.isArray) as unknown[] | undefined
    tuple?.forEach((inner, index) => { this.add(`${path}[${index}]`, inner, false, seen) })
    if (isSchema(items)) this.add(`${path}[]`, items, false, seen)
    for (const keyword of ['anyOf', 'oneOf']) schemasOf(schema[keyword]).forEach((inner, index) => { this.add(`${path}${path === '' ? '' : ' '}(${index + 1})`, inner, false, seen) })
  }
}

/** Returns a table with a row for each member of a frame. */
export function schemaTable (label: string, schema: unknown, follow: Follow): string {
  const rows = new Rows(follow)
  rows.add('', schema, true, [])
  return table(label, ['Member', 'Type', 'Notes'], rows.rows.length >= maxRows ? [...rows.rows, ['…', '', 'and more: see the document']] : rows.rows, 'schema')
}
