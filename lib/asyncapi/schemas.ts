import type { AsyncApiReference, AsyncApiSchema } from '../../types/index.ts'
import { isSchema, mapSchemas, type Schema } from '../schema/walk.ts'

/** Returns a copy of a schema as JSON: without symbols, such as those of TypeBox, functions and `undefined`. */
function asJson (schema: unknown): Schema {
  return JSON.parse(JSON.stringify(schema, (_name, value: unknown) => typeof value === 'bigint' ? Number(value) : value)) as Schema
}

/** Returns the part of a JSON pointer in a URI fragment (RFC 6901, section 6) that leads to a schema below another one. */
function step (keyword: string, name?: string | number): string {
  const escape = (token: string): string => encodeURIComponent(token.replaceAll('~', '~0').replaceAll('/', '~1'))
  return `/${keyword}${name === undefined ? '' : `/${escape(String(name))}`}`
}

/** Returns a URI without its fragment, resolved against the URI of the schema around it if that is absolute. */
function resolveUri (base: string, uri: string): string {
  const [name] = uri.split('#') as [string]
  if (name === '') return base
  return URL.canParse(name, base) ? new URL(name, base).href : name
}

/** One schema of the host: its place in the document, and the places of the schemas in it by their URI, anchors included. */
interface Root {
  readonly at: string
  readonly schema: Schema
  readonly places: ReadonlyMap<string, string>
}

/** Returns the URI that applies within a schema. */
function baseWithin ({ $id }: Schema, base: string): string {
  return typeof $id === 'string' && !$id.startsWith('#') ? resolveUri(base, $id) : base
}

function rootOf (at: string, schema: Schema): Root {
  const places = new Map([['', at]])
  const visit = (inner: Schema, base: string, path: string): void => {
    const own = baseWithin(inner, base)
    if (inner['$id'] !== undefined && !places.has(own)) places.set(own, path)
    // An `$id` that begins with `#` is an anchor in draft-7.
    const { $id } = inner
    if (typeof $id === 'string' && $id.startsWith('#')) places.set(`${own}${$id}`, path)
    mapSchemas(inner, (below, keyword, name) => { visit(below, own, path + step(keyword, name)) })
  }
  visit(schema, '', at)
  return { at, schema, places }
}

/**
 * The member `components.schemas` of a document. Schemas are copied, and their references lead to places in the document, because those of the host are
 * relative to each schema, or name shared schemas (`app.addSchema`). Shared schemas are added when a reference leads to them.
 */
export class ComponentSchemas {
  /** The schemas by name. */
  readonly schemas: Record<string, AsyncApiSchema> = {}
  readonly #shared: ReadonlyMap<string, unknown>
  readonly #roots = new Map<unknown, Root>()

  constructor (shared: Record<string, unknown>) {
    this.#shared = new Map(Object.entries(shared).map(([id, schema]) => [resolveUri('', id), schema]))
  }

  /** Adds a schema, and returns the reference to it. The same schema is added once. */
  add (name: string, schema: object): AsyncApiReference {
    return { $ref: this.#root(name, schema).at }
  }

  #root (name: string, schema: unknown): Root {
    const known = this.#roots.get(schema)
    if (known !== undefined) return known
    const free = this.#freeName(name)
    const root = rootOf(`#/components/schemas/${free}`, asJson(schema))
    this.#roots.set(schema, root)
    this.schemas[free] = {} // the name is taken, because the schema may refer to itself
    this.schemas[free] = this.#copy(root, root.schema, '')
    return root
  }

  #freeName (name: string): string {
    const clean = name.replace(/[^\w.-]+/g, '-')
    let free = clean
    for (let number = 2; Object.hasOwn(this.schemas, free); number++) free = `${clean}-${number}`
    return free
  }

  #copy (root: Root, schema: Schema, base: string): Schema {
    const own = baseWithin(schema, base)
    const { $id, $schema, $ref, nullable, ...copy } = mapSchemas(schema, inner => this.#copy(root, inner, own))
    // A keyword of OpenAPI that Ajv knows, and AsyncAPI does not.
    if (nullable === true && copy['type'] !== undefined) copy['type'] = [...new Set([copy['type'], 'null'].flat())]
    if (typeof $ref !== 'string') return copy
    const place = this.#placeOf(root, $ref, own)
    const target: Schema = place === undefined ? { description: `the schema ${$ref}, which is not part of this document` } : { $ref: place }
    if (Object.keys(copy).length === 0) return target
    // Readers of draft-7 ignore the keywords beside a `$ref`.
    return { ...copy, allOf: [target, ...(Array.isArray(copy['allOf']) ? copy['allOf'] as unknown[] : [])] }
  }

  /** Returns the place in the document that a reference leads to; `undefined` if it is not known, for example because a plugin of Ajv has added it. */
  #placeOf (root: Root, ref: string, base: string): string | undefined {
    const [name, fragment = ''] = ref.split('#') as [string, string?]
    const uris = [resolveUri(base, ref), name]
    const own = uris.find(uri => root.places.has(uri))
    if (own !== undefined) return placeIn(root, own, fragment)
    const id = uris.find(uri => this.#shared.has(uri))
    if (id === undefined) return undefined
    const other = this.#root(id, this.#shared.get(id))
    return placeIn(other, id, fragment)
  }
}

/** @param uri - that of a schema in `root` */
function placeIn ({ places }: Root, uri: string, fragment: string): string | undefined {
  return fragment === '' || fragment.startsWith('/') ? places.get(uri)! + fragment : places.get(`${uri}#${fragment}`)
}

/** Follows a reference within a document. Returns `undefined` if it leads to no object. */
export function follow (document: object, ref: unknown): Schema | undefined {
  if (typeof ref !== 'string' || !ref.startsWith('#/')) return undefined
  let at: unknown = document
  for (const token of ref.slice(2).split('/')) {
    if (typeof at !== 'object' || at === null) return undefined
    const name = decode(token).replaceAll('~1', '/').replaceAll('~0', '~')
    at = Object.hasOwn(at, name) ? (at as Schema)[name] : undefined
  }
  return isSchema(at) ? at : undefined
}

function decode (token: string): string {
  try {
    return decodeURIComponent(token)
  } catch {
    return token
  }
}
