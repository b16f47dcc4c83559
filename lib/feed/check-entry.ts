import type { EndReason, HistoryPage, KeptMessage, Publication, Skip } from '../../types/index.ts'
import { bufferOf } from '../bytes.ts'
import { FST_ROOMS_BROKER_FAULT } from '../errors.ts'
import { isKey } from '../protocol/client-frames.ts'
import { readPosition } from '../protocol/position.ts'
import { endTail, tailStart } from '../protocol/server-frames.ts'

/** Characters of a `uid` or `node`: far above those of this package (a UUID and a number), and a bound for what is remembered of them. */
export const maxNameLength = 255

/** Members of a frame that stand before its tail. One in the tail would override them. */
const headMembers = ['type', 'id', 'data'] as const

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Whether a value is the id of a node, of a session or of a publication, or the name of a user. */
export function isName (value: unknown): value is string {
  return typeof value === 'string' && value.length >= 1 && value.length <= maxNameLength
}

/** Whether a tail is the end of a frame: `"data":`, the payload as JSON, further members, `}`. Parses each byte once. */
function isTail (tail: Buffer, payloadLength: number): boolean {
  const end = tailStart.length + payloadLength
  if (end >= tail.length || tail.toString('latin1', 0, tailStart.length) !== tailStart) return false
  try {
    JSON.parse(utf8.decode(tail.subarray(tailStart.length, end)))
    const rest = utf8.decode(tail.subarray(end))
    if (rest === '}') return true
    if (!rest.startsWith(',')) return false
    const members = JSON.parse(`{${rest.slice(1)}`) as object
    // No members: the comma would be one too many.
    return Object.keys(members).length > 0 && !headMembers.some(name => Object.hasOwn(members, name))
  } catch {
    return false
  }
}

const reasons: readonly unknown[] = ['done', 'failed', 'stopped', 'lost'] satisfies EndReason[]

/** Whether a value is the reason of an end. */
export function isEndReason (value: unknown): value is EndReason {
  return reasons.includes(value)
}

/** Whether a tail is the end of an `end` frame: `"reason":…`, perhaps `"data":` and its value, `}`. Absent reason: any one. */
function isEndTail (tail: Buffer, reason?: EndReason): boolean {
  try {
    const text = utf8.decode(tail)
    const end = JSON.parse(`{${text}`) as { reason: EndReason, data?: unknown }
    if (!isEndReason(end.reason) || (reason !== undefined && end.reason !== reason)) return false
    return text.startsWith(endTail(end.reason).slice(0, -1)) && Object.keys(end).length === (Object.hasOwn(end, 'data') ? 2 : 1)
  } catch {
    return false
  }
}

function faultOf (topic: string, { v, uid, node, topic: named, tail, payloadLength, except, key, end }: Partial<Record<keyof Publication, unknown>>): string | undefined {
  if (v !== 1) return `"v" is ${String(v).slice(0, 32)}, and this node reads 1`
  if (!isName(uid)) return `"uid" is not a string of 1 to ${maxNameLength} characters`
  if (!isName(node)) return `"node" is not a string of 1 to ${maxNameLength} characters`
  if (named !== topic) return '"topic" is another one'
  if (except !== undefined && typeof except !== 'string') return '"except" is not a string'
  if (key !== undefined && !isKey(key)) return '"key" is not a key'
  if (!(tail instanceof Uint8Array)) return '"tail" is not bytes'
  if (end !== undefined) {
    if (!isEndReason(end)) return '"end" is not a reason'
    return payloadLength === 0 && isEndTail(bufferOf(tail), end) ? undefined : '"tail" is not the end of an "end" frame'
  }
  if (!Number.isInteger(payloadLength) || payloadLength as number < 1) return '"payloadLength" is not a number of bytes'
  return isTail(bufferOf(tail), payloadLength as number) ? undefined : '"tail" is not the end of a frame'
}

/**
 * Checks a publication that a broker brings, so that nothing behind the seam has to: its version, its members, and that its bytes are UTF-8 and JSON in the
 * place where frames expect it. Whether the payload is by the topic's schema is for the node that published it to check (see docs/decisions/0012). Returns a
 * copy, whose members are those that were checked.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkEntry (topic: string, given: unknown): Publication {
  const { v, uid, node, topic: named, tail, payloadLength, deadline, except, key, end } = Object(given) as Publication
  const publication = { v, uid, node, topic: named, tail, payloadLength, deadline, except, key, ...(end === undefined ? {} : { end }) }
  const fault = faultOf(topic, publication)
  if (fault !== undefined) throw new FST_ROOMS_BROKER_FAULT(`an entry of topic "${topic}" is refused: ${fault}`)
  return { ...publication, tail: bufferOf(tail) } as Publication
}

function isKept ({ tail, payloadLength, key }: KeptMessage): boolean {
  if (payloadLength === 0) return tail instanceof Uint8Array && isEndTail(bufferOf(tail))
  return tail instanceof Uint8Array && Number.isInteger(payloadLength) && payloadLength >= 1 && (key === undefined || isKey(key)) && isTail(bufferOf(tail), payloadLength)
}

function areSkips (given: unknown, top: number): given is Skip[] {
  let last = 0
  return Array.isArray(given) && given.every(skip => {
    const { after, to } = Object(skip) as Skip
    const isOne = Number.isInteger(after) && Number.isInteger(to) && after >= last && to > after && to <= top
    last = to
    return isOne
  })
}

/**
 * Checks kept messages that a broker brings, as `checkEntry` does an entry: their places, and their bytes. Returns a copy.
 * @throws FST_ROOMS_BROKER_FAULT
 */
export function checkPage (topic: string, given: unknown): HistoryPage {
  const { position: at, from, messages, skips, ended } = Object(given) as HistoryPage
  const position = readPosition(at)
  const refuse = (fault: string): never => { throw new FST_ROOMS_BROKER_FAULT(`history of topic "${topic}" is refused: ${fault}`) }
  if (position == null) return refuse('"position" is not a position')
  if (!Number.isInteger(from) || from < 0 || from > position.offset) return refuse('"from" is not an offset up to the position')
  if (!Array.isArray(messages)) return refuse('"messages" is not an array')
  if (ended !== undefined && !isEndReason(ended)) return refuse('"ended" is not a reason')
  if (skips !== undefined && !areSkips(skips, position.offset)) return refuse('"skips" are not offsets in order')
  let last = 0
  return {
    position,
    from,
    ...(skips === undefined ? {} : { skips: skips.map(({ after, to }) => ({ after, to })) }),
    ...(ended === undefined ? {} : { ended }),
    messages: messages.map(given => {
      const message = Object(given) as KeptMessage
      const { offset, tail, payloadLength, key } = message
      if (!Number.isInteger(offset) || offset <= last || offset > position.offset) return refuse('its messages are not in order')
      if (!isKept(message)) return refuse('a message is not the end of a frame')
      last = offset
      return { offset, tail: bufferOf(tail), payloadLength, key }
    })
  }
}
