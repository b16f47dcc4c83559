import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { constants, deflateRawSync } from 'node:zlib'
import type { Test } from 'tap'

/** A frame of a client: masked (RFC 6455 5.2). */
export function clientFrame (opcode: number, payload: Buffer | string): Buffer {
  const data = Buffer.from(payload)
  const length = data.length < 126 ? Buffer.of(data.length | 0x80) : Buffer.of(126 | 0x80, data.length >> 8, data.length & 0xff)
  const mask = randomBytes(4)
  return Buffer.concat([Buffer.of(0x80 | opcode), length, mask, data.map((byte, index) => byte ^ mask[index % 4]!)])
}

/** A compressed text message (RFC 7692 7.2.1), independent of earlier ones. */
export function compressedClientFrame (text: string): Buffer {
  const frame = clientFrame(1, deflateRawSync(text, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4))
  frame[0]! |= 0x40
  return frame
}

/** The texts in frames of the server. */
export function textsIn (bytes: Buffer): string[] {
  const found: string[] = []
  for (let at = 0; at < bytes.length;) {
    const short = bytes[at + 1]!
    const start = at + (short < 126 ? 2 : short === 126 ? 4 : 10)
    const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2))
    found.push(bytes.toString('utf8', start, start + length))
    at = start + length
  }
  return found
}

/** A peer with a hand-made handshake that does nothing by itself: it answers no ping and no close. */
export interface MutePeer {
  socket: Socket
  /** The head of the 101 response. */
  handshake (): string
  /** All bytes after the 101, as latin1. */
  text (): string
  send (opcode: number, payload: Buffer | string): void
}

/** Joins by hand. @param url - `127.0.0.1:<port>/<path>` */
export async function joinMute (t: Test, url: string, headers = ''): Promise<MutePeer> {
  const slash = url.indexOf('/')
  const [host, port] = url.slice(0, slash).split(':') as [string, string]
  const socket = connectTcp(Number(port), host)
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {})
  let received = ''
  socket.on('data', chunk => { received += chunk.toString('latin1') })
  await once(socket, 'connect')
  socket.write(`GET ${url.slice(slash)} HTTP/1.1\r\nhost: ${host}:${port}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: ${randomBytes(16).toString('base64')}\r\n${headers}\r\n`)
  while (!received.includes('\r\n\r\n')) await once(socket, 'data')
  if (!received.startsWith('HTTP/1.1 101')) throw new Error(received)
  return {
    socket,
    handshake: () => received.slice(0, received.indexOf('\r\n\r\n') + 2),
    text: () => received.slice(received.indexOf('\r\n\r\n') + 4),
    send: (opcode, payload) => { socket.write(clientFrame(opcode, payload)) }
  }
}

/** All bytes that a peer was sent after the 101. */
export function bytesOf (peer: MutePeer): Buffer {
  return Buffer.from(peer.text(), 'latin1')
}

/** All frames that have arrived whole. */
export function framesOf (peer: MutePeer): any[] {
  return textsIn(bytesOf(peer)).flatMap(text => {
    try {
      return [JSON.parse(text)]
    } catch {
      return []
    }
  })
}
