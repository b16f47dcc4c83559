import type { WireError } from '../../types/index.ts'
import { FST_ROOMS_INVALID_PAYLOAD } from '../errors.ts'
import { isName } from '../feed/check-entry.ts'
import { isSendable, maxReasonBytes } from '../protocol/close-codes.ts'
import { isTopicName } from '../protocol/topic-name.ts'

/** Bytes of the largest message that a node sends to another, or reads. */
export const maxBytes = 16_777_216
/** Characters of an error's message. */
const maxErrorLength = 4_096
/** Faults of a payload that an error lists. */
const maxDetails = 20
/** Milliseconds of the longest timer. */
const maxTimeout = 2 ** 31 - 1

/** Sessions that match all that is given. */
export interface Selector { session?: string | undefined, user?: string | undefined, topic?: string | undefined }

/** A member that has sent a private message. */
export interface Sender { id: string, user?: string | undefined }

/** The messages between nodes. One with an `id` is a question, which is answered by an `answer` with the same one. */
export interface NodeMessages {
  /** A private message of the host to one session. The answer may come when the session has read it, at the latest after half of `wait` milliseconds. */
  send: { id: number, session: string, wait: number, data: unknown }
  /** The same with a question to the client, which has `timeout` milliseconds. */
  ask: { id: number, session: string, timeout: number, data: unknown }
  /** The node that has asked waits no longer. */
  cancel: { id: number }
  /** A private message of the host to a user. */
  user: { user: string, topic?: string, data: unknown }
  /** A private message of a member to one session (`id`, `session`) or to a user (`user`), in one topic. */
  direct: { id?: number, session?: string, user?: string, topic: string, from: Sender, data: unknown }
  kick: Selector & { id?: number, code: number, reason: string }
  reauthorize: Selector & { id?: number }
  /** Stops the producer of a stream. */
  stop: { topic: string }
  answer: { id: number, data?: unknown, error?: WireError }
}

/** A message between nodes, with its type. */
export type NodeMessage = { [T in keyof NodeMessages]: { type: T } & NodeMessages[T] }[keyof NodeMessages]

/** Why a message cannot be read: it is of another version, of an unknown type, or damaged. */
export interface Unreadable { fault: 'version' | 'type' | 'form', detail: string }

/** The members of a message besides its data, which is given as JSON. */
type Head<T extends keyof NodeMessages> = Omit<NodeMessages[T], 'data'>

/**
 * Writes a message.
 * @param json - its `data`
 * @throws FST_ROOMS_INVALID_PAYLOAD if it is too large
 */
export function encode<T extends keyof NodeMessages> (type: T, head: Head<T>, json?: string): Buffer {
  const text = JSON.stringify({ v: 1, type, ...head })
  const bytes = Buffer.from(json === undefined ? text : `${text.slice(0, -1)},"data":${json}}`)
  if (bytes.length > maxBytes) throw new FST_ROOMS_INVALID_PAYLOAD(`a message of ${bytes.length} bytes to another node is over the limit of ${maxBytes}`)
  return bytes
}

type Given = Record<string, unknown>
type Check = (value: unknown) => boolean

/** Whether a user may have this name: no identity has another one. */
export const isUserName = isName

const isId: Check = value => Number.isSafeInteger(value) && value as number >= 1
const isTimeout: Check = value => Number.isInteger(value) && value as number >= 1 && value as number <= maxTimeout
const isCode: Check = value => isSendable(value as number)
const isReason: Check = value => typeof value === 'string' && Buffer.byteLength(value) <= maxReasonBytes
const isAny: Check = () => true
const optional = (check: Check): Check => value => value === undefined || check(value)

function isObject (value: unknown): value is Given {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const isSender: Check = value => isObject(value) && isName(value.id) && optional(isName)(value.user)

const isText: Check = value => typeof value === 'string' && value.length <= maxErrorLength

const isError: Check = value => isObject(value) && isName(value.code) && isText(value.message) &&
  (value.details === undefined || (Array.isArray(value.details) && value.details.length <= maxDetails && value.details.every(entry => isObject(entry) && isText(entry.path) && isText(entry.message))))

const selector = { session: optional(isName), user: optional(isName), topic: optional(isTopicName) }

/** The check of each member of each type. Other members are ignored: a newer node may send more. */
const checks: { readonly [T in keyof NodeMessages]: { readonly [M in keyof Required<NodeMessages[T]>]: Check } } = {
  send: { id: isId, session: isName, wait: isTimeout, data: isAny },
  ask: { id: isId, session: isName, timeout: isTimeout, data: isAny },
  cancel: { id: isId },
  user: { user: isName, topic: optional(isTopicName), data: isAny },
  direct: { id: optional(isId), session: optional(isName), user: optional(isName), topic: isTopicName, from: isSender, data: isAny },
  kick: { ...selector, id: optional(isId), code: isCode, reason: isReason },
  reauthorize: { ...selector, id: optional(isId) },
  stop: { topic: isTopicName },
  answer: { id: isId, data: isAny, error: optional(isError) }
}

const types: ReadonlyMap<unknown, Readonly<Record<string, Check>>> = new Map(Object.entries(checks))

/** The types whose `data` must be there, be it `null`. */
const withData: readonly unknown[] = ['send', 'ask', 'user', 'direct'] satisfies (keyof NodeMessages)[]

/** Whether the members of a message that are checked one by one fit together. */
function isWhole (type: unknown, given: Given): boolean {
  if (withData.includes(type) && !Object.hasOwn(given, 'data')) return false
  const { id, session, user, topic } = given
  if (type === 'direct') return session === undefined ? user !== undefined && id === undefined : user === undefined && id !== undefined
  // One session is on one node, which answers. A selection without a condition would be all sessions.
  if (type === 'kick' || type === 'reauthorize') return (session === undefined) === (id === undefined) && [session, user, topic].some(value => value !== undefined)
  return true
}

/** The beginning of a value as JSON, for the log. */
function excerpt (value: unknown): string {
  return String(JSON.stringify(value)).slice(0, 32)
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Reads a message of another node, which may be older or newer than this one, or not a node at all. Returns a copy that has the known members alone. */
export function decode (bytes: Uint8Array): NodeMessage | Unreadable {
  if (bytes.length > maxBytes) return { fault: 'form', detail: `${bytes.length} bytes are over the limit of ${maxBytes}` }
  let given: unknown
  try {
    given = JSON.parse(utf8.decode(bytes))
  } catch {
    return { fault: 'form', detail: 'it is not JSON' }
  }
  if (!isObject(given)) return { fault: 'form', detail: 'it is not an object' }
  const { v, type } = given
  if (v !== 1) return { fault: 'version', detail: `"v" is ${excerpt(v)}, and this node reads 1` }
  const known = types.get(type)
  if (known === undefined) return { fault: 'type', detail: `its type ${excerpt(type)} is unknown` }
  const message: Given = { type }
  for (const [name, check] of Object.entries(known)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined
    if (!check(value)) return { fault: 'form', detail: `"${name}" of a message of type ${type as string} is refused` }
    if (value !== undefined) message[name] = value
  }
  if (!isWhole(type, given)) return { fault: 'form', detail: `a message of type ${type as string} is not whole` }
  return message as NodeMessage
}

/** An error as an answer carries it. */
export function answerError (error: Error & { code?: unknown, details?: unknown }): WireError {
  const { code, message, details } = error
  return {
    code: typeof code === 'string' && isName(code) ? code : 'FST_ROOMS_HANDLER_FAILED',
    message: String(message).slice(0, maxErrorLength),
    ...(Array.isArray(details) ? { details: details.slice(0, maxDetails).map(({ path, message }) => ({ path: String(path).slice(0, maxErrorLength), message: String(message).slice(0, maxErrorLength) })) } : {})
  }
}
