import type { EventEmitter } from 'node:events'
import type { FastifyInstance } from 'fastify'
import { fastifyServers } from '../internals.ts'
import { rootOf } from './shared-drain.ts'

/**
 * The http servers of an app besides `app.server`. For `localhost`, its default host, Fastify listens to both addresses of a machine that has
 * IPv4 and IPv6, with a server for each. No public member names the second one: without the symbol of Fastify 5 it is not found.
 */
export function otherServersOf (app: FastifyInstance): EventEmitter[] {
  const servers = fastifyServers(rootOf(app))
  return Array.isArray(servers) ? servers : []
}
