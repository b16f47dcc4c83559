/** RFC 6455 5.2: FIN and opcode 1, an unfragmented text message. */
const finText = 0x81
/** Payload lengths up to here stand in the second byte, longer ones in the two or eight bytes after it. */
const shortest = 125
const longest16 = 0xffff

/** A complete WebSocket frame of a server (unmasked): an ASCII head, and the bytes that follow it. */
export function textFrame (head: string, rest: Buffer): Buffer {
  const length = head.length + rest.length
  const start = length <= shortest ? 2 : length <= longest16 ? 4 : 10
  const frame = Buffer.allocUnsafe(start + length)
  frame[0] = finText
  if (start === 2) frame[1] = length
  else if (start === 4) {
    frame[1] = 126
    frame.writeUInt16BE(length, 2)
  } else {
    frame[1] = 127
    frame.writeUInt32BE(Math.floor(length / 2 ** 32), 2)
    frame.writeUInt32BE(length >>> 0, 6)
  }
  frame.write(head, start, 'latin1')
  rest.copy(frame, start + head.length)
  return frame
}

/** The payload in a frame of `textFrame`. No copy. */
export function payloadOf (frame: Buffer): Buffer {
  const length = frame[1]!
  return frame.subarray(length <= shortest ? 2 : length === 126 ? 4 : 10)
}
