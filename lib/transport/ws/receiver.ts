import { chunkBytesOf, inflaterOf, interceptChunks, isHolder, isSynchronous, isWithinMessage, parseChunk, setInflater, type Done, type Holder, type Receiver } from '../../internals.ts'
import { writeWhole } from './whole-frame.ts'
import type { Transport } from '../transport.ts'
import { compact } from './unfinished.ts'

/**
 * Drops chunks that follow a violation. Chunks queue while a message is inflated, and if one of them fails at once, Node.js still hands over
 * the next; ws 8.23.0 then parses on from the fault, and throws an error that no caller can catch.
 *
 * Bounds the memory of a message that has not ended, and hands on whole frames directly.
 *
 * @returns the part of the receiver that tells of an unfinished message; `undefined` if the receiver has other members than that of ws 8.
 * Then only the bounds of ws hold, 16,384 fragments and 262,144 chunks.
 */
export function takeOver (receiver: Receiver): Holder | undefined {
  if (!isHolder(receiver)) {
    interceptChunks(receiver, writeUnlessErrored)
    return undefined
  }
  interceptChunks(receiver, writeCompactly)
  if (isSynchronous(receiver)) receiver.write = writeWhole as Receiver['write']
  return receiver
}

function writeUnlessErrored (this: Receiver, chunk: Buffer, encoding: BufferEncoding, done: Done): void {
  if (this.errored === null) parseChunk(this, chunk, encoding, done)
  else done()
}

function writeCompactly (this: Receiver & Holder, chunk: Buffer, encoding: BufferEncoding, done: Done): void {
  writeUnlessErrored.call(this, chunk, encoding, done)
  if (chunkBytesOf(this) > 0 || isWithinMessage(this)) compact(this)
}

/**
 * Inflates nothing while reading is paused, and parses nothing behind it, because each frame in one read (64 KiB) may become as large as a
 * frame may be. Frames that wait to be inflated are lost if the connection ends meanwhile. A receiver that cannot be told to wait inflates at once.
 */
export function inflateWhileReading (receiver: Receiver, transport: Pick<Transport, 'isPaused' | 'onResume'>): void {
  const inflate = inflaterOf(receiver)
  if (inflate === undefined) return
  const { end } = receiver
  let held: Done | undefined
  const lose = (done: Done): void => { done(new Error('the connection has closed')) }
  setInflater(receiver, function (data, done) {
    if (!transport.isPaused) inflate.call(this, data, done)
    else if (this.writableEnded) lose(done)
    else {
      held = done
      transport.onResume = () => {
        held = undefined
        inflate.call(this, data, done)
      }
    }
  })
  receiver.end = function () {
    end.call(this)
    transport.onResume = undefined
    if (held !== undefined) lose(held)
    held = undefined
  }
}
