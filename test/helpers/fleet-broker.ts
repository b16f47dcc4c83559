import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { memoryBroker } from '../../lib/index.ts'
import type { Broker, BrokerHandlers, HistoryPage, HistoryQuery, InjectedClient, Outcome, Position, Publication, Retention, Rooms } from '../../types/index.ts'
import { createRooms, type AnyOptions } from './app.ts'

const turn = (): Promise<void> => new Promise(resolve => { setImmediate(resolve) })

/** A message that a node has sent to others. */
export interface SentControl { from: string, to: string, message: any }

/** The server of several nodes in one process: asynchronous, and what passes through it is copied. */
export class FleetExchange {
  readonly nodes = new Map<string, FleetBroker>()
  /** All messages between nodes. */
  readonly sent: SentControl[] = []
  /** The publications that were accepted. */
  readonly publications: Publication[] = []
  readonly #memory = memoryBroker()
  readonly #mids = new Map<string, Position | undefined>()
  #isStarted = false

  async join (node: FleetBroker): Promise<void> {
    this.nodes.set(node.id, node)
    if (this.#isStarted) return
    this.#isStarted = true
    await this.#memory.start('exchange', { entry: (topic, publication, position) => { this.#entry(topic, publication, position) }, control () {}, state () {}, lost () {} })
  }

  attach (topic: string, retention?: Retention) { return this.#memory.attach([topic], retention) }

  async detach (topic: string): Promise<void> {
    if (![...this.nodes.values()].some(({ topics }) => topics.has(topic))) await this.#memory.detach([topic])
  }

  publish (publication: Publication): Outcome {
    const { topic, mid } = publication
    const key = `${topic} ${mid}`
    if (mid !== undefined && this.#mids.has(key)) return { state: 'duplicate', position: this.#mids.get(key)! }
    const [outcome] = this.#memory.publish([{ ...publication, tail: Buffer.from(publication.tail) }]) as Outcome[]
    if (outcome!.state !== 'ok') return outcome!
    this.publications.push(publication)
    if (mid !== undefined) this.#mids.set(key, outcome!.position)
    return outcome!
  }

  history (topic: string, query: HistoryQuery): HistoryPage { return structuredHistory(this.#memory.history!(topic, query) as HistoryPage) }

  control (from: FleetBroker, to: string, bytes: Buffer): 'sent' | 'gone' {
    const others = [...this.nodes.values()].filter(node => node !== from)
    const receivers = to === '*' ? others : to.startsWith('node:') ? others.filter(({ id }) => `node:${id}` === to) : others.filter(({ users }) => users === undefined || users.has(to.slice(5)))
    this.sent.push({ from: from.id, to, message: JSON.parse(bytes.toString()) })
    for (const node of receivers) node.bring(from.id, Buffer.from(bytes))
    return receivers.length === 0 ? 'gone' : 'sent'
  }

  #entry (topic: string, publication: Publication, position: Position | undefined): void {
    for (const node of this.nodes.values()) {
      if (node.topics.has(topic)) node.deliver(handlers => { handlers.entry(topic, { ...publication, tail: Buffer.from(publication.tail) }, position) })
    }
  }
}

function structuredHistory (page: HistoryPage): HistoryPage {
  return { ...page, messages: page.messages.map(message => ({ ...message, tail: Buffer.from(message.tail) })) }
}

/** One node's connection to the exchange, which a test can cut. */
export class FleetBroker implements Broker {
  readonly capabilities = { order: 'total', history: true, presence: false, once: 'shared' } as const
  readonly topics = new Set<string>()
  /** `undefined`: the broker does not want to know the users of nodes. */
  readonly users: Set<string> | undefined
  readonly hold?: (add: string[], remove: string[]) => void
  /** The calls of `hold`. */
  readonly held: { add: string[], remove: string[] }[] = []
  id = ''
  handlers!: BrokerHandlers
  /** The server does not answer, and what it brings is lost. */
  isSilent = false
  #isCut = false
  readonly #exchange: FleetExchange
  /** Settles when all that the server has sent so far has been delivered, in order. */
  #line: Promise<void> = Promise.resolve()

  constructor (exchange: FleetExchange, holds = true) {
    this.#exchange = exchange
    if (!holds) return
    const users = this.users = new Set<string>()
    this.hold = (add, remove) => {
      this.held.push({ add, remove })
      for (const user of add) users.add(user)
      for (const user of remove) users.delete(user)
    }
  }

  async start (node: string, handlers: BrokerHandlers): Promise<void> {
    this.id = node
    this.handlers = handlers
    await this.#exchange.join(this)
    handlers.state('up')
  }

  /** Cuts the connection: calls are answered with `unknown`, and what the server brings is lost. */
  cut (): void {
    this.#isCut = true
    this.handlers.state('down', new Error('cut'))
  }

  heal (): void {
    this.#isCut = false
    this.handlers.lost('all')
    this.handlers.state('up')
  }

  /** Brings something from the server, behind all that it has brought before. */
  deliver (task: (handlers: BrokerHandlers) => void): void {
    this.#line = this.#line.then(turn).then(() => { if (!this.#isCut && !this.isSilent) task(this.handlers) })
  }

  /** Brings bytes as those of another node. */
  bring (fromNode: string, bytes: Buffer | string): void {
    this.deliver(handlers => { handlers.control(fromNode, Buffer.from(bytes)) })
  }

  async attach (topics: string[], retention?: Retention): Promise<(Position | null)[]> {
    for (const topic of topics) this.topics.add(topic)
    const positions = await Promise.all(topics.map(async topic => (await this.#exchange.attach(topic, retention))[0]!))
    await this.#line
    return positions
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) {
      this.topics.delete(topic)
      await this.#exchange.detach(topic)
    }
  }

  async publish (batch: Publication[]): Promise<Outcome[]> {
    await this.#reach()
    if (this.#isCut) return batch.map(() => ({ state: 'unknown' }))
    const outcomes = batch.map(publication => this.#exchange.publish(publication))
    await this.#line
    return outcomes
  }

  async history (topic: string, query: HistoryQuery): Promise<HistoryPage> {
    await this.#reach()
    return this.#exchange.history(topic, query)
  }

  async control (to: string, bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'> {
    await this.#reach()
    return this.#isCut ? 'unknown' : this.#exchange.control(this, to, bytes)
  }

  async close (): Promise<void> { this.#exchange.nodes.delete(this.id) }

  async #reach (): Promise<void> {
    await turn()
    if (this.isSilent) await new Promise(() => {})
  }
}

/** A node of a fleet. */
export interface FleetNode {
  app: FastifyInstance
  rooms: Rooms<any>
  broker: FleetBroker
  /** Joins a topic, and reads hello. */
  join (topic: string, user?: string, query?: string): Promise<InjectedClient<any, any> & { session: string }>
}

/** Nodes whose apps share an exchange. Each has the user of a request in the header `x-user`. */
export async function createFleet (t: Test, count: number, options: AnyOptions | ((index: number) => AnyOptions) = {}, holds = true): Promise<{ exchange: FleetExchange, nodes: FleetNode[] }> {
  const exchange = new FleetExchange()
  const nodes = await Promise.all(Array.from({ length: count }, async (_, index): Promise<FleetNode> => {
    const broker = new FleetBroker(exchange, holds)
    const app = await createRooms(t, {
      broker,
      drain: { timeout: 200 },
      identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
      ...(typeof options === 'function' ? options(index) : options)
    })
    await app.ready()
    const rooms = app.rooms as Rooms<any>
    const join = async (topic: string, user?: string, query = ''): Promise<InjectedClient<any, any> & { session: string }> => {
      const client = await rooms.inject(`/rooms/${topic}${query}`, user === undefined ? {} : { headers: { 'x-user': user } })
      const { session } = await client.next('hello')
      return Object.assign(client, { session })
    }
    return { app, rooms, broker, join }
  }))
  return { exchange, nodes }
}
