import type { NatsMessage } from '../../types/nats.ts'
import { asError } from '../error-utils.ts'
import { controlKinds, decodeControl, encodeControl, type ControlKind } from './envelope.ts'
import type { LinkSubscription, NatsLink } from './link.ts'
import type { Subjects } from './subjects.ts'

const nothing = Buffer.alloc(0)
/** The server's answer if a message has reached no subscription. */
const noResponders = 503

/** A user that this node holds. */
interface Held {
  readonly subscription: LinkSubscription
  /** Other nodes that hold the user, as they have said: the server counts this node, too, so that it cannot tell that there is another one. */
  readonly others: Set<string>
  /** Another node has said something about the user, or has had time for it, so that no others means none. */
  isAnswered: boolean
}

/** Time for the answers of other nodes to the question which of them hold a user, in milliseconds. */
const patience = 2_000

export interface ControlPorts {
  receive (fromNode: string, bytes: Buffer): void
  unreadable (error: Error): void
}

/** Control messages between nodes: to one, to all, and to those that hold a user. */
export class Control {
  readonly #link: NatsLink
  readonly #subjects: Subjects
  readonly #node: string
  readonly #ports: ControlPorts
  readonly #held = new Map<string, Held>()
  #count = 0

  constructor (link: NatsLink, subjects: Subjects, node: string, ports: ControlPorts) {
    this.#link = link
    this.#subjects = subjects
    this.#node = node
    this.#ports = ports
    for (const subject of [subjects.all, subjects.node(node)]) link.subscribe(subject, message => { this.#read(message, undefined) }, true)
  }

  async send (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'> {
    const user = to.startsWith('user:') ? to.slice(5) : undefined
    const subject = to === '*' ? this.#subjects.all : user === undefined ? this.#subjects.node(to.slice(5)) : this.#subjects.user(user)
    if (subject === this.#subjects.node(this.#node)) return 'gone'
    const reply = this.#subjects.reply(this.#node, ++this.#count)
    const held = user === undefined ? undefined : this.#held.get(user)
    let isGone = false
    const end = this.#link.onReply(({ subject, headers }) => { if (subject === reply && headers?.code === noResponders) isGone = true })
    const at = performance.now()
    const isTaken = this.#send(subject, controlKinds.control, bytes, reply) && await this.#link.flushed().then(() => true, () => false)
    end()
    if (!isTaken || this.#link.hasRefused(subject, at)) return 'unknown'
    return isGone || (held?.isAnswered === true && held.others.size === 0) ? 'gone' : 'sent'
  }

  hold (add: string[], remove: string[]): void {
    for (const user of remove) {
      const held = this.#held.get(user)
      if (held === undefined) continue
      this.#held.delete(user)
      this.#link.unsubscribe(held.subscription)
      this.#send(this.#subjects.user(user), controlKinds.drops, nothing)
    }
    for (const user of add) {
      if (this.#held.has(user)) continue
      const subscription = this.#link.subscribe(this.#subjects.user(user), message => { this.#read(message, user) })
      const held: Held = { subscription, others: new Set(), isAnswered: false }
      this.#held.set(user, held)
      this.#ask(user, held)
    }
  }

  /** Asks which other nodes hold the users. Call it for each new connection, because answers may be lost with the last one. */
  announce (): void {
    for (const [user, held] of this.#held) {
      held.others.clear()
      this.#ask(user, held)
    }
  }

  #ask (user: string, held: Held): void {
    held.isAnswered = false
    this.#send(this.#subjects.user(user), controlKinds.holds, nothing)
    setTimeout(() => { held.isAnswered = true }, patience).unref()
  }

  /** @param user - the held user under whose subject the message has come */
  #read ({ data }: NatsMessage, user: string | undefined): void {
    try {
      const { kind, node, bytes } = decodeControl(data)
      if (node === this.#node) return
      const held = this.#held.get(kind === controlKinds.holdsToo ? bytes.toString() : user ?? '')
      const others = held?.others
      if (held !== undefined) held.isAnswered = true
      if (kind === controlKinds.control) this.#ports.receive(node, bytes)
      else if (kind === controlKinds.drops) others?.delete(node)
      else if (kind === controlKinds.holdsToo) others?.add(node)
      else if (kind === controlKinds.holds && user !== undefined) {
        others?.add(node)
        this.#send(this.#subjects.node(node), controlKinds.holdsToo, Buffer.from(user))
      } else throw new Error('its kind is not known')
    } catch (error) {
      this.#ports.unreadable(asError(error))
    }
  }

  #send (subject: string, kind: ControlKind, bytes: Buffer, reply?: string): boolean {
    const message = encodeControl(kind, this.#node, bytes)
    return message.length <= this.#link.maxPayload && this.#link.send(subject, message, reply)
  }
}
