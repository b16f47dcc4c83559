import type { Transport } from '../transport.ts'
import { compact, isHolder, type Holder } from './unfinished.ts'

type Done = (error?: Error) => void

/** What is used of the receiver of a `ws` WebSocket, a Writable that parses frames. Not public. */
export interface Receiver {
  readonly errored: Error | null
  readonly writableEnded: boolean
  /** The most bytes of a message; 0: no bound. */
  _maxPayload?: number
  readonly _extensions?: { 'permessage-deflate'?: { _maxPayload?: number } }
  _write (chunk: Buffer, encoding: BufferEncoding, done: Done): void
  /** Inflates what one frame brought, and goes on to parse once that is done. */
  decompress (data: Buffer, done: Done): void
  end (): void
  /** The peer's close frame: its code, 1005 where it gave none. */
  on (event: 'conclude', listener: (this: this, code: number, reason: Buffer) => void): unknown
}

/**
 * Drops what has come behind a violation. Chunks queue while a message is inflated, and where one of them fails at once Node.js
 * hands over the next all the same; ws 8.23.0 then parses from where it gave up, and throws where nobody can catch it.
 *
 * Bounds what a message costs that has not ended, and returns the part of the receiver that tells of it: `undefined` if the receiver has
 * other members than that of ws 8.23. Then only the bounds of ws hold, 16,384 fragments and 262,144 chunks.
 */
export function takeOver (receiver: Receiver): Holder | undefined {
  const holder = isHolder(receiver)
  receiver._write = holder ? writeCompactly : writeUnlessErrored
  return holder ? receiver : undefined
}

function writeUnlessErrored (this: Receiver, chunk: Buffer, encoding: BufferEncoding, done: Done): void {
  if (this.errored === null) (Object.getPrototypeOf(this) as Receiver)._write.call(this, chunk, encoding, done)
  else done()
}

function writeCompactly (this: Receiver & Holder, chunk: Buffer, encoding: BufferEncoding, done: Done): void {
  writeUnlessErrored.call(this, chunk, encoding, done)
  if (this._bufferedBytes > 0 || this._fragmented !== 0) compact(this)
}

/** Lowers the most bytes that a message may have, compressed or inflated. */
export function lowerMaxPayload (receiver: Receiver, bytes: number): void {
  for (const bounded of [receiver, receiver._extensions?.['permessage-deflate']]) {
    if (bounded?._maxPayload === undefined) continue
    bounded._maxPayload = bounded._maxPayload > 0 ? Math.min(bounded._maxPayload, bytes) : bytes
  }
}

/**
 * While reading is paused nothing is inflated, and nothing behind it parsed: of what one read has brought (64 KiB) each frame might
 * become as much as a frame may be. Where the connection ends meanwhile, what has not been inflated is lost with it.
 */
export function inflateWhileReading (receiver: Receiver, transport: Pick<Transport, 'isPaused' | 'onResume'>): void {
  const { decompress, end } = receiver
  let held: Done | undefined
  const lose = (done: Done): void => { done(new Error('the connection has closed')) }
  receiver.decompress = function (data, done) {
    if (!transport.isPaused) decompress.call(this, data, done)
    else if (this.writableEnded) lose(done)
    else {
      held = done
      transport.onResume = () => {
        held = undefined
        decompress.call(this, data, done)
      }
    }
  }
  receiver.end = function () {
    end.call(this)
    transport.onResume = undefined
    if (held !== undefined) lose(held)
    held = undefined
  }
}
