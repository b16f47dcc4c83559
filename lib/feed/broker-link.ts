import type { AttachedPosition, Broker, BrokerHandlers, BrokerNumbers, BrokerPresence, BrokerSettings, BrokerState, BrokerStats, EntryPosition, GoneUser, HistoryPage, HistoryQuery, HistoryStats, Outcome, PresenceDelta, Publication, Retention } from '../../types/index.ts'
import { FST_ROOMS_BROKER_FAULT, FST_ROOMS_BROKER_SILENT, FST_ROOMS_CLOSED } from '../errors.ts'
import { asError } from '../error-utils.ts'
import { readPosition } from '../protocol/position.ts'
import { checkEntry, checkPage, isEndReason, isName } from './check-entry.ts'
import type { Feed, FeedBroker } from './feed.ts'
import { Outgoing } from './outgoing.ts'
import { Publisher } from './publisher.ts'
import { RecentUids } from './recent-uids.ts'
import { within } from './within.ts'

/** Milliseconds that the closing of an app waits for its broker. */
const closeTimeout = 2_000

/** The outcome of a message to other nodes. */
export type ControlOutcome = Awaited<ReturnType<Broker['control']>>

const controlOutcomes: readonly unknown[] = ['sent', 'gone', 'unknown'] satisfies ControlOutcome[]

const states: readonly unknown[] = ['up', 'degraded', 'down'] satisfies BrokerState[]

/** The numbers of a broker that counts nothing, in the order in which they are shown. */
const noStats: BrokerStats = { lag: 0, queued: 0, queuedBytes: 0, topics: 0, reconnects: 0, resubscribed: 0, missedProbes: 0, mended: 0, holes: 0, resets: 0, fenced: 0, dropped: 0, unreadable: 0 }

/** The hub's side of the link. */
export interface LinkPorts {
  /** The feed of a topic that has a room here. */
  feed (topic: string): Feed | undefined
  /** All feeds. */
  feeds (): Feed[]
  state (state: BrokerState, cause: Error | undefined): void
  /** The broker has broken its contract. */
  fault (error: Error): void
  /** A publication, or a message to other nodes, was not answered by its deadline. */
  unanswered (): void
  /** Another node has sent a message. */
  control (fromNode: string, bytes: Uint8Array): void
  /** The receiver of the members of other nodes. It checks what it is given. */
  presence (): PresenceReceiver | undefined
  /** Ends streams whose node has died. Rejects if it cannot. */
  orphaned (topics: string[]): Promise<void>
}

/** The hub's side of a broker that notes the members of topics for all nodes. What it throws is reported as a fault. */
export interface PresenceReceiver {
  delta (topic: string, delta: PresenceDelta | undefined): void
  gone (users: GoneUser[]): void
  back (users: GoneUser[]): void
  /** Deltas may be missing: of these topics, or of all. */
  lost (topics: string[] | undefined): void
}

export interface LinkTimeouts {
  /** Milliseconds from the call of `publish` to the deadline of a publication; the same for `control`. */
  readonly publish: number
  /** Milliseconds for `attach`. */
  readonly attach: number
  /** Milliseconds for `history`. */
  readonly read: number
}

/**
 * The broker as the hub may rely on it. None of its calls throws into the hub or waits without an end, and none of its entries reaches members unchecked. Each breach of
 * its contract is counted and reported, and the messages that are lost by it are told as lost.
 */
export class BrokerLink implements FeedBroker {
  readonly #broker: Broker
  readonly #ports: LinkPorts
  readonly #timeouts: LinkTimeouts
  readonly #publisher: Publisher
  readonly #recent = new RecentUids()
  #node = ''
  #isClosed = false
  #entries = 0
  /** The broker is down, or has not told its state yet. */
  isDown = true
  /** Since when the broker is up, on the clock of `performance`; `Infinity` if it is not. */
  #upSince = Infinity

  constructor (broker: Broker, timeouts: LinkTimeouts, ports: LinkPorts) {
    this.#broker = broker
    this.#timeouts = timeouts
    this.#ports = ports
    this.#publisher = new Publisher(broker, timeouts.publish, {
      fault: (message, cause) => { this.#fault(message, cause) },
      unanswered: ports.unanswered,
      isUpSince: time => this.#upSince <= time
    })
  }

  /** Publications that the broker has not answered, or whose entry has not come. */
  get pending (): number { return this.#publisher.size }

  get isInProcess (): boolean { return this.#broker.inProcess === true }

  /** Whether the broker knows the `mid`s of all nodes. In this process, `Mids` alone knows them. */
  get sharesMids (): boolean { return !this.isInProcess && this.#broker.capabilities.once === 'shared' }
  /** The members that the broker notes for all nodes; `undefined` if it does not, or there are no other nodes. */
  get presence (): BrokerPresence | undefined {
    const { capabilities, presence } = this.#broker
    return this.isInProcess || !capabilities.presence ? undefined : presence
  }

  async start (node: string, settings: BrokerSettings): Promise<void> {
    this.#node = node
    await this.#broker.start(node, this.#handlers, settings)
  }

  /** @throws FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_FAULT, what the broker throws */
  async attach (topic: string, retention: Retention | undefined): Promise<AttachedPosition | undefined> {
    const { attach } = this.#timeouts
    const answer = this.#broker.attach([topic], retention)
    const positions: unknown = this.#broker.inProcess === true ? await answer : await within(answer, attach, `attach of topic "${topic}"`)
    const given: unknown = Array.isArray(positions) ? positions[0] : undefined
    const position = readPosition(given)
    if (position !== undefined && position !== null) {
      const { ended } = given as AttachedPosition
      return isEndReason(ended) ? { ...position, ended } : position
    }
    if (position === undefined) return undefined
    throw new FST_ROOMS_BROKER_FAULT(`topic "${topic}" was attached at what is not a position`)
  }

  /** Asks the broker to deliver the topic no longer, and does not wait for it. A failure is reported. */
  detach (topic: string): void {
    const detach = async (): Promise<void> => this.#broker.detach([topic])
    detach().catch((error: unknown) => { this.#ports.fault(asError(error)) })
  }

  /** Reads kept messages. `undefined` if the broker does not answer in time, or with what is not a page. */
  read (topic: string, query: HistoryQuery): HistoryPage | undefined | Promise<HistoryPage | undefined> {
    try {
      const answer = this.#broker.history!(topic, query)
      if (this.isInProcess) return answer as HistoryPage
      return within(Promise.resolve(answer), this.#timeouts.read, `history of topic "${topic}"`).then(page => checkPage(topic, page)).catch((error: unknown) => {
        this.#ports.fault(asError(error))
        return undefined
      })
    } catch (error) {
      this.#ports.fault(asError(error))
      return undefined
    }
  }

  historyStats (): HistoryStats {
    try {
      const stats = this.#broker.historyStats?.()
      if (stats !== undefined) return stats
    } catch (error) {
      this.#fault('historyStats threw', asError(error))
    }
    return { topics: 0, messages: 0, bytes: 0, evicted: 0 }
  }

  /** The numbers of the broker, checked, and those that are counted here for any broker. */
  numbers (): Omit<BrokerNumbers, 'state' | 'stateFor' | 'outages'> {
    return { ...this.#stats(), entries: this.#entries, outcomes: { ...this.#publisher.outcomes } }
  }

  /** Hands a publication to the broker. Returns an outcome, at once or at the latest at the deadline. */
  publish (publication: Outgoing, feed: Feed | undefined): Outcome | Promise<Outcome> {
    return this.#publisher.publish(publication, feed)
  }

  /** Whether the broker wants to know which users this node has. */
  get holdsUsers (): boolean { return !this.isInProcess && this.#broker.hold !== undefined }

  /** Whether the broker knows which node writes to a stream. */
  get claimsStreams (): boolean { return !this.isInProcess && this.#broker.streams !== undefined }

  /** Claims a stream for this node. Resolves with `false` if another node has it. @throws FST_ROOMS_BROKER_SILENT */
  async claim (topic: string): Promise<boolean> {
    const { read } = this.#timeouts
    const what = `a claim of stream "${topic}"`
    try {
      return await within(this.#broker.streams!.claim(topic), read, what)
    } catch (error) {
      if (error instanceof FST_ROOMS_BROKER_SILENT) throw error
      this.#ports.fault(asError(error))
      throw new FST_ROOMS_BROKER_SILENT(what, read)
    }
  }

  /** Whether another node writes to a stream, as far as the broker answers. */
  async isTaken (topic: string): Promise<boolean> {
    try {
      return await within(this.#broker.streams!.isTaken(topic), this.#timeouts.read, `the producer of stream "${topic}"`)
    } catch {
      return false // the publication that follows tells the same, or is held
    }
  }

  /** Gives a stream back. */
  release (topic: string): void {
    if (this.#isClosed) return
    try {
      this.#broker.streams!.release(topic)
    } catch (error) {
      this.#fault('release of a stream threw', asError(error))
    }
  }

  /** Sends a message to other nodes. Settles at the latest at its deadline, and never rejects. */
  async control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<ControlOutcome> {
    if (this.#isClosed) return 'unknown'
    try {
      const outcome: unknown = await within(this.#broker.control(to, bytes), this.#timeouts.publish, 'control')
      if (controlOutcomes.includes(outcome)) return outcome as ControlOutcome
      this.#fault('control was answered with what is not an outcome')
    } catch (error) {
      if (error instanceof FST_ROOMS_BROKER_SILENT) this.#ports.unanswered()
      else this.#fault('control threw or rejected', asError(error))
    }
    return 'unknown'
  }

  /** Tells the broker which users this node has from now on, and which no longer. */
  hold (add: string[], remove: string[]): void {
    if (this.#isClosed) return
    try {
      this.#broker.hold!(add, remove)
    } catch (error) {
      this.#fault('hold threw', asError(error))
    }
  }

  /** Settles when the broker has closed, at the latest after 2 s. @throws what the broker throws */
  async close (): Promise<void> {
    this.#isClosed = true
    try {
      await within(this.#broker.close(), closeTimeout, 'close')
    } catch (error) {
      if (!(error instanceof FST_ROOMS_BROKER_SILENT)) throw error
      this.#ports.fault(error)
    } finally {
      this.#publisher.close()
    }
  }

  delivered (publication: Outgoing): void {
    if (this.#publisher.size > 0) this.#publisher.delivered(publication)
  }

  review (feed: Feed): void {
    this.#publisher.review(feed)
  }

  /** None of these throws: a broker may call them from a callback of its client. */
  readonly #handlers: BrokerHandlers = {
    entry: (topic, publication, position) => {
      const feed = this.#isClosed ? undefined : this.#ports.feed(topic)
      if (feed === undefined) return
      this.#entries++
      let own: Outgoing | undefined
      try {
        // A broker of this process brings back the object that it was given.
        if (publication instanceof Outgoing) own = publication
        if (own === undefined) this.#entry(feed, topic, publication, position)
        else feed.receive(own, position, own.isDelivered)
      } catch (error) {
        if (own !== undefined) own.failure = asError(error) // its publisher is told
        else {
          this.#ports.fault(asError(error))
          feed.lost()
        }
      }
      this.review(feed)
    },
    control: (fromNode, bytes) => {
      if (this.#isClosed) return
      if (!isName(fromNode) || fromNode === this.#node || !(bytes instanceof Uint8Array)) this.#fault('it brought a message of no other node, or one that is not bytes')
      else this.#ports.control(fromNode, bytes)
    },
    presence: (topic, delta) => { this.#receive(receiver => { receiver.delta(topic, delta) }) },
    gone: users => { this.#receive(receiver => { receiver.gone(users) }) },
    back: users => { this.#receive(receiver => { receiver.back(users) }) },
    orphaned: async topics => {
      if (this.#isClosed) throw new FST_ROOMS_CLOSED()
      if (Array.isArray(topics)) await this.#ports.orphaned(topics)
      else this.#fault('it brought streams without a node that are no list')
    },
    state: (state, cause) => {
      if (this.#isClosed) return
      if (states.includes(state)) {
        this.isDown = state === 'down'
        this.#upSince = state === 'up' ? Math.min(this.#upSince, performance.now()) : Infinity
        this.#ports.state(state, cause === undefined ? undefined : asError(cause))
      } else this.#fault('it says that its state is none of "up", "degraded" and "down"')
    },
    lost: topics => {
      if (this.#isClosed) return
      let feeds: Feed[] | undefined
      try {
        if (Array.isArray(topics)) feeds = topics.flatMap(topic => this.#ports.feed(topic) ?? [])
      } catch (error) {
        this.#ports.fault(asError(error))
      }
      // A loss that names no topics, or cannot be read, may be one of any topic.
      for (const feed of feeds ?? this.#ports.feeds()) feed.lost()
      this.#receive(receiver => { receiver.lost(feeds === undefined ? undefined : topics as string[]) })
    }
  }

  /** Hands members of other nodes to the hub. */
  #receive (hand: (receiver: PresenceReceiver) => void): void {
    const receiver = this.#isClosed ? undefined : this.#ports.presence()
    if (receiver === undefined) return
    try {
      hand(receiver)
    } catch (error) {
      this.#ports.fault(asError(error))
    }
  }

  #entry (feed: Feed, topic: string, given: Publication, at: EntryPosition | undefined): void {
    const position = readPosition(at)
    if (position === null) throw new FST_ROOMS_BROKER_FAULT(`an entry of topic "${topic}" is refused: its position is not one`)
    const own = this.#publisher.find(given?.uid)
    if (own?.isSameAs(topic, given) === false) throw new FST_ROOMS_BROKER_FAULT(`an entry of topic "${topic}" is refused: its "uid" is that of another publication`)
    // Bytes that this node has made itself need no parsing.
    const publication = own ?? checkEntry(topic, given)
    if (!feed.isGone) feed.receive(publication, position, this.#recent.isRepeated(`${topic} ${publication.uid}`), position === undefined ? undefined : readAfter(at!.after, position.offset))
  }

  /** The numbers that the broker counts. What is not a number is 0. */
  #stats (): BrokerStats {
    let given: Partial<Record<string, unknown>> = {}
    try {
      given = { ...this.#broker.stats?.() }
    } catch (error) {
      this.#fault('stats threw', asError(error))
    }
    const numbers: BrokerStats = { ...noStats }
    for (const name of Object.keys(noStats) as (keyof BrokerStats)[]) {
      const value = given[name]
      if (typeof value === 'number' && value >= 0 && value < Infinity) numbers[name] = value
    }
    return numbers
  }

  #fault (message: string, cause?: Error): void {
    const error = new FST_ROOMS_BROKER_FAULT(message)
    this.#ports.fault(cause === undefined ? error : Object.assign(error, { cause }))
  }
}

/** The offset of the publication before an entry, if the broker names one that can be. */
function readAfter (given: unknown, offset: number): number | undefined {
  return Number.isInteger(given) && given as number >= 0 && given as number < offset ? given as number : undefined
}
