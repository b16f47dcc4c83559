/** How to get the JSON Schema of a validator object, by the name of its library in Standard Schema (https://standardschema.dev). */
const conversions: Record<string, string> = {
  zod: 'with Zod 4 z.toJSONSchema(schema, { target: "draft-7" })',
  valibot: 'with Valibot toJsonSchema(schema) of @valibot/to-json-schema',
  arktype: 'with ArkType schema.toJsonSchema({ target: "draft-07" })'
}

/** Drafts that may be compiled as draft-7: the compiler knows their keywords from draft-7, and refuses the others. */
const newerDraft = /^https?:\/\/json-schema\.org\/draft\/(?:2019-09|2020-12)\/schema#?$/
const ownDraft = /^http:\/\/json-schema\.org\/draft-07\/schema#?$/

/** Returns why an object is not a JSON Schema; `null` if it may be one. */
export function schemaFault (schema: object): string | null {
  if ('$async' in schema) return 'it is asynchronous ($async), but messages are checked in order'
  // Checked first, because the result of z.toJSONSchema has '~standard', too.
  if ('$schema' in schema) return null
  const { '~standard': standard, parse } = schema as { '~standard'?: { vendor?: unknown }, parse?: unknown }
  if (typeof schema !== 'function' && !('~standard' in schema) && typeof parse !== 'function') return null
  const vendor = String(standard?.vendor)
  return `it is a validator object (Zod or another Standard Schema); give its JSON Schema, ${conversions[Object.hasOwn(conversions, vendor) ? vendor : 'zod']}`
}

/** Whether a schema is of a newer draft that may be compiled as draft-7. */
export function isOfNewerDraft ({ $schema }: { $schema?: unknown }): boolean {
  return typeof $schema === 'string' && newerDraft.test($schema)
}

/** Returns why a schema did not compile, and what to do if its draft may be the reason. */
export function explainFault (schema: { $schema?: unknown }, message: string): string {
  const { $schema } = schema
  if ($schema === undefined || (typeof $schema === 'string' && ownDraft.test($schema))) return message
  return `${message}; its "$schema" is ${JSON.stringify($schema)}, and topics take draft-7 (and the keywords of 2019-09 and 2020-12 that mean the same): give draft-7, with Zod z.toJSONSchema(schema, { target: "draft-7" }), with ArkType and Valibot target "draft-07"`
}
