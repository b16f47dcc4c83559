import AjvCompiler from '@fastify/ajv-compiler'
import { closeSchema } from '../schema/strict-schema.ts'
import { FST_ROOMS_INVALID_PAYLOAD } from '../errors.ts'
import { isOfNewerDraft } from '../schema/fault.ts'
import { tellKindsApart } from '../schema/kinds.ts'
import type { Schema } from '../schema/walk.ts'
import { compileSerialiser, type Serialise } from './serializer.ts'

interface SchemaError { instancePath: string, keyword?: string, message?: string, params: Record<string, unknown> }

/** A compiled schema as Ajv and Fastify know it. */
export interface Validate {
  (payload: unknown): boolean | Promise<unknown> | { error: unknown }
  errors?: SchemaError[] | null | undefined
}

/** Compiles one schema of a topic. */
export type CompilePayload = (schema: object) => PayloadType

/** What a topic carries: the one compiled validator that code, the broadcast route and members' frames go through. */
export class PayloadType {
  /** As compiled: the given schema, closed (see closeSchema). `null`: any JSON. */
  readonly schema: object | null
  readonly #validate: Validate | null
  readonly #compiled: Serialise | null

  constructor (schema: object | null, validate: Validate | null) {
    this.schema = schema
    this.#validate = validate
    this.#compiled = schema === null ? null : compileSerialiser(schema)
  }

  /** For Fastify's `validatorCompiler`: the same validator, so that the route refuses what code refuses. */
  get validate (): Validate | null {
    const validate = this.#validate
    if (validate === null) return null
    const forRoute: Validate = payload => {
      try {
        const taken = isTaken(validate, payload)
        forRoute.errors = taken ? null : reported(validate)
        return taken
      } catch (error) {
        return { error } // what a validator throws would be a 500
      }
    }
    return forRoute
  }

  /** @throws FST_ROOMS_INVALID_PAYLOAD with `details`, paths as JSON pointers. */
  check (payload: unknown): void {
    const validate = this.#validate
    if (validate === null || isTaken(validate, payload)) return
    const details = reported(validate).map(({ instancePath, message }) => ({ path: instancePath, message }))
    const [first] = details
    throw Object.assign(new FST_ROOMS_INVALID_PAYLOAD(first === undefined ? 'refused by its schema' : `${first.path} ${first.message}`.trim()), { details })
  }

  /** The JSON of a payload that came as JSON and has been checked. @throws FST_ROOMS_INVALID_PAYLOAD where a hook has made something else of it, or it is nested too deep */
  stringify (payload: unknown): string {
    if (this.#compiled === null) return toJson(payload)
    try {
      return this.#compiled(payload)
    } catch (error) {
      throw Object.assign(new FST_ROOMS_INVALID_PAYLOAD('a hook has made of it what its schema does not take'), { cause: error })
    }
  }

  /** Serialises, and checks what is sent: of an object that JSON writes in a way of its own, that. @throws FST_ROOMS_INVALID_PAYLOAD */
  serialise (payload: unknown): string {
    try {
      return this.#write(payload)
    } catch (error) {
      // A getter of the host's may fail at any of the reads.
      throw error instanceof FST_ROOMS_INVALID_PAYLOAD ? error : unreadable(error)
    }
  }

  #write (payload: unknown): string {
    const compiled = this.#compiled
    // What such a schema takes is flat enough to be looked through; what it does not take is refused below, and told why.
    if (compiled !== null && isTaken(this.#validate!, payload) && isPlain(payload)) return compiled(payload)
    const json = toJson(payload)
    if (this.#validate !== null) this.check(isPlain(payload) ? payload : JSON.parse(json))
    return json
  }
}

function unreadable (cause: unknown): Error {
  return Object.assign(new FST_ROOMS_INVALID_PAYLOAD('it cannot be serialised as JSON'), { cause })
}

/** @throws FST_ROOMS_INVALID_PAYLOAD where a recursive schema meets a payload so deep that the stack does not hold it */
function isTaken (validate: Validate, payload: unknown): boolean {
  try {
    return validate(payload) === true
  } catch (error) {
    throw error instanceof RangeError ? Object.assign(new FST_ROOMS_INVALID_PAYLOAD('it is nested too deep'), { cause: error }) : unreadable(error)
  }
}

/** The payload of a topic without a schema. */
export const anyPayload: PayloadType = new PayloadType(null, null)

/** Faults of one payload that are told; a host whose Ajv collects all of them (`allErrors`) could be made to send one per byte. */
const maxDetails = 20

/** Characters of a list of allowed values. */
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

/** Why a validator has refused: its errors, with messages that name the member or the values in question. */
function reported ({ errors }: Validate): (SchemaError & { message: string })[] {
  const all = errors ?? []
  // That a condition failed says nothing beside what failed in it.
  const telling = all.filter(({ keyword }) => keyword !== 'if')
  return (telling.length === 0 ? all : telling).slice(0, maxDetails).map(error => ({ ...error, message: explain(error) }))
}

/** Whether JSON writes a value just as it stands: plain objects and arrays all the way down. */
function isPlain (value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== Array.prototype && prototype !== null) return false
  return !('toJSON' in value) && Object.values(value).every(isPlain)
}

/** @throws FST_ROOMS_INVALID_PAYLOAD for what JSON cannot say: undefined, functions, BigInt, circles, a throwing toJSON. */
export function toJson (payload: unknown): string {
  let json: string | undefined
  try {
    json = JSON.stringify(payload)
  } catch (error) {
    throw unreadable(error)
  }
  if (json === undefined) throw new FST_ROOMS_INVALID_PAYLOAD(`${typeof payload} is no JSON value`)
  return json
}

/** The host's `Fastify({ ajv })`, as @fastify/ajv-compiler takes it. */
export interface HostAjv {
  readonly customOptions?: Record<string, unknown>
  readonly plugins?: readonly unknown[]
  readonly onCreate?: (ajv: never) => unknown
}

/**
 * Nothing is changed on the way in: no coercion, no defaults, no members removed. Of Ajv's strict mode the checks that find
 * mistakes stay on (unknown keywords and formats, NaN); those that refuse sound schemas for their form are off. These win over
 * what the host says for its routes.
 */
const ajvOptions = {
  coerceTypes: false,
  useDefaults: false,
  removeAdditional: false,
  // A recursive schema refers to itself by its $id.
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

/** After the host's plugins and `onCreate` have run: our settings again, and no keyword that says that it changes what it checks. */
function secure (ajv: AjvInstance): void {
  // The keywords beside a `$ref` are what closes it. Ajv warns of the option, whatever its value, if it is given one at the start.
  Object.assign(ajv.opts, ajvOptions, { ignoreKeywordsWithRef: false })
  for (const [keyword, rule] of Object.entries(ajv.RULES.all)) {
    if (typeof rule === 'object' && rule.definition.modifying === true) ajv.removeKeyword(keyword)
  }
}

/** Compiles schemas as they are. @param shared - the host's shared schemas (`app.getSchemas()`), for `$ref`. @param host - its formats, keywords and plugins */
export function schemaCompiler (shared: Record<string, unknown>, { customOptions, plugins = [], onCreate }: HostAjv = {}): (schema: object) => Validate {
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

/** As compiled: kinds told apart, and a newer draft by the name of the one that is compiled. */
function prepare (schema: Schema, shared: Record<string, unknown>): Schema {
  const { $schema, ...rest } = tellKindsApart(schema, shared)
  return $schema === undefined || isOfNewerDraft({ $schema }) ? rest : { $schema, ...rest }
}

/** Compiles what topics carry: closed, see closeSchema. */
export function payloadCompiler (compile: (schema: object) => Validate, shared: Record<string, unknown>): CompilePayload {
  const named = new Map<string, object>()
  return (schema) => {
    const closed = { ...closeSchema(schema, shared) as Schema & { $id?: string } }
    // The compiler answers with what it first saw under an id: a shared schema is not closed, and another's is not this one.
    const { $id } = closed
    if ($id !== undefined && ($id in shared || (named.get($id) ?? schema) !== schema)) {
      // Without its name it would find the other one.
      if (JSON.stringify(closed).includes(`"$ref":${JSON.stringify($id)}`)) throw new Error(`it refers to itself as "${$id}", and so is another schema called`)
      delete closed.$id
    } else if ($id !== undefined) named.set($id, schema)
    return new PayloadType(closed, compile(prepare(closed, shared)))
  }
}
