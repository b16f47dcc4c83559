import type { FastifyRequest } from 'fastify'

/** The host and scheme of the browser's request, according to the proxy nearest to the server. */
export interface Forwarded { host?: string | undefined, proto?: string | undefined }

/**
 * One pair of an element of RFC 7239 4, or none, and the delimiter after it. `host=rooms.example:8080` does not match, because a value with a
 * colon has to be quoted. A run of blanks matches in one way only, so that there is no backtracking.
 */
const pairs = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:([\w!#$%&'*+.^`|~-]+)|"((?:[^"\\]|\\.)*)")[ \t]*)?([;,]|$)/gy

/**
 * Returns the last element of a `Forwarded` header. Each proxy appends an element, so only the last one comes from the peer itself; Fastify reads
 * the last entry of `X-Forwarded-Host` for the same reason. A header that is malformed anywhere is ignored, because the borders of its
 * elements are not known.
 */
export function lastForwarded (header: string): Forwarded {
  let element = new Map<string, string>()
  let ended = false
  let length = 0
  for (const [text, name, token, quoted, end] of header.matchAll(pairs)) {
    length += text.length
    if (name !== undefined) {
      if (ended) element = new Map()
      ended = false
      const known = name.toLowerCase()
      if (element.has(known)) return {} // malformed: a name occurs once in an element
      element.set(known, token ?? quoted!.replace(/\\(.)/g, '$1'))
    }
    ended ||= end === ',' // RFC 9110 5.6.1: empty elements are ignored
  }
  return length === header.length ? { host: element.get('host'), proto: element.get('proto') } : {}
}

/**
 * Whether the host's `trustProxy` trusts the peer. Fastify does not export this, so it is read from the effect of an `X-Forwarded-Host` header
 * on a copy of the request without another host.
 */
function trustsPeer (request: FastifyRequest): boolean {
  const headers = { 'x-forwarded-host': 'trusted' }
  const probe = Object.create(request, { headers: { value: headers }, raw: { value: { socket: request.raw.socket, headers: {} } } }) as FastifyRequest
  return probe.host === 'trusted'
}

/**
 * Returns the host and the scheme of the browser's request, as far as they are known. For a peer that `trustProxy` trusts, they come from
 * `X-Forwarded-Host` and `X-Forwarded-Proto` as Fastify reads them, and if these are absent, from `Forwarded`.
 */
export function requestedHost (request: FastifyRequest): { host: string, protocol: string } {
  const { headers, host, protocol } = request
  if (headers.forwarded === undefined || !trustsPeer(request)) return { host, protocol }
  const forwarded = lastForwarded(headers.forwarded)
  return {
    host: headers['x-forwarded-host'] === undefined ? forwarded.host ?? host : host,
    protocol: headers['x-forwarded-proto'] === undefined ? forwarded.proto ?? protocol : protocol
  }
}
