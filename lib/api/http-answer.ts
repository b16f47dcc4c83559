import type { EventEmitter } from 'node:events'
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { answerOn } from '../internals.ts'

const upgraded = Buffer.from('HTTP/1.1 101 ')
const headEnd = Buffer.from('\r\n\r\n')

/** Returns the size of the first chunk; 0 or NaN if there is none. */
function sizeOf (bytes: Buffer): number {
  return Number.parseInt(bytes.toString('latin1', 0, 10), 16)
}

/** Returns the data of a chunked body (RFC 9112 7.1), as far as it has been written. */
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

/** Returns the body of an HTTP response: parsed if its content type is JSON, otherwise as text. */
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
 * Reads the HTTP response to an injected upgrade request. It is read from the server's side of the stream, because `injectWS` reports no more than
 * the status of a refusal, and does not expose its streams.
 */
export class UpgradeAnswer {
  #stream: Duplex | undefined
  #written: Buffer[] = []

  /**
   * Calls `inject`, which emits `upgrade` on one of the emitters before it returns.
   * @param isIt - whether a request is the request of this upgrade
   */
  watch<T> (emitters: readonly EventEmitter[], isIt: (request: IncomingMessage) => boolean, inject: () => T): T {
    const listen = (request: IncomingMessage, stream: Duplex): void => { if (isIt(request)) this.#tap(stream) }
    for (const emitter of emitters) emitter.prependListener('upgrade', listen)
    try {
      return inject()
    } finally {
      for (const emitter of emitters) emitter.removeListener('upgrade', listen)
    }
  }

  /** Resolves with the body when all of it has been written, or after a timeout with the part that has. `undefined` if there was no response. */
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
      // After the upgrade the stream carries frames, which are not recorded.
      if (this.#written.length === 0 && bytes.subarray(0, upgraded.length).equals(upgraded)) stream.write = write
      else this.#written.push(bytes)
      return write.call(stream, chunk, ...rest as [BufferEncoding])
    }
  }
}
