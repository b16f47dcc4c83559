import type { Broker, BrokerHandlers, BrokerPresence, GoneUser, Outcome, Position, PresenceChange, PresenceMember, PresenceOutcome, PresencePage, Publication } from '../../types/index.ts'

interface Topic {
  version: number
  offset: number
  readonly members: Map<string, PresenceMember>
  /** The session with which each user has come, and with which it has left. */
  readonly first: Map<string, string>
  readonly last: Map<string, string>
}

const turn = async (): Promise<void> => { await new Promise(resolve => { setImmediate(resolve) }) }

/** The server of presence brokers: what all nodes share. */
export class PresenceServer {
  readonly brokers = new Set<PresenceBroker>()
  readonly #topics = new Map<string, Topic>()
  readonly reports = new Map<string, Map<string, number>>()

  /** A broker for one more node. */
  broker (): PresenceBroker { return new PresenceBroker(this) }

  topic (name: string): Topic {
    let topic = this.#topics.get(name)
    if (topic === undefined) this.#topics.set(name, topic = { version: 0, offset: 0, members: new Map(), first: new Map(), last: new Map() })
    return topic
  }

  /** Notes changes of a node's members, and tells all nodes of them. */
  change (node: string, changes: PresenceChange[]): PresenceOutcome[] {
    const outcomes = changes.map(change => this.#note(node, change))
    for (const name of new Set(changes.map(({ topic }) => topic))) {
      const own = changes.filter(({ topic }) => topic === name)
      this.#tell(name, node, own.filter(({ type }) => type === 'set').map(({ session, user, info }) => member(session, node, user, info)), own.filter(({ type }) => type === 'leave').map(({ session }) => session))
    }
    return outcomes
  }

  /** Removes a node that has died, as another one does that notices it. */
  sweep (node: string): void {
    const gone: GoneUser[] = []
    this.reports.delete(node)
    for (const [name, { members, first }] of this.#topics) {
      const left = [...members.values()].filter(member => member.node === node)
      if (left.length === 0) continue
      for (const { session } of left) members.delete(session)
      for (const { user, info } of left) {
        if (user === undefined || [...members.values()].some(member => member.user === user) || !first.delete(user)) continue
        gone.push({ topic: name, user, ...(info === undefined ? {} : { info }) })
      }
      this.#tell(name, node, [], left.map(({ session }) => session))
    }
    const [sweeper] = [...this.brokers].filter(broker => broker.node !== node && !broker.isCut)
    if (gone.length > 0) sweeper?.handlers.gone!(gone)
  }

  #note (node: string, { topic: name, session, user, info, type }: PresenceChange): PresenceOutcome {
    const { members, first, last } = this.topic(name)
    if (type === 'set') {
      if (user !== undefined && ![...members.values()].some(member => member.user === user)) first.set(user, session)
      members.set(session, member(session, node, user, info))
      return user !== undefined && first.get(user) === session ? { user: 'first' } : {}
    }
    if (user === undefined) members.delete(session)
    else if (members.delete(session) && ![...members.values()].some(member => member.user === user)) {
      first.delete(user)
      last.set(user, session)
    }
    return user !== undefined && !first.has(user) && last.get(user) === session ? { user: 'last' } : {}
  }

  #tell (name: string, node: string, set: PresenceMember[], leave: string[]): void {
    const version = ++this.topic(name).version
    for (const broker of this.brokers) broker.deliver(name, { version, node, set, leave })
  }
}

function member (session: string, node: string, user: string | undefined, info: string | undefined): PresenceMember {
  return { session, node, ...(user === undefined ? {} : { user }), ...(info === undefined ? {} : { info }) }
}

/** A broker of one node: asynchronous, copying, and cut or deaf if a test says so. */
export class PresenceBroker implements Broker {
  readonly capabilities = { order: 'total', history: false, presence: true, once: 'node' } as const
  readonly server: PresenceServer
  node = ''
  handlers!: BrokerHandlers
  isCut = false
  /** Deltas are lost, and the broker does not notice. */
  isDeaf = false
  /** Called before each call for presence; may wait, or throw. */
  before: ((call: keyof BrokerPresence, given: unknown) => unknown) | undefined
  /** Changes the answer of a call. */
  answer: ((call: keyof BrokerPresence, answer: any) => unknown) | undefined
  /** The calls for presence. */
  readonly calls: { call: keyof BrokerPresence, given: any }[] = []
  readonly #attached = new Set<string>()
  /** The members that the node wants to have noted, with their last change; and those whose change was answered. */
  readonly #wanted = new Map<string, PresenceChange>()
  readonly #answered = new Set<string>()

  constructor (server: PresenceServer) {
    this.server = server
  }

  async start (node: string, handlers: BrokerHandlers): Promise<void> {
    this.node = node
    this.handlers = handlers
    this.server.brokers.add(this)
    handlers.state('up')
  }

  async attach (topics: string[]): Promise<Position[]> {
    await turn()
    for (const topic of topics) this.#attached.add(topic)
    return topics.map(topic => ({ epoch: 'epoch00000001', offset: this.server.topic(topic).offset }))
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) this.#attached.delete(topic)
  }

  async publish (batch: Publication[]): Promise<Outcome[]> {
    await turn()
    return batch.map(publication => {
      const position = { epoch: 'epoch00000001', offset: ++this.server.topic(publication.topic).offset }
      for (const broker of this.server.brokers) {
        if (broker.#attached.has(publication.topic)) broker.handlers.entry(publication.topic, { ...publication, tail: Buffer.from(publication.tail) }, position)
      }
      return { state: 'ok', position }
    })
  }

  /** Delivers a delta in its turn. */
  deliver (topic: string, delta: unknown): void {
    if (!this.#attached.has(topic) || this.isCut || this.isDeaf) return
    const copy = structuredClone(delta)
    setImmediate(() => { if (!this.isCut) this.handlers.presence!(topic, copy as never) })
  }

  /** Cuts the connection to the server. */
  cut (): void {
    this.isCut = true
    this.handlers.state('down', new Error('cut'))
  }

  /** Connects again: sends the node's members again, and tells what may be lost. */
  heal (): void {
    this.isCut = false
    const noted = new Set<string>()
    for (const topic of new Set([...this.#wanted.values()].map(({ topic }) => topic))) {
      for (const { session, node } of this.server.topic(topic).members.values()) if (node === this.node) noted.add(session)
    }
    const again = [...this.#wanted.values()].filter(({ session, type }) => (type === 'set') !== noted.has(session))
    const outcomes = this.server.change(this.node, again)
    const back = again.filter(({ session, user }, index) => user !== undefined && outcomes[index]!.user === 'first' && this.#answered.has(session))
    this.handlers.state('up')
    this.handlers.lost('all')
    if (back.length > 0) this.handlers.back!(back.map(({ topic, user, info }) => ({ topic, user: user!, ...(info === undefined ? {} : { info }) })))
  }

  /** The process dies: the server hears no more of it, and another node sweeps it. */
  die (): void {
    this.cut()
    this.server.brokers.delete(this)
    this.server.sweep(this.node)
  }

  readonly presence: BrokerPresence = {
    change: changes => this.#call('change', changes, () => {
      const outcomes = this.server.change(this.node, structuredClone(changes))
      for (const { session, type } of changes) {
        this.#answered.add(session)
        if (type === 'leave') this.#wanted.delete(session)
      }
      return outcomes
    }),
    read: (topic, limit) => this.#call('read', topic, () => {
      const { version, members } = this.server.topic(topic)
      return structuredClone({ version, count: members.size, members: [...members.values()].slice(0, limit) } satisfies PresencePage)
    }),
    report: counts => this.#call('report', counts, () => {
      const known = this.server.reports.get(this.node) ?? new Map<string, number>()
      for (const [topic, count] of counts) known.set(topic, count)
      this.server.reports.set(this.node, known)
    }),
    counts: topics => this.#call('counts', topics, () => topics.map(topic => [...this.server.reports.values()].reduce((sum, counts) => sum + (counts.get(topic) ?? 0), 0))),
    topics: limit => this.#call('topics', limit, () => [...new Set([...this.server.reports.values()].flatMap(counts => [...counts].filter(([, count]) => count > 0).map(([topic]) => topic)))].slice(0, limit))
  }

  async #call<T> (call: keyof BrokerPresence, given: unknown, work: () => T): Promise<T> {
    this.calls.push({ call, given })
    if (call === 'change') for (const change of given as PresenceChange[]) this.#wanted.set(change.session, change)
    await this.before?.(call, given)
    await turn()
    if (this.isCut) throw new Error('the connection is cut')
    const answer = work()
    await turn()
    if (this.isCut) throw new Error('the connection was cut before the answer came')
    return (this.answer === undefined ? answer : this.answer(call, answer)) as T
  }

  async control (): Promise<'gone'> { return 'gone' }

  async close (): Promise<void> {
    this.server.brokers.delete(this)
    if (!this.isCut) this.server.sweep(this.node)
  }
}
