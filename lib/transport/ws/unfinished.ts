import { chunkBytesOf, chunksOf, fragmentBytesOf, fragmentsOf, isWithinFrame, isWithinMessage, type Holder } from '../../internals.ts'

/** Up to this many pieces are kept as they are. Larger messages may have one piece for each 512 bytes. */
const fewPieces = 64
const pieceBytes = 512
/** Pieces are merged up to a block of this size, which is never copied again. */
const blockBytes = 2_048
/** A piece may keep this many bytes of memory besides its own: the rest of a read (64 KiB) of which it is a view. */
const spareBytes = 1_024

/** Whether a message, or a frame of any kind, has begun and not ended. */
export function isUnfinished (holder: Holder): boolean {
  return isWithinFrame(holder) || isWithinMessage(holder)
}

/** The number of fragments of a message, by the array that holds them, that keep little memory besides their own bytes. */
const detachedFragments = new WeakMap<Buffer[], number>()

/**
 * Bounds the memory of a message that has not ended to a small multiple of its bytes, because each chunk that a socket reads costs some
 * 300 bytes besides its own, and a peer may send one chunk for each byte. Merges small pieces at a cost that grows with the bytes alone.
 * Copies nothing below 64 pieces, or if they have more than 512 bytes each.
 */
export function compact (holder: Holder): void {
  const chunks = chunksOf(holder)
  // Only the first chunk can be the rest of a larger one; each fragment can.
  if (chunks.length > 0) chunks[0] = detached(chunks[0]!)
  if (isCostly(chunks, chunkBytesOf(holder))) merge(chunks)
  const fragments = fragmentsOf(holder)
  const before = detachedFragments.get(fragments) ?? 0
  if (fragments.length === before) return
  for (let index = before; index < fragments.length; index++) fragments[index] = detached(fragments[index]!)
  if (isCostly(fragments, fragmentBytesOf(holder))) merge(fragments)
  detachedFragments.set(fragments, fragments.length)
}

function isCostly ({ length }: Buffer[], bytes: number): boolean {
  return length >= fewPieces && length * pieceBytes > bytes
}

/** Returns the piece, or a copy of it if it keeps much memory besides its own bytes. */
function detached (piece: Buffer): Buffer {
  if (piece.buffer.byteLength <= 4 * piece.length + spareBytes) return piece
  const copy = Buffer.allocUnsafeSlow(piece.length)
  copy.set(piece)
  return copy
}

/** Merges each run of small pieces, in place. At most one piece for each 1,024 bytes remains, and one more. */
function merge (pieces: Buffer[]): void {
  let kept = 0
  for (let from = 0; from < pieces.length;) {
    let to = from
    let bytes = 0
    do bytes += pieces[to++]!.length
    while (bytes < blockBytes && to < pieces.length && pieces[to]!.length < blockBytes)
    pieces[kept++] = to - from === 1 ? pieces[from]! : joined(pieces, from, to, bytes)
    from = to
  }
  pieces.length = kept
}

function joined (pieces: Buffer[], from: number, to: number, bytes: number): Buffer {
  const block = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (let index = from; index < to; index++) {
    block.set(pieces[index]!, at)
    at += pieces[index]!.length
  }
  return block
}
