import type { Broker, BrokerCapabilities, BrokerHandlers, BrokerStats, Outcome, Publication } from '../../types/index.ts'
import type { NatsBrokerOptions, NatsMessage } from '../../types/nats.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_UNREADABLE, FST_ROOMS_INVALID_OPTION, FST_ROOMS_PUBLICATION_TOO_LARGE } from '../errors.ts'
import { Control } from './control.ts'
import { decodePublication, encodePublication } from './envelope.ts'
import { NatsLink, type LinkSubscription } from './link.ts'
import { Subjects } from './subjects.ts'

const failed: Outcome = { state: 'failed' }
const unknown: Outcome = { state: 'unknown' }
const accepted: Outcome = { state: 'ok' }

/** Milliseconds between two reports of publications that are too large. */
const reportEvery = 60_000

/** Times in milliseconds. Tests shorten them. */
export interface NatsTimes {
  /** How long a subscription stays after `detach`, so that a room that empties and fills is no storm of commands. */
  linger: number
  /** How long `start` waits for the server. */
  patience: number
}

interface Topic {
  readonly subscription: LinkSubscription
  isAttached: boolean
  /** When it was detached, on the clock of `performance`. */
  detachedAt: number
}

/** A publication that was handed to the client. */
interface Sent {
  readonly subject: string
  /** On the clock of `performance`. */
  readonly at: number
  readonly bytes: number
}

export class NatsBroker implements Broker {
  readonly capabilities: BrokerCapabilities = { order: 'node', history: false, presence: false, once: 'node' }
  readonly #options: Required<NatsBrokerOptions>
  readonly #times: NatsTimes
  readonly #subjects: Subjects
  readonly #topics = new Map<string, Topic>()
  #node = ''
  #handlers: BrokerHandlers | undefined
  #link: NatsLink | undefined
  #control: Control | undefined
  #timer: NodeJS.Timeout | undefined
  /** Publications that the server has not confirmed. */
  #queued = 0
  #queuedBytes = 0
  #unreadable = 0
  #isUnreadableTold = false
  #reportedAt = -Infinity

  constructor (options: Required<NatsBrokerOptions>, times: NatsTimes = { linger: 30_000, patience: 2_000 }) {
    this.#options = options
    this.#times = times
    this.#subjects = new Subjects(options.prefix)
  }

  async start (node: string, handlers: BrokerHandlers): Promise<void> {
    if (this.#link !== undefined) throw new FST_ROOMS_INVALID_OPTION('broker', 'a broker of its own', 'a broker that has already been started')
    this.#node = node
    this.#handlers = handlers
    const link = this.#link = new NatsLink({ subscription: this.#subjects.reply(node, '*'), probe: this.#subjects.reply(node, 'probe') }, this.#options.probe, {
      state: (state, cause) => { this.#handlers?.state(state, cause) },
      connected: wasCut => {
        this.#control?.announce()
        if (wasCut) this.#handlers?.lost('all')
      }
    })
    this.#control = new Control(link, this.#subjects, node, {
      receive: (from, bytes) => { this.#handlers?.control(from, bytes) },
      unreadable: error => { this.#ignored(error) }
    })
    const { linger, patience } = this.#times
    this.#timer = setInterval(() => { this.#sweep(performance.now() - linger) }, linger / 3).unref()
    await link.open(this.#options.connection, patience)
  }

  async attach (topics: string[]): Promise<null[]> {
    const link = this.#link!
    const attached = topics.map(name => {
      let topic = this.#topics.get(name)
      if (topic === undefined || topic.subscription.refusal !== undefined) {
        if (topic !== undefined) link.unsubscribe(topic.subscription)
        const subscription = link.subscribe(this.#subjects.topic(name), message => { this.#entry(name, message) })
        this.#topics.set(name, topic = { subscription, isAttached: true, detachedAt: 0 })
      }
      topic.isAttached = true
      return topic.subscription
    })
    await Promise.all(attached.map(subscription => link.confirmed(subscription)))
    return topics.map(() => null)
  }

  async detach (topics: string[]): Promise<void> {
    for (const name of topics) {
      const topic = this.#topics.get(name)
      if (topic === undefined) continue
      topic.isAttached = false
      topic.detachedAt = performance.now()
    }
  }

  async publish (batch: Publication[]): Promise<Outcome[]> {
    const sent = batch.map(publication => this.#send(publication))
    const handed = sent.filter(one => one !== undefined)
    const count = handed.length
    if (count === 0) return sent.map(() => failed)
    const bytes = handed.reduce((sum, one) => sum + one.bytes, 0)
    this.#queued += count
    this.#queuedBytes += bytes
    const isFlushed = await this.#link!.flushed().then(() => true, () => false)
    this.#queued -= count
    this.#queuedBytes -= bytes
    return sent.map(one => {
      if (one === undefined || this.#link!.hasRefused(one.subject, one.at)) return failed
      return isFlushed ? accepted : unknown
    })
  }

  async control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'> {
    return await this.#control?.send(to, bytes) ?? 'unknown'
  }

  hold (add: string[], remove: string[]): void {
    this.#control?.hold(add, remove)
  }

  stats (): BrokerStats {
    const { lag = 0, reconnects = 0, resubscribed = 0, missedProbes = 0 } = this.#link ?? {}
    return { lag, queued: this.#queued, queuedBytes: this.#queuedBytes, topics: this.#topics.size, reconnects, resubscribed, missedProbes, mended: 0, holes: 0, resets: 0, fenced: 0, dropped: 0, unreadable: this.#unreadable }
  }

  async close (): Promise<void> {
    clearInterval(this.#timer)
    this.#handlers = undefined
    this.#control = undefined
    this.#topics.clear()
    this.#link?.close()
  }

  /** Sends a publication, and delivers it here. Returns `undefined` if it was not sent. */
  #send (publication: Publication): Sent | undefined {
    const handlers = this.#handlers
    if (handlers === undefined) return undefined
    const { topic } = publication
    const link = this.#link!
    const subject = this.#subjects.topic(topic)
    const bytes = encodePublication(publication)
    const most = link.maxPayload
    if (most > 0 && bytes.length > most) {
      // No member gets it, rather than those of this node alone.
      this.#report(new FST_ROOMS_PUBLICATION_TOO_LARGE(topic, bytes.length, most))
      return undefined
    }
    const at = performance.now()
    // Sent first: a handler may publish, and the order here is to be that of other nodes.
    const isSent = link.send(subject, bytes)
    if (this.#topics.get(topic)?.isAttached === true) handlers.entry(topic, publication)
    return isSent ? { subject, at, bytes: bytes.length } : undefined
  }

  #entry (name: string, { data }: NatsMessage): void {
    if (this.#topics.get(name)?.isAttached !== true) return
    try {
      const publication = decodePublication(data, name, this.#node)
      if (publication !== undefined) this.#handlers!.entry(name, publication)
    } catch (error) {
      this.#ignored(asError(error))
      this.#handlers?.lost([name])
    }
  }

  /** Counts bytes that cannot be read, and reports the first ones. */
  #ignored (error: Error): void {
    this.#unreadable++
    const { state } = this.#link!
    // It is no reason why the broker is down.
    if (this.#isUnreadableTold || state === 'down') return
    this.#isUnreadableTold = true
    this.#handlers?.state(state, new FST_ROOMS_BROKER_UNREADABLE(error.message))
  }

  #report (error: Error): void {
    const now = performance.now()
    if (now - this.#reportedAt < reportEvery) return
    this.#reportedAt = now
    this.#handlers?.state(this.#link!.state, error)
  }

  #sweep (before: number): void {
    for (const [name, topic] of this.#topics) {
      if (topic.isAttached || topic.detachedAt > before) continue
      this.#topics.delete(name)
      this.#link!.unsubscribe(topic.subscription)
    }
  }
}
