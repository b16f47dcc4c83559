import type { EndReason, Position, Publication } from '../../types/index.ts'

/**
 * A publication as bytes: a head of fixed size, the strings, the tail. The script reads the first two numbers.
 *
 * | bytes | |
 * | --- | --- |
 * | 4 | length of all, these 4 included |
 * | 4 | length of the tail |
 * | 1 | version: 1 |
 * | 1 | flags: which strings there are |
 * | 4 | `payloadLength` |
 * | 6 | `deadline` |
 * | 2 + n each | node, uid (without the node, if it begins with it), except, key, end |
 */
const headLength = 20
const version = 1

const hasExcept = 1
const hasKey = 2
const hasEnd = 4
/** The uid is the node, `-`, and the string. */
const hasShortUid = 8
/** The publishing node has not delivered it to its own members. */
const isRelayed = 16
/** Flags of a newer node may stand for strings behind those of this version, which are skipped. */
const knownFlags = hasExcept | hasKey | hasEnd | hasShortUid | isRelayed

/** Most bytes of a string: one of 400 characters fits. */
const mostString = 2_048

export interface Entry {
  readonly publication: Publication
  readonly isRelayed: boolean
}

/** Returns the bytes of a publication. @param relayed - its own node gets it from the server, too */
export function encodePublication ({ node, uid, except, key, end, tail, payloadLength, deadline }: Publication, relayed: boolean): Buffer {
  const isShort = uid.startsWith(`${node}-`)
  const strings = [node, isShort ? uid.slice(node.length + 1) : uid]
  let flags = (isShort ? hasShortUid : 0) | (relayed ? isRelayed : 0)
  for (const [flag, value] of [[hasExcept, except], [hasKey, key], [hasEnd, end]] as const) {
    if (value === undefined) continue
    flags |= flag
    strings.push(value)
  }
  const lengths = strings.map(string => Buffer.byteLength(string))
  const head = lengths.reduce((sum, length) => sum + 2 + length, headLength)
  const bytes = Buffer.allocUnsafe(head + tail.length)
  bytes.writeUInt32BE(bytes.length, 0)
  bytes.writeUInt32BE(tail.length, 4)
  bytes[8] = version
  bytes[9] = flags
  bytes.writeUInt32BE(payloadLength, 10)
  bytes.writeUIntBE(Math.min(Math.max(0, Math.floor(deadline)), 2 ** 48 - 1), 14, 6)
  let at = headLength
  strings.forEach((string, i) => {
    at = bytes.writeUInt16BE(lengths[i]!, at)
    at += bytes.write(string, at)
  })
  bytes.set(tail, at)
  return bytes
}

/** @returns `undefined` if the bytes are of another version, or broken */
export function decodePublication (topic: string, bytes: Buffer): Entry | undefined {
  if (bytes.length < headLength || bytes.readUInt32BE(0) !== bytes.length || bytes[8] !== version) return undefined
  const tailAt = bytes.length - bytes.readUInt32BE(4)
  const flags = bytes[9]!
  let at = headLength
  let isBroken = false
  const next = (): string => {
    const length = at + 2 <= tailAt ? bytes.readUInt16BE(at) : mostString + 1
    const end = at + 2 + length
    if (length > mostString || end > tailAt) {
      isBroken = true
      return ''
    }
    const string = bytes.toString('utf8', at + 2, end)
    at = end
    return string
  }
  const node = next()
  const uid = (flags & hasShortUid) === 0 ? next() : `${node}-${next()}`
  const except = (flags & hasExcept) === 0 ? undefined : next()
  const key = (flags & hasKey) === 0 ? undefined : next()
  const end = (flags & hasEnd) === 0 ? undefined : next() as EndReason
  if (isBroken || (at !== tailAt && (flags & ~knownFlags) === 0)) return undefined
  return {
    isRelayed: (flags & isRelayed) !== 0,
    publication: {
      v: 1,
      uid,
      node,
      topic,
      tail: bytes.subarray(tailAt),
      payloadLength: bytes.readUInt32BE(10),
      ...(end === undefined ? {} : { end }),
      ...(except === undefined ? {} : { except }),
      ...(key === undefined ? {} : { key }),
      deadline: bytes.readUIntBE(14, 6)
    }
  }
}

/** A message of a topic's channel: publications one behind the other, the position of the first, and the offset before it if that is not the one before. */
export interface ChannelMessage {
  /** `undefined`: the topic keeps no messages. */
  readonly position: Position | undefined
  /** The offset of the publication before the first one, if offsets were left out. */
  readonly after?: number
  /** `undefined` in place of a publication that cannot be read. */
  readonly entries: (Entry | undefined)[]
}

/** Longest head of a channel's message: `1<epoch>:<offset>,<after>:`. */
const mostHead = 1 + 64 + 1 + 15 + 1 + 15 + 1

/** @returns `undefined` if the bytes are of another version, or broken */
export function decodeMessage (topic: string, bytes: Buffer): ChannelMessage | undefined {
  const head = /^1(?:([A-Za-z0-9]{11,64}):(\d{1,15})(?:,(\d{1,15}))?|:):/.exec(bytes.toString('latin1', 0, mostHead))
  if (head === null) return undefined
  const entries: (Entry | undefined)[] = []
  for (let at = head[0].length; at < bytes.length;) {
    const length = at + headLength <= bytes.length ? bytes.readUInt32BE(at) : 0
    if (length < headLength || at + length > bytes.length) return undefined
    entries.push(decodePublication(topic, bytes.subarray(at, at + length)))
    at += length
  }
  return { position: head[1] === undefined ? undefined : { epoch: head[1], offset: Number(head[2]) }, ...(head[3] === undefined ? {} : { after: Number(head[3]) }), entries }
}

/** The message of a channel with publications of a topic that keeps none. */
export function encodeMessage (publication: Buffer): Buffer {
  return Buffer.concat([withoutPosition, publication])
}

const withoutPosition = Buffer.from('1::')
