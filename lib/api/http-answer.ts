import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { answerOn } from '../internals.ts'

const upgraded = Buffer.from('HTTP/1.1 101 ')
const headEnd = Buffer.from('\r\n\r\n')

/** The size of the first chunk; 0 or NaN if there is none. */
function sizeOf (bytes: Buffer): number {
  return Number.parseInt(bytes.toString('latin1', 0, 10), 16)
}

/** The data of a chunked body (RFC 9112 7.1), as far as it has come. */
function unchunked (bytes: Buffer): Buffer {
  const chunks: Buffer[] = []
  let rest = bytes
  for (let size = sizeOf(rest); size > 0; size = sizeOf(rest)) {
    const start = rest.indexOf('\r\n') + 2
    chunks.push(rest.subarray(start, start + size))
    rest = rest.subarray(start + size + 2)
  }
  return Buffer.concat(chunks)
}

/** A body as a test wants to look at it: JSON if it is JSON, text otherwise. */
function readBody (answer: Buffer): unknown {
  const end = answer.indexOf(headEnd)
  const head = answer.toString('latin1', 0, end)
  const body = answer.subarray(end + headEnd.length)
  const text = (/^transfer-encoding:.*chunked/im.test(head) ? unchunked(body) : body).toString()
  try {
    return /^content-type:.*json/im.test(head) ? JSON.parse(text) : text
  } catch {
    return text
  }
}

/**
 * Reads the HTTP answer to an upgrade request inside the process. `injectWS` tells no more of a refusal than its status, and its streams are its
 * own; so the answer is read where the server writes it.
 */
export class UpgradeAnswer {
  #stream: Duplex | undefined
  #written: Buffer[] = []

  /** Calls `inject`, which emits `upgrade` on one of the emitters before it returns. @param isIt - whether a request is that of this upgrade */
  watch<T> (emitters: readonly EventEmitter[], isIt: (request: IncomingMessage) => boolean, inject: () => T): T {
    const listen = (request: IncomingMessage, stream: Duplex): void => { if (isIt(request)) this.#tap(stream) }
    for (const emitter of emitters) emitter.prependListener('upgrade', listen)
    try {
      return inject()
    } finally {
      for (const emitter of emitters) emitter.removeListener('upgrade', listen)
    }
  }

  /** The body, when all of it has been written, or at the latest after so many milliseconds. `undefined` if the answer was not seen. */
  async body (milliseconds: number): Promise<unknown> {
    const response = this.#stream === undefined ? undefined : answerOn(this.#stream)
    if (response === undefined) return undefined
    if (!response.writableEnded) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, milliseconds)
        const done = (): void => { clearTimeout(timer); resolve() }
        response.once('finish', done).once('close', done)
      })
    }
    return readBody(Buffer.concat(this.#written))
  }

  #tap (stream: Duplex): void {
    this.#stream = stream
    const write = stream.write
    stream.write = (chunk: Buffer | string, ...rest: any[]): boolean => {
      const bytes = typeof chunk === 'string' ? Buffer.from(chunk, rest[0] as BufferEncoding) : chunk
      // Frames follow: they are not for this reader.
      if (this.#written.length === 0 && bytes.subarray(0, upgraded.length).equals(upgraded)) stream.write = write
      else this.#written.push(bytes)
      return write.call(stream, chunk, ...rest as [BufferEncoding])
    }
  }
}
