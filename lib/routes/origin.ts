import type { FastifyRequest } from 'fastify'
import { FST_ROOMS_INVALID_OPTION, FST_ROOMS_ORIGIN_REFUSED } from '../errors.ts'
import type { Log } from '../hub/ports.ts'
import { proceed } from '../frames/authorize.ts'
import type { ResolvedOptions } from '../options.ts'
import { addressOf } from './forwarded.ts'

/** RFC 6454 6.2, of a page that has a host: no path, no user, nothing else. */
const pageOrigin = /^(https?:)\/\/([^/?#@\\\s]+)$/i
/** What else a browser or a web view may send: an app's own scheme, or the word for an opaque origin. */
const otherOrigin = /^(?!https?:|wss?:)[a-z][a-z\d+.-]*:\/\/[^/?#@\\\s]*$|^null$/

/** Host and port as a browser forms them: without the default port of the scheme. @throws TypeError */
function hostOf (protocol: string, host: string): string {
  return /[/?#@\\\s]/.test(host) ? '' : new URL(`${protocol}//${host}`).host
}

/**
 * The default port of the scheme may be spelled in `Host`, or not. A page of https may be behind a proxy that we see http from,
 * but one of http is none of a site that we know to be https. Some proxies say `wss` for an upgrade.
 */
function isSameOrigin (origin: string, request: FastifyRequest): boolean {
  const [, scheme, originHost] = pageOrigin.exec(origin) ?? [] // "null", the origin of sandboxed pages, is not the same as any
  if (scheme === undefined) return false
  const { host, protocol } = addressOf(request)
  const page = scheme.toLowerCase()
  if (page === 'http:' && /^(?:https|wss)$/i.test(protocol)) return false
  try {
    return hostOf(page, originHost!) === hostOf(page, host)
  } catch {
    return false
  }
}

/** Whether an entry is the way in which browsers write an origin, and not one that no header will ever be. */
function isOrigin (entry: string): boolean {
  if (otherOrigin.test(entry)) return true
  try {
    // A URL may have a star for a host; no page has.
    return pageOrigin.test(entry) && !entry.includes('*') && new URL(entry).origin === entry
  } catch {
    return false
  }
}

/** @throws FST_ROOMS_INVALID_OPTION for an entry that can never match */
export function checkOrigins (rule: ResolvedOptions['origin']): void {
  if (!Array.isArray(rule)) return
  rule.forEach((entry: string | RegExp, index) => {
    if (typeof entry !== 'string' || isOrigin(entry)) return
    throw new FST_ROOMS_INVALID_OPTION(`origin.${index}`, 'an origin as browsers send it, such as "https://example.com": in lower case, with a port only where it is not the default one, and nothing behind it (a RegExp names more than one)', JSON.stringify(entry))
  })
}

/** Continues if the page may use the rooms. @throws FST_ROOMS_ORIGIN_REFUSED */
export function ifAllowed ({ hub: { log }, options: { origin: rule } }: { hub: { log: Log }, options: Pick<ResolvedOptions, 'origin'> }, request: FastifyRequest, next: () => void | Promise<void>): void | Promise<void> {
  const { origin } = request.headers
  if (origin === undefined || rule === 'any') return next()
  let allowed: unknown
  if (rule === 'same') allowed = isSameOrigin(origin, request)
  else if (typeof rule === 'function') allowed = rule(origin, request)
  else allowed = rule.some(entry => typeof entry === 'string' ? entry === origin : new RegExp(entry).test(origin))
  return proceed(allowed, allowed => {
    if (allowed !== true) {
      log.debug({ origin, host: addressOf(request).host }, 'origin refused')
      throw new FST_ROOMS_ORIGIN_REFUSED()
    }
    return next()
  })
}
