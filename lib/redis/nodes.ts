import type { RedisArgument, RedisReply } from '../../types/redis.ts'
import type { Keys } from './keys.ts'
import { beatScript, endScript } from './node-scripts.ts'
import type { Script } from './script.ts'

/** The servers, as presence and control use them. */
export interface RedisCalls {
  /** Runs a script on the server of a partition. Rejects if there is no answer within 5 s. */
  call (partition: number, script: Script, keys: readonly string[], args: readonly RedisArgument[]): Promise<RedisReply>
}

/** Times in milliseconds. Tests shorten them. */
export interface NodeTimes {
  /** Between two signs of life. */
  readonly every: number
  /** From its last sign of life until a node counts as dead. */
  readonly ttl: number
}

export const nodeTimes: NodeTimes = { every: 5_000, ttl: 15_000 }

/**
 * Milliseconds for which one node alone sweeps a dead one. If it is killed meanwhile, another one goes on with its next beat: members of the first are gone 28 s after its
 * last beat (15 to count as dead, 5 until a beat finds it, 3, and 5 again). Two nodes that sweep at the same time report each member once.
 */
const claim = 3_000
/** The partition of the keys of nodes. */
export const nodePartition = 0

export interface NodesPorts {
  /** This node counted as dead. It has a new incarnation now, and all that it has noted is to be noted again. */
  revived (): void
  /** The server knows that this node lives. */
  alive (): Promise<void>
  /** Removes all that a dead node, or an earlier incarnation of this one, has noted. @param name - `<node>:<incarnation>` */
  sweep (name: string): Promise<void>
}

/** The strings of a reply that is a list. */
export function texts (reply: RedisReply): string[] {
  return (reply as RedisReply[]).map(String)
}

/** Splits `<node>:<incarnation>`. */
export function parseName (name: string): [node: string, incarnation: string] {
  const at = name.lastIndexOf(':')
  return [name.slice(0, at), name.slice(at + 1)]
}

/**
 * Which nodes live. Each says so every 5 s, and one that has not for 15 s is dead. The time is the server's. A node that counted as dead goes on as another incarnation, so
 * that what is swept late is only what it had noted before.
 */
export class Nodes {
  readonly #calls: RedisCalls
  readonly #node: string
  readonly #times: NodeTimes
  readonly #ports: NodesPorts
  readonly #alive: string
  readonly #claims: string
  /** The beginning of the keys of counts. */
  readonly counts: string
  incarnation = 1
  /** Names under which this node counted as dead. What was on its way then may have been noted after another node swept it. */
  readonly #former = new Set<string>()
  /** Dead nodes that this one is sweeping. */
  readonly #sweeping = new Set<string>()
  #isNew = true
  #isClosed = false
  #timer: NodeJS.Timeout | undefined
  #beat: Promise<void> | undefined
  /** Live nodes, each as `<node>:<incarnation>`. */
  live: ReadonlySet<string> = new Set()

  constructor (calls: RedisCalls, keys: Keys, node: string, times: NodeTimes, ports: NodesPorts) {
    this.#calls = calls
    this.#node = node
    this.#times = times
    this.#ports = ports
    this.#alive = keys.other(nodePartition, 'alive')
    this.#claims = keys.other(nodePartition, 'sweep:')
    this.counts = keys.other(nodePartition, 'counts:')
  }

  get name (): string { return `${this.#node}:${this.incarnation}` }
  get alive (): string { return this.#alive }

  /** Says that this node lives, and reads which others do. Call it when the connection is new; from then on it goes on by itself. */
  beat (): Promise<void> {
    this.#beat ??= this.#say().finally(() => {
      this.#beat = undefined
      clearTimeout(this.#timer)
      if (!this.#isClosed) this.#timer = setTimeout(() => { this.beat().catch(() => {}) }, this.#times.every).unref()
    })
    return this.#beat
  }

  /** Reads which nodes live from now on: an answer that is on its way may be older. */
  async look (): Promise<void> {
    await this.#beat?.catch(() => {})
    await this.beat()
  }

  /** Says that this node ends, so that another one removes at once what it has left. */
  async close (): Promise<void> {
    this.#isClosed = true
    clearTimeout(this.#timer)
    if (!this.#isNew) await this.#calls.call(nodePartition, endScript, [this.#alive, this.counts + this.name], [this.name, '0'])
  }

  async #say (): Promise<void> {
    const { ttl } = this.#times
    const reply = texts(await this.#calls.call(nodePartition, beatScript, [this.#alive, this.counts + this.name], [this.name, String(ttl), this.#isNew ? '1' : '0', this.#claims, String(claim)]))
    const [state, count] = reply
    if (this.#isClosed) return
    if (state === 'dead') {
      this.#former.add(this.name)
      this.incarnation++
      this.#isNew = true
      this.#ports.revived()
      await this.#say()
      return
    }
    this.#isNew = false
    const end = 2 + Number(count)
    this.live = new Set(reply.slice(2, end))
    await this.#ports.alive()
    // If it fails, another node does it after the claim, or this one after the next beat.
    for (const name of new Set([...this.#former, ...reply.slice(end)])) this.#sweep(name).catch(() => {})
  }

  async #sweep (name: string): Promise<void> {
    if (this.#sweeping.has(name)) return
    this.#sweeping.add(name)
    try {
      await this.#ports.sweep(name)
      await this.#calls.call(nodePartition, endScript, [this.#alive, this.counts + name], [name, '1'])
      this.#former.delete(name)
    } finally {
      this.#sweeping.delete(name)
    }
  }
}
