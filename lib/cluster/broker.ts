import type { AttachedPosition, Broker, BrokerCapabilities, BrokerHandlers, BrokerPresence, BrokerSettings, BrokerStats, BrokerStreams, GoneUser, HistoryPage, HistoryQuery, Outcome, Publication, Retention } from '../../types/index.ts'
import { bufferOf } from '../bytes.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_FAULT, FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_UNREADABLE, FST_ROOMS_INVALID_OPTION, FST_ROOMS_NO_CLUSTER } from '../errors.ts'
import { Calls } from './calls.ts'
import type { Link } from './links.ts'
import { excerpt, isOurs, otherVersion, version, versionOf, withBuffer, type CallName, type ExchangeEvent, type ExchangeMessage, type NodeMessage } from './messages.ts'
import { OwnMembers } from './own-members.ts'

/** Milliseconds for a call that has no deadline of its own. */
const callTimeout = 5_000

/** Most bytes, and most number, of publications that the exchange has not answered. More are refused at once. */
const mostPublishing = { bytes: 16_777_216, count: 100_000 } as const

/** Most bytes of messages to other nodes that the exchange has not answered. */
const mostControl = 67_108_864

/** Milliseconds after which the end of streams is tried again. */
const retryAfter = 500

/** The node says that it has read so many bytes, once it has read them. Far below the bound of what a node may have to read. */
const readStep = 1_048_576

/** `limits.history` of an app that gives none. */
const defaultHistoryBytes = 268_435_456

const silent = 'the primary has not answered: it must call clusterPrimary()'

/** A node's side of the exchange. Calls of one turn leave as one message. */
export class ClusterBroker implements Broker {
  readonly capabilities: BrokerCapabilities = { order: 'total', history: true, presence: true, once: 'shared' }
  readonly #name: string
  readonly #link: Link
  readonly #calls = new Calls(name => new FST_ROOMS_BROKER_SILENT(name, callTimeout), () => { this.#watch() })
  /** Attached topics. */
  readonly #topics = new Map<string, Retention | undefined>()
  readonly #users = new Set<string>()
  /** Topics whose streams this node writes, or is to end. */
  readonly #streams = new Set<string>()
  /** Users that have come or gone since the last hello, which names all users; `undefined` if there will be another hello. */
  #usersSince: Set<string> | undefined
  readonly #members = new OwnMembers()
  /** Publications that the exchange has not answered, by uid: their entries come back without bytes. */
  readonly #publishing = new Map<string, Publication>()
  /** Publications and their bytes, and bytes of messages to other nodes, that the exchange has not answered, those included whose time is over. */
  #queued = 0
  #queuedBytes = 0
  #controlBytes = 0
  #node = ''
  #handlers: BrokerHandlers | undefined
  #settings: BrokerSettings | undefined
  #isClosed = false
  /** The state of the primary that this node has joined. */
  #state: string | undefined
  /** The node has said hello, was welcomed, and the channel has not closed since. */
  #isJoined = false
  /** The primary has not answered for too long. */
  #isSilent = false
  #flush: NodeJS.Immediate | undefined
  #hello: NodeJS.Timeout | undefined
  #read = 0
  /** The last report of users that are gone. */
  #gone = 0
  #reconnects = 0
  #resubscribed = 0
  #resets = 0
  #unreadable = 0

  constructor (name: string, link: Link) {
    this.#name = name
    this.#link = link
  }

  async start (node: string, handlers: BrokerHandlers, settings?: BrokerSettings): Promise<void> {
    if (this.#handlers !== undefined || this.#isClosed) throw new FST_ROOMS_INVALID_OPTION('broker', 'a broker of its own', 'a broker that has already been started')
    this.#node = node
    this.#handlers = handlers
    this.#settings = settings
    this.#hello = setTimeout(() => { handlers.state('down', new FST_ROOMS_NO_CLUSTER(silent)) }, callTimeout).unref()
    this.#link.open({
      message: message => {
        if (isOurs(message)) this.#receive(message as ExchangeMessage)
        else if (versionOf(message) !== undefined) this.#ignore(otherVersion(message))
      },
      closed: () => { this.#lose() }
    })
    this.#sayHello()
  }

  async attach (topics: string[], retention?: Retention): Promise<AttachedPosition[]> {
    for (const topic of topics) this.#topics.set(topic, retention)
    return this.#call('attach', topics, retention)
  }

  async detach (topics: string[]): Promise<void> {
    for (const topic of topics) this.#topics.delete(topic)
    const detached = this.#call<void>('detach', topics)
    if (this.#isJoined) return detached
    // Nothing is delivered now, and the next hello does not name the topics. The call undoes an attach that has not been sent.
    detached.catch(() => {})
  }

  publish (batch: Publication[]): Promise<Outcome[]> {
    const bytes = batch.reduce((sum, { tail }) => sum + tail.length, 0)
    if (this.#isClosed || this.#queuedBytes + bytes > mostPublishing.bytes || this.#queued + batch.length > mostPublishing.count) return Promise.resolve(batch.map(() => ({ state: 'failed' })))
    for (const publication of batch) this.#publishing.set(publication.uid, publication)
    this.#queued += batch.length
    this.#queuedBytes += bytes
    const released = (): void => {
      this.#queued -= batch.length
      this.#queuedBytes -= bytes
    }
    return new Promise(resolve => {
      const settle = (outcomes: Outcome[]): void => {
        for (const { uid } of batch) this.#publishing.delete(uid)
        resolve(outcomes)
      }
      const timeout = Math.max(...batch.map(({ deadline }) => deadline)) - Date.now()
      this.#add('publish', [batch], timeout, settle, (_error, isSent) => { settle(batch.map(() => ({ state: isSent ? 'unknown' : 'failed' }))) }, released)
    })
  }

  history (topic: string, query: HistoryQuery): Promise<HistoryPage> {
    return this.#call<HistoryPage>('history', topic, query).then(page => ({ ...page, messages: page.messages.map(message => ({ ...message, tail: bufferOf(message.tail) })) }))
  }

  async control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'> {
    const { length } = bytes
    if (this.#controlBytes + length > mostControl) return 'unknown'
    this.#controlBytes += length
    return new Promise(resolve => {
      this.#add('control', [to, bytes], callTimeout, resolve, () => { resolve('unknown') }, () => { this.#controlBytes -= length })
    })
  }

  hold (add: string[], remove: string[]): void {
    for (const user of add) this.#users.add(user)
    for (const user of remove) this.#users.delete(user)
    for (const user of [...add, ...remove]) this.#usersSince?.add(user)
    if (this.#isJoined) this.#flushSoon()
  }

  readonly presence: BrokerPresence = {
    change: async changes => {
      const outcomes = await this.#call<Awaited<ReturnType<BrokerPresence['change']>>>('change', changes)
      this.#members.note(changes)
      return outcomes
    },
    read: async (topic, limit) => this.#call('read', topic, limit),
    report: async counts => this.#call('report', counts),
    counts: async topics => this.#call('counts', topics),
    topics: async limit => this.#call('topics', limit)
  }

  readonly streams: BrokerStreams = {
    claim: async topic => {
      this.#streams.add(topic)
      const isClaimed = await this.#call<boolean>('claim', topic)
      if (!isClaimed) this.#streams.delete(topic)
      return isClaimed
    },
    isTaken: async topic => this.#call('taken', topic),
    // If the call fails, the next hello does not name the topic.
    release: topic => {
      this.#streams.delete(topic)
      this.#call('unclaim', topic).catch(() => {})
    }
  }

  stats (): BrokerStats {
    return {
      lag: this.#calls.lag,
      queued: this.#queued,
      queuedBytes: this.#queuedBytes,
      topics: this.#topics.size,
      reconnects: this.#reconnects,
      resubscribed: this.#resubscribed,
      missedProbes: 0,
      mended: 0,
      holes: 0,
      resets: this.#resets,
      fenced: 0,
      dropped: 0,
      unreadable: this.#unreadable
    }
  }

  async close (): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearTimeout(this.#hello)
    clearImmediate(this.#flush)
    if (this.#handlers === undefined) return
    // A hello may be under way, whose welcome has not come.
    this.#send({ ...(this.#isJoined ? { calls: this.#calls.take() } : {}), bye: true })
    this.#isJoined = false
    this.#link.close()
    this.#calls.close(new FST_ROOMS_BROKER_DOWN())
  }

  #call<T> (name: CallName, ...args: unknown[]): Promise<T> {
    return new Promise((resolve, reject) => { this.#add(name, args, callTimeout, resolve, reject) })
  }

  #add (name: CallName, args: unknown[], timeout: number, resolve: (value: any) => void, reject: (error: Error, isSent: boolean) => void, released?: () => void): void {
    if (this.#isClosed) {
      reject(new FST_ROOMS_BROKER_DOWN(), false)
      return
    }
    this.#calls.add(name, args, timeout, resolve, reject, released)
    if (this.#isJoined) this.#flushSoon()
  }

  #flushSoon (): void {
    this.#flush ??= setImmediate(() => {
      this.#flush = undefined
      if (!this.#isJoined) return // the channel has closed since
      this.#hold()
      const calls = this.#calls.take()
      // A literal, because V8 makes a spread object slowly, and this is one for each turn.
      if (calls.length > 0) this.#link.send({ 'fastify-rooms': version, name: this.#name, node: this.#node, calls })
    })
  }

  /** Says which users have come or gone. It waits for the welcome without a deadline, because no later hello would name them. */
  #hold (): void {
    const users = [...this.#usersSince!]
    if (users.length === 0) return
    this.#usersSince!.clear()
    this.#calls.add('hold', [users.filter(user => this.#users.has(user)), users.filter(user => !this.#users.has(user))], callTimeout, () => {}, () => {})
  }

  #send (message: Pick<NodeMessage, 'hello' | 'calls' | 'read' | 'gone' | 'bye'>): void {
    this.#link.send({ 'fastify-rooms': version, name: this.#name, node: this.#node, ...message })
  }

  #sayHello (): void {
    this.#usersSince = new Set()
    this.#send({ hello: { historyBytes: this.#settings?.historyBytes ?? defaultHistoryBytes, topics: [...this.#topics], users: [...this.#users], members: this.#members.all(), streams: [...this.#streams], probe: Buffer.alloc(1) } })
  }

  #receive ({ name, node, state, events, size }: ExchangeMessage): void {
    if ((name !== undefined && name !== this.#name) || (node !== undefined && node !== this.#node)) return
    if (events.length === 0 && !(this.#isJoined && state === this.#state)) this.#sayHello()
    this.#read += size
    for (const event of events) this.#take(event, state)
    if (this.#read >= readStep) this.#sayRead()
  }

  #sayRead (): void {
    this.#send({ read: this.#read })
    this.#read = 0
  }

  #take (event: ExchangeEvent, state: string): void {
    const handlers = this.#handlers!
    switch (event.type) {
      case 'welcome': return this.#join(state, event.back)
      case 'refused': return handlers.state('down', new FST_ROOMS_NO_CLUSTER(event.reason))
      case 'answer':
        this.#answered()
        return this.#calls.answer(event.id, event.value)
      case 'failed':
        this.#answered()
        return this.#calls.fail(event.id, new FST_ROOMS_BROKER_FAULT(event.reason))
      case 'entry': return handlers.entry(event.publication.topic, withBuffer(event.publication), event.position)
      case 'own': {
        const publication = this.#publishing.get(event.uid)
        return publication === undefined ? handlers.lost([event.topic]) : handlers.entry(event.topic, publication, event.position)
      }
      case 'control': return handlers.control(event.from, bufferOf(event.bytes))
      case 'presence': return handlers.presence?.(event.topic, event.delta)
      case 'gone': return this.#takeGone(event.report, event.users)
      case 'orphaned': return this.#endStreams([...event.topics])
      case 'lost': return handlers.lost('all')
      case 'check': return this.#sayRead()
      case 'closed': return this.#lose()
      default: this.#ignore(`an event of the primary is of type ${excerpt((event as { type: unknown }).type)}`)
    }
  }

  /** Finds out whether the primary answers. A primary that is stopped, or whose event loop is busy, keeps its channels open. */
  #watch (): void {
    if (this.#isSilent || this.#calls.waited < callTimeout) return
    this.#isSilent = true
    this.#handlers!.state('degraded', new FST_ROOMS_BROKER_SILENT('calls', callTimeout))
  }

  #answered (): void {
    if (!this.#isSilent) return
    this.#isSilent = false
    this.#handlers!.state('up')
  }

  #takeGone (report: number, users: readonly GoneUser[]): void {
    this.#send({ gone: report })
    if (report <= this.#gone) return
    this.#gone = report
    this.#handlers!.gone?.([...users])
  }

  /** Has streams ended whose node has died, and gives them back. */
  #endStreams (topics: string[]): void {
    if (this.#isClosed) return
    for (const topic of topics) this.#streams.add(topic)
    Promise.resolve(this.#handlers!.orphaned?.(topics)).then(() => {
      for (const topic of topics) this.streams.release(topic)
    }, () => { setTimeout(() => { this.#endStreams(topics) }, retryAfter).unref() })
  }

  /** Counts a message that cannot be read, and tells of the first one. */
  #ignore (what: string): void {
    if (++this.#unreadable === 1) this.#handlers!.state(this.#isJoined ? 'up' : 'down', new FST_ROOMS_BROKER_UNREADABLE(what))
  }

  /** The exchange knows what this node has attached and said, and delivers from here on. */
  #join (state: string, back: Parameters<NonNullable<BrokerHandlers['back']>>[0]): void {
    const handlers = this.#handlers!
    const before = this.#state
    const wasJoined = this.#isJoined
    clearTimeout(this.#hello)
    this.#state = state
    this.#isJoined = true
    this.#flushSoon()
    if (wasJoined && before === state) return
    this.#isSilent = false
    if (before !== undefined) {
      this.#reconnects++
      this.#resubscribed += this.#topics.size
      // Another state has the topics without their positions, and numbers its reports anew.
      if (before !== state) {
        this.#resets += this.#topics.size
        this.#gone = 0
      }
      // Another state does not know the calls.
      this.#calls.failSent(new FST_ROOMS_BROKER_DOWN())
      handlers.lost('all')
    }
    handlers.state('up')
    if (back.length > 0) handlers.back?.(back)
  }

  /** The channel has closed: answers and entries that are under way are lost. */
  #lose (): void {
    this.#isJoined = false
    this.#usersSince = undefined
    this.#calls.failSent(new FST_ROOMS_BROKER_DOWN())
    this.#handlers!.state('down', new FST_ROOMS_NO_CLUSTER('the channel to the primary has closed'))
  }
}
