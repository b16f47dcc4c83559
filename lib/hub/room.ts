import type { Mode, Position } from '../../types/index.ts'
import type { TopicDefinition } from '../topics.ts'
import type { Delivery } from './delivery.ts'
import { RoomPresence } from './presence.ts'
import type { MemberSession } from './session.ts'
import type { Subscription } from './subscription.ts'

/** The members of one topic on this node. It appears with its first member, or subscriber, and goes with its last. */
export class Room {
  readonly topic: string
  readonly definition: TopicDefinition
  /** Dense, in no order. */
  readonly members: MemberSession[] = []
  readonly subscriptions = new Set<Subscription>()
  readonly presence: RoomPresence | undefined
  /** Joins under way. */
  joining = 0
  /** Settles when the broker delivers this topic here. */
  attached: Promise<void> = Promise.resolve()
  /** The last position delivered here; `undefined` where the broker has none. */
  position: Position | undefined
  /** Fan-outs under way: until they are over nobody is moved in the array. */
  #sending = 0
  #departed: MemberSession[] = []

  constructor (topic: string, definition: TopicDefinition) {
    this.topic = topic
    this.definition = definition
    this.presence = definition.presence === null ? undefined : new RoomPresence(this)
  }

  get size (): number { return this.members.length - this.#departed.length }
  get isEmpty (): boolean { return this.size === 0 && this.joining === 0 && this.subscriptions.size === 0 }

  add (session: MemberSession): void {
    session.index = this.members.push(session) - 1
    this.presence?.outdate()
  }

  remove (session: MemberSession): void {
    if (this.#sending > 0) this.#departed.push(session)
    else this.#take(session)
  }

  /** Hands one publication to everybody; returns to how many members. Who joins meanwhile is not among them. */
  deliver (delivery: Delivery, sent: (session: MemberSession) => void): number {
    const { except } = delivery.publication
    const count = this.#each(mode => delivery.bytes(mode), sent, except)
    for (const subscription of this.subscriptions) subscription.push(delivery)
    return count
  }

  /** Sends one frame to all who speak `rooms.v1`. */
  announce (frame: string, sent: (session: MemberSession) => void): void {
    const bytes = Buffer.from(frame)
    this.#each(mode => mode === 'rooms.v1' ? bytes : undefined, sent)
  }

  #each (bytes: (mode: Mode) => Buffer | undefined, sent: (session: MemberSession) => void, except?: string): number {
    const { members } = this
    let count = 0
    this.#sending++
    try {
      for (let i = 0, length = members.length; i < length; i++) {
        const session = members[i]!
        if (session.state !== 'open' || session.id === except || session.connection.condemned) continue
        const frame = bytes(session.connection.mode)
        if (frame === undefined) continue
        session.connection.send(frame)
        sent(session)
        count++
      }
    } finally {
      if (--this.#sending === 0 && this.#departed.length > 0) {
        for (const session of this.#departed.splice(0)) this.#take(session)
      }
    }
    return count
  }

  #take (session: MemberSession): void {
    const last = this.members.pop()!
    if (last === session) return
    this.members[session.index] = last
    last.index = session.index
  }
}
