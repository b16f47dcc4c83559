import { decodeControl, encodeControl } from './control-codec.ts'
import type { Keys } from './keys.ts'
import { nodePartition, texts, type RedisCalls } from './nodes.ts'
import { script } from './script.ts'

/** Milliseconds for which the server knows that a node holds a user; nodes say it again before. */
const lifetime = 3_600_000
const refreshEvery = 1_200_000
/** Users that are noted at a time. */
const perChunk = 100

/** Sends bytes over a channel. Arguments: PUBLISH or SPUBLISH, channel, bytes. Returns how many connections got them. */
const sendScript = script('return redis.call(ARGV[1], ARGV[2], ARGV[3])')

/** Names the nodes that hold a user. Key: of the user. */
const holdersScript = script("return redis.call('SMEMBERS', KEYS[1])")

/** Notes whether a node holds a user. Key: of the user. Arguments: SADD or SREM, the node. */
const holdScript = script(`
redis.call(ARGV[1], KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ${lifetime})
return 1
`)

/** The channel by which a node is reached alone. */
export function channelOf (keys: Keys, node: string): string {
  return keys.other(nodePartition, `n:${node}`)
}

/** The channel of all nodes. */
export function commonChannel (keys: Keys): string {
  return keys.other(nodePartition, 'n')
}

export interface RedisControlPorts {
  readonly calls: RedisCalls
  readonly keys: Keys
  readonly node: string
  readonly publish: 'PUBLISH' | 'SPUBLISH'
  receive (fromNode: string, bytes: Buffer): void
  /** Bytes of a message cannot be read. @param what - names them */
  unreadable (what: string): void
}

/** Control messages between nodes: to one, to all, and to those that hold a user. */
export class RedisControl {
  readonly #ports: RedisControlPorts
  readonly #held = new Set<string>()
  /** Users whose notes are not written. */
  readonly #changed = new Set<string>()
  #writing: Promise<void> | undefined
  readonly #timer: NodeJS.Timeout

  constructor (ports: RedisControlPorts) {
    this.#ports = ports
    this.#timer = setInterval(() => { this.up() }, refreshEvery).unref()
  }

  async send (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'> {
    try {
      if (to.startsWith('user:')) return await this.#toUser(to.slice(5), bytes)
      const { keys, node } = this.#ports
      const name = to.slice(5)
      if (to !== '*' && name === node) return 'gone'
      const receivers = await this.#publish(to === '*' ? commonChannel(keys) : channelOf(keys, name), bytes)
      // This node has the channel of all nodes, too.
      return receivers > (to === '*' ? 1 : 0) ? 'sent' : 'gone'
    } catch {
      return 'unknown'
    }
  }

  hold (add: string[], remove: string[]): void {
    for (const user of remove) if (this.#held.delete(user)) this.#changed.add(user)
    for (const user of add) {
      this.#held.add(user)
      this.#changed.add(user)
    }
    this.#write()
  }

  /** Says again which users this node holds. Call it for each new connection. */
  up (): void {
    for (const user of this.#held) this.#changed.add(user)
    this.#write()
  }

  /** Takes bytes of a control channel. */
  read (message: Buffer): void {
    const control = decodeControl(message)
    if (control === undefined) this.#ports.unreadable('a message between nodes')
    else if (control.node !== this.#ports.node) this.#ports.receive(control.node, control.bytes)
  }

  /** Says that this node holds no user any more. Settles when that is noted, or cannot be. */
  async close (): Promise<void> {
    clearInterval(this.#timer)
    this.hold([], [...this.#held])
    await this.#writing
  }

  async #toUser (user: string, bytes: Buffer): Promise<'sent' | 'gone'> {
    const { keys, node, calls } = this.#ports
    const { partition, key } = this.#keyOf(user)
    const others = texts(await calls.call(partition, holdersScript, [key], [])).filter(name => name !== node)
    const receivers = await Promise.all(others.map(async name => {
      const count = await this.#publish(channelOf(keys, name), bytes)
      // A node without connection is dead, or says again that it holds the user when it is back.
      if (count === 0) await calls.call(partition, holdScript, [key], ['SREM', name])
      return count
    }))
    return receivers.some(count => count > 0) ? 'sent' : 'gone'
  }

  async #publish (channel: string, bytes: Buffer): Promise<number> {
    const { calls, publish, node } = this.#ports
    return Number(await calls.call(nodePartition, sendScript, [], [publish, channel, encodeControl(node, bytes)]))
  }

  #write (): void {
    this.#writing ??= this.#writeAll().finally(() => { this.#writing = undefined })
  }

  /** Writes the notes that have changed, the latest state of each. Those that fail are written with the next ones, or for the next connection. */
  async #writeAll (): Promise<void> {
    while (this.#changed.size > 0) {
      const users = [...this.#changed].slice(0, perChunk)
      for (const user of users) this.#changed.delete(user)
      const written = await Promise.allSettled(users.map(user => {
        const { partition, key } = this.#keyOf(user)
        return this.#ports.calls.call(partition, holdScript, [key], [this.#held.has(user) ? 'SADD' : 'SREM', this.#ports.node])
      }))
      const failed = users.filter((_, index) => written[index]!.status === 'rejected')
      for (const user of failed) this.#changed.add(user)
      if (failed.length > 0) return
    }
  }

  #keyOf (user: string): { partition: number, key: string } {
    const { keys } = this.#ports
    const partition = keys.partitionOf(user)
    return { partition, key: keys.other(partition, `h:${user}`) }
  }
}
