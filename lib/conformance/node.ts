import { randomUUID } from 'node:crypto'
import type { Broker, BrokerHandlers, BrokerState, GoneUser, HistoryPage, HistoryQuery, Outcome, Position, PresenceDelta, Publication, Retention } from '../../types/index.ts'

/** An entry as the broker delivered it. */
export interface Entry { topic: string, publication: Publication, position: Position | undefined }

/** The bounds of a topic's kept messages in cases that are not about bounds. */
export const roomy: Retention = { size: 1_000, bytes: 1_000_000, ttl: 60_000, latest: false }

/** A node of the suite: a broker, and everything that it has told its node. */
export class Node {
  readonly broker: Broker
  readonly name = `node-${randomUUID()}`
  readonly entries: Entry[] = []
  readonly controls: { from: string, text: string }[] = []
  readonly deltas: { topic: string, delta: PresenceDelta }[] = []
  readonly gone: GoneUser[] = []
  /** Streams that it has ended, because their node had died. */
  readonly orphans: string[] = []
  readonly states: BrokerState[] = []
  readonly lost: (string[] | 'all')[] = []
  /** Is called with streams to be ended, before they are noted. */
  orphaned: (() => Promise<void>) | undefined
  /** Is called with each entry, after it was noted. */
  onEntry: ((entry: Entry) => void) | undefined
  #count = 0

  readonly handlers: BrokerHandlers = {
    entry: (topic, publication, position) => {
      const entry = { topic, publication, position }
      this.entries.push(entry)
      this.onEntry?.(entry)
    },
    control: (from, bytes) => { this.controls.push({ from, text: bytes.toString() }) },
    presence: (topic, delta) => { this.deltas.push({ topic, delta: delta! }) },
    gone: users => { this.gone.push(...users) },
    orphaned: async topics => {
      await this.orphaned?.()
      this.orphans.push(...topics)
    },
    state: state => { this.states.push(state) },
    lost: topics => { this.lost.push(topics) }
  }

  constructor (broker: Broker) {
    this.broker = broker
  }

  get state (): BrokerState | undefined { return this.states.at(-1) }

  /** The payloads of the entries of a topic. */
  received (topic: string): unknown[] {
    return this.entries.filter(entry => entry.topic === topic).map(entry => payloadOf(entry.publication))
  }

  /** The uids of the entries of a topic. */
  uids (topic: string): string[] {
    return this.entries.filter(entry => entry.topic === topic).map(({ publication }) => publication.uid)
  }

  /** Whether a topic was reported as lost. */
  hasLost (topic: string): boolean {
    return this.lost.some(topics => topics === 'all' || topics.includes(topic))
  }

  publication (topic: string, data: unknown = null, more: Partial<Publication> = {}): Publication {
    const json = JSON.stringify(data)
    return { v: 1, uid: `${this.name}-${++this.#count}`, node: this.name, topic, tail: Buffer.from(`"data":${json}}`), payloadLength: Buffer.byteLength(json), deadline: Date.now() + 5_000, ...more }
  }

  async publish (topic: string, data?: unknown, more?: Partial<Publication>): Promise<Outcome> {
    const outcomes = await this.broker.publish([this.publication(topic, data, more)])
    return outcomes[0]!
  }

  async history (topic: string, query: Partial<HistoryQuery> = {}): Promise<HistoryPage> {
    return this.broker.history!(topic, { limit: 1_000, bytes: 1_000_000, retention: roomy, ...query })
  }
}

/** The payload of a publication or of a kept message. */
export function payloadOf ({ tail, payloadLength }: Pick<Publication, 'tail' | 'payloadLength'>): unknown {
  return JSON.parse(Buffer.from(tail).toString('utf8', 7, 7 + payloadLength))
}

/** The payloads of a page. */
export function payloadsOf ({ messages }: HistoryPage): unknown[] {
  return messages.map(payloadOf)
}
