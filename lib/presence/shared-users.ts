import type { LeaveReason, PresenceOutcome, Rooms } from '../../types/index.ts'
import type { Aftermath } from '../hub/aftermath.ts'
import type { Hooks } from '../hub/ports.ts'
import type { KnownUser } from './check.ts'

/** A member that leaves its topic for all nodes. */
export interface LeavingMember {
  readonly id: string
  readonly user: string | undefined
  readonly info: unknown
  readonly topic: string
  /** The key of its topic. */
  readonly key: string
  readonly ending: LeaveReason
}

/** A session that was sent to the broker, as the hooks see it. */
export interface SharedSession {
  readonly id: string
  readonly user: string | undefined
  readonly info: any
  readonly topic: string
  readonly definition: { readonly key: string, readonly presence: unknown }
}

export interface SharedUsersPorts<S> {
  readonly hooks: Pick<Hooks, 'onUserJoin' | 'onUserLeave'>
  readonly aftermath: Aftermath
  /** `app.rooms` */
  rooms (): Rooms<any>
  /** The key of a topic with presence; `undefined` if there is no such topic. */
  key (topic: string): string | undefined
  /** Calls a hook of the host, and leads its errors to `onError`. */
  guard (hook: () => unknown, session?: S): void
}

/** How the sessions of a node that has gone have ended. */
const gone: LeaveReason = Object.freeze({ code: 1006, reason: 'node gone' })

/**
 * Calls `onUserJoin` and `onUserLeave` once in the fleet, for topics with presence: the broker knows which session is the first of its user over all nodes, and which
 * the last. `onUserLeave` comes after the `onLeave` of the session.
 */
export class SharedUsers<S extends SharedSession> {
  readonly #ports: SharedUsersPorts<S>
  /** Sessions whose `onLeave` has not been called, and the call of `onUserLeave` that waits for that. */
  readonly #open = new Map<string, (() => void) | undefined>()

  constructor (ports: SharedUsersPorts<S>) {
    this.#ports = ports
  }

  /** Whether a session is new here. Notes it. */
  enter ({ id }: S): boolean {
    if (this.#open.has(id)) return false
    this.#open.set(id, undefined)
    return true
  }

  /** The broker has noted a session. */
  joined (session: S, { user: change }: PresenceOutcome): void {
    const { user, topic, definition: { key }, info } = session
    if (user !== undefined && change === 'first') this.#join({ topic, user, info }, key, session)
  }

  /** The broker has noted that a session has left. */
  left ({ id, user, topic, key, info, ending }: LeavingMember, { user: change }: PresenceOutcome): void {
    if (user === undefined || change !== 'last') return
    const call = (): void => { this.#leave({ topic, user, info }, key, ending) }
    if (this.#open.has(id)) this.#open.set(id, call)
    else call()
  }

  /** The `onLeave` of a session was called, or is next. */
  ended (id: string): void {
    const call = this.#open.get(id)
    this.#open.delete(id)
    call?.()
  }

  /** Users have gone with their node. */
  gone (users: KnownUser[]): void {
    for (const user of users) {
      const key = this.#ports.key(user.topic)
      if (key !== undefined) this.#leave(user, key, gone)
    }
  }

  /** Users of this node are back that were reported as gone. */
  back (users: KnownUser[]): void {
    for (const user of users) {
      const key = this.#ports.key(user.topic)
      if (key !== undefined) this.#join(user, key)
    }
  }

  #join ({ user, topic, info }: KnownUser, key: string, session?: S): void {
    const { hooks: { onUserJoin }, aftermath, guard } = this.#ports
    if (onUserJoin === undefined) return
    aftermath.run(() => { guard(() => onUserJoin({ user, key, topic, info: info as any, rooms: this.#ports.rooms() }), session) })
  }

  #leave ({ user, topic, info }: KnownUser, key: string, ending: LeaveReason): void {
    const { hooks: { onUserLeave }, aftermath, guard } = this.#ports
    if (onUserLeave === undefined) return
    aftermath.run(() => { guard(() => onUserLeave({ user, key, topic, info: info as any, rooms: this.#ports.rooms() }, ending)) })
  }
}
