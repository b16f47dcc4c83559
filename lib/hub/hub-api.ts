import type { Health, Rooms, Stats } from '../../types/index.ts'
import type { Connection } from '../connection/connection.ts'
import type { MultiplexedOptions } from '../connection/multiplexed.ts'
import type { Fleet } from '../fleet/fleet.ts'
import type { PageRequest } from '../history/read.ts'
import type { Waiter, WaitRequest } from '../history/waiters.ts'
import type { Admission } from '../limits/admission.ts'
import type { RemoteMembers } from '../presence/remote-members.ts'
import type { SharedPresence } from '../presence/shared-presence.ts'
import type { Users } from '../presence/users.ts'
import type { Subscription } from '../room/reader.ts'
import type { JoinRequest } from '../session/join.ts'
import type { Membership } from '../session/membership.ts'
import type { Streams } from '../streams/streams.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { GatheredWrites } from '../transport/gathered.ts'
import type { Transport } from '../transport/transport.ts'
import type { Counters } from './counters.ts'
import type { Meter } from './meter.ts'
import type { Directory, HistoryReading, Hooks, HubState, Log, Publishing } from './ports.ts'

/** A peer that was connected, and the topic that it joins. */
export interface ConnectRequest extends JoinRequest {
  readonly transport: Transport
  /** Leads the events of the transport's stream to the connection. */
  listen (connection: Connection<Membership>): void
  readonly address: string
  /** The key under which its address is counted (`addressKey`). */
  readonly addressKey: string
  /** The request says that it was forwarded, and the host trusts no proxy. */
  readonly isForwarded: boolean
  readonly definition: TopicDefinition
  readonly topic: string
  readonly user: string | undefined
  readonly info: unknown
  /** When its credentials end, in milliseconds since the epoch. */
  readonly expiresAt?: number | undefined
  /** When the request began, before the identity was known, on the clock of `performance`. Absent: now. */
  readonly begunAt?: number
}

/** A peer that was connected without a topic. */
export interface MultiplexedRequest extends MultiplexedOptions, Pick<ConnectRequest, 'listen' | 'addressKey' | 'isForwarded' | 'begunAt'> {}

/** A room as `app.rooms` and metrics see it. */
export interface RoomView {
  readonly topic: string
  readonly definition: TopicDefinition
  readonly size: number
  open (): Iterable<Membership>
  /** Its members on other nodes; `undefined` if the topic has no presence, or the broker does not note members. */
  readonly remote: RemoteMembers | undefined
}

/** The members of the hub that the routes use. */
export interface RoutesHub extends Publishing {
  readonly log: Log
  readonly rooms: Rooms<any>
  readonly hooks: Hooks
  readonly state: HubState
  readonly counters: Counters
  readonly admission: Pick<Admission<any>, 'isBusy' | 'bound' | 'connectionBound'>
  /**
   * Returns the answer to a request that reads a topic without joining it, as JSON.
   * @throws FST_ROOMS_CLOSED, FST_ROOMS_BROKER_SILENT
   */
  snapshot (definition: TopicDefinition, topic: string, request: PageRequest): Promise<string>
  /**
   * Waits for the next message of a topic that keeps messages, if there is nothing newer than a position.
   * @throws FST_ROOMS_OVERLOADED
   */
  wait (definition: TopicDefinition, topic: string, request: WaitRequest, milliseconds: number): Waiter
  /**
   * Whether the topic has ended, and nothing follows a position: a client that comes back with it need not come again.
   * @throws FST_ROOMS_CLOSED, FST_ROOMS_BROKER_SILENT
   */
  endedAt (definition: TopicDefinition, topic: string, since: string): Promise<boolean>
  /** A connection joins. When this returns, its stream has all its listeners. */
  connect (request: ConnectRequest): void
  /** The same for a connection that joins its topics by frames. */
  connectMultiplexed (request: MultiplexedRequest): void
  /** The frames that connections of several topics get in this turn. */
  readonly gathered: GatheredWrites
}

/** The members of the hub that `request.rooms` uses. */
export interface RequestHub extends Publishing {
  readonly state: HubState
  fail (error: Error): void
}

/** The members of the hub that metrics use. */
export interface MetricsHub {
  readonly meters: Set<Meter>
  allRooms (): Iterable<RoomView>
}

/** The members of the hub that `app.rooms` uses. */
export interface ApiHub extends Publishing, HistoryReading, MetricsHub {
  readonly state: HubState
  /** The id of this node. */
  readonly node: string
  /** The broker joins this node to others. */
  readonly hasOtherNodes: boolean
  /** The members of topics over all nodes; `undefined` if there are no other nodes, or the broker does not note members. */
  readonly shared: SharedPresence<any> | undefined
  readonly directory: Directory<Membership>
  readonly users: Pick<Users<Membership>, 'held'>
  /** Calls on sessions, wherever these are. */
  readonly fleet: Pick<Fleet, 'send' | 'ask' | 'sendToUser' | 'kick' | 'reauthorize' | 'stop'>
  room (topic: string): RoomView | undefined
  /**
   * Reads a topic's messages without joining it.
   * @param bound - messages that wait for the reader before it fails
   * @param ended - called once, when it ends
   */
  subscribe (topic: string, definition: TopicDefinition, bound: number, ended: () => void): Subscription
  /** The producers of streams. */
  readonly streams: Pick<Streams, 'claim'>
  stats (): Stats
  health (): Health
  drain (): Promise<void>
}
