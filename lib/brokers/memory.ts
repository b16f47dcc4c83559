import type { AttachedPosition, Broker, BrokerCapabilities, BrokerHandlers, BrokerSettings, HistoryPage, HistoryQuery, HistoryStats, Outcome, Publication, Retention } from '../../types/index.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { TopicStore } from './topic-store.ts'

class MemoryBroker implements Broker {
  readonly capabilities: BrokerCapabilities = { order: 'total', history: true, presence: true, once: 'shared' }
  readonly #topics = new TopicStore((topic, publication, position) => { this.#handlers?.entry(topic, publication, position) })
  #handlers: BrokerHandlers | undefined

  get inProcess (): true { return true }

  async start (_node: string, handlers: BrokerHandlers, settings?: BrokerSettings): Promise<void> {
    if (this.#handlers !== undefined) throw new FST_ROOMS_INVALID_OPTION('broker', 'a broker of its own', 'a broker that has already been started')
    this.#handlers = handlers
    if (settings !== undefined) this.#topics.mostBytes = settings.historyBytes
    handlers.state('up')
  }

  async attach (topics: string[], retention?: Retention): Promise<AttachedPosition[]> {
    return topics.map(topic => this.#topics.attach(topic, retention))
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) this.#topics.detach(topic)
  }

  // Synchronous, so that the members' frames are queued when this returns. `entry` gets the same object, not a copy.
  publish (batch: Publication[]): Outcome[] {
    return batch.map(publication => this.#topics.publish(publication))
  }

  history (topic: string, query: HistoryQuery): HistoryPage {
    return this.#topics.history(topic, query)
  }

  historyStats (): HistoryStats {
    return this.#topics.stats()
  }

  async control (): Promise<'gone'> {
    return 'gone'
  }

  async close (): Promise<void> {
    this.#topics.close()
    this.#handlers = undefined
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
