/** RFC 6455 5.2: FIN and opcode 1, an unfragmented text message. RFC 7692 6: RSV1 marks a compressed message. */
const text = 0x81
const rsv1 = 0x40
/** Payload lengths up to this are in the second byte; longer ones are in the two or eight bytes after it. */
const shortest = 125
const longest16 = 0xffff

/** Returns a frame of a server, which is not masked. The caller writes the payload into its last `length` bytes. */
function allocate (first: number, length: number): Buffer {
  const start = length <= shortest ? 2 : length <= longest16 ? 4 : 10
  const frame = Buffer.allocUnsafe(start + length)
  frame[0] = first
  if (start === 2) frame[1] = length
  else if (start === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeUInt32BE(Math.floor(length / 2 ** 32), 2)
    frame.writeUInt32BE(length >>> 0, 6)
  }
  return frame
}

/**
 * Returns a complete WebSocket frame of text.
 * @param rest - UTF-8 that follows the text
 */
export function textFrame (head: string, rest?: Buffer): Buffer {
  const headBytes = Buffer.byteLength(head)
  const length = rest === undefined ? headBytes : headBytes + rest.length
  const frame = allocate(text, length)
  const start = frame.length - length
  frame.write(head, start)
  if (rest !== undefined) frame.set(rest, start + headBytes)
  return frame
}

/** Returns a complete WebSocket frame of compressed text. */
export function compressedFrame (payload: Buffer): Buffer {
  const frame = allocate(text | rsv1, payload.length)
  payload.copy(frame, frame.length - payload.length)
  return frame
}

/**
 * Returns the same bytes in memory of their own, for a caller that keeps them long, because Node.js cuts small Buffers out of slabs of
 * 8 KiB (`Buffer.poolSize`), and a slab lives as long as any Buffer in it. Bytes that fill half of their memory, or more, are not copied.
 */
export function unpooled (bytes: Buffer): Buffer {
  if (bytes.buffer.byteLength <= 2 * bytes.length) return bytes
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}

/** Returns a view of the payload in a frame. */
export function payloadOf (frame: Buffer): Buffer {
  const length = frame[1]!
  return frame.subarray(length <= shortest ? 2 : length === 126 ? 4 : 10)
}
