/**
 * The Redis broker, `fastify-rooms/redis`.
 */

/** An argument of a command. */
export type RedisArgument = string | Buffer

/** The answer to a command: bulk strings are Buffers. */
export type RedisReply = Buffer | string | number | null | RedisReply[]

/** A server of a deployment. */
export interface RedisShard {
  /** Names it for `RedisPort.connect`. */
  readonly id: string
  /** The slots that it serves, as first and last one; `[[0, 16383]]` outside a cluster. */
  readonly slots: readonly (readonly [number, number])[]
}

/** The functions that a connection calls. They do not throw. */
export interface RedisConnectionEvents {
  /** A message of a channel that is subscribed to. */
  message (channel: string, bytes: Buffer): void
  /** The connection has closed, and not by `close`. It is called once; the connection does not come back. */
  closed (error: Error): void
  /** The server has ended the subscription of channels, because their slot has moved to another server. */
  moved (): void
}

/**
 * One connection to one server. It does not reconnect, and does not send a command twice: after a cut the broker opens another one, because a command that
 * was not answered may have been executed.
 */
export interface RedisConnection {
  /**
   * Sends commands in this order, in one write if it can. Each promise settles with the server's answer, rejects with a `RedisAnswerError` if that is an error, and
   * with another error if the connection closes before.
   */
  send (commands: readonly (readonly RedisArgument[])[]): Promise<RedisReply>[]
  /** Settles when the server has confirmed all channels. In a cluster they are of one slot, and subscribed to with SSUBSCRIBE. */
  subscribe (channels: readonly string[]): Promise<void>
  unsubscribe (channels: readonly string[]): Promise<void>
  /** Cuts the connection. Answers that are to come reject. */
  close (): void
}

/** The client of Redis, as the broker uses it. `client` may be one, for clients other than ioredis and node-redis. */
export interface RedisPort {
  readonly isCluster: boolean
  /** Reads the servers that hold slots. Outside a cluster there is one. */
  shards (): Promise<RedisShard[]>
  /** Opens a connection to a server. Rejects with the error of the first attempt. */
  connect (shard: string, events: RedisConnectionEvents): Promise<RedisConnection>
  /** Releases what the port itself has opened. It does not close a client of the host. */
  close (): void
}

/** The members of an ioredis client, version 5.9.2 or later, that the broker uses: `Redis`, with or without Sentinel, or `Cluster`. */
export interface IoredisClient {
  readonly defineCommand: unknown
  readonly duplicate: (...args: any[]) => unknown
  readonly options: object
}

/**
 * The members of a node-redis client, version 5 or later, that the broker uses: of `createClient`, `createCluster` or `createSentinel`. A Sentinel client of version 5
 * cannot be duplicated: the broker asks it for the primary, and it has to be connected.
 */
export interface NodeRedisClient {
  readonly sSubscribe: unknown
  readonly duplicate?: (...args: any[]) => unknown
}

export interface RedisBrokerOptions {
  /**
   * A client of ioredis 5.9.2+ or node-redis 5+, or a `RedisPort`. The broker opens connections of its own with the client's options, and needs none of the client's.
   * It neither closes the client nor listens to it.
   */
  client: IoredisClient | NodeRedisClient | RedisPort
  /** The beginning of all keys and channels: 1 to 64 characters of ASCII without space, `{` and `}`. Default `'rooms'`. Apps with the same prefix share their rooms. */
  prefix?: string | undefined
  /**
   * The number of parts that keys and channels are spread over, 1 to 1,024. Default 64. All nodes need the same number: it stands in the keys, and another one means other
   * rooms.
   */
  partitions?: number | undefined
  /**
   * Milliseconds between two probes, 100 to 5,000. Default 4,000. A connection that brings no probe back for twice as long is cut and made again.
   */
  heartbeat?: number | undefined
  /** Milliseconds that a topic stays subscribed to after its last member has left, up to an hour. Default 30,000. A room that empties and fills costs no subscriptions. */
  linger?: number | undefined
}
