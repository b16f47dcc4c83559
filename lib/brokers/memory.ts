import { createHash, randomBytes } from 'node:crypto'
import type { AttachedPosition, Broker, BrokerCapabilities, BrokerHandlers, BrokerSettings, HistoryPage, HistoryQuery, HistoryStats, Outcome, Publication, Retention } from '../../types/index.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { KeptTopics, type Log } from './kept-topics.ts'

const delivered: Outcome = { state: 'ok' }
const stale: Outcome = { state: 'stale' }
const ended: Outcome = { state: 'ended' }

class MemoryBroker implements Broker {
  readonly capabilities: BrokerCapabilities = { order: 'total', history: true, presence: true, once: 'shared' }
  readonly #topics = new Map<string, Log>()
  readonly #kept = new KeptTopics(topic => { this.#forget(topic) })
  /** The epochs of topics that keep messages are made of their names and of this, so that a topic without a publication needs no memory for its first position. */
  #salt = randomBytes(16)
  #handlers: BrokerHandlers | undefined

  get inProcess (): true { return true }

  async start (_node: string, handlers: BrokerHandlers, settings?: BrokerSettings): Promise<void> {
    if (this.#handlers !== undefined) throw new FST_ROOMS_INVALID_OPTION('broker', 'a broker of its own', 'a broker that has already been started')
    this.#handlers = handlers
    if (settings !== undefined) this.#kept.mostBytes = settings.historyBytes
    handlers.state('up')
  }

  async attach (topics: string[], retention?: Retention): Promise<AttachedPosition[]> {
    return topics.map(topic => {
      const log = this.#enter(topic, retention)
      log.isAttached = true
      this.#kept.attached(log)
      return { epoch: log.epoch, offset: log.offset, ...(log.ended === undefined ? {} : { ended: log.ended }) }
    })
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) {
      const log = this.#topics.get(topic)
      if (log === undefined) continue
      log.isAttached = false
      if (log.retention === undefined || log.offset === 0) this.#topics.delete(topic)
      else this.#kept.detached(log)
    }
  }

  // Synchronous, so that the members' frames are queued when this returns. `entry` gets the same object, not a copy.
  publish (batch: Publication[]): Outcome[] {
    return batch.map(publication => {
      const { topic, retention } = publication
      const log = retention === undefined ? this.#topics.get(topic) : this.#enter(topic, retention)
      if (log === undefined) return delivered
      if (log.ended !== undefined) return ended
      if (log.retention !== undefined && this.#kept.of(log)?.isStale(publication) === true) return stale
      const position = { epoch: log.epoch, offset: ++log.offset }
      if (log.retention !== undefined) this.#kept.append(log, publication)
      if (publication.end !== undefined) log.ended = publication.end
      if (log.isAttached) this.#handlers?.entry(topic, publication, position)
      return { state: 'ok', position }
    })
  }

  history (topic: string, query: HistoryQuery): HistoryPage {
    const log = this.#topics.get(topic)
    // Any client may read any name. That must not cost the positions of other topics.
    if (log === undefined) return { position: { epoch: this.#firstEpoch(topic), offset: 0 }, messages: [], from: 0 }
    const { epoch, offset, ended } = log
    const kept = this.#kept.of(log)
    return { position: { epoch, offset }, messages: kept?.read(query) ?? [], from: kept?.from ?? offset, ...(ended === undefined ? {} : { ended }) }
  }

  historyStats (): HistoryStats {
    return this.#kept.stats()
  }

  async control (): Promise<'gone'> {
    return 'gone'
  }

  async close (): Promise<void> {
    this.#topics.clear()
    this.#kept.close()
    this.#handlers = undefined
  }

  #enter (topic: string, retention: Retention | undefined): Log {
    let log = this.#topics.get(topic)
    if (log === undefined) this.#topics.set(topic, log = { topic, epoch: retention === undefined ? randomBytes(8).toString('hex') : this.#firstEpoch(topic), offset: 0, isAttached: false, retention, kept: undefined, expiresAt: Infinity, ended: undefined, quietSince: 0 })
    return log
  }

  #firstEpoch (topic: string): string {
    return createHash('sha256').update(this.#salt).update(topic).digest('hex').slice(0, 16)
  }

  #forget (topic: string): void {
    this.#topics.delete(topic)
    // The topic must not begin again with the epoch that it had.
    this.#salt = randomBytes(16)
  }
}

/**
 * Returns a broker for a single process, which is the reference for other brokers. Publications pass through it synchronously and are not copied, unless their
 * topic keeps messages. A topic that keeps none has positions from its first member to its last; after that it starts again with a new epoch. A topic that keeps
 * messages has positions as long as the process runs, until 30 days after its messages have expired.
 */
export function memoryBroker (): Broker {
  return new MemoryBroker()
}
