import { Connection } from '../connection/connection.ts'
import type { Expiry } from '../connection/expiry.ts'
import { MultiplexedConnection, type MultiplexedHub, type PermittedJoin } from '../connection/multiplexed.ts'
import type { HeldUsers } from '../fleet/held-users.ts'
import { closeCodeOf, type Admission, type Bound } from '../limits/admission.ts'
import type { RecentKicks } from '../limits/recent-kicks.ts'
import { connectionHello } from '../protocol/server-frames.ts'
import { serverEnding } from '../session/ending.ts'
import type { JoinRequest } from '../session/join.ts'
import type { Membership } from '../session/membership.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { GatheredWrites } from '../transport/gathered.ts'
import type { ConnectRequest, MultiplexedRequest } from './hub-api.ts'

type Peer = Connection<Membership>

/** The members of the hub that arrivals use. */
export interface ArrivalsHub extends MultiplexedHub {
  readonly connections: Set<Peer>
  readonly multiplexed: Set<MultiplexedConnection<Membership>>
  readonly admission: Admission<Peer>
  readonly expiry: Expiry<Peer>
  readonly kicks: RecentKicks
  readonly gathered: GatheredWrites
}

/** The parts of the hub that make a session of a connection, and let it into its room. */
export interface ArrivalsPorts<S extends Membership> {
  /** The number of the current turn. */
  turn (): number
  /** Makes a session of a connection, and lists it. */
  session (connection: Peer, joining: { definition: TopicDefinition, topic: string, info: unknown }): S
  /** Lets a session into its room. */
  enterRoom (session: S, request: JoinRequest, begunAt: number): void
  /** `undefined` if the broker does not want to know them. */
  readonly heldUsers: HeldUsers | undefined
}

/** The ways into the hub: a connection with a topic, one without, and its joins. Each is checked against the limits, the expiry of its credentials and recent kicks. */
export class Arrivals<S extends Membership> {
  readonly #hub: ArrivalsHub
  readonly #ports: ArrivalsPorts<S>

  constructor (hub: ArrivalsHub, ports: ArrivalsPorts<S>) {
    this.#hub = hub
    this.#ports = ports
  }

  connect (request: ConnectRequest): void {
    const { admission, connections } = this.#hub
    const { transport, definition, topic, address, addressKey, user, expiresAt, begunAt = Infinity } = request
    transport.emptyTurn = this.#ports.turn() // the head of the response is what is buffered now
    const connection: Peer = new Connection(this.#hub, { transport, address, user, expiresAt, rate: definition.rate })
    const session = this.#ports.session(connection, request)
    connection.session = session
    request.listen(connection)

    const refusal = admission.bound(definition, topic, addressKey)
    connections.add(connection)
    if (refusal !== undefined) {
      this.#decline(connection, refusal, request.isForwarded)
      return
    }
    admission.admit(connection, addressKey)
    if (this.#mayStay(connection, begunAt, topic)) this.#ports.enterRoom(session, request, begunAt)
  }

  connectMultiplexed (request: MultiplexedRequest): void {
    const { admission, connections, counters, expiry, gathered, multiplexed, settings: { heartbeat } } = this.#hub
    const { transport, address, addressKey, user, begunAt = Infinity } = request
    transport.emptyTurn = this.#ports.turn()
    const connection = new MultiplexedConnection<Membership>(this.#hub, request)
    request.listen(connection)

    const refusal = admission.connectionBound(addressKey)
    connections.add(connection)
    if (refusal !== undefined) {
      counters.refused++
      this.#hub.countRefusal('join', refusal, { topic: undefined, user, address })
      this.#decline(connection, refusal, request.isForwarded)
      return
    }
    admission.admit(connection, addressKey)
    multiplexed.add(connection)
    if (user !== undefined) this.#ports.heldUsers?.came(user)
    if (!this.#mayStay(connection, begunAt, undefined)) return
    connection.say(connectionHello({ v: 1, heartbeat: heartbeat === false ? 0 : heartbeat.interval, maxPayload: request.maxPayload }))
    expiry.opened(connection)
    gathered.write() // hello leaves in the same write as the 101 response
  }

  /** Lets a session of a connection without a topic enter its room. Calls `entered` of the connection. */
  enter (connection: MultiplexedConnection<Membership>, join: PermittedJoin): void {
    const { definition, topic, begunAt } = join
    const refusal = this.#hub.admission.topicBound(definition, topic)
    const session = this.#ports.session(connection, join)
    connection.entered(session)
    if (refusal !== undefined) {
      session.end(serverEnding(closeCodeOf[refusal], refusal))
      return
    }
    const kicked = this.#hub.kicks.find(begunAt, session.user, topic)
    if (kicked === undefined) this.#ports.enterRoom(session, join, begunAt)
    else session.end(kicked)
  }

  /** Takes out a connection whose socket has closed. */
  left (connection: Peer, code: number, reason: string): void {
    const { admission, connections, expiry, multiplexed } = this.#hub
    connections.delete(connection)
    const { user } = connection
    if (multiplexed.delete(connection as MultiplexedConnection<Membership>) && user !== undefined) this.#ports.heldUsers?.left(user)
    admission.remove(connection)
    expiry.remove(connection)
    connection.close({ code, reason, by: 'peer' })
  }

  /** Closes a connection whose credentials have expired, or that was kicked on its way. Returns whether it stays; then its expiry is watched. */
  #mayStay (connection: Peer, begunAt: number, topic: string | undefined): boolean {
    const { expiry, kicks } = this.#hub
    if (expiry.check(connection)) return false
    const kicked = kicks.find(begunAt, connection.user, topic)
    if (kicked === undefined) expiry.watch(connection)
    else connection.close(kicked)
    return kicked === undefined
  }

  /** Closes a connection that is over a bound. */
  #decline (connection: Peer, refusal: Bound, isForwarded: boolean): void {
    connection.close(serverEnding(closeCodeOf[refusal], refusal))
    this.#hub.admission.decline(connection)
    if (refusal === 'perAddress' && isForwarded) this.#hub.admission.hint(connection.address)
  }
}
