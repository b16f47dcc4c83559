import type { RedisPort, RedisShard } from '../../types/redis.ts'
import type { BrokerState } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { commonChannel } from './control.ts'
import type { Keys } from './keys.ts'
import { Link, type LinkEvents } from './link.ts'

/** Milliseconds after which the servers of a cluster are read again, if they could not be read or one of them has gone. */
const rereadAfter = 500

export interface LinksEvents {
  message (channel: string, bytes: Buffer): void
  control (bytes: Buffer): void
  recover (link: Link): Promise<void>
  /** A link has come up: what waits may be sent. */
  up (): void
  state (state: BrokerState, cause: Error | undefined): void
}

/** The servers of a deployment: one, or the primaries of a cluster, whose partitions may move between them. */
export class Links {
  readonly #port: RedisPort
  readonly #keys: Keys
  readonly #node: string
  readonly #heartbeat: number
  readonly #events: LinksEvents
  readonly #linkEvents: LinkEvents
  #links: Link[] = []
  /** By partition. */
  #owners: Link[] = []
  #shards = ''
  #state: BrokerState | undefined
  #cause: Error | undefined
  #timer: NodeJS.Timeout | undefined
  /** Numbers of links that have been closed. */
  #reconnects = 0
  #missedProbes = 0
  /** The first attempts of new links are under way: until they have ended, the state is not told. */
  #isBuilding = true
  #isClosed = false

  constructor (port: RedisPort, keys: Keys, node: string, heartbeat: number, events: LinksEvents) {
    this.#port = port
    this.#keys = keys
    this.#node = node
    this.#heartbeat = heartbeat
    this.#events = events
    this.#linkEvents = { ...events, changed: () => { this.#changed() } }
    // Until the servers are known, there is a link that is never open.
    const none = new Link({ port, shard: '', heartbeat, channels: [], probeKey: '' }, this.#linkEvents)
    this.#owners = keys.slots.map(() => none)
  }

  get lag (): number { return Math.max(0, ...this.#links.map(({ lag }) => lag)) }
  get reconnects (): number { return this.#reconnects + this.#links.reduce((sum, { reconnects }) => sum + reconnects, 0) }

  get missedProbes (): number { return this.#missedProbes + this.#links.reduce((sum, { missedProbes }) => sum + missedProbes, 0) }

  /** The state that was told last. */
  get state (): BrokerState { return this.#state ?? 'down' }

  of (partition: number): Link { return this.#owners[partition]! }

  /** The channel of all nodes. */
  get common (): string { return commonChannel(this.#keys) }

  /** Settles when the first attempts have ended, however. */
  async start (): Promise<void> {
    await this.#read()
  }

  close (): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    for (const link of this.#links) link.close()
    this.#port.close()
  }

  async #read (): Promise<void> {
    try {
      const shards = await this.#port.shards()
      if (this.#isClosed) return
      const text = JSON.stringify(shards)
      if (text !== this.#shards) await this.#build(shards, text)
    } catch (error) {
      this.#tell('down', asError(error))
      this.#reread()
    }
  }

  #reread (): void {
    clearTimeout(this.#timer)
    if (this.#isClosed) return
    this.#timer = setTimeout(() => { this.#read().catch(() => {}) }, rereadAfter)
    this.#timer.unref()
  }

  /** Makes the links anew. Publications whose answers are to come are sent again on the new ones. */
  async #build (shards: RedisShard[], text: string): Promise<void> {
    const ownerOf = (slot: number): number => shards.findIndex(({ slots }) => slots.some(([first, last]) => first <= slot && slot <= last))
    const owners = this.#keys.slots.map(ownerOf)
    if (owners.includes(-1)) throw new Error('slots of the cluster have no primary')
    this.#shards = text
    this.#isBuilding = true
    this.#reconnects = this.reconnects
    this.#missedProbes = this.missedProbes
    const isAgain = this.#links.length > 0
    for (const link of this.#links) link.close()
    const links = shards.map(({ id }, index) => {
      const first = owners.indexOf(index)
      return first === -1 ? undefined : this.#link(id, first, isAgain)
    })
    this.#links = links.filter(link => link !== undefined)
    this.#owners = owners.map(owner => links[owner]!)
    await Promise.all(this.#links.map(link => link.start()))
    this.report()
  }

  /** Tells the state, though the first attempts may not have ended. */
  report (): void {
    if (!this.#isBuilding) return
    this.#isBuilding = false
    if (this.#links.length > 0 || this.#state === undefined) this.#changed()
  }

  /**
   * @param partition - the first one that the server has: its channels and keys are there
   * @param isAgain - there were links before
   */
  #link (shard: string, partition: number, isAgain: boolean): Link {
    const own = this.#keys.other(partition, `n:${this.#node}`)
    return new Link({
      port: this.#port,
      shard,
      heartbeat: this.#heartbeat,
      channels: partition === 0 ? [own, this.common] : [own],
      probeKey: this.#keys.other(partition, `p:${this.#node}`),
      isAgain
    }, this.#linkEvents)
  }

  #changed (): void {
    this.#events.up()
    if (this.#isBuilding) return
    const worst = this.#links.find(({ state }) => state === 'down') ?? this.#links.find(({ state }) => state === 'degraded') ?? this.#links.find(({ cause }) => cause !== undefined)
    this.#tell(worst?.state ?? (this.#links.length === 0 ? 'down' : 'up'), worst?.cause)
    if (this.#port.isCluster && worst?.state === 'down') this.#reread()
  }

  #tell (state: BrokerState, cause: Error | undefined): void {
    if (this.#isClosed || (this.#state === state && this.#cause?.message === cause?.message)) return
    this.#state = state
    this.#cause = cause
    this.#events.state(state, cause)
  }

  /** Why the broker cannot work. */
  get cause (): Error | undefined { return this.#state === 'down' ? this.#cause : undefined }
}
