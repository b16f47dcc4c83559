import type { Socket } from 'node:net'
import { asError } from '../error-utils.ts'
import { unsentOf } from '../internals.ts'
import type { Look, Transport } from './transport.ts'
import { unpooled } from './ws/frame.ts'

// Writes of a transport that go straight to a TCP or TLS socket.

const NO_BYTES = Buffer.alloc(0)

/** While a socket is corked for a join, up to this many buffered bytes (the head of the HTTP response) do not count as buffered. */
const gathered = 1_024

/** Settles at the stream's next `drain`. */
function nextDrain (socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    const drain = (): void => {
      socket.removeListener('close', close)
      resolve()
    }
    const close = (): void => {
      socket.removeListener('drain', drain)
      reject(new Error('the connection has closed'))
    }
    socket.once('drain', drain)
    socket.once('close', close)
  })
}

/** Settles when all that is buffered has been written. Below the stream's own high-water mark it emits no `drain`, but an empty write ends after all before it. */
function nextWritten (socket: Socket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(NO_BYTES, error => { error ? reject(error) : resolve() })
  })
}

/** Settles when the operating system has taken all that is buffered; rejects if the socket closes first. */
export function drainOf (socket: Socket): Promise<void> {
  return socket.writableNeedDrain ? nextDrain(socket) : nextWritten(socket)
}

/** Whether a frame can be written as it is, because no more than the head of a response is in front of it. */
function isClear (socket: Socket): boolean {
  return socket.writableLength === 0 || (socket.writableCorked > 0 && socket.writableLength < gathered)
}

/** Writes bytes. A stream of Node.js does not throw, but one that the host has wrapped may: then it is destroyed. */
export function writeTo (socket: Socket, bytes: Buffer, onWritten?: () => void): void {
  try {
    socket.write(bytes, onWritten)
  } catch (error) {
    socket.destroy(asError(error))
  }
}

/** Writes one frame for a transport, without copying it if nothing is buffered. */
export function writeFrameTo (socket: Socket, frame: Buffer, transport: Pick<Transport, 'bufferedFrames' | 'onFrameWritten'>): void {
  if (isClear(socket)) writeTo(socket, frame)
  else {
    transport.bufferedFrames++
    transport.onFrameWritten ??= () => { transport.bufferedFrames-- }
    writeTo(socket, unpooled(frame), transport.onFrameWritten)
  }
}

/** Writes bytes for one peer alone. */
export function writeOwnTo (socket: Socket, bytes: Buffer): void {
  writeTo(socket, socket.writableLength > 0 ? unpooled(bytes) : bytes)
}

/** Whether the operating system has taken some of the buffered bytes since a look, which is brought up to date. */
export function hasTakenSince (socket: Socket, last: Look): boolean {
  const written = socket.bytesWritten - socket.writableLength
  const unsent = unsentOf(socket)
  if (written === last.written && unsent === last.unsent) return false
  last.written = written
  last.unsent = unsent
  return true
}
