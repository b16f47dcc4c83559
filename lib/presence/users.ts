import type { LeaveReason, Rooms, SessionState, UserPresence } from '../../types/index.ts'
import { TimingWheel, tick, type Timed } from '../connection/timing-wheel.ts'
import type { Aftermath } from '../hub/aftermath.ts'
import type { Hooks } from '../hub/ports.ts'
import { closeBehaviour } from '../protocol/close-codes.ts'
import type { Announcer } from './announcer.ts'
import type { PresentMember, Roster } from './roster.ts'
import type { LeavingMember } from './shared-users.ts'

/** A session as the users of its topic see it. */
export interface UserSession extends PresentMember {
  readonly topic: string
  readonly state: SessionState
  readonly definition: { readonly key: string, readonly grace: number, readonly presence: unknown }
  readonly room: { readonly roster: Roster | undefined } | undefined
  /** How it ended; set when it has ended. */
  readonly ending: LeaveReason
  readonly isEndedByServer: boolean
}

/** The parts of the hub that the users of its topics need. */
export interface UsersPorts<S> {
  readonly hooks: Pick<Hooks, 'onUserJoin' | 'onUserLeave'>
  readonly aftermath: Aftermath
  readonly announcer: Pick<Announcer, 'changed'>
  /** Most leaves that are held at a time. */
  readonly limit: number
  /** `app.rooms` */
  rooms (): Rooms<any>
  /** The roster of a topic's room; `undefined` if the topic has no room. */
  roster (topic: string): Roster | undefined
  /** Calls a hook of the host, and leads its errors to `onError`. */
  guard (hook: () => unknown, session?: S): void
  /** The broker that notes the members of topics with presence for all nodes, and says who is first in and last out; `undefined` if it does not. */
  readonly shared: SharedNotes<S> | undefined
}

/** The way of members to such a broker. */
export interface SharedNotes<S> {
  set (session: S): void
  /** A leave is not held any more. */
  leave (member: LeavingMember): void
  /** The `onLeave` of a session was called, or is next. */
  ended (session: S): void
}

/** A user in one topic: from its first session until its last has left and is not held any more. */
interface User {
  readonly name: string
  readonly topic: Topic
  /** Ids of its sessions: from their join until their `onLeave`. */
  readonly sessions: Set<string>
  /** Its leaves that are held, the oldest first. */
  readonly held: Set<HeldLeave>
  /** The time of `onUserJoin` has come, so `onUserLeave` is owed. */
  isTold: boolean
}

/** The users of one topic. */
interface Topic {
  readonly name: string
  readonly key: string
  readonly users: Map<string, User>
  /** The leaves of all its users that are held, the oldest first. */
  readonly held: Set<HeldLeave>
}

/** A member that has left and is still shown. Of its session only the info stays in memory. */
interface HeldLeave extends PresentMember, Timed {
  readonly owner: User
  readonly ending: LeaveReason
}

const noneHeld: ReadonlySet<HeldLeave> = new Set()

/** Whether the server has ended a session and does not expect its client to come back. */
function isFinal ({ isEndedByServer, ending: { code } }: UserSession): boolean {
  return isEndedByServer && (closeBehaviour(code) === 'stop' || code === 4301)
}

/**
 * The users of all topics of a hub: first in, last out. Calls `onUserJoin` and `onUserLeave`, and holds the leaves of members for the grace of their topic. A
 * topic without grace has no users here, unless the host has one of the hooks. Users outlive the room, so that one that was alone in it may come back.
 *
 * One timer for all leaves that are held, which runs while there are any.
 */
export class Users<S extends UserSession = UserSession> {
  readonly #ports: UsersPorts<S>
  readonly #hasHooks: boolean
  readonly #topics = new Map<string, Topic>()
  readonly #wheel = new TimingWheel<HeldLeave>()
  #held = 0
  #timer: NodeJS.Timeout | undefined
  /** When the timer has last fired or was set, on the clock of `performance`. */
  #sweptAt = 0
  /** Milliseconds for which the event loop has not turned. They do not count as grace, because a client could not come back meanwhile. */
  #stalled = 0

  constructor (ports: UsersPorts<S>) {
    this.#ports = ports
    this.#hasHooks = ports.hooks.onUserJoin !== undefined || ports.hooks.onUserLeave !== undefined
  }

  /** Topics with users. */
  get size (): number { return this.#topics.size }

  /** Members of a topic that have left and are still shown, the oldest leave first. */
  held (topic: string): ReadonlySet<PresentMember> {
    return this.#topics.get(topic)?.held ?? noneHeld
  }

  /** Notes a session that has entered its room, before a frame names it. It takes the place of its user's oldest session whose leave is held. */
  entered (session: S): void {
    const { id, user: name, definition: { grace } } = session
    if (name === undefined || (grace === 0 && !this.#hasHooks) || session.state !== 'open') return
    const user = this.#find(session) ?? this.#add(session, name)
    user.sessions.add(id)
    const [held] = user.held
    if (held === undefined) return
    this.#ports.shared?.set(session) // before the leave, so that the user is never gone
    this.#take(held)
    session.room!.roster!.memberLeft(held) // told in one frame with the join
  }

  /** Ends the hold of the oldest leave of a user, because the user has come back on another node. The caller announces it. */
  cameElsewhere (topic: string, name: string): void {
    const user = this.#topics.get(topic)?.users.get(name)
    if (user === undefined) return
    const [held] = user.held
    if (held === undefined) return
    this.#take(held)
    this.#ports.roster(topic)?.memberLeft(held)
    this.#check(user, held)
  }

  /** Calls `onUserJoin` if a session that has joined is the first of its user. */
  joined (session: S): void {
    const user = this.#find(session)
    // A subscriber of the join may have ended the session.
    if (user === undefined || user.isTold || session.state !== 'open') return
    if (this.#ports.shared !== undefined && session.definition.presence !== null) return // the broker's answer tells
    user.isTold = true
    const { hooks: { onUserJoin }, aftermath, guard } = this.#ports
    if (onUserJoin === undefined) return
    const presence = this.#describe(user, session.info)
    aftermath.run(() => { guard(() => onUserJoin(presence), session) })
  }

  /** Holds the leave of a member if its user may come back within the grace of the topic. Returns whether it is held; otherwise the room is to be told. */
  hold (session: S): boolean {
    const { id, info, isAnnounced, ending, definition: { grace } } = session
    if (grace === 0) return false
    const user = this.#find(session)
    if (user === undefined || !user.sessions.has(id)) return false
    const roster = session.room!.roster!
    if (isFinal(session)) {
      // The user is not expected, so its earlier leaves are told, too.
      for (const earlier of user.held) {
        this.#take(earlier)
        roster.memberLeft(earlier)
      }
      return false
    }
    if (this.#held >= this.#ports.limit) return false
    const held: HeldLeave = { id, user: user.name, info, isAnnounced, slot: 0, owner: user, ending }
    user.held.add(held)
    user.topic.held.add(held)
    this.#held++
    roster.memberHeld(session, held)
    this.#wheel.set(held, this.#now() + grace)
    return true
  }

  /** Notes that a session has left and its `onLeave` was called, or is next. Calls `onUserLeave` if its user has gone with it. */
  left (session: S): void {
    const user = this.#find(session)
    if (user !== undefined && user.sessions.delete(session.id)) this.#check(user, session)
    this.#ports.shared?.ended(session)
  }

  /** Ends the grace of all, because clients cannot come back any more. */
  release (): void {
    this.#stop()
    for (const topic of this.#topics.values()) {
      for (const held of topic.held) {
        this.#take(held)
        this.#check(held.owner, held)
      }
    }
  }

  #find ({ topic, user }: S): User | undefined {
    return user === undefined ? undefined : this.#topics.get(topic)?.users.get(user)
  }

  #add ({ topic: name, definition: { key } }: S, user: string): User {
    let topic = this.#topics.get(name)
    if (topic === undefined) {
      topic = { name, key, users: new Map(), held: new Set() }
      this.#topics.set(name, topic)
    }
    const added: User = { name: user, topic, sessions: new Set(), held: new Set(), isTold: false }
    topic.users.set(user, added)
    return added
  }

  /** Ends the hold of a leave. */
  #take (held: HeldLeave): void {
    const { id, info, ending, owner: { name: user, held: others, topic } } = held
    others.delete(held)
    topic.held.delete(held)
    this.#wheel.clear(held)
    this.#held--
    this.#ports.shared?.leave({ id, user, info, topic: topic.name, key: topic.key, ending })
  }

  /**
   * Forgets a user without sessions, and calls `onUserLeave`.
   * @param last - the session, or the leave, that went last
   */
  #check (user: User, { info, ending }: Pick<HeldLeave, 'info' | 'ending'>): void {
    const { name, topic, isTold } = user
    // Several leaves of a user may end together.
    if (user.sessions.size > 0 || user.held.size > 0 || topic.users.get(name) !== user) return
    topic.users.delete(name)
    if (topic.users.size === 0) this.#topics.delete(topic.name)
    const { hooks: { onUserLeave }, aftermath, guard } = this.#ports
    if (!isTold || onUserLeave === undefined) return
    const presence = this.#describe(user, info)
    aftermath.run(() => { guard(() => onUserLeave(presence, ending)) })
  }

  #describe ({ name, topic }: User, info: any): UserPresence<string, any> {
    return { user: name, key: topic.key, topic: topic.name, info, rooms: this.#ports.rooms() }
  }

  /** Starts the timer, and returns the time without stalls. */
  #now (): number {
    const now = performance.now()
    if (this.#timer === undefined) {
      this.#sweptAt = now
      this.#timer = setInterval(() => { this.#sweep(performance.now()) }, tick).unref()
    }
    return now - this.#stalled
  }

  #stop (): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #sweep (now: number): void {
    const late = now - this.#sweptAt - tick
    this.#sweptAt = now
    if (late > tick) this.#stalled += late
    const due = this.#wheel.due(now - this.#stalled)
    const changed = new Set<Roster>()
    for (const held of due) {
      this.#take(held)
      const roster = this.#ports.roster(held.owner.topic.name)
      if (roster === undefined) continue
      roster.memberLeft(held)
      changed.add(roster)
    }
    for (const roster of changed) this.#ports.announcer.changed(roster)
    for (const held of due) this.#check(held.owner, held)
    if (this.#held === 0) this.#stop()
  }
}
