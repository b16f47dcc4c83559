import type { FastifyRequest } from 'fastify'
import { FST_ROOMS_INVALID_OPTION, FST_ROOMS_ORIGIN_REFUSED } from '../errors.ts'
import type { Log } from '../hub/ports.ts'
import { proceed } from '../proceed.ts'
import type { ResolvedOptions } from '../options.ts'
import { requestedHost } from './forwarded.ts'

/** The origin of a page with a host (RFC 6454 6.2): no path, no user. */
const pageOrigin = /^(https?:)\/\/([^/?#@\\\s]+)$/i
/** Other origins that a browser or a web view sends: an app's own scheme, or `null` for an opaque origin. */
const otherOrigin = /^(?!https?:|wss?:)[a-z][a-z\d+.-]*:\/\/[^/?#@\\\s]*$|^null$/

/**
 * Returns host and port as a browser writes them: without the default port of the scheme.
 * @throws TypeError
 */
function hostOf (protocol: string, host: string): string {
  return /[/?#@\\\s]/.test(host) ? '' : new URL(`${protocol}//${host}`).host
}

/**
 * Whether the page and the request have the same host and port; the default port of the scheme may be left out. A page over https is accepted on
 * a request that arrives over http, because a proxy may terminate TLS, but not the reverse. Some proxies name the scheme of an upgrade `wss`.
 */
function isSameOrigin (origin: string, request: FastifyRequest): boolean {
  const [, scheme, originHost] = pageOrigin.exec(origin) ?? [] // "null", the origin of sandboxed pages, does not match
  if (scheme === undefined) return false
  const { host, protocol } = requestedHost(request)
  const page = scheme.toLowerCase()
  if (page === 'http:' && /^(?:https|wss)$/i.test(protocol)) return false
  try {
    return hostOf(page, originHost!) === hostOf(page, host)
  } catch {
    return false
  }
}

/** Whether an entry is an origin as browsers write it, so that a header can equal it. */
function isOrigin (entry: string): boolean {
  if (otherOrigin.test(entry)) return true
  try {
    // A URL may have a star in its host, but a page does not.
    return pageOrigin.test(entry) && !entry.includes('*') && new URL(entry).origin === entry
  } catch {
    return false
  }
}

/** @throws FST_ROOMS_INVALID_OPTION for an entry that no header can match */
export function checkOrigins (rule: ResolvedOptions['origin']): void {
  if (!Array.isArray(rule)) return
  rule.forEach((entry: string | RegExp, index) => {
    if (typeof entry !== 'string' || isOrigin(entry)) return
    throw new FST_ROOMS_INVALID_OPTION(`origin.${index}`, 'an origin as browsers send it, such as "https://example.com": in lower case, with a port only if it is not the default one, and nothing after it (a RegExp matches more than one)', JSON.stringify(entry))
  })
}

/**
 * Continues if the page may use the rooms.
 * @throws FST_ROOMS_ORIGIN_REFUSED
 */
export function ifAllowed ({ hub: { log }, options: { origin: rule } }: { hub: { log: Log }, options: Pick<ResolvedOptions, 'origin'> }, request: FastifyRequest, next: () => void | Promise<void>): void | Promise<void> {
  const { origin } = request.headers
  if (origin === undefined || rule === 'any') return next()
  let allowed: unknown
  if (rule === 'same') allowed = isSameOrigin(origin, request)
  else if (typeof rule === 'function') allowed = rule(origin, request)
  else allowed = rule.some(entry => typeof entry === 'string' ? entry === origin : new RegExp(entry).test(origin))
  return proceed(allowed, allowed => {
    if (allowed !== true) {
      log.debug({ origin, host: requestedHost(request).host }, 'origin refused')
      throw new FST_ROOMS_ORIGIN_REFUSED()
    }
    return next()
  })
}
