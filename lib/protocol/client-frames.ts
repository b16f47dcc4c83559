import type { ClientFrame, JoinFrame, LeaveFrame, Ref } from '../../types/protocol.ts'
import { maxPage } from './page-size.ts'
import { isSince } from './position.ts'
import { isTopicName, maxTopicLength } from './topic-name.ts'

/** The fault of a frame, for the peer that sent it. `ref` and `topic` are those of the frame, if they could be read. */
export interface FrameFault { fault: string, ref?: Ref, topic?: string }

/** A frame on a connection of several topics. `topic` is absent from frames that concern the connection. */
export type TopicFrame = JoinFrame | LeaveFrame | (ClientFrame & { topic?: string })

const maxRefLength = 64
const maxTokenLength = 8_192
/** Longest `mid` of a message, in characters. */
export const maxMidLength = 64
/** Shortest `mid` that senders share, in characters: those of anonymous members, and those of the host. It has to be random. */
export const minSharedMidLength = 16
/** Longest key of a message, in characters. */
export const maxKeyLength = 255

function isRef (value: unknown): value is Ref {
  return typeof value === 'string' ? value.length >= 1 && value.length <= maxRefLength : Number.isSafeInteger(value)
}

/** Half a character, which has no bytes: as UTF-8 all of them are alike. */
const half = /\p{Surrogate}/u

/** Whether a value is the key of a message. */
export function isKey (value: unknown): value is string {
  return typeof value === 'string' && value.length >= 1 && value.length <= maxKeyLength && !half.test(value)
}

/** Whether a value is the `mid` of a message. */
export function isMid (value: unknown, minimum = 1): value is string {
  return typeof value === 'string' && value.length >= minimum && value.length <= maxMidLength && !half.test(value)
}

/** An example of a valid frame, added to the fault of a text that is not a frame. */
export const goodFrame = '; a frame looks like {"type":"message","data":…}'

/** Checks a parsed frame of a client. Unknown members are ignored; an unknown type is a fault. */
export function checkFrame (value: unknown): ClientFrame | FrameFault {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { fault: `a frame is a JSON object${goodFrame}` }
  const { type, ref, data, to, key, mid, token, since, limit } = value as Record<string, unknown>
  if (ref !== undefined && !isRef(ref)) return { fault: `"ref" is a string of 1 to ${maxRefLength} characters or a safe integer` }
  const fault = (text: string): FrameFault => ref === undefined ? { fault: text } : { fault: text, ref }

  switch (type) {
    case 'message':
      if (data === undefined) return fault('"data" is missing')
      if (key !== undefined && !isKey(key)) return fault(`"key" is a string of 1 to ${maxKeyLength} characters`)
      if (mid !== undefined && !isMid(mid)) return fault(`"mid" is a string of 1 to ${maxMidLength} characters`)
      break
    case 'direct':
      if (typeof to !== 'string' || to === '' || to === 'user:') return fault('"to" is a session id or "user:" and a user')
      if (data === undefined) return fault('"data" is missing')
      break
    case 'ack':
      if (ref === undefined) return fault('"ref" is missing')
      break
    case 'history':
      if (ref === undefined) return fault('"ref" is missing')
      if (since !== undefined && !isSince(since)) return fault('"since" is the id of a message, "0" or "latest"')
      if (limit !== undefined && !(Number.isInteger(limit) && limit as number >= 1 && limit as number <= maxPage)) return fault(`"limit" is a whole number from 1 to ${maxPage}`)
      break
    case 'auth':
      if (typeof token !== 'string' || token === '' || token.length > maxTokenLength) return fault(`"token" is a string of 1 to ${maxTokenLength} characters`)
      break
    case 'presence':
    case 'ping':
      break
    default:
      return fault(typeof type === 'string' ? `the type ${JSON.stringify(type.slice(0, 32))} is not known here` : `"type" is missing${goodFrame}`)
  }
  return value as ClientFrame
}

/** Checks a parsed frame of a client on a connection of several topics. */
export function checkTopicFrame (value: unknown): TopicFrame | FrameFault {
  const { type, topic, since, presence } = (value ?? {}) as Record<string, unknown>
  const isJoin = type === 'join'
  // `join` and `leave` have no other members that could be faulty than `ref`, which is checked as that of a ping.
  const frame = isJoin || type === 'leave' ? checkFrame({ ...value as object, type: 'ping' }) : checkFrame(value)
  if ('fault' in frame) return isTopicName(topic) ? { ...frame, topic } : frame
  if (frame.type === 'auth' || type === 'ping') return frame
  const fault = (text: string): FrameFault => {
    const found: FrameFault = frame.ref === undefined ? { fault: text } : { fault: text, ref: frame.ref }
    return isTopicName(topic) ? { ...found, topic } : found
  }
  if (topic === undefined) return fault('"topic" is missing: this connection has several topics')
  if (typeof topic !== 'string' || topic === '' || topic.length > maxTopicLength) return fault(`"topic" is a string of 1 to ${maxTopicLength} characters`)
  if (isJoin && since !== undefined && !isSince(since)) return fault('"since" is the id of a message, "0" or "latest"')
  if (isJoin && presence !== undefined && typeof presence !== 'boolean') return fault('"presence" is true or false')
  return value as TopicFrame
}
