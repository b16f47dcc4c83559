import { memoryBroker } from '../../lib/index.ts'
import type { Broker, BrokerHandlers, BrokerSettings, HistoryPage, HistoryQuery, Outcome, Position, Publication, Retention } from '../../types/index.ts'

/** A broker that answers as one over a network does: later, with copies, entries in order and before the outcomes. */
export class SlowBroker implements Broker {
  readonly capabilities = { order: 'total', history: true, presence: false, once: 'shared' } as const
  readonly #memory = memoryBroker()
  readonly #wait: () => Promise<void>
  #line: Promise<void> = Promise.resolve()
  #handlers: BrokerHandlers | undefined
  /** Fails each reading. */
  fails: ((topic: string) => unknown) | undefined
  readings = 0

  /** @param wait - settles after the time that an answer takes */
  constructor (wait: () => Promise<void>) {
    this.#wait = wait
  }

  async start (node: string, handlers: BrokerHandlers, settings?: BrokerSettings): Promise<void> {
    this.#handlers = handlers
    await this.#memory.start(node, {
      ...handlers,
      entry: (topic, publication, position) => {
        const copy = { ...publication, tail: Buffer.from(publication.tail) }
        this.#line = this.#line.then(this.#wait).then(() => { handlers.entry(topic, copy, position) })
      }
    }, settings)
  }

  /** Tells that entries of all topics may have been missed. */
  lose (): void {
    this.#handlers!.lost('all')
  }

  async attach (topics: string[], retention?: Retention): Promise<(Position | null)[]> {
    const positions = await this.#memory.attach(topics, retention)
    await this.#line
    return positions
  }

  async publish (batch: Publication[]): Promise<Outcome[]> {
    await this.#wait()
    const outcomes = await this.#memory.publish(batch)
    await this.#line
    return outcomes
  }

  async history (topic: string, query: HistoryQuery): Promise<HistoryPage> {
    this.readings++
    if (this.fails !== undefined) return this.fails(topic) as never
    await this.#wait()
    const page = await this.#memory.history!(topic, query)
    const copy = { ...page, messages: page.messages.map(message => ({ ...message, tail: Buffer.from(message.tail) })) }
    await this.#wait()
    return copy
  }

  detach (topics: string[]): Promise<void> { return this.#memory.detach(topics) }
  control (): Promise<'gone'> { return Promise.resolve('gone') }
  close (): Promise<void> { return this.#memory.close() }
}
