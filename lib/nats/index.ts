import type { Broker } from '../../types/index.ts'
import type { NatsBrokerOptions } from '../../types/nats.ts'
import { FST_ROOMS_INVALID_OPTION } from '../errors.ts'
import { NatsBroker } from './broker.ts'
import { checkClient } from './link.ts'

export type * from '../../types/nats.ts'

const prefixPattern = /^(?=.{1,64}$)[\w-]+(\.[\w-]+)*$/

/**
 * Returns a broker that carries messages between nodes by core NATS. It keeps no messages, notes no presence over nodes, and numbers no message: topics with `history` or
 * `presence` are refused at registration.
 *
 * Members of a node get its own messages at once, also while the server is away; `published` is then `false`. Members of other nodes get them in the order of
 * their publisher. A cut is told to members by `gap` when the connection is back.
 *
 * ```ts
 * const connection = await connect({ servers, maxReconnectAttempts: -1, reconnectTimeWait: 500 })
 * await app.register(fastifyRooms, { broker: natsBroker({ connection }) })
 * ```
 * @throws FST_ROOMS_INVALID_OPTION
 */
export function natsBroker (options: NatsBrokerOptions): Broker {
  const { connection, prefix = 'rooms', probe = 2_000 } = Object(options) as NatsBrokerOptions
  if (typeof (connection as Partial<Promise<unknown>> | undefined)?.then !== 'function') checkClient(connection)
  if (typeof prefix !== 'string' || !prefixPattern.test(prefix)) throw new FST_ROOMS_INVALID_OPTION('prefix', '1 to 64 letters, digits, "_" and "-", with dots between', String(JSON.stringify(prefix)))
  if (!Number.isInteger(probe) || probe < 50 || probe > 2_500) throw new FST_ROOMS_INVALID_OPTION('probe', 'whole milliseconds from 50 to 2500', String(probe))
  return new NatsBroker({ connection, prefix, probe })
}
