import type { FastifyInstance } from 'fastify'
import { pinoMessageKey, pinoSerializers } from '../internals.ts'
import { querySchema } from '../routes/schemas.ts'

type Serializer = (value: any) => unknown
type Serializers = Record<string, Serializer | undefined>
/** The members with a URL of a request that is logged: of Fastify's, of Node's, or of an object of the host. */
interface Loggable { url?: unknown, originalUrl?: unknown, query?: unknown, raw?: unknown }

const hidden = '[redacted]'
/** The message of FST_ERR_REP_ALREADY_SENT, the only error of Fastify that quotes the URL of its request. */
const alreadySent = /(Reply was already sent, did you forget to "return reply" in ")(.*)(?=" \()/
const ownQuery = new Map(Object.entries(querySchema.properties).map(([name, { pattern }]) => [name, new RegExp(pattern)]))

/** Whether a parameter of the query is one of the plugin's with a valid value. Any other may hold a secret. */
function isPlain (name: string, value: unknown): boolean {
  return typeof value === 'string' && ownQuery.get(name)?.test(value) === true
}

/** Returns a URL without the values of the host's query parameters, which are often tokens. The path and the names stay. */
export function redactUrl (url: string): string {
  // Fastify's router ends the path at any of these characters, and no topic name contains one.
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

/** Returns an object that reads like the request, except for its URL. */
function redacted (request: Loggable): Loggable {
  const { url, originalUrl, query, raw } = request
  const members: Loggable = {}
  if (typeof url === 'string') members.url = redactUrl(url)
  if (typeof originalUrl === 'string') members.originalUrl = redactUrl(originalUrl)
  if (typeof query === 'object' && query !== null) members.query = redactQuery(query)
  if (typeof raw === 'object' && raw !== null) members.raw = redacted(raw)
  return Object.create(request, Object.getOwnPropertyDescriptors(members)) as Loggable
}

/** Fastify's own serializer of requests, for loggers that have none. */
function describe ({ method, url, headers, host, ip, socket }: any): object {
  return { method, url, version: headers?.['accept-version'], host, remoteAddress: ip, remotePort: socket?.remotePort }
}

function redactText (text: string): string {
  return text.replace(alreadySent, (_whole, before: string, url: string) => before + redactUrl(url))
}

/** Returns an object that reads like the error, except for a URL that it quotes. */
function redactedError (error: unknown): unknown {
  if ((error as { code?: unknown } | null | undefined)?.code !== 'FST_ERR_REP_ALREADY_SENT') return error
  const { message, stack } = error as Error
  return Object.create(error as Error, { message: { value: redactText(message) }, stack: { value: redactText(String(stack)) } })
}

function same (value: unknown): unknown {
  return value
}

/**
 * Keeps tokens in the query out of the logs of a scope's routes. The serializers of `req`, `err` and the message, of the host, the scope or
 * Fastify, get a request, an error and a text without them.
 */
export function redactLogs (scope: FastifyInstance): void {
  const log = scope.log as { serializers?: Serializers }
  // Fastify also reads `serializers` of a logger that is not pino's.
  const own = pinoSerializers(log) as Serializers | undefined ?? log.serializers
  const messageKey = pinoMessageKey(log) ?? 'msg'
  scope.addHook('onRoute', route => {
    // The route has the serializers of the scopes around it by now.
    const given = route.logSerializers as Serializers | undefined
    const of = (name: string, otherwise: Serializer): Serializer => given?.[name] ?? own?.[name] ?? otherwise
    const [req, err, text] = [of('req', describe), of('err', same), of(messageKey, same)]
    const redacting: Serializers = {
      req: value => req(typeof value === 'object' && value !== null ? redacted(value) : value),
      err: value => err(redactedError(value)),
      [messageKey]: value => text(typeof value === 'string' ? redactText(value) : value)
    }
    route.logSerializers = Object.assign(Object.create(route.logSerializers ?? null), redacting)
  })
}
