import { constants, deflateRawSync, type ZlibOptions } from 'node:zlib'
import { compressedFrame, payloadOf } from './frame.ts'

/** Bytes from which ws compresses, unless `threshold` says otherwise. */
const smallest = 1024
/** Compressing is synchronous: payloads of more bytes would hold everything else up for milliseconds, and go as they are. */
const largest = 65_536
/** A sync flush ends in an empty block, of which RFC 7692 7.2.1 leaves these bytes out. */
const tailBytes = 4

/** What is used of `perMessageDeflate` as ws takes it. */
export interface DeflateOptions {
  threshold?: number
  zlibDeflateOptions?: Pick<ZlibOptions, 'level' | 'memLevel' | 'strategy' | 'chunkSize'>
}

/**
 * RFC 7692, once per message and not once per member. The frame refers to nothing that was sent before it, so it fits every
 * member that expects no more than that of the server.
 */
export class Deflate {
  readonly #threshold: number
  readonly #options: ZlibOptions

  /** The window is the full one in any case. @throws what zlib throws for options out of range */
  constructor ({ threshold = smallest, zlibDeflateOptions = {} }: DeflateOptions) {
    const { level, memLevel, strategy, chunkSize } = zlibDeflateOptions
    this.#threshold = threshold
    this.#options = { level, memLevel, strategy, chunkSize, windowBits: constants.Z_DEFAULT_WINDOWBITS, finishFlush: constants.Z_SYNC_FLUSH }
    deflateRawSync('', this.#options) // what zlib does not take it says now
  }

  /** The same message in fewer bytes; the frame itself where that would not be worth it. */
  compress (frame: Buffer): Buffer {
    const payload = payloadOf(frame)
    if (payload.length < this.#threshold || payload.length > largest) return frame
    const deflated = deflateRawSync(payload, this.#options)
    return deflated.length - tailBytes < payload.length ? compressedFrame(deflated.subarray(0, -tailBytes)) : frame
  }
}
