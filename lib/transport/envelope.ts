import { parse } from 'secure-json-parse'
import type { ClientFrame, Mode, Ref } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { checkFrame, checkTopicFrame, goodFrame, type FrameFault, type TopicFrame } from '../protocol/client-frames.ts'
import { direct, messageHead, withTopic } from '../protocol/server-frames.ts'

/** A message as an envelope needs it. */
export interface MessageContent {
  readonly topic: string
  /** The id of its position; `undefined` if the broker has no positions. */
  readonly id: string | undefined
  /** The payload. */
  readonly json: string
  /** The end of a `message` frame, from `"data":` on: as text if this node has made it, as bytes if a broker has brought it. */
  readonly tail: string | Buffer
  /** The topic has no schema. */
  readonly isUntyped: boolean
  /** It is the end of a stream. Peers that cannot be answered are not sent it. */
  readonly isEnd: boolean
}

/**
 * Makes the bytes of one frame.
 * @param rest - UTF-8 that follows the text
 * @param id - the position that a member has reached with this frame, for a framing that can name it beside the text
 */
export type Encode = (text: string, rest?: Buffer, id?: string) => Buffer

/** How messages stand in the payload of a frame, in both directions. */
export interface Envelope {
  readonly mode: Mode
  /**
   * Whether a peer can be answered: whether it is sent frames other than messages (hello, acks, errors, presence, gap, expiring, bye). A peer that cannot is told
   * by the close code alone.
   */
  readonly canBeAnswered: boolean
  /** Whether each frame names its topic, because a connection has several. */
  readonly namesTopic: boolean
  /** The text of a frame that is not a message, for the members of a topic. */
  frame (text: string, topic: string): string
  /** The bytes of a message to the members of a room. */
  message (content: MessageContent, encode: Encode): Buffer
  /** The text of a private message. */
  direct (json: string, isUntyped: boolean, from?: string, user?: string, ref?: Ref): string
  /**
   * Reads a text of the peer.
   * @param isUntyped - members may publish here, and the topic has no schema for it
   */
  read (text: string, isUntyped: boolean): ClientFrame | TopicFrame | FrameFault
}

// Refuses the keys that would set a prototype, as Fastify does in a body.
const strict = { protoAction: 'error', constructorAction: 'error' } as const
const poisoned = 'Object contains forbidden'

// JSON.parse quotes the text near the fault, which may be a part of a token, and the message goes to the host's logs.
const excerpt = /, (?:\.\.\.)?".*$/s

/** A text that may have such a key. A key that is written with escapes has a backslash, and secure-json-parse removes a byte order mark. */
const suspect = /__proto__|constructor|\\|^\ufeff/

/**
 * Parses JSON strictly. A text that is not suspect goes to JSON.parse alone, which saves the scans of secure-json-parse.
 * @throws SyntaxError
 */
function parseJson (text: string): unknown {
  return suspect.test(text) ? parse(text, undefined, strict) : JSON.parse(text)
}

/** Returns the fault of a text that `parseJson` refuses, and whether the text is JSON with a forbidden key. JSON.parse never begins a message like that. */
function faultIn (thrown: unknown): { fault: string, isPoisoned: boolean } {
  const { message } = asError(thrown)
  return { fault: `no JSON (${message.replace(excerpt, '')})`, isPoisoned: message.startsWith(poisoned) }
}

/** JSON as a raw member reads it. Without a schema a string is sent as its text. */
function rawText (json: string, isUntyped: boolean): string {
  return isUntyped && json.startsWith('"') ? JSON.parse(json) as string : json
}

/** Parses the text of a frame, and checks its form. */
function readFrame<F> (text: string, check: (value: unknown) => F | FrameFault): F | FrameFault {
  try {
    return check(parseJson(text))
  } catch (error) {
    const { fault, isPoisoned } = faultIn(error)
    return { fault: isPoisoned ? fault : fault + goodFrame }
  }
}

/** Frames of `rooms.v1`: JSON objects with a `type`. */
const v1: Envelope = {
  mode: 'rooms.v1',
  canBeAnswered: true,
  namesTopic: false,
  frame: text => text,
  message ({ id, tail, isEnd }, encode) {
    const head = messageHead(id, isEnd)
    return typeof tail === 'string' ? encode(head + tail, undefined, id) : encode(head, tail, id)
  },
  direct: (json, _isUntyped, from, user, ref) => direct(json, from, user, ref),
  read: text => readFrame(text, checkFrame)
}

/** Frames of `rooms.v1` on a connection of several topics: they name their topic. */
const v1Topic: Envelope = {
  ...v1,
  namesTopic: true,
  frame: withTopic,
  message ({ id, tail, isEnd, topic }, encode) {
    const head = messageHead(id, isEnd, topic)
    return typeof tail === 'string' ? encode(head + tail, undefined, id) : encode(head, tail, id)
  },
  read: text => readFrame(text, checkTopicFrame)
}

/** Payloads alone, in both directions (`rooms.raw`). */
const raw: Envelope = {
  mode: 'rooms.raw',
  canBeAnswered: false,
  namesTopic: false,
  frame: text => text,
  message: ({ json, isUntyped }, encode) => encode(rawText(json, isUntyped)),
  direct: rawText,
  read (text, isUntyped) {
    try {
      return { type: 'message', data: parseJson(text) }
    } catch (error) {
      const { fault, isPoisoned } = faultIn(error)
      // Poisoned text is JSON, so it is refused also without a schema.
      return isUntyped && !isPoisoned ? { type: 'message', data: text } : { fault }
    }
  }
}

/** All envelopes. */
export const envelopes = { v1, raw, v1Topic } as const satisfies Record<string, Envelope>
