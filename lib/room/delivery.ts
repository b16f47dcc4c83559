import type { Position, Publication } from '../../types/index.ts'
import { messageHead, tailEnd, tailStart, withKey } from '../protocol/server-frames.ts'
import { formatPosition } from '../protocol/position.ts'
import type { Deflate } from '../transport/ws/deflate.ts'
import { encodingOf, encodings, type Encoding } from '../transport/encoding.ts'
import { kept, textFrame, textFrameOf } from '../transport/ws/frame.ts'

/** A private or public payload in raw mode: its JSON, or on a topic without a schema a string as its text. */
export function rawText (json: string, untyped: boolean): string {
  return untyped && json.startsWith('"') ? JSON.parse(json) as string : json
}

/** A publication of this node, on its way out. The memory broker brings the same object back. */
export class Outgoing implements Publication {
  readonly v = 1
  readonly uid: string
  readonly node: string
  readonly topic: string
  readonly except?: string
  readonly key?: string
  readonly deadline: number
  /** Members of this node that it was queued to. */
  local = 0
  /** Its entry has been here. */
  isDelivered = false
  /** Why it could not be delivered here. */
  failure: Error | undefined
  readonly #json: string
  readonly #text: string
  #copy: Publication | undefined

  /** @param end - of the frame, after the payload: see tailEnd */
  constructor (origin: { uid: string, node: string, topic: string, deadline: number, except?: string | undefined, key?: string | undefined }, json: string, end: string = tailEnd()) {
    this.uid = origin.uid
    this.node = origin.node
    this.topic = origin.topic
    this.deadline = origin.deadline
    if (origin.except !== undefined) this.except = origin.except
    if (origin.key !== undefined) this.key = origin.key
    this.#json = json
    this.#text = tailStart + json + (origin.key === undefined ? end : withKey(end, origin.key))
  }

  // In memory nobody asks for bytes.
  get tail (): Buffer { return Buffer.from(this.#text) }
  get payloadLength (): number { return Buffer.byteLength(this.#json) }

  /** The same as a plain object, for a broker that copies it or hands it on to a network. */
  toPublication (): Publication {
    const { v, uid, node, topic, tail, payloadLength, deadline, except, key } = this
    this.#copy ??= { v, uid, node, topic, tail, payloadLength, deadline, ...(except === undefined ? {} : { except }), ...(key === undefined ? {} : { key }) }
    return this.#copy
  }

  /** Whether an entry of this topic is this publication, byte for byte. */
  isSameAs (topic: string, { v, node, topic: named, tail, payloadLength, except, key }: Publication): boolean {
    const own = this.toPublication()
    return v === 1 && topic === own.topic && named === topic && node === own.node && except === own.except && key === own.key && payloadLength === own.payloadLength &&
      tail instanceof Uint8Array && own.tail.equals(tail)
  }

  // Where the same object comes back, nobody has to read its bytes.
  get json (): string { return this.#json }
  get text (): string { return this.#text }
}

/** One publication on its way to the members of this node: its frames, each made once, when first asked for. */
export class Delivery {
  readonly publication: Publication
  readonly id: string | undefined
  readonly #untyped: boolean
  readonly #deflate: Deflate | undefined
  readonly #frames: (Buffer | undefined)[] = [undefined, undefined, undefined, undefined]
  #isKept = false

  constructor (publication: Publication, position: Position | undefined, untyped: boolean, deflate?: Deflate) {
    this.publication = publication
    this.id = position === undefined ? undefined : formatPosition(position)
    this.#untyped = untyped
    this.#deflate = deflate
  }

  /** The serialised payload. */
  get json (): string {
    const { publication } = this
    if (publication instanceof Outgoing) return publication.json
    const { tail, payloadLength } = publication
    return tail.toString('utf8', tailStart.length, tailStart.length + payloadLength)
  }

  /** The complete WebSocket frame, header included. */
  frame (encoding: Encoding): Buffer {
    this.#frames[encoding] ??= this.#isKept ? kept(this.#make(encoding)) : this.#make(encoding)
    return this.#frames[encoding]
  }

  /** Somebody will have it for long: what frames there are go, and others take no more memory than theirs. */
  keep (): void {
    this.#isKept = true
    this.#frames.fill(undefined)
  }

  #make (encoding: Encoding): Buffer {
    const { mode, deflated } = encodings[encoding]
    if (deflated) {
      const plain = this.frame(encodingOf(mode, false))
      return this.#deflate === undefined ? plain : this.#deflate.compress(plain)
    }
    if (mode === 'rooms.raw') return textFrameOf(rawText(this.json, this.#untyped))
    const { publication } = this
    const head = messageHead(this.id)
    return publication instanceof Outgoing ? textFrameOf(head + publication.text) : textFrame(head, publication.tail)
  }
}
