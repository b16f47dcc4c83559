import type { BroadcastResult, Broker, BrokerState, Health, KeptMessages, Refusal, Rooms, Stats } from '../../types/index.ts'
import type { Connection } from '../connection/connection.ts'
import { Expiry } from '../connection/expiry.ts'
import { Heartbeat } from '../connection/heartbeat.ts'
import type { MultiplexedConnection, PermittedJoin } from '../connection/multiplexed.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_OVERLOADED, FST_ROOMS_STREAM_TAKEN } from '../errors.ts'
import { BrokerLink } from '../feed/broker-link.ts'
import type { Feed } from '../feed/feed.ts'
import { Losses } from '../feed/loss.ts'
import { Mids } from '../feed/mids.ts'
import { Fleet } from '../fleet/fleet.ts'
import { HeldUsers } from '../fleet/held-users.ts'
import type { SessionsHub } from '../fleet/local-sessions.ts'
import { newNodeId } from '../fleet/node-id.ts'
import { IdleReplays } from '../history/idle-replays.ts'
import { keptMessages, type PageRequest } from '../history/read.ts'
import { HistoryReader } from '../history/reader.ts'
import { snapshotText } from '../history/snapshot.ts'
import { Waiters, type Waiter, type WaitRequest } from '../history/waiters.ts'
import { Reviews } from '../identity/reauthorize.ts'
import { Admission } from '../limits/admission.ts'
import { RecentKicks } from '../limits/recent-kicks.ts'
import { Announcer } from '../presence/announcer.ts'
import { SharedPresence } from '../presence/shared-presence.ts'
import { Users } from '../presence/users.ts'
import { EndedRooms } from '../room/ended-rooms.ts'
import { Subscription, type RoomReader } from '../room/reader.ts'
import { Room, type RoomPorts } from '../room/room.ts'
import { SlowMembers } from '../room/slow-members.ts'
import { Turn } from '../room/turn.ts'
import { SessionDirectory } from '../session/directory.ts'
import { serverEnding, slowCode } from '../session/ending.ts'
import { InFlight } from '../session/in-flight.ts'
import { join, type JoinHub, type JoinRequest } from '../session/join.ts'
import { JoinWaits } from '../session/join-waits.ts'
import { Lifecycle } from '../session/lifecycle.ts'
import type { Membership } from '../session/membership.ts'
import { MemberSession, type SessionPorts } from '../session/session.ts'
import { Streams } from '../streams/streams.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { GatheredWrites } from '../transport/gathered.ts'
import { Deflate } from '../transport/ws/deflate.ts'
import { Aftermath } from './aftermath.ts'
import { Arrivals } from './arrivals.ts'
import { BrokerWatch } from './broker-watch.ts'
import { createCounters, type Counters } from './counters.ts'
import { Drain } from './drain.ts'
import * as events from './events.ts'
import { Failures } from './failures.ts'
import { GuardedLog } from './guarded-log.ts'
import type { ApiHub, ConnectRequest, MultiplexedRequest, RequestHub, RoomView, RoutesHub } from './hub-api.ts'
import { LossLog } from './loss-log.ts'
import type { Meter } from './meter.ts'
import type { AnySession, Hooks, HubState, Log, PublishOptions, Settings } from './ports.ts'
import { Publications, type PublicationsHub } from './publications.ts'

/** The part of `limits.handshake` that one reading of kept messages may take. */
const readShare = 1 / 2
/** Most milliseconds for which a join that asks for the members waits until those of other nodes are known. */
const firstReading = 1_000

type Peer = Connection<Membership>

/** One node: assembles its connections, sessions, rooms and broker, and leads each event from one to the other. */
export class Hub implements ApiHub, RequestHub, RoutesHub, SessionPorts, SessionsHub, JoinHub, PublicationsHub {
  readonly hooks: Hooks
  readonly settings: Settings
  readonly log: Log
  readonly counters: Counters = createCounters()
  readonly connections = new Set<Peer>()
  /** The connections that join topics by frames. All of them are in `connections`, too. */
  readonly multiplexed = new Set<MultiplexedConnection<Membership>>()
  readonly directory: SessionDirectory<MemberSession>
  readonly meters = new Set<Meter>()
  /** `app.rooms`, set by the plugin. */
  rooms!: Rooms<any>
  /** Finds the definition of a topic, set by the plugin. */
  find!: (topic: string) => TopicDefinition | undefined
  state: HubState = 'open'
  leaving = 0
  working = 0
  readonly inFlight = new InFlight()
  readonly expiry: Expiry<Peer>
  readonly admission: Admission<Peer>
  readonly kicks: RecentKicks
  readonly mids: Mids
  readonly lifecycle: Lifecycle
  readonly joinWaits = new JoinWaits()
  readonly slowConsumers: SlowMembers<MemberSession>
  readonly users: Users<Membership>
  readonly streams: Streams
  readonly gathered: GatheredWrites
  readonly fleet: Fleet
  readonly idPrefix: string
  readonly node: string
  readonly shared: SharedPresence<Membership> | undefined
  readonly #rooms = new Map<string, Room<MemberSession>>()
  readonly #roomPorts: RoomPorts<MemberSession>
  readonly #broker: BrokerLink
  readonly #watch: BrokerWatch
  readonly #arrivals: Arrivals<MemberSession>
  readonly #lossLog: LossLog
  readonly #reader: HistoryReader
  readonly #publications: Publications
  readonly #heartbeat: Heartbeat<Peer>
  readonly #announcer = new Announcer()
  readonly #replays = new IdleReplays()
  readonly #waiters: Waiters
  readonly #endedRooms: EndedRooms<Room<MemberSession>>
  readonly #drain: Drain<Peer>
  readonly #turn: Turn<Room<MemberSession>>
  readonly #failures: Failures
  readonly #reviews: Reviews
  #isWarned = false

  constructor (broker: Broker, hooks: Hooks, settings: Settings, log: Log) {
    const { limits } = settings
    const aftermath = new Aftermath()
    this.hooks = hooks
    this.settings = settings
    this.log = new GuardedLog(log)
    this.#watch = new BrokerWatch(this.log)
    this.#lossLog = new LossLog(this.log)
    this.#failures = new Failures(this)
    this.#reviews = new Reviews(hooks)
    this.admission = new Admission({ settings, log: this.log, connections: this.connections, rooms: this.#rooms, state: () => this.state })
    this.kicks = new RecentKicks(limits.handshake)
    this.mids = new Mids(limits.mids, this.counters)
    this.gathered = new GatheredWrites(() => { this.#turn.mark() })
    this.#turn = new Turn(room => { this.#flush(room) }, () => { this.gathered.write() })
    this.slowConsumers = new SlowMembers(this.counters, this.#turn, limits.unfinished)
    this.#broker = new BrokerLink(broker, { publish: limits.publish, attach: limits.handshake, read: limits.handshake * readShare }, {
      feed: topic => this.feed(topic),
      feeds: () => Array.from(this.#rooms.values(), room => room.feed),
      state: (state, cause) => {
        const wasUp = this.brokerState === 'up'
        const report = this.#watch.report(state, cause)
        if (state === 'up' && !wasUp) {
          this.shared?.up()
          for (const { feed } of this.#rooms.values()) feed.rejoin()
        }
        events.brokerChanged(this.rooms, report)
      },
      fault: error => { this.#failures.tellFault(error) },
      unanswered: () => { this.counters.unanswered++ },
      control: (fromNode, bytes) => { this.fleet.receive(fromNode, bytes) },
      presence: () => this.shared,
      orphaned: async topics => { await Promise.all(topics.map(topic => this.#endOrphan(topic))) }
    })
    this.node = newNodeId(this.#broker.isInProcess)
    this.idPrefix = this.#broker.isInProcess ? '' : `${this.node}-`
    const heldUsers = this.#broker.holdsUsers ? new HeldUsers(this.#broker) : undefined
    this.directory = new SessionDirectory(heldUsers)
    this.#arrivals = new Arrivals(this, {
      turn: () => this.#turn.now,
      session: (connection, joining) => {
        const session = new MemberSession(this, connection, joining)
        this.directory.add(session)
        return session
      },
      enterRoom: (session, request, begunAt) => { this.#enterRoom(session, request, begunAt) },
      heldUsers
    })
    const { presence } = this.#broker
    this.shared = presence === undefined
      ? undefined
      : new SharedPresence<Membership>(presence, {
        hooks,
        aftermath,
        node: this.node,
        infoLimit: limits.info,
        firstWait: Math.min(firstReading, limits.handshake * readShare),
        rooms: () => this.rooms,
        key: topic => {
          const definition = this.find(topic)
          return definition === undefined || definition.presence === null ? undefined : definition.key
        },
        guard: (hook, session) => { this.#failures.guard(hook, session) },
        isUp: () => this.brokerState === 'up',
        fault: error => { this.#failures.tellFault(error) },
        room: topic => this.#rooms.get(topic),
        allRooms: () => this.#rooms.values(),
        changed: roster => { this.#announcer.changed(roster) },
        came: (topic, user) => { this.users.cameElsewhere(topic, user) }
      })
    this.#reader = new HistoryReader(this.#broker, limits.handshake * readShare, () => this.state === 'closed')
    this.#publications = new Publications(this, this.node, this.#broker, limits.publish)
    this.users = new Users({
      hooks,
      aftermath,
      limit: limits.connections,
      announcer: this.#announcer,
      roster: topic => this.#rooms.get(topic)?.roster,
      rooms: () => this.rooms,
      guard: (hook, session) => { this.#failures.guard(hook, session) },
      shared: this.shared
    })
    this.#endedRooms = new EndedRooms(room => { this.#flush(room) })
    this.streams = new Streams({
      state: () => this.state,
      publish: (definition, topic, json, options) => this.#publications.publish(definition, topic, json, options),
      isEnded: (definition, topic) => this.#reader.isEndedAt(definition, topic),
      claims: this.#broker.claimsStreams ? this.#broker : undefined,
      fail: error => { this.fail(error) }
    })
    this.fleet = new Fleet({
      node: this.node,
      link: this.#broker,
      sessions: this,
      streams: this.streams,
      timeout: limits.publish,
      counters: this.counters,
      log: this.log,
      publish: (definition, topic, json, options) => this.#publications.publish(definition, topic, json, options),
      page: (definition, topic, request) => this.#reader.page(definition, topic, request),
      fail: error => { this.fail(error) }
    })
    this.#roomPorts = {
      feed: { broker: this.#broker, aftermath, counters: this.counters, fault: error => { this.#failures.tellFault(error) } },
      counters: this.counters,
      deflate: settings.deflate === undefined ? undefined : new Deflate(settings.deflate),
      losses: new Losses(({ topic, definition: { key } }, gap) => {
        this.#lossLog.note(topic, gap)
        events.lost(this.rooms, topic, key, gap)
      }),
      turn: this.#turn as RoomPorts<MemberSession>['turn'],
      history: this.#broker,
      replays: this.#replays,
      member: (topic, id) => {
        const session = this.directory.find(id)
        return session?.topic === topic && session.state === 'open' ? session : undefined
      },
      ended: room => { this.#endedRooms.add(room as Room<MemberSession>) },
      held: topic => this.users.held(topic),
      remote: this.shared === undefined ? undefined : (topic, roster) => this.shared!.remote(topic, roster)
    }
    this.lifecycle = new Lifecycle({
      counters: this.counters,
      aftermath,
      bye: this,
      remove: (session, wasOpen) => { this.#remove(session as MemberSession, wasOpen) },
      callOnLeave: session => { this.#callOnLeave(session, aftermath) }
    })
    this.#heartbeat = new Heartbeat(this.connections, {
      heartbeat: settings.heartbeat,
      handshake: limits.handshake,
      unfinished: limits.unfinished,
      late: (connection) => {
        const end = (session: Membership): void => { session.end(session.room?.feed.isReady !== true || this.joinWaits.has(session) ? serverEnding(4103, 'broker') : serverEnding(4100, 'handshake')) }
        if (connection.isMultiplexed) (connection as MultiplexedConnection<Membership>).endLateJoins(performance.now(), limits.handshake, end)
        else end(connection.session)
      },
      overdue: (connection) => {
        if (connection.isMultiplexed || connection.session.state === 'open') connection.countRefusal('unfinished')
        connection.close({ code: 1008, reason: 'unfinished', by: 'server', refusal: 'unfinished' })
      },
      gone: (connection) => { connection.close({ code: 1006, reason: '', by: 'peer' }) },
      silent: (connection) => {
        this.counters.silent++
        connection.close(serverEnding(4203))
        connection.transport.terminate()
      },
      swept: (now, stalled) => {
        this.admission.sweep(now)
        this.mids.sweep(now)
        this.slowConsumers.sweep(now, stalled)
        this.#watch.remind(now)
      }
    })
    this.expiry = new Expiry(settings.notice, connection => {
      this.counters.expired++
      connection.close(serverEnding(4300, 'unauthorized'))
    })
    this.#waiters = new Waiters({
      limit: limits.waiters,
      enter: (definition, topic, reader) => {
        if (!this.#rooms.has(topic) && this.#rooms.size >= limits.topics) throw new FST_ROOMS_OVERLOADED('too many topics have rooms')
        return this.#addReader(this.#enter(topic, definition), reader)
      },
      leave: (topic, reader) => { this.#removeReader(this.#rooms.get(topic)!, reader) },
      read: (definition, topic, request) => this.#reader.page(definition, topic, request),
      failed: error => { this.fail(error) }
    })
    this.#drain = new Drain(this.connections, this.inFlight, settings.drain, connections => { this.#letGo(connections) })
  }

  async start (): Promise<void> {
    await this.#broker.start(this.node, { historyBytes: this.settings.limits.history })
    this.#heartbeat.start()
  }

  connect (request: ConnectRequest): void {
    this.#arrivals.connect(request)
  }

  connectMultiplexed (request: MultiplexedRequest): void {
    this.#arrivals.connectMultiplexed(request)
  }

  enter (connection: MultiplexedConnection<Membership>, join: PermittedJoin): void {
    this.#arrivals.enter(connection, join)
  }

  #enterRoom (session: MemberSession, request: JoinRequest, begunAt: number): void {
    this.directory.admit(session)
    const room = this.#enter(session.topic, session.definition)
    room.joining++
    session.room = room
    join(this, session, room, request)
    this.#reviews.entered(session, begunAt)
  }

  multiplexedOf (user: string): Iterable<MultiplexedConnection<Membership>> {
    return [...this.multiplexed].filter(connection => connection.user === user)
  }

  write (connection: MultiplexedConnection<Membership>, frame: Buffer): void {
    this.counters.sentBytes += frame.length
    if (!this.slowConsumers.write(connection.transport, frame, connection.slowBytes)) connection.close(serverEnding(slowCode))
  }

  countRefusal (what: 'join' | 'frame', reason: Refusal, about: { topic: string | undefined, user: string | undefined, address: string }): void {
    this.counters.refusals[reason]++
    events.refusedOn(this.rooms, what, reason, about)
  }

  disconnected (connection: Peer, code: number, reason: string): void {
    this.#arrivals.left(connection, code, reason)
    this.#drain.check()
  }

  publish (definition: TopicDefinition, topic: string, json: string, options: PublishOptions): BroadcastResult | Promise<BroadcastResult> {
    if (definition.stream && this.streams.has(topic)) throw new FST_ROOMS_STREAM_TAKEN(topic)
    if (definition.stream && this.#broker.claimsStreams) return this.#publishBesideNodes(definition, topic, json, options)
    return this.#publications.publish(definition, topic, json, options)
  }

  /** Publishes to a stream that has no producer on any node. */
  async #publishBesideNodes (definition: TopicDefinition, topic: string, json: string, options: PublishOptions): Promise<BroadcastResult> {
    if (await this.#broker.isTaken(topic)) throw new FST_ROOMS_STREAM_TAKEN(topic)
    return this.#publications.publish(definition, topic, json, options)
  }

  /** Ends a stream whose node has died. This node may not have the topic, because another version of the app runs here. */
  async #endOrphan (topic: string): Promise<void> {
    const definition = this.find(topic)
    if (definition?.stream === true) await this.streams.lost(definition, topic)
  }

  async history (definition: TopicDefinition, topic: string, request: PageRequest): Promise<KeptMessages<any>> {
    return keptMessages(await this.#reader.page(definition, topic, request))
  }

  async snapshot (definition: TopicDefinition, topic: string, request: PageRequest): Promise<string> {
    const counting = this.shared?.count(topic, definition.presence !== null).catch(() => undefined)
    const page = await this.#reader.page(definition, topic, request)
    return snapshotText(topic, await counting ?? this.#rooms.get(topic)?.size ?? 0, page)
  }

  wait (definition: TopicDefinition, topic: string, request: WaitRequest, milliseconds: number): Waiter {
    return this.#waiters.add(definition, topic, request, milliseconds)
  }

  endedAt (definition: TopicDefinition, topic: string, since: string): Promise<boolean> {
    return this.#reader.isEndedAt(definition, topic, since)
  }

  subscribe (topic: string, definition: TopicDefinition, bound: number, ended: () => void): Subscription {
    if (this.state === 'closed') throw new FST_ROOMS_CLOSED()
    const room = this.#enter(topic, definition)
    const subscription = new Subscription(topic, bound, () => {
      this.#removeReader(room, subscription)
      ended()
    })
    this.#addReader(room, subscription)
    room.feed.ready.then(() => { if (room.isEnded) subscription.ended() }, (error: unknown) => { subscription.end(asError(error)) })
    return subscription
  }

  async reauthorize (sessions: Membership[]): Promise<number> {
    if (this.hooks.authorize === undefined) return 0
    return this.#reviews.all(sessions)
  }

  feed (topic: string): Feed | undefined {
    return this.#rooms.get(topic)?.feed
  }

  room (topic: string): Room<MemberSession> | undefined {
    return this.#rooms.get(topic)
  }

  allRooms (): Iterable<RoomView> {
    return this.#rooms.values()
  }

  flush (topic: string): void {
    const room = this.#rooms.get(topic)
    if (room !== undefined) this.#flush(room)
  }

  replayRest (session: Membership, done: (() => void) | undefined): void {
    this.slowConsumers.sendKept(session.room as Room<MemberSession>, session as MemberSession, done)
  }

  presenceChanged (session: Membership): void {
    this.shared?.counted(session.topic)
    const roster = session.room?.roster
    if (roster === undefined) return
    this.shared?.set(session)
    roster.memberChanged(session)
    this.#announcer.changed(roster)
  }

  release (session: { readonly id: string }): void {
    const member = session as MemberSession
    this.slowConsumers.release(member.room as Room<MemberSession>, member)
  }

  get brokerState (): BrokerState { return this.#watch.state }
  get hasOtherNodes (): boolean { return !this.#broker.isInProcess }

  stalledFor (now: number): number {
    return this.#heartbeat.stalledFor(now)
  }

  /** Warns once, because all receivers are of one ws. */
  warnOfReceiver (): void {
    if (this.#isWarned) return
    this.#isWarned = true
    this.log.warn({}, 'the receiver of this ws is unknown: the memory and the time of messages that do not end are bounded by ws alone')
  }

  fail (error: Error, session?: AnySession, whileHandling?: boolean): void {
    this.#failures.tell(error, session, whileHandling)
  }

  isHandling (session: AnySession): boolean {
    return this.#failures.isHandling(session)
  }

  stats (): Stats {
    let members = 0
    let queuedBytes = 0
    let lagging = 0
    for (const room of this.#rooms.values()) {
      members += room.size
      lagging += room.slow
    }
    for (const { transport } of this.connections) queuedBytes += transport.bufferedBytes
    const { counters, working } = this
    return {
      connections: this.connections.size,
      topics: this.#rooms.size,
      members,
      queuedBytes,
      working,
      lagging,
      publishing: this.#broker.pending,
      waiting: this.#waiters.size,
      streams: this.streams.size,
      history: this.#broker.historyStats(),
      broker: { state: this.brokerState, stateFor: Math.round(this.#watch.stateFor()), outages: this.#watch.outages, ...this.#broker.numbers() },
      ...counters,
      refusals: { ...counters.refusals }
    }
  }

  health (): Health {
    return this.#watch.health(this.state)
  }

  /** Lets all members go, once the frames that they have sent are handled. Settles when all connections have closed, at the latest after `drain.timeout`. */
  async drain (): Promise<void> {
    const begins = this.state === 'open'
    if (begins) {
      this.state = 'draining'
      this.leaving = this.connections.size
      this.mids.drain(performance.now() + this.settings.drain.timeout)
      events.drained(this.rooms, 'begin', this.connections.size)
    }
    this.#announcer.stop()
    this.users.release()
    await Promise.all([this.#drain.run(), this.#waiters.release(this.settings.drain.timeout)])
    await this.streams.lose()
    await this.shared?.settled()
    if (begins) events.drained(this.rooms, 'end', this.connections.size)
  }

  async close (): Promise<void> {
    await this.drain()
    this.state = 'closed'
    this.#heartbeat.stop()
    this.mids.close()
    for (const room of [...this.#rooms.values()]) {
      for (const reader of [...room.readers]) reader.end()
    }
    this.#replays.close()
    this.fleet.close()
    await this.shared?.close()
    this.#lossLog.close()
    await this.#broker.close()
  }

  #addReader (room: Room<MemberSession>, reader: RoomReader): Room<MemberSession> {
    room.readers.add(reader)
    room.feed.receiverCame()
    return room
  }

  #removeReader (room: Room<MemberSession>, reader: RoomReader): void {
    room.readers.delete(reader)
    this.#closeIfEmpty(room)
  }

  #letGo (connections: Peer[]): void {
    for (const topic of new Set(connections.flatMap(({ sessions }) => Array.from(sessions, ({ topic }) => topic)))) this.flush(topic)
    for (const connection of connections) connection.close(serverEnding(1001, 'draining'))
  }

  #flush (room: Room<MemberSession>): void {
    // Reads the clock only if a meter is installed.
    const from = this.meters.size > 0 && room.isDirty ? performance.now() : undefined
    const behind = room.flush(this.#turn.now)
    if (from !== undefined) for (const meter of this.meters) meter.fannedOut(performance.now() - from)
    this.slowConsumers.applyPolicy(room, behind)
  }

  #enter (topic: string, definition: TopicDefinition): Room<MemberSession> {
    let room = this.#rooms.get(topic)
    if (room === undefined) {
      room = new Room<MemberSession>(topic, definition, this.#roomPorts)
      this.#rooms.set(topic, room)
      room.feed.attach()
    }
    return room
  }

  /** Takes a session that has ended out of its room and out of all lists. */
  #remove (session: MemberSession, wasOpen: boolean): void {
    this.directory.remove(session)
    session.connection.forget(session)
    if (session.connection.isEnded) this.expiry.remove(session.connection)
    const room = session.room as Room<MemberSession> | undefined
    if (room === undefined) return
    if (wasOpen) {
      room.remove(session)
      this.shared?.counted(room.topic)
      if (room.roster !== undefined && !(this.state === 'open' && this.users.hold(session))) {
        const { id, user, info, topic, ending, definition: { key } } = session
        this.shared?.leave({ id, user, info, topic, key, ending })
        if (this.state === 'open') {
          room.roster.memberLeft(session)
          this.#announcer.changed(room.roster)
        }
      }
      this.log.info({ session: session.id, topic: session.topic, ...session.ending }, 'member left')
    } else {
      room.joining--
      this.joinWaits.end(session)
    }
    this.#closeIfEmpty(room)
  }

  #closeIfEmpty (room: Room<MemberSession>): void {
    if (!room.isEmpty || this.#rooms.get(room.topic) !== room) return
    this.#rooms.delete(room.topic)
    if (room.roster !== undefined) this.#announcer.remove(room.roster)
    room.replay?.drop()
    room.remote?.close()
    this.#broker.detach(room.topic)
    room.feed.end()
  }

  #callOnLeave (session: Membership, aftermath: Aftermath): void {
    const { onLeave } = this.hooks
    if (onLeave !== undefined) aftermath.run(() => { this.#failures.guard(() => onLeave(session, session.ending), session) })
    this.users.left(session)
  }
}
