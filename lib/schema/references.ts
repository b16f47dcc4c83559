import { isSchema, visitSchemas, type Schema } from './walk.ts'

/** The schema that a `$ref` names. */
export interface Target {
  readonly schema: Schema
  /** Whether it is one of the host's shared schemas (`app.addSchema`), or a part of one. */
  readonly shared: boolean
  /** Follows the references in this schema. */
  readonly resolve: Resolve
}

/** Follows a `$ref`. Returns `undefined` if that needs a resolver of URIs. */
export type Resolve = (ref: unknown) => Target | undefined

/** An `$id` that does not depend on the base URI. */
const plainName = /^[\w.-]+$/

/** Returns the value that a JSON pointer names (RFC 6901, as a fragment of a URI). */
function follow (root: Schema, pointer: string): unknown {
  let at: unknown = root
  for (const token of pointer.split('/').slice(1)) {
    let name: string
    try {
      name = decodeURIComponent(token).replaceAll('~1', '/').replaceAll('~0', '~')
    } catch {
      return undefined
    }
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return undefined
    at = (at as Schema)[name]
  }
  return at
}

/**
 * Returns a function that follows the references of one schema: within it (`#/definitions/…`, `#`), by a plain `$id` in it, and to shared
 * schemas. Pointers are not followed if an inner schema has an `$id`, because that changes the meaning of `#` below it.
 */
export function referencesOf (root: Schema, sharedSchemas: Record<string, unknown>, shared = false): Resolve {
  const named = new Map<string, Schema>()
  let isNested = false
  let isPlain = true
  visitSchemas(root, inner => {
    const { $id } = inner
    if ($id === undefined) return
    if (inner !== root) isNested = true
    if (typeof $id !== 'string' || !plainName.test($id) || named.has($id)) isPlain = false
    else named.set($id, inner)
  })
  const resolve: Resolve = ref => {
    if (typeof ref !== 'string' || !isPlain) return undefined
    const [name = '', pointer = ''] = ref.split('#')
    if (pointer !== '' && !pointer.startsWith('/')) return undefined
    const own = name === '' ? root : named.get(name)
    if (own !== undefined) {
      if ((isNested && (name === '' || pointer !== '')) || (!shared && Object.hasOwn(sharedSchemas, name))) return undefined
      const schema = follow(own, pointer)
      return isSchema(schema) ? { schema, shared, resolve } : undefined
    }
    const other = Object.hasOwn(sharedSchemas, name) ? sharedSchemas[name] : undefined
    return isSchema(other) ? referencesOf(other, sharedSchemas, true)(`#${pointer}`) : undefined
  }
  return resolve
}
