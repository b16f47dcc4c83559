import type { EndReason, Publication } from '../../types/index.ts'
import { bufferOf } from '../bytes.ts'

/**
 * The bytes of a message between nodes. A publication: version, flags, the lengths of its names, payload length, deadline, the names, tail. A control message:
 * version, kind, the node that sent it, its bytes. Numbers are in big-endian order. A message of another version is not read.
 */
const version = 1

const hasExcept = 1
const hasKey = 2
const reasons: readonly EndReason[] = ['done', 'failed', 'stopped', 'lost']
/** The bits of the flags that hold the number of an end's reason; 0 in them: the publication is no end. Flags above them, of a newer node, are ignored. */
const endShift = 2
const endMask = 7

/** Version, flags, five lengths of names, payload length, deadline. */
const headLength = 2 + 5 * 2 + 4 + 8

/** The kinds of control messages. */
export const controlKinds = { control: 1, holds: 2, holdsToo: 3, drops: 4 } as const
export type ControlKind = typeof controlKinds[keyof typeof controlKinds]

/** A control message. `bytes` is a view of the memory that was read. */
export interface Control {
  kind: number
  node: string
  bytes: Buffer
}

/** @throws if a name has more than 65,535 bytes */
export function encodePublication ({ uid, node, topic, except, key, end, payloadLength, deadline, tail }: Publication): Buffer {
  const names = [uid, node, topic, except ?? '', key ?? '']
  const lengths = names.map(name => Buffer.byteLength(name))
  const bytes = Buffer.allocUnsafe(lengths.reduce((sum, length) => sum + length, headLength + tail.length))
  bytes[0] = version
  bytes[1] = (except === undefined ? 0 : hasExcept) | (key === undefined ? 0 : hasKey) | (end === undefined ? 0 : reasons.indexOf(end) + 1) << endShift
  let at = 2
  for (const length of lengths) at = bytes.writeUInt16BE(length, at)
  at = bytes.writeUInt32BE(payloadLength, at)
  at = bytes.writeDoubleBE(deadline, at)
  for (const name of names) at += bytes.write(name, at)
  tail.copy(bytes, at)
  return bytes
}

function checkVersion (bytes: Buffer): void {
  if (bytes[0] !== version) throw new Error(bytes.length === 0 ? 'it is empty' : `its version is ${bytes[0]}, and this node reads ${version}`)
}

/**
 * Reads a publication. The tail is not checked, nor are the names, but for the topic.
 * @returns `undefined` if `node` sent it
 * @throws if it is not one of this topic and version
 */
export function decodePublication (message: Uint8Array, topic: string, node: string): Publication | undefined {
  const bytes = bufferOf(message)
  checkVersion(bytes)
  if (bytes.length < headLength) throw new Error('its end is missing')
  const flags = bytes[1]!
  let at = headLength
  const [uid, sender, named, except, key] = [0, 1, 2, 3, 4].map(index => {
    const from = at
    at += bytes.readUInt16BE(2 + 2 * index)
    return bytes.toString('utf8', from, at)
  }) as [string, string, string, string, string]
  if (at > bytes.length) throw new Error('its end is missing')
  if (sender === node) return undefined
  if (named !== topic) throw new Error('its topic is another one')
  const end = flags >> endShift & endMask
  if (end > reasons.length) throw new Error('its flags are not known')
  return {
    v: 1,
    uid,
    node: sender,
    topic,
    tail: bytes.subarray(at),
    payloadLength: bytes.readUInt32BE(12),
    deadline: bytes.readDoubleBE(16),
    ...((flags & hasExcept) === 0 ? {} : { except }),
    ...((flags & hasKey) === 0 ? {} : { key }),
    ...(end === 0 ? {} : { end: reasons[end - 1]! })
  }
}

export function encodeControl (kind: ControlKind, node: string, content: Uint8Array): Buffer {
  const name = Buffer.from(node)
  return Buffer.concat([Buffer.of(version, kind, name.length), name, content])
}

/** @throws if it is not a control message of this version */
export function decodeControl (message: Uint8Array): Control {
  const bytes = bufferOf(message)
  checkVersion(bytes)
  const start = 3 + (bytes[2] ?? 0)
  if (bytes.length < start || start === 3) throw new Error('its sender is missing')
  return { kind: bytes[1]!, node: bytes.toString('utf8', 3, start), bytes: bytes.subarray(start) }
}
