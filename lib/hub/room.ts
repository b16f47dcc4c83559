import type { Position } from '../../types/index.ts'
import type { TopicDefinition } from '../topics.ts'
import { Batch, View } from './batch.ts'
import type { Connection } from './connection.ts'
import type { Delivery } from './delivery.ts'
import { encodings, type Encoding } from './encoding.ts'
import { RoomPresence } from './presence.ts'
import type { MemberSession } from './session.ts'
import type { Subscription } from './subscription.ts'
import { textFrameOf } from './text-frame.ts'

/** A batch that has grown so far leaves before the turn ends: frames, and bytes. */
const fullFrames = 256
const fullBytes = 262_144

/** All encodings, and those that know frames other than messages. */
const all = [0, 1, 2, 3] as const satisfies Encoding[]
const v1 = all.filter(encoding => encodings[encoding].mode === 'rooms.v1')

/** Who watches over members that do not read. */
export interface Watch {
  /** The bound of what may wait for a member. */
  readonly bytes: number
  /** More waits for this one, or did the last time. It must not end anybody. */
  readonly sent: (session: MemberSession) => void
}

/** Sends a member all that it is to get until here. */
function sendView (connection: Connection, view: View): void {
  view.catchUp()
  connection.view = undefined
  connection.sendView(view)
}

/** The members of one topic on this node. It appears with its first member, or subscriber, and goes with its last. */
export class Room {
  readonly topic: string
  readonly definition: TopicDefinition
  /** Dense, in no order. */
  readonly members: MemberSession[] = []
  /** The same, as the fan-out goes through them: in a large room each object that it looks at costs it as much as the rest. */
  readonly #connections: Connection[] = []
  readonly subscriptions = new Set<Subscription>()
  readonly presence: RoomPresence | undefined
  /** Joins under way. */
  joining = 0
  /** Settles when the broker delivers this topic here. */
  attached: Promise<void> = Promise.resolve()
  isAttached = false
  /** The last position delivered here; `undefined` where the broker has none. */
  position: Position | undefined
  /** Something waits for the end of the turn, */
  isDirty = false
  /** or so much that it should not wait. */
  isFull = false
  /** Bytes queued to members that nobody has counted yet: their own frames are not among them. */
  uncounted = 0
  /** What this turn's members are to get, by encoding; one flush empties all. */
  #batches: (Batch | undefined)[] = [undefined, undefined, undefined, undefined]
  /** Members, by encoding. */
  readonly #counts = [0, 0, 0, 0]
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

  add (session: MemberSession): void {
    const { connection } = session
    const { encoding } = connection
    session.index = this.members.push(session) - 1
    this.#connections.push(connection)
    this.#counts[encoding]!++
    // What was sent before it came is not for it.
    const batch = this.#batches[encoding]
    if (batch !== undefined) connection.view = new View(batch, batch.length)
    this.presence?.outdate()
  }

  remove (session: MemberSession): void {
    this.#counts[session.connection.encoding]!--
    if (this.#flushing > 0) this.#departed.push(session)
    else this.#take(session)
  }

  /** Queues one publication to everybody but one; returns to how many members. */
  deliver (delivery: Delivery, excepted?: MemberSession): number {
    // All are made before the first is queued: what fails, fails for everybody.
    for (const encoding of all) {
      if (this.#counts[encoding]! > 0) delivery.frame(encoding)
    }
    for (const encoding of all) {
      if (this.#counts[encoding]! > 0) this.#push(encoding, delivery.frame(encoding))
    }
    if (excepted !== undefined) {
      this.#view(excepted.connection).skipLast()
      this.uncounted -= delivery.frame(excepted.connection.encoding).length
    }
    for (const subscription of this.subscriptions) subscription.push(delivery)
    return excepted === undefined ? this.size : this.size - 1
  }

  /** Queues one frame to all who speak `rooms.v1`. */
  announce (text: string): void {
    const frame = textFrameOf(text)
    for (const encoding of v1) {
      if (this.#counts[encoding]! > 0) this.#push(encoding, frame)
    }
  }

  /** Sends one member a frame of its own, after what the room has sent so far: at once where nothing waits. */
  sendTo (session: MemberSession, frame: Buffer): void {
    const { connection } = session
    const batch = this.#batches[connection.encoding]
    if (batch === undefined) {
      connection.send(frame)
      return
    }
    const view = this.#view(connection)
    view.add(frame)
    if (view.ownBytes < fullBytes) return
    // Whoever awaits each send would never let the turn end, and what waits here counts nowhere as buffered.
    connection.sendView(view)
    connection.view = new View(batch, batch.length)
  }

  /** Sends everybody what waits. */
  flush (watch: Watch): void {
    if (!this.isDirty) return // it was full before the turn was over
    const connections = this.#connections
    const batches = this.#batches
    this.#batches = [undefined, undefined, undefined, undefined]
    this.isDirty = false
    this.isFull = false
    this.#flushing++
    try {
      for (let i = 0, length = connections.length; i < length; i++) {
        const connection = connections[i]!
        const batch = batches[connection.encoding]
        if (connection.view !== undefined) sendView(connection, connection.view)
        else if (batch !== undefined) connection.sendBatch(batch)
        else continue
        if (connection.overTurn !== 0 || connection.bufferedBytes > watch.bytes) watch.sent(this.members[i]!)
      }
    } finally {
      if (--this.#flushing === 0 && this.#departed.length > 0) {
        for (const session of this.#departed.splice(0)) this.#take(session)
      }
    }
  }

  /** Sends one member, who is about to leave, what waits for it. */
  flushMember ({ connection }: MemberSession): void {
    if (this.#batches[connection.encoding] !== undefined) sendView(connection, this.#view(connection))
  }

  #push (encoding: Encoding, frame: Buffer): void {
    const batch = this.#batches[encoding]
    this.isDirty = true
    this.uncounted += frame.length * this.#counts[encoding]!
    if (batch === undefined) {
      this.#batches[encoding] = new Batch(frame)
      this.isFull ||= frame.length >= fullBytes
      return
    }
    batch.push(frame)
    if (batch.length >= fullFrames || batch.bytes >= fullBytes) this.isFull = true
  }

  #view (connection: Connection): View {
    connection.view ??= new View(this.#batches[connection.encoding]!, 0)
    return connection.view
  }

  #take (session: MemberSession): void {
    const last = this.members.pop()!
    this.#connections.pop()
    if (last === session) return
    this.members[session.index] = last
    this.#connections[session.index] = last.connection
    last.index = session.index
  }
}
