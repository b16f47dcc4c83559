import type { Mode } from '../../types/index.ts'
import { envelopes, type Encode, type Envelope } from './envelope.ts'
import { chunkedEvent, event } from './event.ts'
import { textFrame } from './ws/frame.ts'

/** An index of `encodings`. */
export type Encoding = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7

/** One way in which a message can stand on the wire: an envelope, and how its bytes are framed. */
export interface EncodingSpec {
  readonly envelope: Envelope
  /** Makes the bytes of one frame: the only place where text becomes bytes. */
  readonly encode: Encode
  /** The encoding of the same messages without compression. It is the encoding itself if its messages are not compressed. */
  readonly plain: Encoding
}

/**
 * The table of all encodings. A room keeps one batch for each index in use. Members that have negotiated compression for messages have encodings of their own,
 * but may be sent uncompressed frames too (RFC 7692, 6).
 */
export const encodings = [
  { envelope: envelopes.v1, encode: textFrame, plain: 0 },
  { envelope: envelopes.raw, encode: textFrame, plain: 1 },
  { envelope: envelopes.v1, encode: textFrame, plain: 0 },
  { envelope: envelopes.raw, encode: textFrame, plain: 1 },
  { envelope: envelopes.v1, encode: event, plain: 4 },
  { envelope: envelopes.v1, encode: chunkedEvent, plain: 5 },
  { envelope: envelopes.v1Topic, encode: textFrame, plain: 6 },
  { envelope: envelopes.v1Topic, encode: textFrame, plain: 6 }
] as const satisfies readonly EncodingSpec[]

/** The encoding of event streams. */
export const eventEncoding = 4
/** The encoding of event streams that go straight to a socket, in the chunks of HTTP/1.1. */
export const chunkedEventEncoding = 5

/** All indices of the table. */
export const allEncodings = encodings.map((_spec, index) => index as Encoding)

/** The encodings of peers that can be answered: they are sent frames other than messages. */
export const answerable = allEncodings.filter(encoding => encodings[encoding].envelope.canBeAnswered)

/** An array with one place for each encoding. */
export function perEncoding<T> (value: T): T[] {
  return allEncodings.map(() => value)
}

/**
 * The encoding of a WebSocket.
 * @param namesTopic - its connection has several topics
 */
export function encodingOf (mode: Mode, isDeflated: boolean, namesTopic = false): Encoding {
  return allEncodings.find(encoding => {
    const { envelope, plain } = encodings[encoding]
    return envelope.mode === mode && envelope.namesTopic === namesTopic && (plain !== encoding) === isDeflated
  })!
}

/**
 * The bytes of a frame that is not a message, for the members of a topic.
 * @param id - the position that a member has reached with this frame
 */
export function frameOf (encoding: Encoding, topic: string, text: string, id?: string): Buffer {
  const { envelope, encode } = encodings[encoding]
  return encode(envelope.frame(text, topic), undefined, id)
}
