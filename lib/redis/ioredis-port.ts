import type { IoredisClient, RedisArgument, RedisConnection, RedisConnectionEvents, RedisPort, RedisReply, RedisShard } from '../../types/redis.ts'
import { RedisAnswerError } from './answer-error.ts'
import { shardsOf, singlePort } from './shards.ts'

/** The members of a `Redis` of ioredis. */
interface Redis extends IoredisClient {
  readonly stream?: { cork (): void, uncork (): void }
  duplicate (options: object): Redis
  connect (): Promise<void>
  disconnect (reconnect?: boolean): void
  readonly options: { readonly host?: string, readonly port?: number, readonly sentinels?: readonly object[] | null }
  callBuffer (command: string, args: readonly RedisArgument[]): Promise<RedisReply>
  subscribe (...channels: string[]): Promise<unknown>
  unsubscribe (...channels: string[]): Promise<unknown>
  ssubscribe (...channels: string[]): Promise<unknown>
  sunsubscribe (...channels: string[]): Promise<unknown>
  on (event: string, listener: (...args: any[]) => void): this
  once (event: string, listener: (...args: any[]) => void): this
}

/** The members of a `Cluster` of ioredis. */
interface Cluster extends IoredisClient {
  /** By slot: the names of its nodes, the primary first. */
  readonly slots: string[][]
  duplicate (nodes: never[], options: object): Cluster
  connect (): Promise<void>
  disconnect (): void
  nodes (role: 'master'): Redis[]
  on (event: string, listener: (...args: any[]) => void): this
}

/**
 * The options of a connection of the broker. By default ioredis repeats commands that were not answered, prefixes keys but not the channels in the arguments of a script,
 * and subscribes again by itself.
 */
const ownOptions = {
  lazyConnect: true,
  keyPrefix: '',
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  maxRetriesPerRequest: 0,
  autoResubscribe: false,
  retryStrategy: null,
  sentinelRetryStrategy: null,
  reconnectOnError: null,
  enableAutoPipelining: false,
  enableReadyCheck: false,
  stringNumbers: false,
  replyMapping: 'legacy',
  readOnly: false,
  monitor: false,
  commandTimeout: undefined,
  connectTimeout: 5_000,
  socketTimeout: undefined
}

/**
 * Other options with Sentinel: one that does not answer must leave time for the others. A connection whose server has become a replica is ended by a probe; the option
 * `failoverDetector` would do so sooner, and write to the console for each Sentinel that is gone.
 */
const sentinelOptions = { role: 'master', failoverDetector: false, connectTimeout: 1_500, sentinelCommandTimeout: 1_500 }

class IoredisConnection implements RedisConnection {
  readonly #client: Redis
  readonly #isSharded: boolean
  isClosed = false

  constructor (client: Redis, isSharded: boolean) {
    this.#client = client
    this.#isSharded = isSharded
  }

  send (commands: readonly (readonly RedisArgument[])[]): Promise<RedisReply>[] {
    const { stream } = this.#client
    stream?.cork()
    try {
      return commands.map(async ([name, ...args]) => {
        try {
          return await this.#client.callBuffer(name as string, args)
        } catch (error) {
          throw answerError(error as Error)
        }
      })
    } finally {
      // In the same turn everything goes out in one write.
      process.nextTick(() => { stream?.uncork() })
    }
  }

  async subscribe (channels: readonly string[]): Promise<void> {
    try {
      await (this.#isSharded ? this.#client.ssubscribe(...channels) : this.#client.subscribe(...channels))
    } catch (error) {
      throw answerError(error as Error)
    }
  }

  async unsubscribe (channels: readonly string[]): Promise<void> {
    await (this.#isSharded ? this.#client.sunsubscribe(...channels) : this.#client.unsubscribe(...channels))
  }

  close (): void {
    this.isClosed = true
    this.#client.disconnect()
  }
}

function answerError (error: Error): Error {
  return error.name === 'ReplyError' ? new RedisAnswerError(error.message) : error
}

async function open (client: Redis, isSharded: boolean, events: RedisConnectionEvents): Promise<RedisConnection> {
  let cause: Error | undefined
  client.on('error', (error: Error) => { cause = error })
  client.on('sentinelError', (error: Error) => { cause = error })
  client.on(isSharded ? 'smessageBuffer' : 'messageBuffer', (channel: Buffer, bytes: Buffer) => { events.message(channel.toString(), bytes) })
  if (isSharded) client.on('moved', () => { events.moved() })
  try {
    await client.connect()
  } catch (error) {
    client.disconnect()
    throw answerError(cause ?? error as Error)
  }
  cause = undefined
  const connection = new IoredisConnection(client, isSharded)
  client.once('end', () => {
    if (!connection.isClosed) events.closed(cause ?? new Error('the connection to Redis has closed'))
  })
  return connection
}

/** Reads the slots with a cluster client of its own, and opens a plain connection to each primary, whose cut it sees. */
class IoredisClusterPort implements RedisPort {
  readonly isCluster = true
  readonly #client: Cluster
  #own: Cluster | undefined

  constructor (client: Cluster) {
    this.#client = client
  }

  async shards (): Promise<RedisShard[]> {
    this.#own?.disconnect()
    this.#own = this.#client.duplicate([], { lazyConnect: true, keyPrefix: '', enableOfflineQueue: false, clusterRetryStrategy: null, shardedSubscribers: false })
    this.#own.on('error', () => {})
    await this.#own.connect()
    return shardsOf(this.#own.slots.map(([primary]) => primary))
  }

  connect (shard: string, events: RedisConnectionEvents): Promise<RedisConnection> {
    const node = this.#own?.nodes('master').find(({ options }) => nameOf(options) === shard)
    if (node === undefined) return Promise.reject(new Error(`there is no primary ${shard} in the cluster`))
    return open(node.duplicate(ownOptions), true, events)
  }

  close (): void {
    this.#own?.disconnect()
  }
}

function nameOf (options: { host?: string, port?: number }): string {
  return `${options.host}:${options.port}`
}

/** Opens connections to the primary that a Sentinel names. After a failure the next Sentinel is asked first, because the first ones may be silent. */
function sentinelPort (client: Redis, sentinels: readonly object[]): RedisPort {
  let first = 0
  return singlePort(async events => {
    const begun = first
    const turned = [...sentinels.slice(begun), ...sentinels.slice(0, begun)]
    try {
      return await open(client.duplicate({ ...ownOptions, ...sentinelOptions, sentinels: turned }), false, events)
    } catch (error) {
      // Both connections of an attempt may fail at the same one.
      if (first === begun) first = (begun + 1) % sentinels.length
      throw error
    }
  })
}

/** A port for a client of ioredis. */
export function ioredisPort (client: IoredisClient): RedisPort {
  if ((client as { isCluster?: boolean }).isCluster === true) return new IoredisClusterPort(client as Cluster)
  const single = client as Redis
  const { sentinels } = single.options
  return sentinels == null ? singlePort(events => open(single.duplicate(ownOptions), false, events)) : sentinelPort(single, sentinels)
}
