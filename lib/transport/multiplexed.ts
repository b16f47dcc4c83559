import type { Socket } from 'node:net'
import type { BatchView } from '../room/batch.ts'
import { encodingOf, type Encoding } from './encoding.ts'
import { OwnFrames, type Gathered, type GatheredWrites, type GatheringTransport } from './gathered.ts'
import { writeTo } from './socket-writes.ts'
import type { FrameRun } from './transport.ts'
import { isDirect, takesDeflated, WebSocketTransport } from './websocket.ts'
import { WebSocketFrames, type ByteStream, type WebSocketLike } from './websocket-frames.ts'

/** Frames of this many bytes are written before the turn ends. */
const fullBytes = 262_144

/** A WebSocket with several topics: holds the frames of all its rooms back until the turn ends, and writes them at once. */
export class MultiplexedTransport extends WebSocketTransport implements GatheringTransport {
  readonly #socket: Socket
  readonly #writes: GatheredWrites
  #gathered: Gathered | undefined = undefined
  #leastSlowBytes = Infinity

  constructor (webSocket: WebSocketLike, socket: Socket, encoding: Encoding, writes: GatheredWrites) {
    super(webSocket, socket, encoding)
    this.#socket = socket
    this.#writes = writes
  }

  override get leastSlowBytes (): number { return this.#leastSlowBytes }
  override set leastSlowBytes (bytes: number) { this.#leastSlowBytes = bytes }
  override get bufferedBytes (): number { return this.#socket.writableLength + (this.#gathered?.bytes ?? 0) }

  override writeFrame (frame: Buffer): void {
    if (this.isWritable) this.#gather(new OwnFrames(frame))
  }

  override writeBatch (batch: FrameRun, _isBehind: boolean): void {
    if (this.isWritable) this.#gather(batch)
  }

  override writeView (view: BatchView): void {
    if (!this.isWritable) return
    const bytes = view.bytes()
    if (bytes !== undefined) this.#gather(new OwnFrames(bytes))
  }

  override writeAll (frames: Buffer[]): void {
    if (frames.length > 0 && this.isWritable) this.#gather(new OwnFrames(Buffer.concat(frames)))
  }

  override drained (): Promise<void> {
    this.writeGathered()
    return super.drained()
  }

  override close (code: number, reason: string): void {
    this.writeGathered()
    super.close(code, reason)
  }

  writeGathered (): void {
    const gathered = this.#gathered
    this.#gathered = undefined
    if (gathered !== undefined && this.isWritable) writeTo(this.#socket, this.#socket.writableLength > 0 ? gathered.unpooled : gathered.whole)
  }

  #gather (run: FrameRun): void {
    this.#gathered = this.#gathered === undefined ? this.#writes.begin(this, run) : this.#gathered.with(run)
    if (this.#gathered.bytes >= fullBytes) this.writeGathered()
  }
}

/** The transport of a WebSocket with several topics. */
export function multiplexedTransport (socket: WebSocketLike, stream: ByteStream | undefined, writes: GatheredWrites): WebSocketFrames {
  const encoding = (isDeflated: boolean): Encoding => encodingOf('rooms.v1', isDeflated, true)
  return isDirect(socket, stream) ? new MultiplexedTransport(socket, stream, encoding(takesDeflated(socket)), writes) : new WebSocketFrames(socket, stream, encoding(false))
}
