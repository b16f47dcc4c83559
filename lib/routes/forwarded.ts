import type { FastifyRequest } from 'fastify'

/** What the proxy next to us says that it was asked. */
export interface Forwarded { host?: string | undefined, proto?: string | undefined }

/** RFC 7239 4: one pair of an element, or none, and what ends it. `host=rooms.example:8080` is no pair: a colon has to be quoted. No run of blanks can be split in two ways. */
const pairs = /[ \t]*(?:([\w!#$%&'*+.^`|~-]+)=(?:([\w!#$%&'*+.^`|~-]+)|"((?:[^"\\]|\\.)*)")[ \t]*)?([;,]|$)/gy

/**
 * The last element of a `Forwarded` header. Each proxy adds one behind those that it was sent, so this is the only one that the
 * peer itself vouches for; Fastify takes the last of `X-Forwarded-Host` for the same reason. Of a header that is
 * malformed anywhere nothing holds, since nobody knows where its elements begin.
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
      if (element.has(known)) return {} // at most once per element
      element.set(known, token ?? quoted!.replace(/\\(.)/g, '$1'))
    }
    ended ||= end === ',' // RFC 9110 5.6.1: an element without anything in it is none
  }
  return length === header.length ? { host: element.get('host'), proto: element.get('proto') } : {}
}

/**
 * Whether the host's `trustProxy` trusts the peer. Only Fastify knows, and it says so by what it believes of `X-Forwarded-Host`:
 * so it is asked with one, of a request that has no other host.
 */
function trustsPeer (request: FastifyRequest): boolean {
  const headers = { 'x-forwarded-host': 'trusted' }
  const probe = Object.create(request, { headers: { value: headers }, raw: { value: { socket: request.raw.socket, headers: {} } } }) as FastifyRequest
  return probe.host === 'trusted'
}

/**
 * The host that the browser asked, and the scheme as far as it is known: as Fastify reads `X-Forwarded-Host` and `X-Forwarded-Proto`, and
 * where they are silent what `Forwarded` says; of a peer that `trustProxy` trusts alone.
 */
export function addressOf (request: FastifyRequest): { host: string, protocol: string } {
  const { headers, host, protocol } = request
  if (headers.forwarded === undefined || !trustsPeer(request)) return { host, protocol }
  const forwarded = lastForwarded(headers.forwarded)
  return {
    host: headers['x-forwarded-host'] === undefined ? forwarded.host ?? host : host,
    protocol: headers['x-forwarded-proto'] === undefined ? forwarded.proto ?? protocol : protocol
  }
}
