import type { AttachedPosition, GoneUser, HistoryPage, HistoryQuery, Outcome, Position, PresenceChange, PresenceDelta, PresenceOutcome, PresencePage, Publication, Retention } from '../../types/index.ts'
import type { ClusterStats } from '../../types/cluster.ts'
import { TopicStore } from '../brokers/topic-store.ts'
import { asError } from '../error-utils.ts'
import { ExchangeNode } from './exchange-node.ts'
import { callNames, withBuffer, type Call, type CallName, type ExchangeEvent, type NodeMessage } from './messages.ts'
import { PresenceTable } from './presence-table.ts'

/** Most bytes that a node may have to read. */
const defaultMostUnread = 16_777_216

/** Most users that are kept for the next node, if there is none to tell that they are gone. */
const mostUntold = 10_000

type Calls = { [K in CallName]: (node: ExchangeNode, ...args: any[]) => unknown }

/**
 * The state that all nodes of a machine share, and the way from node to node. It is in one process, and each call is one step: all nodes see one order. It knows no
 * processes: a node is a function that takes events.
 */
export class Exchange {
  readonly #nodes = new Map<string, ExchangeNode>()
  /** The nodes that have attached a topic. */
  readonly #interested = new Map<string, Set<ExchangeNode>>()
  /** The nodes that hold a user. */
  readonly #holders = new Map<string, Set<ExchangeNode>>()
  readonly #store = new TopicStore((topic, publication, position) => { this.#deliver(topic, publication, position) })
  readonly #presence = new PresenceTable((topic, delta) => { this.#tellPresence(topic, delta) }, topic => this.#interested.has(topic))
  /** Users that are gone, if no node was there to be told. */
  #untold: readonly GoneUser[] = []
  #reports = 0
  /** The name of the node that writes to a stream. It may be that of a dead one, if no node is there to end the stream. */
  readonly #claims = new Map<string, string>()
  readonly #mostUnread: number
  #published = 0
  #dropped = 0

  /** @param mostUnread - most bytes that a node may have to read. By default 16 MiB */
  constructor (mostUnread = defaultMostUnread) {
    this.#mostUnread = mostUnread
  }

  /**
   * Lets a node join, or says again what it has. It gets a welcome, and then everything that concerns it.
   * @param send - sends the events of a turn to the node, in order
   */
  join (name: string, { historyBytes, topics, users, members, streams }: NonNullable<NodeMessage['hello']>, send: (events: ExchangeEvent[], size: number) => void): ExchangeNode {
    // The nodes of one state may allow different numbers of bytes.
    this.#store.mostBytes = this.#nodes.size === 0 ? historyBytes : Math.max(this.#store.mostBytes, historyBytes)
    const before = this.#nodes.get(name)
    const node = new ExchangeNode(name, this.#mostUnread, send, () => { this.#dropped++ })
    this.#nodes.set(name, node)
    for (const [topic, retention] of topics) this.#attach(node, topic, retention)
    for (const user of users) enter(this.#holders, user, node)
    for (const user of users) node.users.add(user)
    // After the new one has entered, so that no topic is without a node meanwhile.
    this.#release(before)
    node.push({ type: 'welcome', back: this.#presence.restore(name, members) })
    // It may not have taken these. A report that comes twice has its number.
    if (before !== undefined) for (const [report, users] of before.told) node.tellGone(report, users)
    if (this.#untold.length > 0) node.tellGone(++this.#reports, this.#untold)
    this.#untold = []
    for (const topic of streams) if (!this.#claims.has(topic)) this.#claims.set(topic, name)
    // Streams of nodes that have died, and those that this one has not taken, or whose end it could not tell.
    this.#orphan(node, (topic, holder) => holder === name ? !streams.includes(topic) : !this.#nodes.has(holder))
    return node
  }

  /** Removes a node that has left, or has died. */
  leave (node: ExchangeNode): void {
    if (this.#nodes.get(node.name) !== node) return
    this.#nodes.delete(node.name)
    this.#release(node)
    const untaken = this.#presence.absent([...node.told.values()].flat())
    const users = [...untaken, ...this.#presence.sweep(node.name)]
    const [told] = this.#nodes.values()
    if (told !== undefined) this.#orphan(told, (_topic, holder) => holder === node.name)
    if (users.length === 0) return
    if (told === undefined) this.#untold = [...this.#untold, ...users].slice(-mostUntold)
    else told.tellGone(++this.#reports, users)
  }

  /** Runs calls of a node, in order. A call that fails is answered with its error. */
  run (node: ExchangeNode, calls: readonly Call[]): void {
    for (const { id, name, args } of calls) {
      try {
        if (!callNames.includes(name)) throw new Error(`the primary does not know the call "${String(name)}"`)
        const value = this.#calls[name](node, ...args)
        node.push({ type: 'answer', id, value })
      } catch (error) {
        node.push({ type: 'failed', id, reason: asError(error).message })
      }
    }
  }

  stats (): ClusterStats {
    let behind = 0
    for (const { isBehind } of this.#nodes.values()) if (isBehind) behind++
    return { nodes: this.#nodes.size, behind, topics: this.#interested.size, published: this.#published, dropped: this.#dropped, history: this.#store.stats() }
  }

  close (): void {
    for (const node of this.#nodes.values()) node.end()
    this.#nodes.clear()
    this.#interested.clear()
    this.#holders.clear()
    this.#store.close()
  }

  readonly #calls: Calls = {
    attach: (node, topics: string[], retention?: Retention): AttachedPosition[] => topics.map(topic => this.#attach(node, topic, retention)),
    detach: (node, topics: string[]): void => {
      for (const topic of topics) this.#detach(node, topic)
    },
    publish: (_node, batch: Publication[]): Outcome[] => batch.map(publication => this.#publish(publication)),
    history: (_node, topic: string, query: HistoryQuery): HistoryPage => this.#store.history(topic, query),
    control: (node, to: string, bytes: Uint8Array): string => this.#control(node, to, bytes),
    hold: (node, add: string[], remove: string[]): void => {
      for (const user of add) enter(this.#holders, user, node)
      for (const user of add) node.users.add(user)
      for (const user of remove) leave(this.#holders, user, node)
      for (const user of remove) node.users.delete(user)
    },
    change: (node, changes: PresenceChange[]): PresenceOutcome[] => this.#presence.change(node.name, changes),
    read: (_node, topic: string, limit: number): PresencePage => this.#presence.read(topic, limit),
    report: (node, counts: ReadonlyMap<string, number>): void => { this.#presence.report(node.name, counts) },
    counts: (_node, topics: string[]): number[] => this.#presence.counts(topics),
    topics: (_node, limit: number): string[] => this.#presence.topics(limit),
    claim: ({ name }, topic: string): boolean => {
      const isFree = (this.#claims.get(topic) ?? name) === name
      if (isFree) this.#claims.set(topic, name)
      return isFree
    },
    taken: ({ name }, topic: string): boolean => (this.#claims.get(topic) ?? name) !== name,
    unclaim: ({ name }, topic: string): void => { if (this.#claims.get(topic) === name) this.#claims.delete(topic) }
  }

  /** Has a node end streams. */
  #orphan (node: ExchangeNode, isOrphan: (topic: string, holder: string) => boolean): void {
    const topics = [...this.#claims].filter(([topic, holder]) => isOrphan(topic, holder)).map(([topic]) => topic)
    if (topics.length === 0) return
    for (const topic of topics) this.#claims.set(topic, node.name)
    node.push({ type: 'orphaned', topics })
  }

  #attach (node: ExchangeNode, topic: string, retention: Retention | undefined): AttachedPosition {
    enter(this.#interested, topic, node)
    node.topics.add(topic)
    return this.#store.attach(topic, retention)
  }

  #detach (node: ExchangeNode, topic: string): void {
    if (!node.topics.delete(topic) || !leave(this.#interested, topic, node)) return
    this.#store.detach(topic)
    this.#presence.detached(topic)
  }

  #publish (publication: Publication): Outcome {
    // Its node has given up, and may have said so. Another version is that of another message.
    if (publication.deadline <= Date.now() || publication.v !== 1) return { state: 'failed' }
    const outcome = this.#store.publish(withBuffer(publication))
    if (outcome.state === 'ok') this.#published++
    return outcome
  }

  #deliver (topic: string, publication: Publication, position: Position): void {
    const { retention, mid, version, ...entry } = publication
    for (const node of this.#interested.get(topic)!) {
      if (node.name === publication.node) node.offer({ type: 'own', topic, uid: publication.uid, position }, 0)
      else node.offer({ type: 'entry', publication: entry, position }, publication.tail.length)
    }
  }

  #tellPresence (topic: string, delta: PresenceDelta): void {
    for (const node of this.#interested.get(topic) ?? []) node.offer({ type: 'presence', topic, delta }, sizeOf(delta))
  }

  #control (from: ExchangeNode, to: string, bytes: Uint8Array): 'sent' | 'gone' | 'unknown' {
    const receivers = this.#receivers(to).filter(node => node !== from)
    if (receivers.length === 0) return 'gone'
    const sent = receivers.filter(node => node.offer({ type: 'control', from: from.name, bytes }, bytes.length))
    return sent.length > 0 ? 'sent' : 'unknown'
  }

  #receivers (to: string): ExchangeNode[] {
    if (to === '*') return [...this.#nodes.values()]
    if (to.startsWith('user:')) return [...this.#holders.get(to.slice(5)) ?? []]
    const node = this.#nodes.get(to.slice(5))
    return node === undefined ? [] : [node]
  }

  #release (node: ExchangeNode | undefined): void {
    if (node === undefined) return
    node.end()
    for (const topic of node.topics) this.#detach(node, topic)
    for (const user of node.users) leave(this.#holders, user, node)
  }
}

/** Adds a node to those of a name. */
function enter (nodes: Map<string, Set<ExchangeNode>>, name: string, node: ExchangeNode): void {
  const known = nodes.get(name)
  if (known === undefined) nodes.set(name, new Set([node]))
  else known.add(node)
}

/** Removes a node from those of a name. Returns whether it was the last. */
function leave (nodes: Map<string, Set<ExchangeNode>>, name: string, node: ExchangeNode): boolean {
  const known = nodes.get(name)
  if (known?.delete(node) !== true || known.size > 0) return false
  return nodes.delete(name)
}

/** Bytes that a delta carries, roughly. */
function sizeOf ({ set, leave }: PresenceDelta): number {
  let size = leave.length * 64
  for (const { info = '' } of set) size += info.length + 128
  return size
}
