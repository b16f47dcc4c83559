import type { ByeFrame, ConnectionHelloFrame, EndReason, GapFrame, HelloFrame, JoinRefusedFrame, Member, Ref, WireError } from '../../types/protocol.ts'

/**
 * Frames as text. Members are in the order type, topic, id, data, the rest. A message frame is a short head and a tail, `"data":…` and the
 * members after it, which is the same on every node.
 */

/** The start of the tail of a message or direct frame; the serialised payload follows. */
export const tailStart = '"data":'

/** Returns the end of a tail: the members after the payload, and the closing brace. */
export function tailEnd (from?: string, user?: string, ref?: Ref): string {
  let text = ''
  if (from !== undefined) text += `,"from":${JSON.stringify(from)}`
  if (user !== undefined) text += `,"user":${JSON.stringify(user)}`
  if (ref !== undefined) text += `,"ref":${JSON.stringify(ref)}`
  return text + '}'
}

/** Returns the end of a tail with a key added. */
export function withKey (end: string, key: string): string {
  return `${end.slice(0, -1)},"key":${JSON.stringify(key)}}`
}

/**
 * Returns the head of a message frame, or of an end frame. Ids and topics have no characters that need escaping.
 * @param topic - named in the frame, because the connection has several topics
 */
export function messageHead (id: string | undefined, isEnd = false, topic?: string): string {
  let head = isEnd ? '{"type":"end",' : '{"type":"message",'
  if (topic !== undefined) head += `"topic":"${topic}",`
  return id === undefined ? head : `${head}"id":"${id}",`
}

/** Characters of a frame up to the value of "type". */
const typeStart = '{"type":"'.length

/** Returns a frame with its topic named behind its type. The topic of a refused frame is the peer's text, so it is escaped. */
export function withTopic (text: string, topic: string): string {
  const end = text.indexOf('"', typeStart) + 1
  return `${text.slice(0, end)},"topic":${JSON.stringify(topic)}${text.slice(end)}`
}

/**
 * Returns the tail of an end frame.
 * @param json - its data as JSON
 */
export function endTail (reason: EndReason, json?: string): string {
  return json === undefined ? `"reason":"${reason}"}` : `"reason":"${reason}",${tailStart}${json}}`
}

/** Returns a direct frame: a private message. */
export function direct (json: string, from?: string, user?: string, ref?: Ref): string {
  return `{"type":"direct",${tailStart}${json}${tailEnd(from, user, ref)}`
}

type Given<T> = { [Name in keyof T]: T[Name] | undefined }

/** Returns the hello frame of a member. Of its strings only `ref` may need escaping. A frame that names its topic behind its type is made without one. */
export function hello ({ id, v, session, topic, ref, heartbeat, maxPayload, recovered, replayed }: Given<Omit<HelloFrame, 'type'>>): string {
  let text = '{"type":"hello"'
  if (id !== undefined) text += `,"id":"${id}"`
  text += `,"v":${v},"session":"${session}"`
  if (topic !== undefined) text += `,"topic":"${topic}"`
  if (ref !== undefined) text += `,"ref":${JSON.stringify(ref)}`
  text += `,"heartbeat":${heartbeat},"maxPayload":${maxPayload}`
  if (recovered !== undefined) text += `,"recovered":${recovered}`
  if (replayed !== undefined) text += `,"replayed":${replayed}`
  return text + '}'
}

/** Returns the first frame of a connection that joins its topics by frames. */
export function connectionHello (frame: Omit<ConnectionHelloFrame, 'type'>): string {
  return JSON.stringify({ type: 'hello', ...frame })
}

/**
 * Returns the answer to a `join` that was refused.
 * @param close - the close code that a refused join by URL would have had, and when the client may come back
 */
export function joinRefused (ref: Ref | undefined, error: WireError, close: Pick<JoinRefusedFrame, 'close' | 'retry'>): string {
  return JSON.stringify(ref === undefined ? { type: 'error', error, ...close } : { type: 'ack', ref, ok: false, error, ...close })
}

export function ackOk (ref: Ref, id?: string, data?: unknown, duplicate?: true): string {
  return JSON.stringify({ type: 'ack', ref, ok: true, id, data, duplicate })
}

export function ackError (ref: Ref, error: WireError): string {
  return JSON.stringify({ type: 'ack', ref, ok: false, error })
}

export function error (error: WireError): string {
  return JSON.stringify({ type: 'error', error })
}

export function expiring (milliseconds: number): string {
  return JSON.stringify({ type: 'expiring', in: milliseconds })
}

export function gap (frame: Omit<GapFrame, 'type'>): string {
  return JSON.stringify({ type: 'gap', ...frame })
}

export function bye (frame: Omit<ByeFrame, 'type'>): string {
  return JSON.stringify({ type: 'bye', ...frame })
}

export function presenceState (count: number, state: Member[]): string {
  return JSON.stringify({ type: 'presence', count, state })
}

export function presenceDiff (count: number, join: Member[], leave: { session: string }[]): string {
  return JSON.stringify({ type: 'presence', count, join: join.length > 0 ? join : undefined, leave: leave.length > 0 ? leave : undefined })
}

export function presenceCount (count: number): string {
  return JSON.stringify({ type: 'presence', count })
}
