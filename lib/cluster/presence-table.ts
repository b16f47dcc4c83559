import type { GoneUser, PresenceChange, PresenceDelta, PresenceMember, PresenceOutcome, PresencePage } from '../../types/index.ts'
import { Expiring } from '../brokers/expiring.ts'

interface TopicMembers {
  version: number
  /** By node and session. */
  readonly members: Map<string, PresenceMember>
  /** The sessions of each user; the first is the one with which the user has come. */
  readonly users: Map<string, { first: string, since: number, count: number }>
}

/** The member that a key had before a change. */
type Before = Map<string, PresenceMember | undefined>

/** Milliseconds for which a change that is sent again is answered as before. */
const answeredFor = 60_000
/** Milliseconds for which a node that comes back is told which of its users had been reported as gone. */
const goneFor = 3_600_000
/** Most answers, and most users that are gone, that are remembered. */
const most = 100_000

/** The members of all topics, of all nodes. */
export class PresenceTable {
  readonly #topics = new Map<string, TopicMembers>()
  /** The topics in which a node has members, and how many. */
  readonly #topicsOf = new Map<string, Map<string, number>>()
  /** The numbers of members that each node has reported. */
  readonly #reports = new Map<string, Map<string, number>>()
  /** The leaves with which a user has left a topic, by topic, node and session. */
  readonly #lasts = new Expiring<true>(answeredFor, most)
  /** Users that were reported as gone, by topic and user. */
  readonly #gone = new Expiring<true>(goneFor, most)
  readonly #tell: (topic: string, delta: PresenceDelta) => void
  readonly #isAttached: (topic: string) => boolean

  /**
   * @param tell - called for each delta
   * @param isAttached - whether a node knows the version of a topic
   */
  constructor (tell: (topic: string, delta: PresenceDelta) => void, isAttached: (topic: string) => boolean) {
    this.#tell = tell
    this.#isAttached = isAttached
  }

  change (node: string, changes: readonly PresenceChange[]): PresenceOutcome[] {
    const touched = new Map<string, Before>()
    const outcomes = changes.map(change => {
      let before = touched.get(change.topic)
      if (before === undefined) touched.set(change.topic, before = new Map())
      return change.type === 'set' ? this.#set(node, change, before) : this.#leave(node, change, before)
    })
    for (const [topic, before] of touched) this.#finish(node, topic, before)
    return outcomes
  }

  /** Replaces all members of a node. Returns its users that had been reported as gone, and are here again. */
  restore (node: string, members: readonly PresenceChange[]): GoneUser[] {
    const touched = new Map<string, Before>()
    const beforeOf = (topic: string): Before => touched.get(topic) ?? touched.set(topic, new Map()).get(topic)!
    const wanted = new Set(members.map(({ topic, session }) => `${topic} ${session}`))
    const back: GoneUser[] = []
    for (const change of members) {
      const { topic, user, info } = change
      const isBack = user !== undefined && this.#gone.find(`${topic} ${user}`) !== undefined
      if (this.#set(node, change, beforeOf(topic)).user === 'first' && isBack) back.push({ topic, user: user!, ...(info === undefined ? {} : { info }) })
    }
    for (const topic of this.#topicsOfNode(node)) {
      for (const { node: owner, session, user } of this.#topics.get(topic)!.members.values()) {
        if (owner === node && !wanted.has(`${topic} ${session}`)) this.#leave(node, { type: 'leave', topic, session, ...(user === undefined ? {} : { user }) }, beforeOf(topic))
      }
    }
    for (const [topic, before] of touched) this.#finish(node, topic, before)
    return back
  }

  /** Removes a node that has gone. Returns the users whose last session was there. */
  sweep (node: string): GoneUser[] {
    this.#reports.delete(node)
    const gone: GoneUser[] = []
    for (const topic of this.#topicsOfNode(node)) {
      const before: Before = new Map()
      for (const { node: owner, session, user, info } of this.#topics.get(topic)!.members.values()) {
        if (owner !== node) continue
        const change = { type: 'leave', topic, session, ...(user === undefined ? {} : { user }) } as const
        if (this.#leave(node, change, before).user !== 'last') continue
        gone.push({ topic, user: user!, ...(info === undefined ? {} : { info }) })
        this.#gone.add(`${topic} ${user}`, true)
      }
      this.#finish(node, topic, before)
    }
    return gone
  }

  /** Returns those of these users that are not here. */
  absent (users: readonly GoneUser[]): GoneUser[] {
    return users.filter(({ topic, user }) => this.#topics.get(topic)?.users.has(user) !== true)
  }

  read (topic: string, limit: number): PresencePage {
    const known = this.#topics.get(topic)
    if (known === undefined) return { version: 0, count: 0, members: [] }
    const members: PresenceMember[] = []
    for (const member of known.members.values()) {
      if (members.length >= limit) break
      members.push(member)
    }
    return { version: known.version, count: known.members.size, members }
  }

  report (node: string, counts: ReadonlyMap<string, number>): void {
    let known = this.#reports.get(node)
    if (known === undefined) this.#reports.set(node, known = new Map())
    for (const [topic, count] of counts) {
      if (count === 0) known.delete(topic)
      else known.set(topic, count)
    }
  }

  counts (topics: readonly string[]): number[] {
    return topics.map(topic => {
      let sum = 0
      for (const counts of this.#reports.values()) sum += counts.get(topic) ?? 0
      return sum
    })
  }

  topics (limit: number): string[] {
    const topics = new Set<string>()
    for (const counts of this.#reports.values()) {
      for (const topic of counts.keys()) {
        if (topics.size >= limit) return [...topics]
        topics.add(topic)
      }
    }
    return [...topics]
  }

  /** Forgets the version of a topic that has no members, and that no node has attached any more. */
  detached (topic: string): void {
    if (this.#topics.get(topic)?.members.size === 0) this.#topics.delete(topic)
  }

  #set (node: string, { topic, session, user, info }: PresenceChange, before: Before): PresenceOutcome {
    let known = this.#topics.get(topic)
    if (known === undefined) this.#topics.set(topic, known = { version: 0, members: new Map(), users: new Map() })
    const key = `${node} ${session}`
    const noted = known.members.get(key)
    if (!before.has(key)) before.set(key, noted)
    known.members.set(key, { session, node, ...(user === undefined ? {} : { user }), ...(info === undefined ? {} : { info }) })
    if (noted === undefined) this.#count(node, topic, 1)
    if (user === undefined) return {}
    const sessions = known.users.get(user)
    if (sessions === undefined) {
      known.users.set(user, { first: key, since: performance.now(), count: 1 })
      this.#lasts.delete(`${topic} ${key}`)
      this.#gone.delete(`${topic} ${user}`)
      return { user: 'first' }
    }
    if (noted === undefined) {
      sessions.count++
      return {}
    }
    // The same change again: its answer may have been lost. Other info is another change.
    return sessions.first === key && noted.info === info && performance.now() - sessions.since < answeredFor ? { user: 'first' } : {}
  }

  #leave (node: string, { topic, session, user }: PresenceChange, before: Before): PresenceOutcome {
    const known = this.#topics.get(topic)
    const key = `${node} ${session}`
    const noted = known?.members.get(key)
    if (known === undefined || noted === undefined) return user !== undefined && this.#lasts.find(`${topic} ${key}`) !== undefined ? { user: 'last' } : {}
    if (!before.has(key)) before.set(key, noted)
    known.members.delete(key)
    this.#count(node, topic, -1)
    if (noted.user === undefined) return {}
    const sessions = known.users.get(noted.user)!
    if (--sessions.count > 0) return {}
    known.users.delete(noted.user)
    this.#lasts.add(`${topic} ${key}`, true)
    return { user: 'last' }
  }

  /** Tells the difference that changes of a topic have made, if there is one. */
  #finish (node: string, topic: string, before: Before): void {
    const known = this.#topics.get(topic)
    if (known === undefined) return
    const set: PresenceMember[] = []
    const leave: string[] = []
    for (const [key, noted] of before) {
      const member = known.members.get(key)
      if (member === undefined) {
        if (noted !== undefined) leave.push(noted.session)
      } else if (noted === undefined || noted.info !== member.info) set.push(member)
    }
    if (set.length > 0 || leave.length > 0) this.#tell(topic, { version: ++known.version, node, set, leave })
    if (known.members.size === 0 && !this.#isAttached(topic)) this.#topics.delete(topic)
  }

  #topicsOfNode (node: string): string[] {
    return [...this.#topicsOf.get(node)?.keys() ?? []]
  }

  #count (node: string, topic: string, step: 1 | -1): void {
    let counts = this.#topicsOf.get(node)
    if (counts === undefined) this.#topicsOf.set(node, counts = new Map())
    const count = (counts.get(topic) ?? 0) + step
    if (count > 0) counts.set(topic, count)
    else if (counts.delete(topic) && counts.size === 0) this.#topicsOf.delete(node)
  }
}
