import { Socket } from 'node:net'
import type { Mode } from '../../types/index.ts'
import { deflateParameters } from '../internals.ts'
import type { BatchView } from '../room/batch.ts'
import { encodingOf, type Encoding } from './encoding.ts'
import { drainOf, hasTakenSince, writeFrameTo, writeOwnTo, writeTo } from './socket-writes.ts'
import type { FrameRun, Look } from './transport.ts'
import { WebSocketFrames, type ByteStream, type WebSocketLike } from './websocket-frames.ts'

/**
 * A WebSocket whose frames go straight to its TCP or TLS socket, past ws. Frames that ws itself writes there (pings, pongs, the close frame) are written at once,
 * so all frames keep their order.
 */
export class WebSocketTransport extends WebSocketFrames implements Look {
  readonly #direct: Socket
  // The look of the heartbeat. An object of its own would cost memory for each member.
  written = 0
  unsent = 0

  constructor (socket: WebSocketLike, direct: Socket, encoding: Encoding) {
    super(socket, direct, encoding)
    this.#direct = direct
  }

  override get bufferedBytes (): number { return this.#direct.writableLength }

  override writeFrame (frame: Buffer): void {
    if (this.isWritable) writeFrameTo(this.#direct, frame, this)
  }

  override writeBatch (batch: FrameRun, isBehind: boolean): void {
    if (this.isWritable) writeTo(this.#direct, isBehind ? batch.unpooled : batch.whole)
  }

  override writeView (view: BatchView): void {
    if (!this.isWritable) return
    const bytes = view.bytes()
    if (bytes !== undefined) writeOwnTo(this.#direct, bytes)
  }

  override writeAll (frames: Buffer[]): void {
    if (frames.length > 0 && this.isWritable) writeOwnTo(this.#direct, Buffer.concat(frames))
  }

  override hasTaken (last: Look = this): boolean {
    return this.#direct.writableLength > 0 && hasTakenSince(this.#direct, last)
  }

  protected override nextDrained (): Promise<void> {
    // A stream that has ended takes no write, not even an empty one.
    if (!this.isOpen) return super.nextDrained()
    return drainOf(this.#direct)
  }
}

/** Whether the peer negotiated `server_no_context_takeover` with a full window, so that one compressed frame fits all such peers. */
export function takesDeflated (socket: WebSocketLike): boolean {
  const { server_no_context_takeover: alone, server_max_window_bits: bits = 15 } = deflateParameters(socket)
  return alone === true && bits === 15
}

/** Whether frames can go straight to a socket: the stream is one, and no extension changes frames. permessage-deflate passes frames that are not compressed. */
export function isDirect ({ extensions }: WebSocketLike, stream: ByteStream | undefined): stream is Socket {
  return stream instanceof Socket && (extensions === '' || extensions === 'permessage-deflate')
}

/** The transport of a WebSocket with one topic. */
export function webSocketTransport (socket: WebSocketLike, stream: ByteStream | undefined, mode: Mode): WebSocketFrames {
  return isDirect(socket, stream) ? new WebSocketTransport(socket, stream, encodingOf(mode, takesDeflated(socket))) : new WebSocketFrames(socket, stream, encodingOf(mode, false))
}
