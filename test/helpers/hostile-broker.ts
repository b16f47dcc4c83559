import type { Broker, BrokerHandlers, Outcome, Position, Publication } from '../../types/index.ts'

/** The probability of each fault, from 0 (the default) to 1. */
export interface Misdeeds {
  /** Entries and outcomes arrive some turns of the event loop later. */
  delay: number
  /** An entry arrives twice, at the same position. */
  double: number
  /** A publication is appended twice: the same uid at two positions. */
  append: number
  /** An entry arrives after its successor. */
  reorder: number
  /** An entry is lost. */
  drop: number
  /** An entry is not readable. */
  corrupt: number
  /** An entry is a copy whose bytes are a plain Uint8Array. */
  copy: number
  /** The outcome arrives before the entry. */
  early: number
  /** `publish` throws. */
  throw: number
  /** `publish` rejects. */
  reject: number
  /** `publish` never settles. */
  mute: number
  /** `publish` resolves with values that are not outcomes. */
  garble: number
  /** Before an entry the broker goes down and up again, and reports that entries may be lost. */
  flap: number
  /** Before an entry the topic starts again, with another epoch. */
  reset: number
}

const corruptions: readonly ((publication: Publication) => unknown)[] = [
  publication => ({ ...publication, v: 2 }),
  publication => ({ ...publication, tail: undefined }),
  publication => ({ ...publication, tail: Buffer.from('"data":{"broken"}') }),
  publication => ({ ...publication, payloadLength: publication.payloadLength + 1 }),
  publication => ({ ...publication, payloadLength: Number.NaN }),
  publication => ({ ...publication, uid: 7 }),
  publication => ({ ...publication, topic: 'elsewhere' }),
  () => null,
  () => 'text',
  () => Object.defineProperty({}, 'v', { get: () => { throw new Error('unreadable') } })
]

/** Waits for turns of the event loop. */
const turns = async (count: number): Promise<void> => { for (let i = 0; i < count; i++) await new Promise(resolve => setImmediate(resolve)) }

/**
 * A broker with one total order per topic that breaks its contract at random, with the given probabilities and a seed that repeats a run. It keeps the appended
 * entries, so that a test can tell which ones members missed.
 */
export class HostileBroker implements Broker {
  readonly capabilities = { order: 'total', history: false, presence: true, once: 'node' } as const
  handlers!: BrokerHandlers
  node = ''
  /** Errors thrown by the handlers, which must not throw. */
  readonly thrown: unknown[] = []
  /** Positions, as ids, at which a publication was appended a second time. */
  readonly doubles = new Set<string>()
  misdeeds: Partial<Misdeeds>
  readonly #random: () => number
  readonly #topics = new Map<string, Position>()
  readonly #attached = new Set<string>()
  /** Entries that are not yet delivered, one queue per topic. */
  readonly #lines = new Map<string, Promise<void>>()
  #held: (() => void) | undefined
  #epochs = 0

  constructor (random: () => number, misdeeds: Partial<Misdeeds> = {}) {
    this.#random = random
    this.misdeeds = misdeeds
  }

  async start (node: string, handlers: BrokerHandlers): Promise<void> {
    this.node = node
    this.handlers = Object.fromEntries(Object.entries(handlers).map(([name, handler]) => [name, (...given: unknown[]) => {
      try {
        (handler as (...given: unknown[]) => void)(...given)
      } catch (error) {
        this.thrown.push(error)
      }
    }])) as unknown as BrokerHandlers
    this.handlers.state('up')
  }

  async attach (topics: string[]): Promise<Position[]> {
    await turns(this.#does('delay') ? 3 : 1)
    for (const topic of topics) this.#attached.add(topic)
    return topics.map(topic => ({ ...this.#topic(topic) }))
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) this.#attached.delete(topic)
  }

  publish (batch: Publication[]): Outcome[] | Promise<Outcome[]> {
    if (this.#does('throw')) throw new Error('thrown by publish')
    return this.#publish(batch)
  }

  async control (): Promise<'gone'> { return 'gone' }
  async close (): Promise<void> {}

  /** Settles when all appended entries are delivered or dropped. */
  async settled (): Promise<void> {
    await Promise.all(this.#lines.values())
    this.#held?.()
    this.#held = undefined
  }

  async #publish (batch: Publication[]): Promise<Outcome[]> {
    if (this.#does('reject')) throw new Error('rejected by publish')
    const outcomes = batch.map(publication => {
      const { topic } = publication
      if (this.#does('reset')) this.#topics.delete(topic)
      const position = this.#next(topic)
      const delivered = [this.#deliver(topic, publication, position)]
      if (this.#does('append')) {
        const again = this.#next(topic)
        this.doubles.add(`${again.epoch}-${again.offset}`)
        delivered.push(this.#deliver(topic, publication, again))
      }
      return { outcome: { state: 'ok', position } as const, delivered }
    })
    if (this.#does('mute')) return new Promise(() => {})
    if (this.#does('garble')) return ['ok', { state: 'perhaps' }, undefined] as never
    if (!this.#does('early')) await Promise.all(outcomes.flatMap(({ delivered }) => delivered))
    return outcomes.map(({ outcome }) => outcome)
  }

  #deliver (topic: string, publication: Publication, position: Position): Promise<void> {
    const line = (this.#lines.get(topic) ?? Promise.resolve()).then(async () => {
      if (this.#does('delay')) await turns(1 + Math.floor(this.#random() * 3))
      if (this.#does('flap')) {
        this.handlers.state('down', new Error('cut'))
        this.handlers.lost(this.#random() < 0.5 ? 'all' : [topic])
        this.handlers.state('up')
      }
      if (this.#does('drop')) return
      let given: unknown = publication
      if (this.#does('copy')) given = { ...publication, tail: new Uint8Array(publication.tail) }
      if (this.#does('corrupt')) given = corruptions[Math.floor(this.#random() * corruptions.length)]!(publication)
      const emit = (): void => { if (this.#attached.has(topic)) this.handlers.entry(topic, given as Publication, position) }
      if (this.#held === undefined && this.#does('reorder')) {
        this.#held = emit
        return
      }
      emit()
      if (this.#does('double')) emit()
      this.#held?.()
      this.#held = undefined
    })
    this.#lines.set(topic, line)
    return line
  }

  #topic (topic: string): Position {
    let position = this.#topics.get(topic)
    if (position === undefined) this.#topics.set(topic, position = { epoch: `epoch${String(++this.#epochs).padStart(8, '0')}`, offset: 0 })
    return position
  }

  #next (topic: string): Position {
    const position = this.#topic(topic)
    position.offset++
    return { ...position }
  }

  #does (misdeed: keyof Misdeeds): boolean {
    const often = this.misdeeds[misdeed] ?? 0
    return often > 0 && this.#random() < often
  }
}
