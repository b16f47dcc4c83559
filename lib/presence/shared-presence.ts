import type { BrokerPresence, GoneUser, PresenceDelta } from '../../types/index.ts'
import type { PresenceReceiver } from '../feed/broker-link.ts'
import { checkDelta, checkUsers } from './check.ts'
import { Changes } from './changes.ts'
import { PresenceLink, type PresenceLinkPorts } from './link.ts'
import { RemoteMembers, type RemotePorts } from './remote-members.ts'
import type { Roster } from './roster.ts'
import { SharedCounts } from './shared-counts.ts'
import { SharedUsers, type LeavingMember, type SharedSession, type SharedUsersPorts } from './shared-users.ts'

/** Least bound of the info of a member on another node, in bytes, because its `limits.info` may be higher. */
const leastInfoLimit = 65_536
/** Most milliseconds for which a drain, and the closing of the hub, wait for the broker. */
const closeTimeout = 1_000

/** A room with members on other nodes. */
export interface SharedRoom {
  readonly size: number
  readonly remote: RemoteMembers | undefined
}

export interface SharedPresencePorts<S> extends PresenceLinkPorts, SharedUsersPorts<S>, Omit<RemotePorts, 'read'> {
  /** `limits.info` */
  readonly infoLimit: number
  room (topic: string): SharedRoom | undefined
  /** All rooms. */
  allRooms (): Iterable<SharedRoom & { readonly topic: string }>
}

/** Presence over all nodes, with a broker that notes the members of topics. */
export class SharedPresence<S extends SharedSession = SharedSession> implements PresenceReceiver {
  readonly link: PresenceLink
  readonly #ports: SharedPresencePorts<S>
  readonly #infoLimit: number
  readonly #changes: Changes
  readonly #users: SharedUsers<S>
  readonly #counts: SharedCounts

  constructor (presence: BrokerPresence, ports: SharedPresencePorts<S>) {
    this.#ports = ports
    this.#infoLimit = Math.max(leastInfoLimit, ports.infoLimit)
    this.link = new PresenceLink(presence, this.#infoLimit, ports)
    this.#changes = new Changes(changes => this.link.change(changes))
    this.#users = new SharedUsers(ports)
    this.#counts = new SharedCounts(this.link, topic => ports.room(topic)?.size ?? 0)
  }

  /** Makes the list of members of a room on other nodes. */
  remote (topic: string, roster: Roster): RemoteMembers {
    const { node, firstWait, changed, came } = this.#ports
    return new RemoteMembers(topic, roster, { node, firstWait, changed, came, read: (topic, limit) => this.link.read(topic, limit) })
  }

  /** Notes that a member of a topic with presence has joined, or has new info. */
  set (session: S): void {
    const { id, user, info, topic } = session
    const isNew = this.#users.enter(session)
    this.#changes.set({
      topic,
      session: id,
      type: 'set',
      ...(user === undefined ? {} : { user }),
      ...(info === undefined ? {} : { info: JSON.stringify(info) })
    }, isNew ? outcome => { this.#users.joined(session, outcome) } : undefined)
  }

  /** Notes that a member of a topic with presence has left, and its leave is not held. */
  leave (member: LeavingMember): void {
    const { id, user, topic } = member
    this.#changes.leave({ topic, session: id, type: 'leave', ...(user === undefined ? {} : { user }) }, outcome => { this.#users.left(member, outcome) })
  }

  /** Notes that the `onLeave` of a session was called, or is next. */
  ended ({ id }: S): void {
    this.#users.ended(id)
  }

  /** Notes that the number of members of a topic may have changed. */
  counted (topic: string): void {
    this.#counts.changed(topic)
  }

  /**
   * Returns the number of members of a topic on all nodes, at most 2 s old.
   * @throws FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_FAULT
   */
  async count (topic: string, hasPresence: boolean): Promise<number> {
    const room = this.#ports.room(topic)
    if (room?.remote !== undefined && this.isCurrent(room.remote)) return room.size + room.remote.count
    const count = await this.#counts.of(topic, hasPresence)
    return Math.max(count, this.#ports.room(topic)?.size ?? 0)
  }

  /** Whether the members of a room on other nodes are as the broker has them now. */
  isCurrent (remote: RemoteMembers): boolean {
    return remote.isCurrent && this.#ports.isUp()
  }

  /** @throws FST_ROOMS_BROKER_FAULT */
  delta (topic: string, given: PresenceDelta | undefined): void {
    const remote = this.#ports.room(topic)?.remote
    if (remote === undefined) return
    if (given === undefined) {
      remote.lost()
      return
    }
    let isRead = false
    try {
      const delta = checkDelta(topic, given, this.#infoLimit)
      isRead = true
      remote.take(delta)
      this.link.refused(topic, delta.refused)
    } finally {
      if (!isRead) remote.lost()
    }
  }

  /** @throws FST_ROOMS_BROKER_FAULT */
  gone (given: GoneUser[]): void {
    this.#users.gone(checkUsers(given, this.#infoLimit))
  }

  /** @throws FST_ROOMS_BROKER_FAULT */
  back (given: GoneUser[]): void {
    this.#users.back(checkUsers(given, this.#infoLimit))
  }

  /** Reads members again, because deltas of these topics, or of all, may be missing. */
  lost (topics: string[] | undefined): void {
    if (topics === undefined) for (const room of this.#ports.allRooms()) room.remote?.lost()
    else for (const topic of topics) this.#ports.room(topic)?.remote?.lost()
  }

  /** The broker is back. Deltas may be missing: messages that a topic keeps are read again without a loss, and members are not kept. */
  up (): void {
    this.#changes.resume()
    this.lost(undefined)
    for (const { topic } of this.#ports.allRooms()) this.#counts.changed(topic)
  }

  /** Settles when the broker has noted all changes, at the latest after 1 s, and at once if the broker is down. */
  async settled (): Promise<void> {
    if (this.#ports.isUp()) await this.#changes.settled(closeTimeout)
  }

  /** Call this when all members have left, and `settled` has settled. */
  async close (): Promise<void> {
    this.#changes.close()
    if (!this.#ports.isUp()) return
    let timer: NodeJS.Timeout | undefined
    await Promise.race([this.#counts.close(), new Promise<void>(resolve => { timer = setTimeout(resolve, closeTimeout) })])
    clearTimeout(timer)
  }
}
