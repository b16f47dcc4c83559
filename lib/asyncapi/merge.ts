import { isSchema, schemasOf, type Schema } from '../schema/walk.ts'

/** Follows a `$ref`. */
export type Follow = (ref: unknown) => Schema | undefined

/** Returns the members that two schemas declare for the same value. */
function bothProperties (one: unknown, other: unknown): Schema {
  const all: Schema = { ...isSchema(one) ? one : {} }
  for (const [name, inner] of Object.entries(isSchema(other) ? other : {})) {
    const known = Object.hasOwn(all, name) ? all[name] : undefined
    const isEmpty = (value: unknown): boolean => isSchema(value) && Object.keys(value).length === 0
    all[name] = known === undefined || isEmpty(known) ? inner : isEmpty(inner) ? known : { allOf: [known, inner] }
  }
  return all
}

/**
 * Returns one schema for a schema and those that are composed with it by `allOf` and `$ref`, for readers: keywords that both have are those of the later one.
 * The schemas of `seen` are not followed again.
 */
export function merge (schema: Schema, follow: Follow, seen: readonly unknown[] = []): Schema {
  const { $ref, allOf, ...own } = schema
  if (seen.includes(schema)) return own
  const within = [...seen, schema]
  const target = $ref === undefined ? undefined : follow($ref)
  let all: Schema = {}
  for (const part of [...(target === undefined ? [] : [target]), ...schemasOf(allOf)].map(part => merge(part, follow, within)).concat(own)) {
    all = {
      ...all,
      ...part,
      ...('properties' in all || 'properties' in part ? { properties: bothProperties(all['properties'], part['properties']) } : {}),
      ...('required' in all || 'required' in part ? { required: [...new Set([all['required'] ?? [], part['required'] ?? []].flat())] } : {})
    }
  }
  return all
}
