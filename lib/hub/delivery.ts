import type { Position, Publication } from '../../types/index.ts'
import { messageHead, tailEnd, tailStart } from '../protocol/frames.ts'
import { formatPosition } from '../protocol/position.ts'
import type { Deflate } from './deflate.ts'
import { encodingOf, encodings, type Encoding } from './encoding.ts'
import { textFrame } from './text-frame.ts'

const quote = 0x22

/** A private or public payload in raw mode: its JSON, or on a topic without a schema a string as its text. */
export function rawPayload (json: Buffer, untyped: boolean): Buffer {
  return untyped && json[0] === quote ? Buffer.from(JSON.parse(json.toString()) as string) : json
}

/** A publication of this node, on its way out; the memory broker brings the same object back. */
export class Outgoing implements Publication {
  readonly v = 1
  readonly uid: string
  readonly node: string
  readonly topic: string
  readonly tail: Buffer
  readonly payloadLength: number
  readonly except?: string
  readonly deadline: number
  /** Members of this node that it was queued to. */
  local = 0

  constructor (origin: { uid: string, node: string, topic: string, deadline: number, except?: string | undefined }, json: string, from?: string, user?: string) {
    const end = tailEnd(from, user)
    this.uid = origin.uid
    this.node = origin.node
    this.topic = origin.topic
    this.deadline = origin.deadline
    if (origin.except !== undefined) this.except = origin.except
    this.tail = Buffer.from(`${tailStart}${json}${end}`)
    this.payloadLength = this.tail.length - tailStart.length - Buffer.byteLength(end)
  }
}

/** One publication on its way to the members of this node: its frames, each made once, when first asked for. */
export class Delivery {
  readonly publication: Publication
  readonly id: string | undefined
  readonly #untyped: boolean
  readonly #deflate: Deflate | undefined
  readonly #frames: (Buffer | undefined)[] = [undefined, undefined, undefined, undefined]

  constructor (publication: Publication, position: Position | undefined, untyped: boolean, deflate?: Deflate) {
    this.publication = publication
    this.id = position === undefined ? undefined : formatPosition(position)
    this.#untyped = untyped
    this.#deflate = deflate
  }

  /** The serialised payload. No copy. */
  get json (): Buffer {
    const { tail, payloadLength } = this.publication
    return tail.subarray(tailStart.length, tailStart.length + payloadLength)
  }

  /** The complete WebSocket frame, header included. */
  frame (encoding: Encoding): Buffer {
    this.#frames[encoding] ??= this.#make(encoding)
    return this.#frames[encoding]
  }

  #make (encoding: Encoding): Buffer {
    const { mode, deflated } = encodings[encoding]
    if (deflated) {
      const plain = this.frame(encodingOf(mode, false))
      return this.#deflate === undefined ? plain : this.#deflate.compress(plain)
    }
    return mode === 'rooms.raw' ? textFrame('', rawPayload(this.json, this.#untyped)) : textFrame(messageHead(this.id), this.publication.tail)
  }
}
