import type { PresenceDelta, PresenceMember } from '../../types/index.ts'

/** How a delta begins on a topic's channel: a letter that no publication begins with, and its version. */
const begin = 'm1'

export function isDelta (bytes: Buffer): boolean {
  return bytes[0] === begin.charCodeAt(0)
}

function memberOf (session: string, node: string, user: string, info: string): PresenceMember {
  return { session, node, ...(user === '' ? {} : { user }), ...(info === '' ? {} : { info }) }
}

/** An array as the script's JSON has it: an empty one is an empty object there. */
function listOf (value: unknown): unknown[] | undefined {
  if (Array.isArray(value)) return value
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0 ? [] : undefined
}

/** @returns `undefined` if the bytes are of another version, or broken */
export function decodeDelta (bytes: Buffer): PresenceDelta | undefined {
  if (bytes.toString('latin1', 0, begin.length) !== begin) return undefined
  let given: unknown
  try {
    given = JSON.parse(bytes.toString('utf8', begin.length))
  } catch {
    return undefined
  }
  const { version, node, set: sets, leave: leaves } = Object(given) as Record<string, unknown>
  const isText = (value: unknown): value is string => typeof value === 'string'
  const isFields = (value: unknown): value is [string, string, string] => Array.isArray(value) && value.length === 3 && value.every(isText)
  const set = listOf(sets)
  const leave = listOf(leaves)
  if (!Number.isSafeInteger(version) || !isText(node) || set?.every(isFields) !== true || leave?.every(isText) !== true) return undefined
  return { version: version as number, node, set: set.map(([session, user, info]) => memberOf(session, node, user, info)), leave }
}

/**
 * Reads a member as the server keeps it: `<node>/<session>` and `<incarnation> <bytes of the user> <user><info>`.
 * @returns `undefined` if it cannot be read
 */
export function parseMember (field: string, value: string): PresenceMember | undefined {
  const at = field.indexOf('/')
  const match = /^\d+ (\d+) /.exec(value)
  if (match === null || at < 1) return undefined
  const [head, length] = match
  const rest = Buffer.from(value).subarray(head.length)
  return memberOf(field.slice(at + 1), field.slice(0, at), rest.toString('utf8', 0, Number(length)), rest.toString('utf8', Number(length)))
}
