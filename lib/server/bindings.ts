import type { EventEmitter } from 'node:events'
import type { FastifyInstance } from 'fastify'
import { fastifyServers } from '../internals.ts'
import { rootOf } from './shared-drain.ts'

/**
 * Returns the http servers of an app besides `app.server`. For `localhost`, the default host, Fastify listens on both addresses of a machine with
 * IPv4 and IPv6, with a server for each. The second one has no public member; without the symbol of Fastify 5 it is not found.
 */
export function otherServersOf (app: FastifyInstance): EventEmitter[] {
  const servers = fastifyServers(rootOf(app))
  return Array.isArray(servers) ? servers : []
}
