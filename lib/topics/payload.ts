import AjvCompiler from '@fastify/ajv-compiler'
import { strictSchema } from '../schema/strict-schema.ts'
import { FST_ROOMS_INVALID_PAYLOAD } from '../errors.ts'
import { isOfNewerDraft } from '../schema/fault.ts'
import { tellKindsApart } from '../schema/kinds.ts'
import type { Schema } from '../schema/walk.ts'
import { compileSerialiser, type Serialise } from './serializer.ts'

interface SchemaError { instancePath: string, keyword?: string, message?: string, params: Record<string, unknown> }

/** A compiled schema, typed as Ajv and Fastify use it. */
export interface Validate {
  (payload: unknown): boolean | Promise<unknown> | { error: unknown }
  errors?: SchemaError[] | null | undefined
}

/** Compiles one schema of a topic. */
export type CompilePayload = (schema: object) => PayloadType

/** The payloads that a topic takes. Code, the broadcast route and members' frames are checked by the same compiled validator. */
export class PayloadType {
  /** The compiled schema: a strict copy of the given one (see `strictSchema`). `null`: any JSON. */
  readonly schema: object | null
  readonly #validate: Validate | null
  readonly #compiled: Serialise | null

  constructor (schema: object | null, validate: Validate | null) {
    this.schema = schema
    this.#validate = validate
    this.#compiled = schema === null ? null : compileSerialiser(schema)
  }

  /** The validator for Fastify's `validatorCompiler`, so that the route refuses the payloads that code refuses. */
  get validate (): Validate | null {
    const validate = this.#validate
    if (validate === null) return null
    const forRoute: Validate = payload => {
      try {
        const taken = isTaken(validate, payload)
        forRoute.errors = taken ? null : reportedErrors(validate)
        return taken
      } catch (error) {
        return { error } // an error that a validator throws would be answered with 500
      }
    }
    return forRoute
  }

  /** @throws FST_ROOMS_INVALID_PAYLOAD with `details`, whose paths are JSON pointers */
  check (payload: unknown): void {
    const validate = this.#validate
    if (validate === null || isTaken(validate, payload)) return
    const details = reportedErrors(validate).map(({ instancePath, message }) => ({ path: instancePath, message }))
    const [first] = details
    throw Object.assign(new FST_ROOMS_INVALID_PAYLOAD(first === undefined ? 'refused by its schema' : `${first.path} ${first.message}`.trim()), { details })
  }

  /**
   * Returns the JSON of a payload that came as JSON and has been checked.
   * @throws FST_ROOMS_INVALID_PAYLOAD if a hook has changed it against its schema, or it is nested too deep
   */
  stringify (payload: unknown): string {
    if (this.#compiled === null) return toJson(payload)
    try {
      return this.#compiled(payload)
    } catch (error) {
      throw Object.assign(new FST_ROOMS_INVALID_PAYLOAD('a hook has changed it to a value that its schema refuses'), { cause: error })
    }
  }

  /**
   * Serialises a payload, and checks it as it is sent: an object with `toJSON` is checked by the JSON that it becomes.
   * @throws FST_ROOMS_INVALID_PAYLOAD
   */
  serialise (payload: unknown): string {
    try {
      return this.#write(payload)
    } catch (error) {
      // A getter of the payload may throw at any read.
      throw error instanceof FST_ROOMS_INVALID_PAYLOAD ? error : unreadable(error)
    }
  }

  #write (payload: unknown): string {
    const compiled = this.#compiled
    // `isPlain` is cheap here, because payloads of a schema that compiles to a serializer are flat. A refused payload gets its reasons below.
    if (compiled !== null && isTaken(this.#validate!, payload) && isPlain(payload)) return compiled(payload)
    const json = toJson(payload)
    if (this.#validate !== null) this.check(isPlain(payload) ? payload : JSON.parse(json))
    return json
  }
}

function unreadable (cause: unknown): Error {
  return Object.assign(new FST_ROOMS_INVALID_PAYLOAD('it cannot be serialised as JSON'), { cause })
}

/** @throws FST_ROOMS_INVALID_PAYLOAD if a recursive schema meets a payload so deep that the stack overflows */
function isTaken (validate: Validate, payload: unknown): boolean {
  try {
    return validate(payload) === true
  } catch (error) {
    throw error instanceof RangeError ? Object.assign(new FST_ROOMS_INVALID_PAYLOAD('it is nested too deep'), { cause: error }) : unreadable(error)
  }
}

/** The payload of a topic without a schema. */
export const anyPayload: PayloadType = new PayloadType(null, null)

/** Most faults of one payload that are reported, because with Ajv's `allErrors` a peer could provoke one for each byte. */
const maxDetails = 20

/** Most characters of a list of allowed values. */
const maxListed = 256

function listed (values: unknown[]): string {
  const text = values.map(value => JSON.stringify(value)).join(', ')
  return text.length > maxListed ? `${text.slice(0, maxListed)}…` : text
}

function explain ({ message = 'is invalid', params }: SchemaError): string {
  const { additionalProperty, allowedValues, allowedValue } = params
  if (typeof additionalProperty === 'string') return `${message} (${JSON.stringify(additionalProperty.slice(0, 64))})`
  if (Array.isArray(allowedValues)) return `${message} (${listed(allowedValues)})`
  return allowedValue === undefined ? message : `${message} (${listed([allowedValue])})`
}

/** Returns the errors of a validator, with messages that name the member or the values that they are about. */
function reportedErrors ({ errors }: Validate): (SchemaError & { message: string })[] {
  const all = errors ?? []
  // An error of `if` is left out if there are others, because they say what failed in the condition.
  const telling = all.filter(({ keyword }) => keyword !== 'if')
  return (telling.length === 0 ? all : telling).slice(0, maxDetails).map(error => ({ ...error, message: explain(error) }))
}

/** Whether `JSON.stringify` writes a value as it is, because it consists of plain objects and arrays without `toJSON`. */
function isPlain (value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== Array.prototype && prototype !== null) return false
  return !('toJSON' in value) && Object.values(value).every(isPlain)
}

/** @throws FST_ROOMS_INVALID_PAYLOAD for a value without JSON: undefined, a function, a BigInt, a circular object, a `toJSON` that throws */
export function toJson (payload: unknown): string {
  let json: string | undefined
  try {
    json = JSON.stringify(payload)
  } catch (error) {
    throw unreadable(error)
  }
  if (json === undefined) throw new FST_ROOMS_INVALID_PAYLOAD(`${typeof payload} is not a JSON value`)
  return json
}

/** The host's `Fastify({ ajv })` in the form that @fastify/ajv-compiler takes. */
export interface HostAjv {
  readonly customOptions?: Record<string, unknown>
  readonly plugins?: readonly unknown[]
  readonly onCreate?: (ajv: never) => unknown
}

/**
 * Options that override the host's. Payloads are not changed: no coercion, no defaults, no members removed. Of Ajv's strict mode the
 * checks that find mistakes are on (unknown keywords and formats, NaN); those that refuse correct schemas for their form are off.
 */
const ajvOptions = {
  coerceTypes: false,
  useDefaults: false,
  removeAdditional: false,
  // On, because a recursive schema refers to itself by its $id.
  addUsedSchema: true,
  strict: true,
  strictSchema: true,
  strictNumbers: true,
  strictTypes: false,
  strictTuples: false,
  strictRequired: false,
  validateFormats: true,
  discriminator: true
} as const

interface AjvInstance {
  opts: Record<string, unknown>
  RULES: { all: Record<string, boolean | { definition: { modifying?: boolean } } | undefined> }
  removeKeyword (keyword: string): unknown
}

/** Sets the options again after the host's plugins and `onCreate` have run, and removes keywords that change the value that they check. */
function secure (ajv: AjvInstance): void {
  // The keywords beside a `$ref` make it strict, so they must not be ignored. Set here, because Ajv warns of this option if its constructor gets it.
  Object.assign(ajv.opts, ajvOptions, { ignoreKeywordsWithRef: false })
  for (const [keyword, rule] of Object.entries(ajv.RULES.all)) {
    if (typeof rule === 'object' && rule.definition.modifying === true) ajv.removeKeyword(keyword)
  }
}

/**
 * Returns a compiler of schemas.
 * @param shared - the host's shared schemas (`app.getSchemas()`), for `$ref`
 * @param hostAjv - the host's formats, keywords and plugins
 */
export function schemaCompiler (shared: Record<string, unknown>, hostAjv: HostAjv = {}): (schema: object) => Validate {
  const { customOptions, plugins = [], onCreate } = hostAjv
  const options = {
    customOptions: { ...customOptions, ...ajvOptions },
    plugins,
    onCreate (ajv: AjvInstance) {
      onCreate?.(ajv as never)
      secure(ajv)
    }
  }
  const compile = AjvCompiler()(shared as Record<string, object>, options as never) as unknown as (route: { schema: object }) => Validate
  return schema => compile({ schema })
}

/** Returns a schema as it is given to Ajv: with unions told apart by kind, and without the `$schema` of a newer draft. */
function prepare (schema: Schema, shared: Record<string, unknown>): Schema {
  const { $schema, ...rest } = tellKindsApart(schema, shared)
  return $schema === undefined || isOfNewerDraft({ $schema }) ? rest : { $schema, ...rest }
}

/** Returns a compiler of topics' schemas. It compiles a strict copy, see `strictSchema`. */
export function payloadCompiler (compile: (schema: object) => Validate, shared: Record<string, unknown>): CompilePayload {
  const named = new Map<string, object>()
  return (schema) => {
    const strict = { ...strictSchema(schema, shared) as Schema & { $id?: string } }
    // The compiler returns the schema that it first saw under an id, which must not be a shared schema (not strict) or another topic's.
    const { $id } = strict
    if ($id !== undefined && ($id in shared || (named.get($id) ?? schema) !== schema)) {
      // Without its $id, a reference to itself would find the other schema.
      if (JSON.stringify(strict).includes(`"$ref":${JSON.stringify($id)}`)) throw new Error(`it refers to itself as "${$id}", which is also the $id of another schema`)
      delete strict.$id
    } else if ($id !== undefined) named.set($id, schema)
    return new PayloadType(strict, compile(prepare(strict, shared)))
  }
}
