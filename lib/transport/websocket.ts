import { Socket } from 'node:net'
import type { Mode } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { deflateParameters, unsentOf } from '../internals.ts'
import type { BatchView } from '../room/batch.ts'
import { encodingOf, type Encoding } from './encoding.ts'
import type { FrameRun, Transport } from './transport.ts'
import { WebSocketFrames, type ByteStream, type WebSocketLike } from './websocket-frames.ts'
import { unpooled } from './ws/frame.ts'

const NO_BYTES = Buffer.alloc(0)

/** While the socket is corked for a join, up to this many buffered bytes (the 101 response) do not count as buffered. */
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

/**
 * A WebSocket whose frames go straight to its TCP or TLS socket, past ws. Frames that ws itself writes there (pings, pongs, the close frame) are written at once,
 * so all frames keep their order.
 */
export class WebSocketTransport extends WebSocketFrames {
  readonly #direct: Socket
  #onWritten: (() => void) | undefined = undefined
  /** The bytes that had left Node.js, and those of the rest that the operating system had not taken, when `hasTaken` was last called. */
  #written = 0
  #unsent = 0

  constructor (socket: WebSocketLike, direct: Socket, encoding: Encoding) {
    super(socket, direct, encoding)
    this.#direct = direct
  }

  override get bufferedBytes (): number { return this.#direct.writableLength }

  override writeFrame (frame: Buffer): void {
    if (!this.isWritable) return
    const direct = this.#direct
    if (direct.writableLength === 0 || (direct.writableCorked > 0 && direct.writableLength < gathered)) this.#write(frame)
    else {
      this.bufferedFrames++
      this.#onWritten ??= () => { this.bufferedFrames-- }
      this.#write(unpooled(frame), this.#onWritten)
    }
  }

  override writeBatch (batch: FrameRun, isBehind: boolean): void {
    if (this.isWritable) this.#write(isBehind ? batch.unpooled : batch.whole)
  }

  override writeView (view: BatchView): void {
    if (!this.isWritable) return
    const bytes = view.bytes()
    if (bytes !== undefined) this.#writeOwn(bytes)
  }

  override writeAll (frames: Buffer[]): void {
    if (frames.length > 0 && this.isWritable) this.#writeOwn(Buffer.concat(frames))
  }

  override hasTaken (): boolean {
    const direct = this.#direct
    if (direct.writableLength === 0) return false
    const written = direct.bytesWritten - direct.writableLength
    const unsent = unsentOf(direct)
    if (written === this.#written && unsent === this.#unsent) return false
    this.#written = written
    this.#unsent = unsent
    return true
  }

  protected override nextDrained (): Promise<void> {
    // A stream that has ended takes no write, not even an empty one.
    if (!this.isOpen) return super.nextDrained()
    return this.#direct.writableNeedDrain ? nextDrain(this.#direct) : nextWritten(this.#direct)
  }

  #writeOwn (bytes: Buffer): void {
    this.#write(this.#direct.writableLength > 0 ? unpooled(bytes) : bytes)
  }

  /** A stream of Node.js does not throw, but one that the host has wrapped may. */
  #write (bytes: Buffer, onWritten?: () => void): void {
    try {
      this.#direct.write(bytes, onWritten)
    } catch (error) {
      this.#direct.destroy(asError(error))
    }
  }
}

/** Whether the peer negotiated `server_no_context_takeover` with a full window, so that one compressed frame fits all such peers. */
function takesDeflated (socket: WebSocketLike): boolean {
  const { server_no_context_takeover: alone, server_max_window_bits: bits = 15 } = deflateParameters(socket)
  return alone === true && bits === 15
}

/** The transport of a WebSocket: straight to its socket, unless an extension may change frames or the stream is not a socket. permessage-deflate passes frames that are not compressed. */
export function webSocketTransport (socket: WebSocketLike, stream: ByteStream | undefined, mode: Mode): Transport & { holder: WebSocketFrames['holder'] } {
  const isDirect = stream instanceof Socket && (socket.extensions === '' || socket.extensions === 'permessage-deflate')
  return isDirect ? new WebSocketTransport(socket, stream, encodingOf(mode, takesDeflated(socket))) : new WebSocketFrames(socket, stream, encodingOf(mode, false))
}
