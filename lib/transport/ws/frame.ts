/** RFC 6455 5.2: FIN and opcode 1, an unfragmented text message; RFC 7692 6: RSV1, a compressed one. */
const textFirst = 0x81
const rsv1 = 0x40
/** Payload lengths up to here stand in the second byte, longer ones in the two or eight bytes after it. */
const shortest = 125
const longest16 = 0xffff

/** A frame of a server (unmasked) whose payload, the last `length` bytes, is still to be written. */
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
 * A complete WebSocket frame of text.
 * @param rest - UTF-8 that follows the text
 */
export function textFrame (text: string, rest?: Buffer): Buffer {
  const textBytes = Buffer.byteLength(text)
  const length = rest === undefined ? textBytes : textBytes + rest.length
  const frame = allocate(textFirst, length)
  const start = frame.length - length
  frame.write(text, start)
  if (rest !== undefined) frame.set(rest, start + textBytes)
  return frame
}

/** A complete WebSocket frame of text that is compressed. */
export function compressedFrame (payload: Buffer): Buffer {
  const frame = allocate(textFirst | rsv1, payload.length)
  payload.copy(frame, frame.length - payload.length)
  return frame
}

/**
 * The same bytes in memory of their own. Node.js cuts small Buffers out of slabs of 8 KiB (`Buffer.poolSize`), and a slab lives as long as the last of its Buffers.
 * Returns the Buffer itself if its memory is at most twice its bytes.
 */
export function unpooled (bytes: Buffer): Buffer {
  if (bytes.buffer.byteLength <= 2 * bytes.length) return bytes
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}

/** The payload in a frame. No copy. */
export function payloadOf (frame: Buffer): Buffer {
  const length = frame[1]!
  return frame.subarray(length <= shortest ? 2 : length === 126 ? 4 : 10)
}
