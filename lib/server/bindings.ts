import type { EventEmitter } from 'node:events'
import type { FastifyInstance } from 'fastify'
import { rootOf } from './shared-drain.ts'

/**
 * The http servers of an app besides `app.server`. For `localhost`, its default host, Fastify listens to both addresses of a machine that has
 * IPv4 and IPv6, with a server for each. No public member names the second one: without the symbol of Fastify 5 it is not found.
 */
export function otherServersOf (app: FastifyInstance): EventEmitter[] {
  const root = rootOf(app)
  const symbol = Object.getOwnPropertySymbols(root).find(({ description }) => description === 'fastify.serverBindings')
  const servers: unknown = symbol === undefined ? undefined : Reflect.get(root, symbol)
  return Array.isArray(servers) ? servers : []
}
