import { constants, deflateRawSync, type ZlibOptions } from 'node:zlib'
import { compressedFrame, payloadOf } from './frame.ts'

/** Payloads of fewer bytes are not compressed: the default of `threshold` in ws. */
const smallest = 1024
/** Payloads of more bytes are not compressed, because compressing is synchronous, and would hold up the event loop for milliseconds. */
const largest = 65_536
/** Bytes at the end of a sync flush that RFC 7692 7.2.1 leaves out: an empty block. */
const tailBytes = 4

/** The members of the option `perMessageDeflate` of ws that are used. */
export interface DeflateOptions {
  threshold?: number
  zlibDeflateOptions?: Pick<ZlibOptions, 'level' | 'memLevel' | 'strategy' | 'chunkSize'>
}

/**
 * Compresses by RFC 7692, once per message and not once per member. The frame refers to nothing that was sent before it, so that it fits every
 * member that negotiated `server_no_context_takeover` with a full window.
 */
export class Deflate {
  readonly #threshold: number
  readonly #options: ZlibOptions

  /**
   * Uses the full window, whatever the options say.
   *
   * @throws RangeError of zlib, if an option is out of range
   */
  constructor ({ threshold = smallest, zlibDeflateOptions = {} }: DeflateOptions) {
    const { level, memLevel, strategy, chunkSize } = zlibDeflateOptions
    this.#threshold = threshold
    this.#options = { level, memLevel, strategy, chunkSize, windowBits: constants.Z_DEFAULT_WINDOWBITS, finishFlush: constants.Z_SYNC_FLUSH }
    deflateRawSync('', this.#options) // zlib throws now if it does not take an option
  }

  /** Returns a compressed frame with the same message; the frame itself if it is too small, too large, or would not become shorter. */
  compress (frame: Buffer): Buffer {
    const payload = payloadOf(frame)
    if (payload.length < this.#threshold || payload.length > largest) return frame
    const deflated = deflateRawSync(payload, this.#options)
    return deflated.length - tailBytes < payload.length ? compressedFrame(deflated.subarray(0, -tailBytes)) : frame
  }
}
