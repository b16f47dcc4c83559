import type { EndReason, Publication, Retention } from '../../types/index.ts'
import { endTail, tailEnd, tailStart, withKey } from '../protocol/server-frames.ts'

/** The members of a publication that its payload does not say. */
export interface PublicationHead {
  uid: string
  node: string
  topic: string
  deadline: number
  except?: string | undefined
  key?: string | undefined
  retention?: Retention | undefined
  version?: number | undefined
  end?: EndReason | undefined
  mid?: string | undefined
  whenDown?: 'fail' | undefined
}

/** A publication of this node on its way out. A broker of this process brings the same object back. */
export class Outgoing implements Publication {
  readonly v = 1
  readonly uid: string
  readonly node: string
  readonly topic: string
  readonly except?: string
  readonly key?: string
  readonly retention?: Retention
  readonly version?: number
  readonly end?: EndReason
  readonly mid?: string
  readonly whenDown?: 'fail'
  readonly deadline: number
  /** The payload; `''` for an end without data. */
  readonly json: string
  /** `tail` as text. A feed that gets the same object back reads this, and encodes no bytes. */
  readonly text: string
  /** Members of this node that it was queued to. */
  local = 0
  /** Its entry has been delivered here. */
  isDelivered = false
  /** Why it could not be delivered here. */
  failure: Error | undefined
  #copy: Publication | undefined

  /** @param end - the end of the frame, after the payload (see `tailEnd`) */
  constructor (head: PublicationHead, json: string, end: string = tailEnd()) {
    this.uid = head.uid
    this.node = head.node
    this.topic = head.topic
    this.deadline = head.deadline
    if (head.except !== undefined) this.except = head.except
    if (head.key !== undefined) this.key = head.key
    if (head.retention !== undefined) this.retention = head.retention
    if (head.version !== undefined) this.version = head.version
    if (head.mid !== undefined) this.mid = head.mid
    if (head.whenDown !== undefined) this.whenDown = head.whenDown
    this.json = json
    if (head.end !== undefined) {
      this.end = head.end
      this.text = endTail(head.end, json === '' ? undefined : json)
    } else this.text = tailStart + json + (head.key === undefined ? end : withKey(end, head.key))
  }

  get tail (): Buffer { return Buffer.from(this.text) }
  get payloadLength (): number { return this.end === undefined ? Buffer.byteLength(this.json) : 0 }

  /** The publication as a plain object, for a broker that copies it or sends it over a network. Made once. */
  toPublication (): Publication {
    if (this.#copy === undefined) {
      const { v, uid, node, topic, tail, payloadLength, deadline, except, key, retention, version, end, mid, whenDown } = this
      this.#copy = { v, uid, node, topic, tail, payloadLength, deadline, ...(except === undefined ? {} : { except }), ...(key === undefined ? {} : { key }), ...(retention === undefined ? {} : { retention }), ...(version === undefined ? {} : { version }), ...(mid === undefined ? {} : { mid }), ...(whenDown === undefined ? {} : { whenDown }), ...(end === undefined ? {} : { end }) }
    }
    return this.#copy
  }

  /** Whether an entry of this topic is this publication, byte for byte. */
  isSameAs (topic: string, { v, node, topic: named, tail, payloadLength, except, key, end }: Publication): boolean {
    const own = this.toPublication()
    return v === 1 && topic === own.topic && named === topic && node === own.node && except === own.except && key === own.key && end === own.end && payloadLength === own.payloadLength &&
      tail instanceof Uint8Array && own.tail.equals(tail)
  }
}
