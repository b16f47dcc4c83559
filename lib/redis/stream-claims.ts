import type { BrokerHandlers, BrokerStreams } from '../../types/index.ts'
import type { Keys } from './keys.ts'
import { nodePartition, type RedisCalls } from './nodes.ts'
import { script } from './script.ts'

/** Milliseconds that the server knows of a claim; nodes say it again before. */
const lifetime = 3_600_000
const refreshEvery = 1_200_000
/** Milliseconds after which claims are given back again, if the server has not answered. */
const retryAfter = 500
/** Topics that are ended at a time. */
const perChunk = 100

/**
 * Claims a topic for a node, unless another one has it.
 *
 * Keys: topic = `<node>:<incarnation>`, the topics of this node. Arguments: `<node>:<incarnation>`, topic. Returns 1 if the node has the topic now.
 */
const claimScript = script(`
local holder = redis.call('HGET', KEYS[1], ARGV[2])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ${lifetime})
redis.call('PEXPIRE', KEYS[2], ${lifetime})
return 1
`)

/** Returns which node has claimed a topic, or nothing. Key: topic = `<node>:<incarnation>`. Argument: topic. */
const holderScript = script('return redis.call(\'HGET\', KEYS[1], ARGV[1]) or \'\'')

/** Gives topics back. Keys and first argument as for a claim, then topics. */
const releaseScript = script(`
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
  redis.call('SREM', KEYS[2], ARGV[i])
end
return 1
`)

/** Returns some topics of a node. Key: its topics. Argument: most topics. */
const topicsScript = script('return redis.call(\'SRANDMEMBER\', KEYS[1], ARGV[1])')

export interface StreamClaimsPorts {
  readonly calls: RedisCalls
  readonly keys: Keys
  readonly handlers: Pick<BrokerHandlers, 'orphaned'>
  /** `<node>:<incarnation>` */
  name (): string
}

/** The topics whose streams are written by one node. They are given back by that node, or by the one that sweeps it when it is dead. */
export class StreamClaims implements BrokerStreams {
  readonly #ports: StreamClaimsPorts
  readonly #claimed = new Set<string>()
  /** Topics to be given back. */
  readonly #given = new Set<string>()
  #giving: Promise<void> | undefined
  #retry: NodeJS.Timeout | undefined
  readonly #timer: NodeJS.Timeout

  constructor (ports: StreamClaimsPorts) {
    this.#ports = ports
    this.#timer = setInterval(() => { this.up() }, refreshEvery).unref()
  }

  async claim (topic: string): Promise<boolean> {
    // The topic is not to be given back any more, if the server has not answered that yet.
    this.#given.delete(topic)
    this.#claimed.add(topic)
    const isClaimed = await this.#claim(topic)
    if (!isClaimed) this.#claimed.delete(topic)
    return isClaimed
  }

  async isTaken (topic: string): Promise<boolean> {
    const holder = String(await this.#ports.calls.call(nodePartition, holderScript, [this.#holders], [topic]))
    return holder !== '' && holder !== this.#ports.name()
  }

  release (topic: string): void {
    this.#claimed.delete(topic)
    this.#given.add(topic)
    this.#give()
  }

  /** Says again which topics this node has claimed: the server may have lost that, or knows an earlier incarnation of this node. */
  up (): void {
    for (const topic of this.#claimed) this.#claim(topic).catch(() => {})
  }

  /** Has the topics ended that a dead node had claimed, or an earlier incarnation of this one. @param name - `<node>:<incarnation>` */
  async sweep (name: string): Promise<void> {
    const { calls, handlers } = this.#ports
    for (;;) {
      const topics = (await calls.call(nodePartition, topicsScript, [this.#topicsOf(name)], [String(perChunk)]) as unknown[]).map(String)
      if (topics.length === 0) return
      await handlers.orphaned?.(topics)
      await this.#release(name, topics)
    }
  }

  /** Settles when all claims are given back, or cannot be. */
  async close (): Promise<void> {
    clearInterval(this.#timer)
    await this.#giving
    clearTimeout(this.#retry)
  }

  #give (): void {
    this.#giving ??= this.#giveBack().finally(() => { this.#giving = undefined })
  }

  async #giveBack (): Promise<void> {
    while (this.#given.size > 0) {
      const topics = [...this.#given].slice(0, perChunk)
      try {
        await this.#release(this.#ports.name(), topics)
        for (const topic of topics) this.#given.delete(topic)
      } catch {
        clearTimeout(this.#retry)
        this.#retry = setTimeout(() => { this.#give() }, retryAfter).unref()
        return
      }
    }
  }

  async #claim (topic: string): Promise<boolean> {
    const { calls, name } = this.#ports
    return Number(await calls.call(nodePartition, claimScript, [this.#holders, this.#topicsOf(name())], [name(), topic])) === 1
  }

  async #release (name: string, topics: readonly string[]): Promise<void> {
    await this.#ports.calls.call(nodePartition, releaseScript, [this.#holders, this.#topicsOf(name)], [name, ...topics])
  }

  get #holders (): string { return this.#ports.keys.other(nodePartition, 'streams') }

  #topicsOf (name: string): string { return this.#ports.keys.other(nodePartition, `streams:${name}`) }
}
