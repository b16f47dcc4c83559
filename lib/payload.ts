import AjvCompiler from '@fastify/ajv-compiler'
import { closeSchema } from './close-schema.ts'
import { FST_ROOMS_INVALID_PAYLOAD } from './errors.ts'
import { compileSerialiser, type Serialise } from './serialiser.ts'

interface SchemaError { instancePath: string, message?: string, params: Record<string, unknown> }

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
        forRoute.errors = validate.errors
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
    const details = (validate.errors ?? []).map(error => ({ path: error.instancePath, message: explain(error) }))
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

function explain ({ message = 'is invalid', params }: SchemaError): string {
  const { additionalProperty } = params
  return typeof additionalProperty === 'string' ? `${message} (${JSON.stringify(additionalProperty.slice(0, 64))})` : message
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

/** Why something is no JSON Schema; `null` where it may be one. */
export function schemaFault (schema: object): string | null {
  if ('$async' in schema) return 'it is asynchronous ($async), and messages are checked in order'
  // What z.toJSONSchema returns carries '~standard', too.
  if ('$schema' in schema || (!('~standard' in schema) && typeof (schema as { parse?: unknown }).parse !== 'function')) return null
  return 'it is a validator object (Zod or another Standard Schema); give its JSON Schema, with Zod 4 z.toJSONSchema(schema, { target: "draft-7" })'
}

/**
 * Nothing is changed on the way in: no coercion, no defaults, no members removed. Of Ajv's strict mode the checks that find
 * mistakes stay on (unknown keywords and formats, NaN); those that refuse sound schemas for their form are off.
 */
const ajvOptions = {
  coerceTypes: false,
  useDefaults: false,
  removeAdditional: false,
  // A recursive schema refers to itself by its $id.
  addUsedSchema: true,
  strict: true,
  strictTypes: false,
  strictTuples: false,
  strictRequired: false
} as const

/** Compiles schemas as they are. @param shared - the host's shared schemas (`app.getSchemas()`), for `$ref`. */
export function schemaCompiler (shared: Record<string, unknown>): (schema: object) => Validate {
  const compile = AjvCompiler()(shared as Record<string, object>, { customOptions: { ...ajvOptions } }) as unknown as (route: { schema: object }) => Validate
  return schema => compile({ schema })
}

/** Compiles what topics carry: closed, see closeSchema. */
export function payloadCompiler (compile: (schema: object) => Validate, shared: Record<string, unknown>): CompilePayload {
  const named = new Map<string, object>()
  return (schema) => {
    const closed = { ...closeSchema(schema) as { $id?: string } }
    // The compiler answers with what it first saw under an id: a shared schema is not closed, and another's is not this one.
    const { $id } = closed
    if ($id !== undefined && ($id in shared || (named.get($id) ?? schema) !== schema)) {
      // Without its name it would find the other one.
      if (JSON.stringify(closed).includes(`"$ref":${JSON.stringify($id)}`)) throw new Error(`it refers to itself as "${$id}", and so is another schema called`)
      delete closed.$id
    } else if ($id !== undefined) named.set($id, schema)
    return new PayloadType(closed, compile(closed))
  }
}
