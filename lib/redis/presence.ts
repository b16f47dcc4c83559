import type { BrokerHandlers, BrokerPresence, GoneUser, PresenceChange, PresenceMember, PresenceOutcome, PresencePage } from '../../types/index.ts'
import { decodeDelta, parseMember } from './delta.ts'
import type { Keys } from './keys.ts'
import { countsScript, reportScript, topicsScript } from './node-scripts.ts'
import { nodePartition, nodeTimes, Nodes, parseName, texts, type NodeTimes, type RedisCalls } from './nodes.ts'
import { OwnMembers, type OwnLeave, type OwnMember } from './own-members.ts'
import { changeScript, dropScript, nodeTopicsScript, readScript, refreshScript, sweepScript } from './presence-scripts.ts'

/** Topics that are sent, swept or refreshed at a time. */
const perChunk = 100
/** Most repetitions of a reading that has found members of nodes that this one does not know. */
const mostRounds = 5
/** Milliseconds between two refreshments of the keys of this node's topics, which live for an hour. */
const refreshEvery = 1_200_000

export interface RedisPresencePorts {
  readonly calls: RedisCalls
  readonly keys: Keys
  readonly node: string
  /** In a cluster SPUBLISH. */
  readonly publish: 'PUBLISH' | 'SPUBLISH'
  readonly handlers: Pick<BrokerHandlers, 'presence' | 'gone' | 'back'>
  /** The server does not know this node any more: it was taken for dead, or the data of the server are gone. */
  revived (): void
  /** Removes what else a dead node, or an earlier incarnation of this one, has noted. @param name - `<node>:<incarnation>` */
  forget (name: string): Promise<void>
  /** Bytes of a delta, or of a member, cannot be read. @param what - names them */
  unreadable (what: string): void
}

interface Sending {
  readonly change: PresenceChange
  readonly index: number
  readonly about: OwnMember | OwnLeave
}

/** The members of topics over all nodes, in hashes of Redis, with the liveness of nodes in place of that of members. */
export class RedisPresence implements BrokerPresence {
  readonly nodes: Nodes
  readonly #ports: RedisPresencePorts
  readonly #own = new OwnMembers()
  readonly #counts = new Map<string, number>()
  /** The last call for each topic: changes of one topic follow each other. */
  readonly #lines = new Map<string, Promise<unknown>>()
  readonly #timer: NodeJS.Timeout
  /** The server may not have all members of this node. */
  #isOutdated = false

  constructor (ports: RedisPresencePorts, times: NodeTimes = nodeTimes) {
    this.#ports = ports
    this.nodes = new Nodes(ports.calls, ports.keys, ports.node, times, {
      revived: () => {
        this.#isOutdated = true
        ports.revived()
      },
      alive: async () => { if (this.#isOutdated) await this.#sendAgain() },
      sweep: async name => { await Promise.all([this.#sweep(name), ports.forget(name)]) }
    })
    this.#timer = setInterval(() => { this.refresh().catch(() => {}) }, refreshEvery).unref()
  }

  /** Says which members this node has. Call it for each new connection, after topics are subscribed to again. */
  async up (): Promise<void> {
    this.#isOutdated = true
    await this.nodes.beat()
  }

  async close (): Promise<void> {
    clearInterval(this.#timer)
    await this.nodes.close()
  }

  async change (changes: PresenceChange[]): Promise<PresenceOutcome[]> {
    const outcomes: PresenceOutcome[] = changes.map(() => ({}))
    const byTopic = new Map<string, Sending[]>()
    changes.forEach((change, index) => {
      const sending = { change, index, about: this.#own.note(change) }
      const others = byTopic.get(change.topic)
      if (others === undefined) byTopic.set(change.topic, [sending])
      else others.push(sending)
    })
    const answers = await Promise.allSettled(Array.from(byTopic, async ([topic, sent]) => {
      const words = await this.#inLine(topic, () => this.#send(topic, sent))
      sent.forEach(({ change, index, about }, i) => {
        this.#own.answered(change, about)
        const word = words[i]
        if (word === 'first' || word === 'last') outcomes[index] = { user: word }
      })
    }))
    const failed = answers.find(answer => answer.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    return outcomes
  }

  async read (topic: string, limit: number): Promise<PresencePage> {
    let reading = await this.#read(topic, limit)
    // A node may be so new that this one does not know it, or come back while another one is removed.
    for (let round = 0; reading.dead.length > 0 && round < mostRounds; round++) {
      await this.nodes.look()
      for (const name of reading.dead) if (!this.nodes.live.has(name)) await this.#sweepTopic(topic, name)
      reading = await this.#read(topic, limit)
    }
    return reading.page
  }

  async report (counts: ReadonlyMap<string, number>): Promise<void> {
    for (const [topic, count] of counts) {
      if (count === 0) this.#counts.delete(topic)
      else this.#counts.set(topic, count)
    }
    await this.#report(counts)
  }

  async counts (topics: string[]): Promise<number[]> {
    const sums = texts(await this.#ports.calls.call(nodePartition, countsScript, [this.nodes.alive], [this.nodes.counts, ...topics]))
    return topics.map((_, index) => Number(sums[index]))
  }

  async topics (limit: number): Promise<string[]> {
    return texts(await this.#ports.calls.call(nodePartition, topicsScript, [this.nodes.alive], [this.nodes.counts, String(limit)]))
  }

  /** Takes a delta of a topic that is attached. */
  receive (topic: string, bytes: Buffer): void {
    const delta = decodeDelta(bytes)
    if (delta === undefined) this.#ports.unreadable(`changes of the members of topic "${topic}"`)
    this.#ports.handlers.presence?.(topic, delta)
  }

  /** Keeps the keys of the topics with members of this node for another hour. */
  async refresh (): Promise<void> {
    await this.#eachTopic(this.#own.topics, topic => this.#call(topic, refreshScript, [...this.#keysOf(topic).slice(0, 3), this.#topicsKey(topic, this.nodes.name)], []))
  }

  async #send (topic: string, sent: readonly Sending[]): Promise<string[]> {
    // If a session has two changes in one call, only the first of them may have made its user come.
    const again = new Set(sent.map(({ about }) => about).filter(({ wasSent }) => wasSent))
    const args = sent.flatMap(({ change: { session, type, user = '', info = '' }, about }) => {
      const isAgain = again.delete(about) ? '1' : '0'
      about.wasSent = true
      return [type === 'set' ? 's' : 'l', session, user, type === 'set' ? info : '', isAgain]
    })
    return texts(await this.#change(topic, '0', args))
  }

  /** Sends all members of this node: what the server has else of it is removed. If a part fails, all is sent again after the next beat. */
  async #sendAgain (): Promise<void> {
    this.#isOutdated = false
    const sent = await Promise.allSettled([
      this.#eachTopic(this.#own.topics, topic => this.#inLine(topic, () => this.#replace(topic))),
      this.#counts.size > 0 ? this.#report(this.#counts) : undefined
    ])
    const failed = sent.find(part => part.status === 'rejected')
    if (failed === undefined) return
    this.#isOutdated = true
    throw failed.reason
  }

  async #replace (topic: string): Promise<void> {
    const members = [...this.#own.members(topic)]
    for (const leave of this.#own.leaves(topic).values()) leave.wasSent = true
    const words = texts(await this.#change(topic, '1', members.flatMap(([session, member]) => {
      const again = member.wasSent ? '1' : '0'
      if (!member.isAnswered) member.wasSent = true
      return ['s', session, member.user, member.info, again]
    })))
    const back = members.flatMap(([, { user, info, isAnswered }], i) => words[i] === 'first' && isAnswered ? [goneUser(topic, user, info)] : [])
    if (back.length > 0) this.#ports.handlers.back?.(back)
  }

  #change (topic: string, all: '0' | '1', args: string[]): ReturnType<RedisCalls['call']> {
    const { keys, publish, node } = this.#ports
    const names = [...this.#keysOf(topic), this.#topicsKey(topic, this.nodes.name)]
    return this.#call(topic, changeScript, names, [keys.channel(topic), publish, topic, node, String(this.nodes.incarnation), all, ...args])
  }

  async #read (topic: string, limit: number): Promise<{ page: PresencePage, dead: string[] }> {
    const live = new Set(this.nodes.live).add(this.nodes.name)
    const reply = texts(await this.#call(topic, readScript, this.#keysOf(topic).slice(0, 3), [String(limit), ...live]))
    const [version, nodes] = reply
    const dead: string[] = []
    let count = 0
    let at = 2
    for (; at < 2 + 2 * Number(nodes); at += 2) {
      if (live.has(reply[at]!)) count += Number(reply[at + 1])
      else dead.push(reply[at]!)
    }
    const members: PresenceMember[] = []
    for (; at + 1 < reply.length; at += 2) {
      const member = parseMember(reply[at]!, reply[at + 1]!)
      if (member === undefined) this.#ports.unreadable(`a member of topic "${topic}"`)
      else members.push(member)
    }
    return { page: { version: Number(version), count, members }, dead }
  }

  /** Removes all members of a dead node, and tells of the users that have gone with it. */
  async #sweep (name: string): Promise<void> {
    const { keys, calls } = this.#ports
    await Promise.all(keys.slots.map(async (_, partition) => {
      const key = keys.other(partition, `pt:${name}`)
      const topics = texts(await calls.call(partition, nodeTopicsScript, [key], []))
      if (topics.length === 0) return
      await this.#eachTopic(topics, topic => this.#sweepTopic(topic, name))
      await calls.call(partition, dropScript, [key], [])
    }))
  }

  async #sweepTopic (topic: string, name: string): Promise<void> {
    const { keys, publish, handlers } = this.#ports
    const reply = texts(await this.#call(topic, sweepScript, this.#keysOf(topic), [keys.channel(topic), publish, topic, ...parseName(name)]))
    const users: GoneUser[] = []
    for (let i = 0; i + 1 < reply.length; i += 2) users.push(goneUser(topic, reply[i]!, reply[i + 1]!))
    if (users.length > 0) handlers.gone?.(users)
  }

  async #report (counts: ReadonlyMap<string, number>): Promise<void> {
    const args = Array.from(counts).flatMap(([topic, count]) => [topic, String(count)])
    await this.#ports.calls.call(nodePartition, reportScript, [this.nodes.counts + this.nodes.name], args)
  }

  #call (topic: string, ...[script, keys, args]: [Parameters<RedisCalls['call']>[1], readonly string[], readonly string[]]): ReturnType<RedisCalls['call']> {
    return this.#ports.calls.call(this.#ports.keys.partitionOf(topic), script, keys, args)
  }

  /** Members, users, nodes, left. */
  #keysOf (topic: string): string[] {
    const { keys } = this.#ports
    const partition = keys.partitionOf(topic)
    return ['pm', 'pu', 'pn', 'pl'].map(kind => keys.other(partition, `${kind}:${topic}`))
  }

  #topicsKey (topic: string, name: string): string {
    const { keys } = this.#ports
    return keys.other(keys.partitionOf(topic), `pt:${name}`)
  }

  /** Runs a call when those before it, for the same topic, have settled. */
  async #inLine<T> (topic: string, call: () => Promise<T>): Promise<T> {
    const line = (this.#lines.get(topic) ?? Promise.resolve()).then(call, call)
    this.#lines.set(topic, line)
    try {
      return await line
    } finally {
      if (this.#lines.get(topic) === line) this.#lines.delete(topic)
    }
  }

  async #eachTopic (topics: readonly string[], call: (topic: string) => Promise<unknown>): Promise<void> {
    for (let from = 0; from < topics.length; from += perChunk) await Promise.all(topics.slice(from, from + perChunk).map(call))
  }
}

function goneUser (topic: string, user: string, info: string): GoneUser {
  return { topic, user, ...(info === '' ? {} : { info }) }
}
