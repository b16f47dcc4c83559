type Done = (error?: Error) => void

/** What is used of the receiver of a `ws` WebSocket, a Writable that parses frames. Not public. */
export interface Receiver {
  readonly errored: Error | null
  _write (chunk: Buffer, encoding: BufferEncoding, done: Done): void
  /** The peer's close frame: its code, 1005 where it gave none. */
  on (event: 'conclude', listener: (code: number, reason: Buffer) => void): unknown
}

/**
 * What has come behind a violation is dropped. Chunks queue while a message is inflated, and where one of them fails at once Node.js
 * hands over the next all the same; ws 8.23.0 then parses from where it gave up, and throws where nobody can catch it.
 */
export function stopAtViolation (receiver: Receiver): void {
  const write = receiver._write
  receiver._write = function (chunk, encoding, done) {
    if (this.errored === null) write.call(this, chunk, encoding, done)
    else done()
  }
}
