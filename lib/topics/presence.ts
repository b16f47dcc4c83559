import { FST_ROOMS_INVALID_TOPIC_OPTION } from '../errors.ts'
import type { CompilePayload, PayloadType } from './payload.ts'

/** The longest timer of Node.js, in milliseconds. */
const maxGrace = 2 ** 31 - 1

/** The presence of a topic, compiled. */
export interface PresenceRule {
  readonly presence: PayloadType
  /** Milliseconds for which the leave of a user is not told. */
  readonly grace: number
}

/** Whether the host's Ajv has a keyword "grace" that takes this value. Its strict mode refuses keywords that it does not know. */
function isKeyword (grace: unknown, compile: CompilePayload): boolean {
  try {
    compile({ grace })
    return true
  } catch {
    return false
  }
}

function show (value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? JSON.stringify(value) : `a value of type ${typeof value}`
}

/**
 * Reads the option `presence` of a topic: `true`, a schema, or `{ info?, grace }`. Both of the latter are objects. An object is `{ info?, grace }` if it has
 * "grace" and no member besides these two, and "grace" is not a keyword of the host's schemas. So no schema is ever taken for options: one with the
 * keyword "grace" and another member is a schema, and one without another member is refused.
 * @param compiled - compiles the schema of presence info
 * @param compile - compiles any schema
 * @throws FST_ROOMS_INVALID_TOPIC_OPTION, and the errors of `compiled`
 */
export function readPresence (key: string, given: true | object, compiled: (schema: true | object | undefined) => PayloadType, compile: CompilePayload): PresenceRule {
  const { info, grace, ...others } = given as { info?: true | object, grace?: unknown }
  const other = Object.keys(others).find(name => (others as Record<string, unknown>)[name] !== undefined)
  if (grace === undefined) {
    try {
      return { presence: compiled(given), grace: 0 }
    } catch (error) {
      if (info === undefined || other !== undefined) throw error
      throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, '"presence" with "info" also takes "grace", in milliseconds (0: off)')
    }
  }
  if (isKeyword(grace, compile)) {
    if (other !== undefined) return { presence: compiled(given), grace: 0 }
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, '"presence" with "grace" may be options or a schema, because this app has a keyword "grace": rename the keyword, or give the schema another member, such as "type"')
  }
  if (other !== undefined) throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, `"presence" with "grace" takes the schema in "info", and nothing else; got "${other}"`)
  if (!Number.isInteger(grace) || grace as number < 0 || grace as number > maxGrace) {
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, `"presence.grace" takes milliseconds, a whole number from 0 to ${maxGrace}; got ${show(grace)}`)
  }
  if (info !== undefined && info !== true && (info === null || (typeof info !== 'object' && typeof info !== 'function') || Array.isArray(info))) {
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, '"presence.info" takes true or a JSON Schema object')
  }
  return { presence: compiled(info), grace: grace as number }
}
