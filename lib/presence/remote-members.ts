import type { Delta, MembersPage, RemoteMember } from './check.ts'
import { countAbove, countEvery, type RemoteList, type Roster } from './roster.ts'

/** Milliseconds between two readings of one list, */
const readEvery = 500
/** and at most so many more, so that not all nodes and rooms read at once. */
const jitter = 250
/** Milliseconds after which a reading that has failed is repeated: the first time, and at most. */
const retryFirst = 1_000
const retryMost = 10_000
/** Deltas that come during a reading. If there are more, the list is read again. */
const mostWaiting = 256
/** Milliseconds after a reading within which deltas that it has included may still arrive. */
const lateFor = 2_000

export interface RemotePorts {
  /** This node. */
  readonly node: string
  /** Most milliseconds for which a join waits for the first reading. */
  readonly firstWait: number
  /** Rejects if the broker does not answer. It has reported that. */
  read (topic: string, limit: number): Promise<MembersPage>
  /** The roster has changed. */
  changed (roster: Roster): void
  /** A user has come on another node. */
  came (topic: string, user: string): void
}

/**
 * The members of one room on other nodes: read when the topic is attached, then followed by the deltas of the broker. If a delta is missing, they are read again. Of more
 * than 200 members only the number is kept.
 */
export class RemoteMembers implements RemoteList {
  isListed = true
  /** Settles when the members have been read for the first time, or that takes too long. `undefined` before and after that. */
  ready: Promise<void> | undefined
  readonly #topic: string
  readonly #roster: Roster
  readonly #ports: RemotePorts
  readonly #members = new Map<string, RemoteMember>()
  /** Their number, if they are not listed. */
  #count = 0
  /** The version that the members are of; `undefined` if they have to be read. */
  #version: number | undefined
  /** The version of the last delta that came; `undefined` if others may have been missed since. */
  #latest: number | undefined
  #isReading = false
  /** A delta is missing since the reading began. */
  #isOvertaken = false
  #waiting: Delta[] = []
  #readAt = -Infinity
  #failures = 0
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor (topic: string, roster: Roster, ports: RemotePorts) {
    this.#topic = topic
    this.#roster = roster
    this.#ports = ports
  }

  get count (): number { return this.isListed ? this.#members.size : this.#count }

  /** The members, or their number, are as the broker has told them. */
  get isCurrent (): boolean { return this.#version !== undefined }

  /** The members; none if only their number is kept. */
  list (): Iterable<RemoteMember> { return this.#members.values() }

  /** Reads the members, because the broker delivers the topic from now on. */
  attached (): void {
    this.ready = new Promise(resolve => {
      const timer = setTimeout(resolve, this.#ports.firstWait)
      this.#read().finally(() => {
        clearTimeout(timer)
        this.ready = undefined
        resolve()
      })
    })
  }

  /** Takes changes of members. */
  take (delta: Delta): void {
    // Deltas come in order, so the broker has lost its data and counts anew. The new versions must not pass for those that a reading has included.
    const isAgain = this.#latest !== undefined && delta.version <= this.#latest
    this.#latest = delta.version
    if (isAgain) this.lost(delta.version)
    else if (!this.#isReading) this.#follow(delta)
    else if (this.#waiting.length < mostWaiting) this.#waiting.push(delta)
    else this.#isOvertaken = true
  }

  /** Reads the members again, because deltas may be missing. @param latest - the version of the last delta that came */
  lost (latest?: number): void {
    this.#latest = latest
    if (this.#isReading) this.#isOvertaken = true
    else if (this.#readAt !== -Infinity) this.#outdate()
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
  }

  #outdate (): void {
    this.#version = undefined
    this.#schedule(readEvery)
  }

  /** @param every - least milliseconds since the last reading */
  #schedule (every: number): void {
    if (this.#isClosed || this.#isReading) return
    this.#timer ??= setTimeout(() => { this.#read() }, Math.max(0, this.#readAt + every - performance.now()) + Math.random() * jitter).unref()
  }

  #follow (delta: Delta): void {
    const known = this.#version
    if (known === undefined) return
    if (delta.version === known + 1) {
      this.#version = delta.version
      this.#apply(delta)
    // A delta that a reading has included may come late. Later than that, the broker has begun to count again.
    } else if (delta.version > known || performance.now() - this.#readAt > lateFor) this.#outdate()
  }

  #apply ({ node, set, leave }: Delta): void {
    // Without the list it is not known whether a member is new, and this node's own changes move the number that was read.
    if (!this.isListed) this.#schedule(countEvery)
    else if (node !== this.#ports.node) {
      for (const member of set) this.#set(member)
      for (const id of leave) this.#remove(id)
      if (this.#members.size > countAbove) this.#unlist(this.#members.size)
      this.#ports.changed(this.#roster)
    }
  }

  async #read (): Promise<void> {
    this.#timer = undefined
    this.#isReading = true
    this.#isOvertaken = false
    const own = this.#roster.own
    const limit = this.#roster.mayList ? countAbove : 0
    let page: MembersPage | undefined
    try {
      page = await this.#ports.read(this.#topic, limit)
    } catch {} // reported by the link
    this.#isReading = false
    this.#readAt = performance.now()
    const waiting = this.#waiting.splice(0)
    if (this.#isClosed) return
    if (page === undefined) {
      this.#version = undefined
      this.#schedule(Math.min(retryMost, retryFirst * 2 ** this.#failures++))
      return
    }
    this.#failures = 0
    this.#version = page.version
    if (limit > 0 && page.isWhole) this.#adopt(page.members)
    else this.#unlist(Math.max(0, page.count - own))
    for (const delta of waiting) if (delta.version > page.version) this.#follow(delta)
    if (this.#isOvertaken) this.#outdate()
    if (!this.isListed && limit === 0 && this.#roster.mayList) this.#schedule(readEvery)
    this.#ports.changed(this.#roster)
  }

  /** Replaces the list, and tells the roster the difference. */
  #adopt (members: RemoteMember[]): void {
    this.isListed = true
    const remote = members.filter(({ node }) => node !== this.#ports.node)
    const ids = new Set(remote.map(({ id }) => id))
    for (const id of this.#members.keys()) if (!ids.has(id)) this.#remove(id)
    for (const member of remote) this.#set(member)
    this.#roster.recount()
  }

  #unlist (count: number): void {
    this.isListed = false
    this.#members.clear()
    this.#count = count
    this.#roster.recount()
  }

  #set (member: RemoteMember): void {
    const { id, user, json } = member
    const known = this.#members.get(id)
    if (known?.json === json && known !== undefined) return
    member.isAnnounced = known?.isAnnounced ?? false
    this.#members.set(id, member)
    this.#roster.memberChanged(member)
    if (known === undefined && user !== undefined) this.#ports.came(this.#topic, user)
  }

  #remove (id: string): void {
    const known = this.#members.get(id)
    if (known === undefined) return
    this.#members.delete(id)
    this.#roster.memberLeft(known)
  }
}
