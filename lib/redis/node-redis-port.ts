import type { NodeRedisClient, RedisArgument, RedisConnection, RedisConnectionEvents, RedisPort, RedisReply, RedisShard } from '../../types/redis.ts'
import { RedisAnswerError } from './answer-error.ts'
import { shardsOf, singlePort } from './shards.ts'

type Listener = (message: Buffer, channel: Buffer) => void

/** The members of a client of node-redis. */
export interface Client {
  readonly options?: { socket?: object }
  duplicate (options: object): Client
  connect (): Promise<unknown>
  destroy (): void
  sendCommand (args: readonly RedisArgument[], options: object): Promise<RedisReply>
  subscribe (channels: readonly string[], listener: Listener, buffers: true): Promise<void>
  unsubscribe (channels: readonly string[]): Promise<void>
  sSubscribe (channels: readonly string[], listener: Listener, buffers: true): Promise<void>
  sUnsubscribe (channels: readonly string[]): Promise<void>
  on (event: string, listener: (...args: any[]) => void): this
}

/** The members of a cluster of node-redis. */
interface Cluster {
  readonly slots: ({ master: { address: string } } | undefined)[]
  readonly masters: { address: string }[]
  duplicate (options: object): Cluster
  connect (): Promise<unknown>
  destroy (): void
  nodeClient (node: { address: string }): Promise<Client>
  on (event: string, listener: (...args: any[]) => void): this
}

/** `$` of the protocol, bulk strings: they are read as Buffers. */
const bulkString = '$'.charCodeAt(0)
const reading = { typeMapping: { [bulkString]: Buffer } }

/** The options of a connection of the broker. By default node-redis connects and subscribes again by itself, and keeps commands until then. */
export function ownOptions ({ options }: Client): object {
  return {
    socket: { connectTimeout: 5_000, ...options?.socket, reconnectStrategy: false },
    disableOfflineQueue: true,
    commandsQueueMaxLength: undefined,
    keyPrefix: undefined,
    clientSideCache: undefined,
    readonly: false
  }
}

class NodeRedisConnection implements RedisConnection {
  readonly #client: Client
  readonly #isSharded: boolean
  readonly #events: RedisConnectionEvents

  constructor (client: Client, isSharded: boolean, events: RedisConnectionEvents) {
    this.#client = client
    this.#isSharded = isSharded
    this.#events = events
  }

  send (commands: readonly (readonly RedisArgument[])[]): Promise<RedisReply>[] {
    return commands.map(async command => {
      try {
        return await this.#client.sendCommand(command, reading)
      } catch (error) {
        throw answerError(error as Error)
      }
    })
  }

  async subscribe (channels: readonly string[]): Promise<void> {
    try {
      await (this.#isSharded ? this.#client.sSubscribe(channels, this.#receive, true) : this.#client.subscribe(channels, this.#receive, true))
    } catch (error) {
      throw answerError(error as Error)
    }
  }

  async unsubscribe (channels: readonly string[]): Promise<void> {
    await (this.#isSharded ? this.#client.sUnsubscribe(channels) : this.#client.unsubscribe(channels))
  }

  close (): void {
    destroy(this.#client)
  }

  readonly #receive: Listener = (message, channel) => { this.#events.message(channel.toString(), message) }
}

/** `destroy` throws if the client has closed. */
function destroy (client: { destroy (): void }): void {
  try {
    client.destroy()
  } catch {}
}

/** The classes of the server's errors have no base of their own in version 5; their messages begin with a word in capital letters. */
function answerError (error: Error): Error {
  return /^(?:Simple|Blob)Error$|ErrorReply$/.test(error.constructor.name) ? new RedisAnswerError(error.message) : error
}

export async function open (client: Client, isSharded: boolean, events: RedisConnectionEvents): Promise<RedisConnection> {
  let isOpen = false
  client.on('error', (error: Error) => {
    if (!isOpen) return
    isOpen = false
    destroy(client)
    events.closed(error)
  })
  client.on('sharded-channel-moved', () => { events.moved() })
  try {
    await client.connect()
  } catch (error) {
    destroy(client)
    throw answerError(error as Error)
  }
  isOpen = true
  return new NodeRedisConnection(client, isSharded, events)
}

/** Reads the slots with a cluster client of its own, and opens a plain connection to each primary, whose cut it sees. */
class NodeRedisClusterPort implements RedisPort {
  readonly isCluster = true
  readonly #client: Cluster
  #own: Cluster | undefined

  constructor (client: Cluster) {
    this.#client = client
  }

  async shards (): Promise<RedisShard[]> {
    this.close()
    const own = this.#own = this.#client.duplicate({ minimizeConnections: true })
    own.on('error', () => {})
    await own.connect()
    return shardsOf(Array.from(own.slots, slot => slot?.master.address))
  }

  async connect (shard: string, events: RedisConnectionEvents): Promise<RedisConnection> {
    const node = this.#own?.masters.find(({ address }) => address === shard)
    if (node === undefined) throw new Error(`there is no primary ${shard} in the cluster`)
    const client = await this.#own!.nodeClient(node)
    return open(client.duplicate(ownOptions(client)), true, events)
  }

  close (): void {
    if (this.#own !== undefined) destroy(this.#own)
    this.#own = undefined
  }
}

/** A port for a client of node-redis. */
export function nodeRedisPort (client: NodeRedisClient): RedisPort {
  if ('masters' in client) return new NodeRedisClusterPort(client as never)
  const single = client as never as Client
  return singlePort(events => open(single.duplicate(ownOptions(single)), false, events))
}
