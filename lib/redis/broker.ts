import { randomBytes } from 'node:crypto'
import type { AttachedPosition, Broker, BrokerCapabilities, BrokerHandlers, BrokerPresence, BrokerStats, BrokerStreams, HistoryPage, HistoryQuery, Outcome, Publication, Retention } from '../../types/index.ts'
import type { RedisBrokerOptions, RedisPort } from '../../types/redis.ts'
import { FST_ROOMS_BROKER_UNREADABLE, FST_ROOMS_BROKER_UNSUITABLE, FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { RedisAnswerError } from './answer-error.ts'
import { RedisControl } from './control.ts'
import { isDelta } from './delta.ts'
import { Epochs } from './epochs.ts'
import { Keys } from './keys.ts'
import { Links } from './links.ts'
import { Outgoing } from './outgoing.ts'
import { nodeTimes, type NodeTimes, type RedisCalls } from './nodes.ts'
import { portOf } from './port.ts'
import { RedisPresence } from './presence.ts'
import { Reader } from './reader.ts'
import { StreamClaims } from './stream-claims.ts'
import { Subscriptions } from './subscriptions.ts'

/** Milliseconds that a start waits for the server, which may be down. */
const startTimeout = 2_000
/** Milliseconds for which a close waits until the server knows of it. */
const closeTimeout = 1_000
const failed: Outcome = { state: 'failed' }

/** The parts of a broker that has been started. */
interface Started {
  readonly node: string
  readonly handlers: BrokerHandlers
  readonly links: Links
  readonly reader: Reader
  readonly subscriptions: Subscriptions
  readonly outgoing: Outgoing
  readonly presence: RedisPresence
  readonly control: RedisControl
  readonly claims: StreamClaims
}

interface Settings {
  readonly port: RedisPort
  readonly prefix: string
  readonly partitions: number
  readonly heartbeat: number
  readonly linger: number
  readonly times: NodeTimes
}

class RedisBroker implements Broker {
  readonly capabilities: BrokerCapabilities = { order: 'total', history: true, presence: true, once: 'shared' }
  readonly #settings: Settings
  readonly #keys: Keys
  readonly #stats = { mended: 0, holes: 0, resets: 0, dropped: 0 }
  #unreadable = 0
  #started: Started | undefined
  #isClosed = false
  readonly presence: BrokerPresence = {
    change: async changes => this.#open().presence.change(changes),
    read: async (topic, limit) => this.#open().presence.read(topic, limit),
    report: async counts => this.#open().presence.report(counts),
    counts: async topics => this.#open().presence.counts(topics),
    topics: async limit => this.#open().presence.topics(limit)
  }

  readonly streams: BrokerStreams = {
    claim: async topic => this.#open().claims.claim(topic),
    isTaken: async topic => this.#open().claims.isTaken(topic),
    release: topic => { if (!this.#isClosed) this.#started?.claims.release(topic) }
  }

  constructor (settings: Settings) {
    this.#settings = settings
    this.#keys = new Keys(settings.prefix, settings.partitions)
  }

  async start (node: string, handlers: BrokerHandlers): Promise<void> {
    if (this.#started !== undefined) throw new FST_ROOMS_INVALID_OPTION('broker', 'a broker of its own', 'a broker that has already been started')
    const { port, heartbeat, linger } = this.#settings
    const keys = this.#keys
    const epochs = new Epochs()
    const links: Links = new Links(port, keys, node, heartbeat, {
      message: (channel, bytes) => {
        if (!isDelta(bytes)) {
          subscriptions.receive(channel, bytes)
          return
        }
        const topic = subscriptions.topicOf(channel)
        if (topic !== undefined) presence.receive(topic, bytes)
      },
      control: bytes => { control.read(bytes) },
      recover: async link => {
        await subscriptions.recover(link)
        control.up()
        claims.up()
        presence.up().catch(() => {}) // tried again with the next sign of life
      },
      up: () => {
        subscriptions.resume()
        outgoing.resume()
      },
      state: (state, cause) => { handlers.state(state, cause) }
    })
    // Kinds of bytes that cannot be read, and were reported.
    const told = new Set<string>()
    const unreadable = (what: string): void => {
      this.#unreadable++
      const kind = what.replace(/ ".*/s, '')
      // It is no reason why the broker is down.
      if (told.has(kind) || links.state === 'down') return
      told.add(kind)
      handlers.state(links.state, new FST_ROOMS_BROKER_UNREADABLE(what))
    }
    const linkOf = (partition: number) => links.of(partition)
    const reader = new Reader(keys, epochs, linkOf, unreadable)
    const subscriptions: Subscriptions = new Subscriptions(keys, epochs, reader, linkOf, {
      node,
      entry: (topic, publication, position) => {
        handlers.entry(topic, publication, position)
        if (publication.node === node) outgoing.delivered(publication.uid)
      },
      lost: line => {
        handlers.lost([line.topic])
        outgoing.review(line)
      },
      skipped: line => { outgoing.review(line) },
      read: (topic, after, limit, retention) => reader.behind(topic, after, limit, retention),
      renew: (line, isDifferent) => subscriptions.renew(line, isDifferent),
      unreadable,
      stats: this.#stats
    }, { isCluster: port.isCluster, linger })
    const outgoing: Outgoing = new Outgoing(keys, epochs, { node: randomBytes(6).toString('hex'), isCluster: port.isCluster, line: topic => subscriptions.line(topic), linkOf })
    const calls: RedisCalls = { call: (partition, script, keys, args) => links.of(partition).call(script, keys, args) }
    const shared = { calls, keys, node, publish: port.isCluster ? 'SPUBLISH' : 'PUBLISH', unreadable } as const
    const presence = new RedisPresence({
      ...shared,
      handlers,
      revived: () => {
        control.up()
        claims.up()
      },
      forget: async name => { await Promise.all([control.forget(name), claims.sweep(name)]) }
    }, this.#settings.times)
    const control: RedisControl = new RedisControl({ ...shared, incarnation: () => presence.nodes.incarnation, receive: (from, bytes) => { handlers.control(from, bytes) } })
    const claims: StreamClaims = new StreamClaims({ calls, keys, handlers, name: () => presence.nodes.name })
    this.#started = { presence, control, claims, node, handlers, links, reader, subscriptions, outgoing }
    let timer: NodeJS.Timeout | undefined
    await Promise.race([links.start(), new Promise(resolve => { timer = setTimeout(resolve, startTimeout) })])
    clearTimeout(timer)
    links.report()
    const { cause } = links
    const fault = cause instanceof RedisAnswerError && cause.word === 'NOPERM' ? new FST_ROOMS_BROKER_UNSUITABLE(`its user lacks a right: ${cause.message}`) : cause
    if (!(fault instanceof FST_ROOMS_BROKER_UNSUITABLE)) return
    await this.close()
    throw fault
  }

  async attach (topics: string[], retention?: Retention): Promise<(AttachedPosition | null)[]> {
    const { subscriptions } = this.#open()
    return Promise.all(topics.map(topic => subscriptions.attach(topic, retention)))
  }

  async detach (topics: string[]): Promise<void> {
    if (this.#started === undefined) return
    const { subscriptions, outgoing } = this.#started
    for (const topic of topics) {
      const line = subscriptions.line(topic)
      if (line === undefined) continue
      subscriptions.detach(topic)
      outgoing.review(line)
    }
  }

  publish (batch: Publication[]): Promise<Outcome[]> {
    const started = this.#started
    if (started === undefined || this.#isClosed) return Promise.resolve(batch.map(() => failed))
    const { outgoing, subscriptions, handlers } = started
    return Promise.all(batch.map(publication => {
      const { topic } = publication
      // The members of this node do not wait for a server that has nothing to say about the order.
      if (!outgoing.isRelayed(publication) && subscriptions.line(topic) !== undefined) handlers.entry(topic, publication)
      return outgoing.publish(publication)
    }))
  }

  async history (topic: string, query: HistoryQuery): Promise<HistoryPage> {
    return this.#open().reader.page(topic, query)
  }

  async control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'> {
    if (this.#started === undefined || this.#isClosed) return 'unknown'
    return this.#started.control.send(to, bytes)
  }

  hold (add: string[], remove: string[]): void {
    if (!this.#isClosed) this.#started?.control.hold(add, remove)
  }

  stats (): BrokerStats {
    const started = this.#started
    return {
      lag: started?.links.lag ?? 0,
      queued: started?.outgoing.size ?? 0,
      queuedBytes: started?.outgoing.bytes ?? 0,
      topics: started?.subscriptions.size ?? 0,
      reconnects: started?.links.reconnects ?? 0,
      resubscribed: started?.subscriptions.resubscribed ?? 0,
      missedProbes: started?.links.missedProbes ?? 0,
      ...this.#stats,
      fenced: started?.outgoing.fenced ?? 0,
      unreadable: this.#unreadable
    }
  }

  async close (): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    if (this.#started !== undefined) {
      const { presence, control, claims } = this.#started
      let timer: NodeJS.Timeout | undefined
      // Without a connection others find out later that the node has gone.
      await Promise.race([Promise.allSettled([claims.close().then(() => presence.close()), control.close()]), new Promise(resolve => { timer = setTimeout(resolve, closeTimeout) })])
      clearTimeout(timer)
    }
    this.#started?.subscriptions.close()
    this.#started?.outgoing.close()
    this.#started?.links.close()
  }

  #open (): Started {
    if (this.#started === undefined || this.#isClosed) throw new Error('the broker has closed')
    return this.#started
  }
}

const prefixRegExp = /^[!-z|~]{1,64}$/

/**
 * Returns a broker that carries messages between nodes over a server of Redis 7.0 or later, or Valkey 7.2 or later; with Sentinel or as a cluster, too. All nodes
 * with the same server, `prefix` and `partitions` share their rooms.
 *
 * ```ts
 * await app.register(fastifyRedis, { host: '127.0.0.1' })
 * await app.register(fastifyRooms, { topics, broker: redisBroker({ client: app.redis }) })
 * ```
 *
 * @param times - for tests
 * @throws `FST_ROOMS_INVALID_OPTION` if an option is wrong. `start` rejects with `FST_ROOMS_BROKER_UNSUITABLE` if the server is too old, or its user lacks a right
 */
export function redisBroker (options: RedisBrokerOptions, times: NodeTimes = nodeTimes): Broker {
  const { client, prefix = 'rooms', partitions = 64, heartbeat = 4_000, linger = 30_000 } = Object(options) as RedisBrokerOptions
  if (typeof prefix !== 'string' || !prefixRegExp.test(prefix)) throw new FST_ROOMS_INVALID_OPTION('prefix', '1 to 64 characters of ASCII without blanks, "{" and "}"', JSON.stringify(prefix) ?? typeof prefix)
  for (const [name, value, least, most] of [['partitions', partitions, 1, 1_024], ['heartbeat', heartbeat, 100, 5_000], ['linger', linger, 0, 3_600_000]] as const) {
    if (!Number.isInteger(value) || value < least || value > most) throw new FST_ROOMS_INVALID_OPTION(name, `a whole number from ${least} to ${most}`, String(value))
  }
  return new RedisBroker({ port: portOf(client), prefix, partitions, heartbeat, linger, times })
}
