import type { BrokerState } from '../../types/index.ts'
import type { NatsClient, NatsMessage } from '../../types/nats.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_SILENT, FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { endNatsSocket } from '../internals.ts'
import { Flushes } from './flushes.ts'

/** Probes in a row that the server may leave unanswered, before the connection counts as silent. */
const mostMissed = 3
/** Most bytes that the server has not confirmed. A connection that is silent would have its client buffer without a bound until that is noticed. */
const mostUnconfirmed = 16_777_216
/** Milliseconds within which a subscription is confirmed. */
const confirmPatience = 10_000
/** Most subjects that are remembered because the server lets this node not publish to them. */
const mostRefused = 1_000

/** A subscription of the broker, which outlives connections. */
export interface LinkSubscription {
  readonly subject: string
  readonly receive: (message: NatsMessage) => void
  /** The client's subscription; `undefined` if there is none now. */
  handle: { unsubscribe (): void } | undefined
  /** The server has refused it. */
  refusal: Error | undefined
  /** The broker cannot do without it: if the server refuses it, the broker is `degraded`. */
  readonly isVital: boolean
}

export interface LinkPorts {
  state (state: BrokerState, cause?: Error): void
  /**
   * There is a new connection, and the server has processed all subscriptions.
   * @param wasCut - there was one before
   */
  connected (wasCut: boolean): void
}

/** The subjects of the probes of a node. */
export interface ProbeSubjects {
  /** The subject of the subscription that receives the probes, and the server's answers. */
  readonly subscription: string
  readonly probe: string
}

/** The options of a client that matter here. They are no part of its interface, so that any of them may be missing. */
function optionsOf (client: NatsClient): { noEcho?: boolean, reconnect?: boolean } {
  return (client as { options?: { noEcho?: boolean, reconnect?: boolean } }).options ?? {}
}

/** @throws FST_ROOMS_INVALID_OPTION */
export function checkClient (client: unknown): asserts client is NatsClient {
  const methods = ['publish', 'subscribe', 'flush', 'status', 'isClosed', 'closed', 'reconnect'] as const
  const given = Object(client) as NatsClient
  const missing = methods.find(name => typeof given[name] !== 'function')
  if (missing !== undefined) throw new FST_ROOMS_INVALID_OPTION('connection', 'a connection of @nats-io/transport-node 3, or a promise of one', `an object without "${missing}"`)
  if (given.isClosed()) throw new FST_ROOMS_INVALID_OPTION('connection', 'an open connection', 'one that is closed')
  // The broker's probes come back to the connection that has sent them.
  if (optionsOf(given).noEcho === true) throw new FST_ROOMS_INVALID_OPTION('connection', 'a connection without "noEcho"', 'one with it')
}

/**
 * The connection of the host, as the broker uses it. It finds out by probes whether the server hears and answers, because a client notices a silent connection after minutes.
 * The client subscribes again after a cut by itself.
 */
export class NatsLink {
  readonly #ports: LinkPorts
  readonly #probes: ProbeSubjects
  readonly #interval: number
  readonly #subscriptions = new Set<LinkSubscription>()
  readonly #base: LinkSubscription
  readonly #flushes = new Flushes(async () => this.#client!.flush())
  /** When the server has refused a publication to a subject, on the clock of `performance`. */
  readonly #refused = new Map<string, number>()
  /** By the subject of the answer. */
  readonly #replies = new Map<string, (message: NatsMessage) => void>()
  #client: NatsClient | undefined
  #statuses: { stop?: () => void } | undefined
  #isConnected = false
  #isClosed = false
  /** There will be no connection any more. */
  #hasEnded = false
  #state: BrokerState = 'down'
  /** The connection is new: no probe has come back by it. */
  #isNew = true
  #wasCut = false
  #missed = 0
  /** When the probe that is under way was sent; `undefined` if none is. */
  #probedAt: number | undefined
  #timer: NodeJS.Timeout | undefined
  #lastError: Error | undefined
  /** Called when a probe has come back, or with an error if none ever will. */
  readonly #waiting = new Set<(error?: Error) => void>()
  #lag = 0
  reconnects = 0
  resubscribed = 0
  missedProbes = 0

  /** @param interval - milliseconds between two probes */
  constructor (probes: ProbeSubjects, interval: number, ports: LinkPorts) {
    this.#probes = probes
    this.#interval = interval
    this.#ports = ports
    this.#base = this.subscribe(probes.subscription, message => {
      if (message.subject === probes.probe) this.#answered()
      else this.#replies.get(message.subject)?.(message)
    }, true)
  }

  /** Most bytes of a message; 0 if the server has not said it. */
  get maxPayload (): number { return this.#client?.info?.max_payload ?? 0 }
  get state (): BrokerState { return this.#state }
  /** Milliseconds that the last probe took, or that a later one has been under way, if that is longer. */
  get lag (): number { return this.#probedAt === undefined ? this.#lag : Math.max(this.#lag, performance.now() - this.#probedAt) }

  /** Takes the connection into use. Settles when it is up, at the latest after so many milliseconds. */
  async open (connection: NatsClient | Promise<NatsClient>, patience: number): Promise<void> {
    const up = this.#answer(patience).catch(() => {}) // its state tells it
    if ('then' in connection || connection.info === undefined) this.#ports.state('down')
    if ('then' in connection) {
      connection.then(client => {
        checkClient(client)
        this.#use(client)
      }).catch((error: unknown) => { this.#ended(asError(error)) })
    } else this.#use(connection)
    await up
  }

  subscribe (subject: string, receive: (message: NatsMessage) => void, isVital = false): LinkSubscription {
    const subscription: LinkSubscription = { subject, receive, handle: undefined, refusal: undefined, isVital }
    this.#subscriptions.add(subscription)
    this.#subscribe(subscription)
    return subscription
  }

  unsubscribe (subscription: LinkSubscription): void {
    this.#subscriptions.delete(subscription)
    subscription.handle?.unsubscribe()
    subscription.handle = undefined
  }

  /** Sends a message, unless there is no connection or too much is unconfirmed. Returns whether it was sent. */
  send (subject: string, bytes: Buffer, reply?: string): boolean {
    if (!this.#isConnected || this.#flushes.unconfirmed > mostUnconfirmed) return false
    try {
      this.#client!.publish(subject, bytes, reply === undefined ? {} : { reply })
    } catch (error) {
      this.#lastError = asError(error)
      return false
    }
    this.#flushes.sent(bytes.length)
    return true
  }

  /** Settles when the server has processed all that was sent before. @throws FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_SILENT */
  flushed (): Promise<void> {
    return this.#flushes.next()
  }

  /** Settles when the server has processed a subscription, also after a cut. @throws FST_ROOMS_BROKER_DOWN after 10 s, or because the server has refused it */
  async confirmed (subscription: LinkSubscription): Promise<void> {
    while (!await this.#isFlushed()) await this.#answer(confirmPatience)
    if (subscription.refusal !== undefined) throw Object.assign(new FST_ROOMS_BROKER_DOWN(), { cause: subscription.refusal })
  }

  /** Whether the server has refused a publication to a subject since this time, on the clock of `performance`. Call it when that was flushed. */
  hasRefused (subject: string, since: number): boolean {
    return (this.#refused.get(subject) ?? -1) >= since
  }

  /** Hands the server's answers to a reply subject to `receive`. Returns the function that ends this. */
  onReply (subject: string, receive: (message: NatsMessage) => void): () => void {
    this.#replies.set(subject, receive)
    return () => { this.#replies.delete(subject) }
  }

  close (): void {
    this.#isClosed = true
    this.#statuses?.stop?.()
    for (const subscription of this.#subscriptions) this.unsubscribe(subscription)
    this.#end(new FST_ROOMS_BROKER_DOWN())
  }

  async #isFlushed (): Promise<boolean> {
    if (!this.#isConnected) return false
    return this.flushed().then(() => true, () => false)
  }

  /** Settles when the next probe has come back. */
  #answer (patience: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (error?: Error): void => {
        clearTimeout(timer)
        this.#waiting.delete(end)
        if (error === undefined) resolve()
        else reject(error)
      }
      const timer = setTimeout(end, patience, new FST_ROOMS_BROKER_DOWN())
      this.#waiting.add(end)
      if (this.#hasEnded) end(new FST_ROOMS_BROKER_DOWN())
    })
  }

  /** Ends all waiting, because there will be no connection any more. */
  #end (error: Error): void {
    this.#isConnected = false
    this.#hasEnded = true
    this.#probedAt = undefined
    clearInterval(this.#timer)
    this.#flushes.cut(error)
    for (const end of this.#waiting) end(error)
  }

  #use (client: NatsClient): void {
    if (this.#isClosed) return
    this.#client = client
    const ended = (error: unknown): void => { this.#ended(error === undefined ? undefined : asError(error)) }
    client.closed().then(ended, ended)
    this.#watch(client).catch(ended)
    this.#timer = setInterval(this.#tick, this.#interval).unref()
    if (client.info !== undefined) this.#connected()
  }

  /** Makes the client's subscriptions that are missing, and asks the server whether it has them. */
  #connected (): void {
    this.#isConnected = true
    this.#missed = 0
    for (const subscription of this.#subscriptions) if (subscription.handle === undefined) this.#subscribe(subscription)
    this.#probe()
  }

  #subscribe (subscription: LinkSubscription): void {
    if (this.#client === undefined || this.#isClosed) return
    subscription.refusal = undefined
    try {
      subscription.handle = this.#client.subscribe(subscription.subject, {
        callback: (error, message) => {
          if (error === null) subscription.receive(message)
          else this.#subscriptionRefused(subscription, error)
        }
      })
    } catch (error) {
      subscription.refusal = asError(error)
    }
  }

  #subscriptionRefused (subscription: LinkSubscription, error: Error): void {
    subscription.handle = undefined
    subscription.refusal = error
    if (subscription.isVital) this.#tell('degraded', error)
    else this.#ports.state(this.state, error)
  }

  async #watch (client: NatsClient): Promise<void> {
    const statuses = client.status()
    this.#statuses = statuses as { stop?: () => void }
    for await (const { type, error } of statuses) {
      if (this.#isClosed) return
      if (type === 'disconnect') this.#disconnected()
      else if (type === 'reconnect') this.#connected()
      else if (type === 'error' && error !== undefined) this.#failed(error)
    }
  }

  /** A client may report one cut several times. */
  #disconnected (): void {
    if (!this.#isConnected) return
    this.#isConnected = false
    this.#isNew = this.#wasCut = true
    this.#probedAt = undefined
    this.#flushes.cut(new FST_ROOMS_BROKER_DOWN())
    this.#tell('down', this.#lastError)
    this.#lastError = undefined
  }

  #failed (error: Error & { operation?: unknown, subject?: unknown }): void {
    const { operation, subject } = error
    this.#lastError = error
    if (operation !== 'publish' || typeof subject !== 'string') return
    if (this.#refused.size >= mostRefused) this.#refused.clear()
    const isNew = !this.#refused.has(subject)
    this.#refused.set(subject, performance.now())
    if (!isNew) return
    if (subject === this.#probes.probe) this.#tell('degraded', error)
    else this.#ports.state(this.state, error)
  }

  /** The client has given up, or the host has closed it. */
  #ended (error: Error | undefined): void {
    if (this.#isClosed) return
    this.#end(new FST_ROOMS_BROKER_DOWN())
    this.#tell('down', Object.assign(new FST_ROOMS_BROKER_DOWN(), { cause: error ?? new Error('the connection was closed') }))
  }

  readonly #tick = (): void => {
    if (!this.#isConnected) return
    if (this.#probedAt !== undefined) {
      this.#missed++
      this.missedProbes++
    }
    if (this.#missed >= mostMissed) this.#silent()
    else this.#probe()
  }

  #probe (): void {
    this.#probedAt ??= performance.now()
    try {
      this.#client!.publish(this.#probes.probe, Buffer.alloc(0))
    } catch (error) {
      this.#lastError = asError(error)
    }
  }

  /** A probe has come back: the server has processed what was sent before it, subscriptions included. */
  #answered (): void {
    if (this.#probedAt === undefined) return
    this.#lag = performance.now() - this.#probedAt
    this.#probedAt = undefined
    this.#missed = 0
    if (this.#isNew) {
      this.#isNew = false
      if (this.#wasCut) {
        this.reconnects++
        this.resubscribed += this.#subscriptions.size
      }
      this.#ports.connected(this.#wasCut)
    }
    const refused = [...this.#subscriptions].find(({ refusal, isVital }) => isVital && refusal !== undefined)
    if (refused === undefined) this.#tell('up')
    for (const end of this.#waiting) end()
  }

  #silent (): void {
    this.#missed = 0
    if (this.#state !== 'degraded') this.#tell('degraded', new FST_ROOMS_BROKER_SILENT('probes', this.#interval * (mostMissed + 1)))
    // Without rights for the probes, a new connection would be as silent. A client that does not reconnect would close for good.
    if (this.#base.refusal !== undefined || this.hasRefused(this.#probes.probe, 0) || optionsOf(this.#client!).reconnect === false) this.#probe()
    else {
      this.#client!.reconnect().catch((error: unknown) => { this.#lastError = asError(error) })
      endNatsSocket(this.#client!)
    }
  }

  #tell (state: BrokerState, cause?: Error): void {
    if (state === this.#state && cause === undefined) return
    this.#state = state
    this.#ports.state(state, cause)
  }
}
