import { decodeControl, encodeControl } from './control-codec.ts'
import type { Keys } from './keys.ts'
import { nodePartition, parseName, texts, type RedisCalls } from './nodes.ts'
import { script } from './script.ts'

/** Milliseconds for which the server knows that a node holds a user; nodes say it again before. */
const lifetime = 3_600_000
const refreshEvery = 1_200_000
/** Milliseconds after which notes are written again that the server has refused, or not answered. */
const retryAfter = 500
/** Users that are noted at a time. */
const perChunk = 100

/** Sends bytes over a channel. Arguments: PUBLISH or SPUBLISH, channel, bytes. Returns how many connections got them. */
const sendScript = script('return redis.call(ARGV[1], ARGV[2], ARGV[3])')

/** Names the nodes that hold a user, and the incarnation of each. Key: of the user. */
const holdersScript = script("return redis.call('HGETALL', KEYS[1])")

/** Notes that a node holds a user. Keys: of the user, of the node's users. Arguments: user, node, incarnation. */
const holdScript = script(`
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('SADD', KEYS[2], ARGV[1])
for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], ${lifetime}) end
return 1
`)

/**
 * Notes that a node does not hold users any more, unless a later incarnation of it does.
 *
 * Keys: of the node's users, of each user. Arguments: node, incarnation, the users.
 */
const releaseScript = script(`
for i = 2, #KEYS do
  if redis.call('HGET', KEYS[i], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[i], ARGV[1]) end
  redis.call('SREM', KEYS[1], ARGV[i + 1])
end
return 1
`)

/** Names the users that a node holds. Key: of the node's users. */
const heldScript = script("return redis.call('SMEMBERS', KEYS[1])")

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
  /** The incarnation of this node: see `Nodes`. */
  incarnation (): number
  readonly publish: 'PUBLISH' | 'SPUBLISH'
  receive (fromNode: string, bytes: Buffer): void
  /** Bytes of a message cannot be read. @param what - names them */
  unreadable (what: string): void
}

/**
 * Control messages between nodes: to one, to all, and to those that hold a user. The server knows the nodes of a user, and the users of a node, so that a node that has
 * died is forgotten.
 */
export class RedisControl {
  readonly #ports: RedisControlPorts
  readonly #held = new Set<string>()
  /** Users whose notes are not written. */
  readonly #changed = new Set<string>()
  #writing: Promise<void> | undefined
  #retry: NodeJS.Timeout | undefined
  #isClosed = false
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

  /** Forgets which users a dead node held, or an earlier incarnation of this one. @param name - `<node>:<incarnation>` */
  async forget (name: string): Promise<void> {
    const { keys, calls } = this.#ports
    await Promise.all(keys.slots.map(async (_, partition) => {
      const users = texts(await calls.call(partition, heldScript, [usersKey(keys, partition, name)], []))
      for (let from = 0; from < users.length; from += perChunk) await this.#release(partition, name, users.slice(from, from + perChunk))
    }))
  }

  /** Takes bytes of a control channel. */
  read (message: Buffer): void {
    const control = decodeControl(message)
    if (control === undefined) this.#ports.unreadable('a message between nodes')
    else if (control.node !== this.#ports.node) this.#ports.receive(control.node, control.bytes)
  }

  /** Says that this node holds no user any more. Settles when that is noted, or cannot be. */
  async close (): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#timer)
    clearTimeout(this.#retry)
    this.hold([], [...this.#held])
    await this.#writing
  }

  async #toUser (user: string, bytes: Buffer): Promise<'sent' | 'gone'> {
    const { keys, node, calls } = this.#ports
    const partition = keys.partitionOf(user)
    const holders = texts(await calls.call(partition, holdersScript, [userKey(keys, partition, user)], []))
    const others = holders.flatMap((name, i) => i % 2 === 0 && name !== node ? [[name, holders[i + 1]!] as const] : [])
    const receivers = await Promise.all(others.map(async ([name, incarnation]) => {
      const count = await this.#publish(channelOf(keys, name), bytes)
      // A node without connection is dead, or says again that it holds the user when it is back.
      if (count === 0) await this.#release(partition, `${name}:${incarnation}`, [user])
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

  /** Writes the notes that have changed, the latest state of each. Those that fail are written with the next ones, for the next connection, or after a pause. */
  async #writeAll (): Promise<void> {
    while (this.#changed.size > 0) {
      const users = [...this.#changed].slice(0, perChunk)
      for (const user of users) this.#changed.delete(user)
      const { keys, calls, node, incarnation } = this.#ports
      const name = `${node}:${incarnation()}`
      const written = await Promise.allSettled(users.map(user => {
        const partition = keys.partitionOf(user)
        if (!this.#held.has(user)) return this.#release(partition, name, [user])
        return calls.call(partition, holdScript, [userKey(keys, partition, user), usersKey(keys, partition, name)], [user, ...parseName(name)])
      }))
      const failed = users.filter((_, index) => written[index]!.status === 'rejected')
      for (const user of failed) this.#changed.add(user)
      if (failed.length === 0) continue
      if (!this.#isClosed) this.#retry ??= setTimeout(this.#writeAgain, retryAfter).unref()
      return
    }
  }

  readonly #writeAgain = (): void => {
    this.#retry = undefined
    this.#write()
  }

  async #release (partition: number, name: string, users: readonly string[]): Promise<void> {
    const { keys, calls } = this.#ports
    await calls.call(partition, releaseScript, [usersKey(keys, partition, name), ...users.map(user => userKey(keys, partition, user))], [...parseName(name), ...users])
  }
}

/** The nodes that hold a user: node = incarnation. */
function userKey (keys: Keys, partition: number, user: string): string {
  return keys.other(partition, `hu:${user}`)
}

/** The users of one partition that a node holds. @param name - `<node>:<incarnation>` */
function usersKey (keys: Keys, partition: number, name: string): string {
  return keys.other(partition, `hn:${name}`)
}
