import type { FastifyInstance } from 'fastify'
import { querySchema } from '../schemas.ts'

type Serializer = (value: any) => unknown
/** What a serializer may read of a request; of Fastify's, of Node's, or of an object that the host made. */
interface Loggable { url?: unknown, originalUrl?: unknown, query?: unknown, raw?: unknown }

/** Where pino keeps the serializers of a logger. */
const kSerializers = Symbol.for('pino.serializers')
const hidden = '[redacted]'
const ours = new Map(Object.entries(querySchema.properties).map(([name, { pattern }]) => [name, new RegExp(pattern)]))

/** Whether a member of the query is one of ours, and its value one that ours has: of any other nobody knows what it says. */
function isPlain (name: string, value: unknown): boolean {
  return typeof value === 'string' && ours.get(name)?.test(value) === true
}

/** A URL without what the host's members of its query say: tokens, for the most part. The path stays, and so do names. */
export function redactUrl (url: string): string {
  // Fastify's router ends the path at each of them, and no topic has one in it.
  const start = url.search(/[?;#]/)
  if (start < 0) return url
  const members = url.slice(start + 1).split('&').map(member => {
    const equals = member.indexOf('=')
    if (equals < 0) return member === '' ? '' : hidden
    const name = member.slice(0, equals)
    return isPlain(name, member.slice(equals + 1)) ? member : `${name}=${hidden}`
  })
  return url.slice(0, start + 1) + members.join('&')
}

function redactQuery (query: object): object {
  return Object.fromEntries(Object.entries(query).map(([name, value]) => [name, isPlain(name, value) ? value : hidden]))
}

/** The same request to whoever reads it, but for its URL. */
function redacted (request: Loggable): Loggable {
  const { url, originalUrl, query, raw } = request
  const members: Loggable = {}
  if (typeof url === 'string') members.url = redactUrl(url)
  if (typeof originalUrl === 'string') members.originalUrl = redactUrl(originalUrl)
  if (typeof query === 'object' && query !== null) members.query = redactQuery(query)
  if (typeof raw === 'object' && raw !== null) members.raw = redacted(raw)
  return Object.create(request, Object.getOwnPropertyDescriptors(members)) as Loggable
}

/** Fastify's own, where a logger shows none. */
function describe ({ method, url, headers, host, ip, socket }: any): object {
  return { method, url, version: headers?.['accept-version'], host, remoteAddress: ip, remotePort: socket?.remotePort }
}

/**
 * Keeps tokens in the query out of the logs of a scope's routes: the serializer of `req`, be it the host's, its scope's or Fastify's,
 * is shown a request without them.
 */
export function redactLogs (scope: FastifyInstance): void {
  const log = scope.log as { [kSerializers]?: { req?: Serializer }, serializers?: { req?: Serializer } }
  // Fastify looks at `serializers` of a logger that is not pino's, too.
  const own = (log[kSerializers] ?? log.serializers)?.req ?? describe
  scope.addHook('onRoute', route => {
    // By now the route has what the scopes around it have been given.
    const serialise = (route.logSerializers as { req?: Serializer } | undefined)?.req ?? own
    const req: Serializer = value => serialise(typeof value === 'object' && value !== null ? redacted(value) : value)
    route.logSerializers = Object.assign(Object.create(route.logSerializers ?? null), { req })
  })
}
