import { randomUUID } from 'node:crypto'
import type { BroadcastResult, Broker, BrokerState, Mode, Outcome, Position, Publication, Rooms } from '../../types/index.ts'
import { FST_ROOMS_BROKER_FAULT, FST_ROOMS_CLOSED } from '../errors.ts'
import { asError } from '../error-utils.ts'
import { formatPosition } from '../protocol/position.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { Aftermath } from './aftermath.ts'
import type { Ending, Hooks, HubContext, Log, Origin, Settings } from './context.ts'
import { createCounters, type Counters } from './counters.ts'
import { Drain } from './drain.ts'
import * as events from './events.ts'
import { Failures } from './failures.ts'
import { BrokerLink } from '../feed/broker-link.ts'
import type { Gap } from '../feed/feed.ts'
import { Losses } from '../feed/loss.ts'
import { Backlog } from '../room/slow-members.ts'
import { Deflate } from '../transport/ws/deflate.ts'
import { Delivery, Outgoing } from '../room/delivery.ts'
import { Turn } from '../room/turn.ts'
import { sayGoodbye } from '../session/bye.ts'
import { GuardedLog } from './guarded-log.ts'
import { Expiry } from '../connection/expiry.ts'
import { Kicks } from '../limits/recent-kicks.ts'
import { Reviews } from '../identity/reauthorize.ts'
import { Workload } from '../session/in-flight.ts'
import { join, serverEnding, type JoinRequest } from '../session/join.ts'
import { Admission, closeCodeOf } from '../limits/admission.ts'
import { countRefusal } from '../limits/refusals.ts'
import type { Meter } from './meter.ts'
import { PresenceClock } from '../presence/roster.ts'
import { Room } from '../room/room.ts'
import { MemberSession, sessionId } from '../session/session.ts'
import { Connection, type Transport } from '../connection/connection.ts'
import { Heartbeat } from '../connection/heartbeat.ts'
import { listenTo, type MemberSocket } from '../transport/ws/listeners.ts'
import { Subscription } from '../room/reader.ts'

/** Milliseconds between two faults of the broker that are reported; all are counted. */
const faultEvery = 1_000

/** A socket that was upgraded, and who is behind it. */
export interface Arrival extends JoinRequest {
  socket: MemberSocket
  /** `undefined` where ws does not tell: then frames go one by one, and silence is not watched. */
  transport: Transport | undefined
  mode: Mode
  address: string
  /** What it is counted under (`addressKey`). */
  source: string
  /** Its request says that it comes from somebody else, and nobody trusts it to. */
  forwarded: boolean
  definition: TopicDefinition
  topic: string
  user: string | undefined
  info: unknown
  expiresAt?: number | undefined
  /** When it asked to join, on the clock of `performance`: before anybody looked at who it is. Absent: it asks now. */
  begunAt?: number
}

/** The rooms of one node: who is in which, and the one road of every message to them. */
export class Hub implements HubContext {
  readonly hooks: Hooks
  readonly settings: Settings
  /** Never throws. */
  readonly log: Log
  readonly counters: Counters = createCounters()
  readonly sessions = new Map<string, MemberSession>()
  readonly users = new Map<string, Set<MemberSession>>()
  readonly links = new Set<MemberSession>()
  readonly roomByTopic = new Map<string, Room>()
  readonly meters = new Set<Meter>()
  /** `app.rooms`, set by whoever makes it. */
  rooms!: Rooms<any>
  state: 'open' | 'draining' | 'closed' = 'open'
  brokerState: BrokerState = 'down'
  leaving = 0
  working = 0
  readonly workload = new Workload()
  readonly expiry: Expiry
  readonly admission: Admission
  readonly kicks: Kicks
  readonly #node = randomUUID()
  readonly #broker: BrokerLink
  readonly #heartbeat: Heartbeat
  readonly #presence: PresenceClock
  readonly #drain: Drain
  readonly backlog: Backlog
  readonly #turn: Turn
  readonly #failures: Failures
  readonly #aftermath = new Aftermath()
  readonly #losses = new Losses((session, ending) => { this.end(session, ending) })
  readonly #reviews = new Reviews(this)
  readonly #flush = (room: Room): void => {
    // No clock is read for nobody.
    const from = this.meters.size > 0 && room.isDirty ? performance.now() : undefined
    const behind = room.flush(this.#turn.now)
    if (from !== undefined) for (const meter of this.meters) meter.fannedOut(performance.now() - from)
    this.backlog.judge(room, behind)
  }

  readonly #deflate: Deflate | undefined
  #publications = 0
  #faultToldAt = -Infinity
  #warned = false
  /** When members were last asked about. Who was on the way in by then was not among them, and may have been let in by what was true before. */
  #reviewedAt = -1

  constructor (broker: Broker, hooks: Hooks, settings: Settings, log: Log) {
    this.#broker = new BrokerLink(broker, { publish: settings.limits.publish, attach: settings.limits.handshake }, {
      feed: topic => this.roomByTopic.get(topic)?.feed,
      entry: (topic, publication, position, isRepeated) => { this.#deliver(topic, publication, position, isRepeated) },
      lost: topics => { this.#lose(topics) },
      state: (state, cause) => {
        this.brokerState = state
        this.log.info({ state, err: cause }, 'broker state')
        events.brokerChanged(this.rooms, state, cause)
      },
      fault: error => { this.#fault(error) },
      unanswered: () => { this.counters.unanswered++ }
    })
    this.hooks = hooks
    this.settings = settings
    this.log = new GuardedLog(log)
    if (settings.deflate !== undefined) this.#deflate = new Deflate(settings.deflate)
    this.#failures = new Failures(this)
    this.admission = new Admission(this)
    this.kicks = new Kicks(settings.limits.handshake)
    this.#heartbeat = new Heartbeat(this.links, {
      heartbeat: settings.heartbeat,
      handshake: settings.limits.handshake,
      unfinished: settings.limits.unfinished,
      late: (session) => { this.end(session, session.room!.feed.isReady ? serverEnding(4100, 'handshake') : serverEnding(4103, 'broker')) },
      overdue: (session) => {
        if (session.state === 'open') countRefusal(this, session, 'frame', 'unfinished')
        this.end(session, { code: 1008, reason: 'unfinished', by: 'server', refusal: 'unfinished' })
      },
      gone: (session) => { this.end(session, { code: 1006, reason: '', by: 'peer' }) },
      silent: (session) => {
        this.counters.silent++
        this.end(session, serverEnding(4203))
        session.connection.terminate()
      },
      swept: (now) => { this.admission.sweep(now) }
    })
    this.expiry = new Expiry(settings.notice, session => {
      this.counters.expired++
      this.end(session, serverEnding(4300, 'unauthorized'))
    })
    this.#presence = new PresenceClock((presence, frame) => {
      presence.room.announce(frame)
      this.#queued(presence.room)
    })
    this.#turn = new Turn(this.#flush)
    this.backlog = new Backlog(this, this.#turn)
    this.#drain = new Drain(this.links, this.workload, settings.drain, sessions => { this.#letGo(sessions) })
  }

  async start (): Promise<void> {
    await this.#broker.start(this.#node)
    this.#heartbeat.start()
  }

  /** A connection joins. The socket's listeners stand when this returns. */
  arrive (arrival: Arrival): void {
    const { socket, definition, topic, source, begunAt = Infinity } = arrival
    const connection = new Connection(socket, arrival.transport, arrival.mode, arrival.address)
    connection.emptyTurn = this.#turn.now // what waits is the answer to its upgrade
    const session = new MemberSession(this, connection, sessionId(), arrival)
    listenTo(socket, session)

    const refusal = this.admission.bound(definition, topic, source)
    this.links.add(session)
    this.sessions.set(session.id, session)
    if (refusal !== undefined) {
      this.end(session, serverEnding(closeCodeOf[refusal], refusal))
      this.admission.decline(session)
      if (refusal === 'perAddress' && arrival.forwarded) this.admission.hint(arrival.address)
      return
    }
    this.admission.admit(session, source)
    if (this.expiry.check(session)) return
    const kicked = this.kicks.find(begunAt, session.user, topic)
    if (kicked !== undefined) {
      this.end(session, kicked)
      return
    }
    this.expiry.watch(session)
    if (session.user !== undefined) {
      const others = this.users.get(session.user)
      if (others === undefined) this.users.set(session.user, new Set([session]))
      else others.add(session)
    }
    const room = this.#enter(topic, definition)
    room.joining++
    session.room = room
    join(this, session, room, arrival)
    if (begunAt <= this.#reviewedAt) this.#reviews.one(session)
  }

  closed (session: MemberSession, code: number, reason: string): void {
    this.links.delete(session)
    this.admission.forget(session)
    this.end(session, { code, reason, by: 'peer' })
    this.#drain.check()
  }

  accept (session: MemberSession): void {
    const { onAccept } = session
    if (onAccept === undefined) return
    session.onAccept = undefined
    session.accepted = true
    if (session.state === 'joining') onAccept()
    else this.#left(session)
  }

  end (session: MemberSession, ending: Ending): void {
    if (session.state === 'closed') return
    const { code, reason, by } = ending
    const { connection, room, user } = session
    const wasOpen = session.state === 'open'
    if (by === 'server') {
      session.dismissed = true
      sayGoodbye(session, ending)
      if (wasOpen) room!.flushMember(session)
    }
    session.state = 'closed'
    session.ending = { code, reason }
    this.sessions.delete(session.id)
    this.expiry.forget(session)
    const others = user === undefined ? undefined : this.users.get(user)
    others?.delete(session)
    if (others?.size === 0) this.users.delete(user!)
    if (room !== undefined) this.#leave(session, room, wasOpen)
    const refusal = wasOpen || by === 'peer' ? undefined : ending.refusal ?? 'other'
    if (refusal !== undefined) {
      this.counters.refused++
      this.counters.refusals[refusal]++
    }
    session.asks?.drop(session)
    if (by === 'server') {
      connection.close(code, reason)
      session.inbox.clear()
    }
    // From here on the host's functions are called, which may do anything.
    this.#aftermath.run(() => {
      if (wasOpen) events.left(session, code, reason, by)
      else if (refusal !== undefined) events.refused(session, 'join', refusal)
      session.abort()
      const finish = (): void => {
        session.claim?.end()
        if (session.accepted) this.#left(session)
      }
      // What a peer had sent before it went is still worked off, and its goodbye comes after that.
      if (by === 'peer' && wasOpen) session.inbox.whenIdle(finish)
      else finish()
    })
  }

  /** Asks the host again about members: those that may not stay are ended. Resolves with how many. */
  async reauthorize (sessions: MemberSession[]): Promise<number> {
    if (this.hooks.authorize === undefined) return 0
    this.#reviewedAt = performance.now()
    return this.#reviews.all(sessions)
  }

  /** Sends what waits in a room before everybody in it is let go: in one write each, and not copied for every one of them. */
  flush (topic: string): void {
    const room = this.roomByTopic.get(topic)
    if (room !== undefined) this.#flush(room)
  }

  publish (definition: TopicDefinition, topic: string, json: string, { signature, from, except, key }: Origin): BroadcastResult | Promise<BroadcastResult> {
    if (this.state === 'closed') throw new FST_ROOMS_CLOSED()
    const publication = new Outgoing({
      uid: `${this.#node}-${++this.#publications}`,
      node: this.#node,
      topic,
      deadline: Date.now() + this.settings.limits.publish,
      except,
      key
    }, json, signature)
    this.counters.broadcasts++
    if (this.meters.size > 0) for (const meter of this.meters) meter.published(definition.key)
    const outcome = this.#broker.publish(publication, this.roomByTopic.get(topic)?.feed)
    return outcome instanceof Promise ? outcome.then(outcome => this.#result(publication, outcome, definition, from)) : this.#result(publication, outcome, definition, from)
  }

  subscribe (topic: string, definition: TopicDefinition, bound: number, ended: () => void): Subscription {
    if (this.state === 'closed') throw new FST_ROOMS_CLOSED()
    const room = this.#enter(topic, definition)
    const subscription = new Subscription(topic, bound, () => {
      room.subscriptions.delete(subscription)
      this.#release(room)
      ended()
    })
    room.subscriptions.add(subscription)
    room.feed.receiverCame()
    room.feed.ready.catch((error: unknown) => { subscription.end(asError(error)) })
    return subscription
  }

  presenceChanged (session: MemberSession): void {
    const presence = session.room?.presence
    if (presence === undefined) return
    presence.joined(session)
    this.#presence.changed(presence)
  }

  /** Publications that the broker has not answered. */
  get publishing (): number { return this.#broker.pending }

  stalledFor (now: number): number {
    return this.#heartbeat.stalledFor(now)
  }

  /** Once is enough: all receivers are of one ws. */
  warnOfReceiver (): void {
    if (this.#warned) return
    this.#warned = true
    this.log.warn({}, 'the receiver of this ws is unknown: the memory and the time of messages that do not end are bounded by ws alone')
  }

  fail (error: Error, session?: MemberSession, whileHandling?: boolean): void {
    this.#failures.tell(error, session, whileHandling)
  }

  isHandling (session: MemberSession): boolean {
    return this.#failures.isHandling(session)
  }

  /** Lets everybody go, once what members have sent is worked off; settles when all are gone, at the latest after `drain.timeout`. */
  async drain (): Promise<void> {
    const begins = this.state === 'open'
    if (begins) {
      this.state = 'draining'
      this.leaving = this.links.size
      events.drained(this.rooms, 'begin', this.links.size)
    }
    this.#presence.stop()
    await this.#drain.run()
    if (begins) events.drained(this.rooms, 'end', this.links.size)
  }

  #letGo (sessions: MemberSession[]): void {
    for (const room of new Set(sessions.map(session => session.room))) if (room !== undefined) this.#flush(room)
    for (const session of sessions) this.end(session, serverEnding(1001, 'draining'))
  }

  async close (): Promise<void> {
    await this.drain()
    this.state = 'closed'
    this.#heartbeat.stop()
    for (const room of [...this.roomByTopic.values()]) {
      for (const subscription of [...room.subscriptions]) subscription.end()
    }
    await this.#broker.close()
  }

  #enter (topic: string, definition: TopicDefinition): Room {
    let room = this.roomByTopic.get(topic)
    if (room === undefined) {
      room = new Room(topic, definition, this.counters)
      this.roomByTopic.set(topic, room)
      room.feed.ready = this.#attach(room)
    }
    return room
  }

  async #attach (room: Room): Promise<void> {
    room.attachedAt(await this.#broker.attach(room.topic))
  }

  #release (room: Room): void {
    if (!room.isEmpty || this.roomByTopic.get(room.topic) !== room) return
    this.roomByTopic.delete(room.topic)
    if (room.presence !== undefined) this.#presence.forget(room.presence)
    this.#broker.detach(room.topic)
    room.feed.isGone = true
    this.#broker.review(room.feed)
  }

  #leave (session: MemberSession, room: Room, wasOpen: boolean): void {
    if (wasOpen) {
      room.remove(session)
      if (room.presence !== undefined && this.state === 'open') {
        room.presence.left(session)
        this.#presence.changed(room.presence)
      }
      this.log.info({ session: session.id, topic: session.topic, ...session.ending }, 'member left')
    } else room.joining--
    this.#release(room)
  }

  #left (session: MemberSession): void {
    const { onLeave } = this.hooks
    if (onLeave !== undefined) this.#aftermath.run(() => { this.#failures.guard(() => onLeave(session, session.ending), session) })
  }

  /** A room has something more to say; it leaves when the turn ends, or at once where that is much. */
  #queued (room: Room): void {
    if (room.isFull) {
      this.#turn.mark()
      this.#flush(room)
    } else if (room.isDirty) this.#turn.add(room)
  }

  #deliver (topic: string, publication: Publication, position: Position | undefined, isRepeated: boolean): void {
    const room = this.roomByTopic.get(topic)
    if (room === undefined) return
    const step = room.feed.advance(position)
    if (typeof step === 'object') {
      // Code of the host may run for those that are told, and publish: that comes after this message.
      this.#aftermath.run(() => {
        this.#tellLoss(room, step)
        try {
          this.#pass(room, publication, position, isRepeated)
        } catch (error) {
          this.#fault(asError(error))
          this.#lose([topic])
        }
      })
    } else if (step === 'old' && !isRepeated) {
      this.#fault(new FST_ROOMS_BROKER_FAULT(`an entry of topic "${topic}" came behind a later one`))
      this.counters.repeated++
      this.#lose([topic])
    } else this.#pass(room, publication, position, isRepeated || step === 'old')
  }

  #pass (room: Room, publication: Publication, position: Position | undefined, isRepeated: boolean): void {
    if (isRepeated) {
      this.counters.repeated++
      this.#queued(room)
      return
    }
    const own = publication instanceof Outgoing ? publication : undefined
    if (own !== undefined) own.isDelivered = true
    const delivery = new Delivery(publication, position, room.definition.message.schema === null, this.#deflate)
    const excepted = publication.except === undefined ? undefined : this.sessions.get(publication.except)
    const count = room.deliver(delivery, excepted?.room === room && excepted.state === 'open' ? excepted : undefined)
    this.#queued(room)
    this.counters.deliveries += count
    if (own === undefined) return
    own.local = count
    this.#broker.delivered(own)
  }

  /** Entries may have been missed: members and subscribers of these topics are told, and no position is promised until the next entry. */
  #lose (topics: readonly string[] | 'all'): void {
    const rooms = topics === 'all' ? [...this.roomByTopic.values()] : topics.flatMap(topic => this.roomByTopic.get(topic) ?? [])
    for (const room of rooms) {
      const gap = room.feed.lose()
      if (gap !== undefined) {
        this.#tellLoss(room, gap)
        this.#queued(room)
      }
      this.#broker.review(room.feed)
    }
  }

  #tellLoss (room: Room, gap: Gap): void {
    this.counters.losses++
    this.#losses.tell(room, gap)
  }

  /** The broker has broken its contract: counted always, told to `onError` at most once a second. */
  #fault (error: Error): void {
    this.counters.brokerFaults++
    const now = performance.now()
    if (now - this.#faultToldAt < faultEvery) return
    this.#faultToldAt = now
    this.fail(error)
  }

  #result (publication: Outgoing, { state, position }: Outcome, { key }: TopicDefinition, from: string | undefined): BroadcastResult {
    const { topic, local, failure } = publication
    if (failure !== undefined) throw failure
    const published = state === 'ok' || state === 'duplicate'
    const result = position === undefined ? { topic, local, published } : { topic, id: formatPosition(position), local, published }
    events.published(this.rooms, key, publication, result, from)
    return result
  }
}
