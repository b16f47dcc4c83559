import { randomBytes } from 'node:crypto'
import type { Broker, BrokerCapabilities, BrokerHandlers, Outcome, Position, Publication } from '../../types/index.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'

const delivered: Outcome = { state: 'ok' }

/** The position of an attached topic. */
interface Log { epoch: string, offset: number }

class MemoryBroker implements Broker {
  readonly capabilities: BrokerCapabilities = { order: 'total', history: false, presence: false, once: 'shared' }
  readonly #topics = new Map<string, Log>()
  #handlers: BrokerHandlers | undefined

  get inProcess (): true { return true }

  async start (_node: string, handlers: BrokerHandlers): Promise<void> {
    if (this.#handlers !== undefined) throw new FST_ROOMS_INVALID_OPTION('broker', 'a broker of its own', 'a broker that has already been started')
    this.#handlers = handlers
    handlers.state('up')
  }

  async attach (topics: string[]): Promise<Position[]> {
    return topics.map(topic => {
      let log = this.#topics.get(topic)
      if (log === undefined) this.#topics.set(topic, log = { epoch: randomBytes(8).toString('hex'), offset: 0 })
      return { ...log }
    })
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) this.#topics.delete(topic)
  }

  // Synchronous, so that the members' frames are queued when this returns. `entry` gets the same object, not a copy.
  publish (batch: Publication[]): Outcome[] {
    return batch.map(publication => {
      const log = this.#topics.get(publication.topic)
      if (log === undefined) return delivered
      const position = { epoch: log.epoch, offset: ++log.offset }
      this.#handlers?.entry(publication.topic, publication, position)
      return { state: 'ok', position }
    })
  }

  async control (): Promise<'gone'> {
    return 'gone'
  }

  async close (): Promise<void> {
    this.#topics.clear()
    this.#handlers = undefined
  }
}

/**
 * Returns a broker for a single process, which is the reference for other brokers. Publications pass through it synchronously and are not copied.
 * A topic has positions from its first member to its last; after that it starts again with a new epoch.
 */
export function memoryBroker (): Broker {
  return new MemoryBroker()
}
