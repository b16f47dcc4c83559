/** The first byte of what a node sends to another one. Probes begin with `p`. */
const kind = 0x63

export function encodeControl (node: string, bytes: Uint8Array): Buffer {
  const name = Buffer.from(node)
  const head = Buffer.from([kind, name.length >> 8, name.length & 0xff])
  return Buffer.concat([head, name, bytes])
}

/** @returns `undefined` if the bytes cannot be read */
export function decodeControl (bytes: Buffer): { node: string, bytes: Buffer } | undefined {
  if (bytes.length < 3 || bytes[0] !== kind) return undefined
  const end = 3 + bytes.readUInt16BE(1)
  return end > bytes.length ? undefined : { node: bytes.toString('utf8', 3, end), bytes: bytes.subarray(end) }
}
