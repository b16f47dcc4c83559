import type { FastifyInstance } from 'fastify'
import { pinoMessageKey, pinoSerializers } from '../internals.ts'
import { querySchema } from '../routes/schemas.ts'

type Serializer = (value: any) => unknown
type Serializers = Record<string, Serializer | undefined>
/** What a serializer may read of a request; of Fastify's, of Node's, or of an object that the host made. */
interface Loggable { url?: unknown, originalUrl?: unknown, query?: unknown, raw?: unknown }

const hidden = '[redacted]'
/** The one error of Fastify that says the URL of its request: FST_ERR_REP_ALREADY_SENT. */
const alreadySent = /(Reply was already sent, did you forget to "return reply" in ")(.*)(?=" \()/
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

function redactText (text: string): string {
  return text.replace(alreadySent, (_whole, before: string, url: string) => before + redactUrl(url))
}

/** The same error to whoever reads it, but for a URL that it says. */
function redactedError (error: unknown): unknown {
  if ((error as { code?: unknown } | null | undefined)?.code !== 'FST_ERR_REP_ALREADY_SENT') return error
  const { message, stack } = error as Error
  return Object.create(error as Error, { message: { value: redactText(message) }, stack: { value: redactText(String(stack)) } })
}

function same (value: unknown): unknown {
  return value
}

/**
 * Keeps tokens in the query out of the logs of a scope's routes: the serializers of `req`, of `err` and of messages, be they the
 * host's, its scope's or Fastify's, are shown a request, an error and a text without them.
 */
export function redactLogs (scope: FastifyInstance): void {
  const log = scope.log as { serializers?: Serializers }
  // Fastify looks at `serializers` of a logger that is not pino's, too.
  const own = pinoSerializers(log) as Serializers | undefined ?? log.serializers
  const messageKey = pinoMessageKey(log) ?? 'msg'
  scope.addHook('onRoute', route => {
    // By now the route has what the scopes around it have been given.
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
