import type { NatsMessage } from '../../types/nats.ts'
import { asError } from '../error-utils.ts'
import { controlKinds, decodeControl, encodeControl, type ControlKind } from './envelope.ts'
import type { LinkSubscription, NatsLink } from './link.ts'
import type { Subjects } from './subjects.ts'

const nothing = Buffer.alloc(0)
/** Most nodes that are remembered to hold a user. Nodes that were killed do not say that they hold it no longer, and other programs may name any number. */
const mostOthers = 1_000
/** The server's answer if a message has reached no subscription. */
const noResponders = 503

/** A user that this node holds. The server counts this node among the receivers, so that it cannot tell whether there are others. */
interface Held {
  subscription: LinkSubscription | undefined
  /** Other nodes that hold the user, as they have said. */
  readonly others: Set<string>
  /** No other node holds the user, as far as is known. */
  isAlone: boolean
}

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
    const end = this.#onGone(reply, () => { isGone = true })
    const at = performance.now()
    const isTaken = this.#send(subject, controlKinds.control, bytes, reply) && await this.#link.flushed().then(() => true, () => false)
    end()
    if (!isTaken || this.#link.hasRefused(subject, at)) return 'unknown'
    return isGone || held?.isAlone === true ? 'gone' : 'sent'
  }

  hold (add: string[], remove: string[]): void {
    for (const user of remove) {
      const held = this.#held.get(user)
      if (held === undefined) continue
      this.#held.delete(user)
      this.#link.unsubscribe(held.subscription!)
      this.#send(this.#subjects.user(user), controlKinds.drops, nothing)
    }
    for (const user of add) {
      if (this.#held.has(user)) continue
      const held: Held = { subscription: undefined, others: new Set(), isAlone: false }
      this.#held.set(user, held)
      this.#ask(user, held)
      held.subscription = this.#link.subscribe(this.#subjects.user(user), message => { this.#read(message, user) })
    }
  }

  /** Asks which other nodes hold the users. Call it for each new connection, because answers may be lost with the last one. */
  announce (): void {
    for (const [user, held] of this.#held) {
      held.others.clear()
      held.isAlone = true // until another node says that it holds the user
      this.#send(this.#subjects.user(user), controlKinds.holds, nothing)
    }
  }

  /** @param user - the held user under whose subject the message has come */
  #read ({ data }: NatsMessage, user: string | undefined): void {
    try {
      const { kind, node, bytes } = decodeControl(data)
      if (node === this.#node) return
      const held = this.#held.get(kind === controlKinds.holdsToo ? bytes.toString() : user ?? '')
      if (kind === controlKinds.control) this.#ports.receive(node, bytes)
      else if (kind === controlKinds.drops) note(held, node, false)
      else if (kind === controlKinds.holdsToo) note(held, node, true)
      else if (kind === controlKinds.holds && user !== undefined) {
        note(held, node, true)
        this.#send(this.#subjects.node(node), controlKinds.holdsToo, Buffer.from(user))
      } else throw new Error('its kind is not known')
    } catch (error) {
      this.#ports.unreadable(asError(error))
    }
  }

  /** Asks which other nodes hold a user. Sent before the subscription: the server tells if there is none. */
  #ask (user: string, held: Held): void {
    const reply = this.#subjects.reply(this.#node, ++this.#count)
    const end = this.#onGone(reply, () => { held.isAlone = held.others.size === 0 })
    if (this.#send(this.#subjects.user(user), controlKinds.holds, nothing, reply)) this.#link.flushed().then(end, end)
    else end()
  }

  /** Calls back if the server says that what was sent with this reply subject has no receiver. Returns the function that ends this. */
  #onGone (reply: string, gone: () => void): () => void {
    return this.#link.onReply(reply, ({ headers }) => { if (headers?.code === noResponders) gone() })
  }

  #send (subject: string, kind: ControlKind, bytes: Buffer, reply?: string): boolean {
    const message = encodeControl(kind, this.#node, bytes)
    return message.length <= this.#link.maxPayload && this.#link.send(subject, message, reply)
  }
}

function note (held: Held | undefined, node: string, isHolding: boolean): void {
  if (held === undefined) return
  if (!isHolding) held.others.delete(node)
  else if (held.others.size < mostOthers) held.others.add(node)
  held.isAlone = held.others.size === 0
}
