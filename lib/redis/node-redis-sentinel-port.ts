import type { NodeRedisClient, RedisConnection, RedisConnectionEvents, RedisPort } from '../../types/redis.ts'
import { sentinelPrimary } from '../internals.ts'
import { open, ownOptions, type Client } from './node-redis-port.ts'
import { singlePort } from './shards.ts'

/** The members of a Sentinel client of node-redis. */
interface Sentinel {
  readonly isOpen: boolean
  /** Not in version 5. */
  duplicate?: (options: object) => Sentinel
  connect (): Promise<unknown>
  destroy (): Promise<unknown>
  /** `undefined`: no connection to a primary is ready. */
  getMasterNode (): unknown
  on (event: string, listener: (event: any) => void): unknown
  off (event: string, listener: (event: any) => void): unknown
}

/** Options of a Sentinel client that only finds the primary. */
const searchOptions = { masterPoolSize: 1, replicaPoolSize: 0, reserveClient: false, passthroughClientErrorEvents: true, clientSideCache: undefined }

/** A Sentinel client that knows the primary, and tells if there is another one. */
class Search {
  readonly primary: Promise<Client>
  readonly #sentinel: Sentinel
  readonly #isOwn: boolean
  readonly #changed: () => void
  /** The last error on the way. */
  cause: unknown

  /** @param changed - called if Sentinel names another primary */
  constructor (client: Sentinel, changed: () => void) {
    this.#isOwn = client.duplicate !== undefined
    this.#sentinel = client.duplicate?.(searchOptions) ?? client
    this.#changed = changed
    this.#sentinel.on('topology-change', this.#listen)
    this.primary = this.#find()
    this.primary.catch(() => {})
  }

  end (): void {
    this.#sentinel.off('topology-change', this.#listen)
    if (this.#isOwn) this.#sentinel.destroy().catch(() => {})
  }

  async #find (): Promise<Client> {
    const sentinel = this.#sentinel
    if (this.#isOwn) {
      sentinel.on('error', (error: unknown) => { this.cause = error })
      await sentinel.connect()
    } else if (!sentinel.isOpen) throw new Error('the Sentinel client is not connected, and node-redis 5 cannot duplicate it: call its connect()')
    if (sentinel.getMasterNode() === undefined) throw new Error('Sentinel knows no primary that can be reached')
    const client = await sentinelPrimary(sentinel)
    if (client === undefined) throw new Error('this version of node-redis does not give the client of its primary')
    return client as Client
  }

  /** The first primary is a change, too, at a time when no connection is open. */
  readonly #listen = ({ type }: { type: string }): void => { if (type === 'MASTER_CHANGE') this.#changed() }
}

/**
 * A port for a client of `createSentinel` of node-redis. Each end of a connection begins another search, because the primary may be another one.
 * @param searchTimeout - milliseconds that a connection waits until the primary is known; the search goes on, for the next one
 */
export function nodeRedisSentinelPort (client: NodeRedisClient, searchTimeout = 4_000): RedisPort {
  const opened = new Set<() => void>()
  let search: Search | undefined
  const forget = (ended: Search): void => {
    if (search !== ended) return
    search = undefined
    ended.end()
  }
  const connect = async (events: RedisConnectionEvents): Promise<RedisConnection> => {
    const current = search ??= new Search(client as never, () => { for (const end of [...opened]) end() })
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<undefined>(resolve => { timer = setTimeout(() => { resolve(undefined) }, searchTimeout) })
    let primary: Client | undefined
    try {
      primary = await Promise.race([current.primary, late])
    } catch (error) {
      forget(current)
      throw error
    } finally {
      clearTimeout(timer)
    }
    if (primary === undefined) throw new Error(`no primary was found within ${searchTimeout} ms${current.cause === undefined ? '' : `: ${String(current.cause)}`}`)
    let connection: RedisConnection | undefined
    const close = (): void => {
      opened.delete(end)
      forget(current)
      connection?.close()
    }
    const closed = (error: Error): void => {
      close()
      events.closed(error)
    }
    const end = (): void => { closed(new Error('Sentinel has named another primary')) }
    try {
      connection = await open(primary.duplicate(ownOptions(primary)), false, { ...events, closed })
    } catch (error) {
      forget(current)
      throw error
    }
    opened.add(end)
    return { send: commands => connection!.send(commands), subscribe: channels => connection!.subscribe(channels), unsubscribe: channels => connection!.unsubscribe(channels), close }
  }
  return { ...singlePort(connect), close () { if (search !== undefined) forget(search) } }
}
