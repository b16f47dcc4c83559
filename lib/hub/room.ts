import type { Mode, Position } from '../../types/index.ts'
import type { TopicDefinition } from '../topics.ts'
import { Batch, View } from './batch.ts'
import type { Delivery } from './delivery.ts'
import { RoomPresence } from './presence.ts'
import type { MemberSession } from './session.ts'
import type { Subscription } from './subscription.ts'
import { textFrame } from './text-frame.ts'

/** A batch that has grown so far leaves before the turn ends: frames, and bytes. */
const fullFrames = 256
const fullBytes = 262_144

const modes = ['rooms.v1', 'rooms.raw'] as const

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
  /** What this turn's members are to get, by mode; one flush empties both. */
  #batches: Record<Mode, Batch> = { 'rooms.v1': new Batch(), 'rooms.raw': new Batch() }
  readonly #counts: Record<Mode, number> = { 'rooms.v1': 0, 'rooms.raw': 0 }
  /** Fan-outs under way: until they are over nobody is moved in the array. */
  #flushing = 0
  #departed: MemberSession[] = []

  constructor (topic: string, definition: TopicDefinition) {
    this.topic = topic
    this.definition = definition
    this.presence = definition.presence === null ? undefined : new RoomPresence(this)
  }

  get size (): number { return this.members.length - this.#departed.length }
  get isEmpty (): boolean { return this.size === 0 && this.joining === 0 && this.subscriptions.size === 0 }
  /** Something waits for the end of the turn. */
  get isDirty (): boolean { return modes.some(mode => this.#batches[mode].length > 0) }
  /** So much waits that it should not wait for the end of the turn. */
  get isFull (): boolean { return modes.some(mode => this.#batches[mode].length >= fullFrames || this.#batches[mode].bytes >= fullBytes) }

  add (session: MemberSession): void {
    session.index = this.members.push(session) - 1
    this.#counts[session.connection.mode]++
    // What was sent before it came is not for it.
    const batch = this.#batches[session.connection.mode]
    if (batch.length > 0) session.view = new View(batch, batch.length)
    this.presence?.outdate()
  }

  remove (session: MemberSession): void {
    this.#counts[session.connection.mode]--
    if (this.#flushing > 0) this.#departed.push(session)
    else this.#take(session)
  }

  /** Queues one publication to everybody but one; returns to how many members. */
  deliver (delivery: Delivery, excepted?: MemberSession): number {
    for (const mode of modes) {
      if (this.#counts[mode] > 0) this.#batches[mode].push(delivery.frame(mode))
    }
    if (excepted !== undefined) this.#view(excepted).skipLast()
    for (const subscription of this.subscriptions) subscription.push(delivery)
    return excepted === undefined ? this.size : this.size - 1
  }

  /** Queues one frame to all who speak `rooms.v1`. */
  announce (frame: string): void {
    if (this.#counts['rooms.v1'] > 0) this.#batches['rooms.v1'].push(textFrame('', Buffer.from(frame)))
  }

  /** Sends one member a frame of its own, after what the room has sent so far: at once where nothing waits. */
  sendTo (session: MemberSession, frame: Buffer): void {
    const { connection } = session
    const batch = this.#batches[connection.mode]
    if (session.view === undefined && batch.length === 0) {
      connection.send(frame)
      return
    }
    const view = this.#view(session)
    view.add(frame)
    if (view.ownBytes < fullBytes) return
    // Whoever awaits each send would never let the turn end, and what waits here counts nowhere as buffered.
    connection.sendView(view)
    session.view = new View(batch, batch.length)
  }

  /** Sends everybody what waits. @param sent - called for each member after its write; it must not end anybody */
  flush (sent: (session: MemberSession) => void): void {
    const { members } = this
    const batches = this.#batches
    this.#batches = { 'rooms.v1': new Batch(), 'rooms.raw': new Batch() }
    this.#flushing++
    try {
      for (let i = 0, length = members.length; i < length; i++) {
        const session = members[i]!
        const { connection, view } = session
        const batch = batches[connection.mode]
        if (view !== undefined) {
          view.catchUp()
          session.view = undefined
          connection.sendView(view)
        } else if (batch.length > 0 && session.state === 'open') connection.sendBatch(batch)
        else continue
        sent(session)
      }
    } finally {
      if (--this.#flushing === 0 && this.#departed.length > 0) {
        for (const session of this.#departed.splice(0)) this.#take(session)
      }
    }
  }

  /** Sends one member, who is about to leave, what waits for it. */
  flushMember (session: MemberSession): void {
    if (session.view === undefined && this.#batches[session.connection.mode].length === 0) return
    const view = this.#view(session)
    view.catchUp()
    session.connection.sendView(view)
    session.view = undefined
  }

  #view (session: MemberSession): View {
    session.view ??= new View(this.#batches[session.connection.mode], 0)
    return session.view
  }

  #take (session: MemberSession): void {
    const last = this.members.pop()!
    if (last === session) return
    this.members[session.index] = last
    last.index = session.index
  }
}
