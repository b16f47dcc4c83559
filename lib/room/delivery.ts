import type { Position, Publication } from '../../types/index.ts'
import { Outgoing } from '../feed/outgoing.ts'
import { formatPosition } from '../protocol/position.ts'
import { tailStart } from '../protocol/server-frames.ts'
import { encodings, perEncoding, type Encoding } from '../transport/encoding.ts'
import type { MessageContent } from '../transport/envelope.ts'
import type { Deflate } from '../transport/ws/deflate.ts'
import { unpooled } from '../transport/ws/frame.ts'

/** One publication on its way to the members of this node. Makes each of its frames once, when it is first asked for. */
export class Delivery implements MessageContent {
  readonly publication: Publication
  readonly id: string | undefined
  readonly isUntyped: boolean
  readonly isEnd: boolean
  readonly #deflate: Deflate | undefined
  readonly #frames = perEncoding<Buffer | undefined>(undefined)
  #isRetained = false

  /**
   * @param isUntyped - the topic has no schema
   * @param deflate - compresses messages; `undefined` if the host has not switched compression on
   */
  constructor (publication: Publication, position: Position | undefined, isUntyped: boolean, deflate?: Deflate) {
    this.publication = publication
    this.id = position === undefined ? undefined : formatPosition(position)
    this.isUntyped = isUntyped
    this.isEnd = publication.end !== undefined
    this.#deflate = deflate
  }

  /** The payload. */
  get json (): string {
    const { publication } = this
    if (publication instanceof Outgoing) return publication.json
    const { tail, payloadLength } = publication
    return tail.toString('utf8', tailStart.length, tailStart.length + payloadLength)
  }

  get topic (): string { return this.publication.topic }

  get tail (): string | Buffer {
    const { publication } = this
    return publication instanceof Outgoing ? publication.text : publication.tail
  }

  /** The bytes of the message in one encoding, framing included. */
  frame (encoding: Encoding): Buffer {
    this.#frames[encoding] ??= this.#isRetained ? unpooled(this.#make(encoding)) : this.#make(encoding)
    return this.#frames[encoding]
  }

  /** Call this if a slow member keeps the delivery. Drops the cached frames, because they may pin slabs of Node's Buffer pool; later frames own their memory. */
  retain (): void {
    this.#isRetained = true
    this.#frames.fill(undefined)
  }

  #make (encoding: Encoding): Buffer {
    const { envelope, encode, plain } = encodings[encoding]
    if (plain === encoding) return envelope.message(this, encode)
    const frame = this.frame(plain)
    return this.#deflate === undefined ? frame : this.#deflate.compress(frame)
  }
}
