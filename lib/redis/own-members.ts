import type { PresenceChange } from '../../types/index.ts'

/** A member of this node, as it was said last. */
export interface OwnMember {
  readonly user: string
  info: string
  /** It was sent, and not answered. */
  wasSent: boolean
  /** A change with it was answered. */
  isAnswered: boolean
}

/** A leave that was not answered. */
export interface OwnLeave { wasSent: boolean }

/** The members of this node by topic and session, and the leaves that are not answered. */
export class OwnMembers {
  readonly #topics = new Map<string, Map<string, OwnMember>>()
  readonly #leaves = new Map<string, Map<string, OwnLeave>>()

  /** The topics with members or leaves. */
  get topics (): string[] { return [...new Set([...this.#topics.keys(), ...this.#leaves.keys()])] }

  members (topic: string): ReadonlyMap<string, OwnMember> { return this.#topics.get(topic) ?? new Map() }
  leaves (topic: string): ReadonlyMap<string, OwnLeave> { return this.#leaves.get(topic) ?? new Map() }

  /** Notes a change, before it is sent. Returns what it is about. */
  note ({ topic, session, type, user = '', info = '' }: PresenceChange): OwnMember | OwnLeave {
    if (type === 'set') {
      remove(this.#leaves, topic, session)
      const known = this.#topics.get(topic)?.get(session)
      if (known === undefined) return add(this.#topics, topic, session, { user, info, wasSent: false, isAnswered: false })
      known.info = info
      return known
    }
    remove(this.#topics, topic, session)
    return this.#leaves.get(topic)?.get(session) ?? add(this.#leaves, topic, session, { wasSent: false })
  }

  /** Notes that a change was answered. */
  answered ({ topic, session }: PresenceChange, about: OwnMember | OwnLeave): void {
    if ('isAnswered' in about) {
      about.isAnswered = true
      about.wasSent = false
    } else if (this.#leaves.get(topic)?.get(session) === about) remove(this.#leaves, topic, session)
  }
}

function add<T> (topics: Map<string, Map<string, T>>, topic: string, session: string, value: T): T {
  let sessions = topics.get(topic)
  if (sessions === undefined) topics.set(topic, sessions = new Map())
  sessions.set(session, value)
  return value
}

function remove (topics: Map<string, Map<string, unknown>>, topic: string, session: string): void {
  const sessions = topics.get(topic)
  if (sessions?.delete(session) === true && sessions.size === 0) topics.delete(topic)
}
