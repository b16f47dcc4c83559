/** The part of the receiver of ws 8.23 that holds a message which has not ended. Not public, so it may be absent. */
export interface Holder {
  /** Chunks that have been read, and belong to a frame that has not ended. */
  readonly _buffers: Buffer[]
  readonly _bufferedBytes: number
  /** Payloads of the frames of a message that has not ended. */
  readonly _fragments: Buffer[]
  /** Their bytes. */
  readonly _messageLength: number
  /** The opcode of a message that has not ended; 0 between messages. */
  readonly _fragmented: number
  /** 0 between frames. */
  readonly _state: number
}

/** Up to so many pieces are kept as they are. Larger messages may have one piece for each 512 bytes. */
const fewPieces = 64
const pieceBytes = 512
/** Pieces are merged up to a block of this size, which is never copied again. */
const blockBytes = 2_048
/** A piece may keep memory of so much more than itself: the rest of a read (64 KiB) of which it is a view. */
const spareBytes = 1_024

/** Whether the receiver is one that is known. */
export function isHolder (receiver: object): receiver is Holder {
  const { _buffers, _fragments, _bufferedBytes, _messageLength, _fragmented, _state } = receiver as Partial<Holder>
  return Array.isArray(_buffers) && Array.isArray(_fragments) && [_bufferedBytes, _messageLength, _fragmented, _state].every(Number.isInteger)
}

/** Whether a message, or a frame of any kind, has begun and not ended. */
export function isUnfinished ({ _bufferedBytes, _fragmented, _state }: Holder): boolean {
  return _bufferedBytes > 0 || _fragmented !== 0 || _state !== 0
}

/** How many fragments of a message, by the array that holds them, keep little memory besides their own bytes. */
const detachedFragments = new WeakMap<Buffer[], number>()

/**
 * Bounds the memory of a message that has not ended to a small multiple of its bytes. Each chunk that a socket reads costs some 300 bytes
 * besides its own, and a peer may send a chunk for each byte. Small pieces are merged, at a cost that grows with the bytes alone: below
 * 64 pieces, or with more than 512 bytes in each, nothing is copied.
 */
export function compact (holder: Holder): void {
  const { _buffers, _bufferedBytes, _fragments, _messageLength } = holder
  // Only the first chunk can be the rest of a larger one. Fragments may all be.
  if (_buffers.length > 0) _buffers[0] = detached(_buffers[0]!)
  if (isCostly(_buffers, _bufferedBytes)) merge(_buffers)
  const before = detachedFragments.get(_fragments) ?? 0
  if (_fragments.length === before) return
  for (let index = before; index < _fragments.length; index++) _fragments[index] = detached(_fragments[index]!)
  if (isCostly(_fragments, _messageLength)) merge(_fragments)
  detachedFragments.set(_fragments, _fragments.length)
}

function isCostly ({ length }: Buffer[], bytes: number): boolean {
  return length >= fewPieces && length * pieceBytes > bytes
}

/** A piece that keeps little memory besides its own bytes. */
function detached (piece: Buffer): Buffer {
  if (piece.buffer.byteLength <= 4 * piece.length + spareBytes) return piece
  const copy = Buffer.allocUnsafeSlow(piece.length)
  copy.set(piece)
  return copy
}

/** Merges each run of small pieces, in place. At most one piece for each 1,024 bytes is left, and one more. */
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
