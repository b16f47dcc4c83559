import type { IncomingHttpHeaders } from 'node:http'

const entry = 'bearer.'

/**
 * Returns the token of a request: that of the header `Authorization: Bearer …`, or, because a browser cannot set headers on a WebSocket, that of a subprotocol entry
 * `bearer.…`. The client of this package sends the token as base64url there. An entry that has a dot is a JWT that was not encoded. `undefined` if there is none.
 *
 * ```ts
 * identify: request => verify(bearerToken(request))
 * ```
 */
export function bearerToken ({ headers }: { headers: IncomingHttpHeaders }): string | undefined {
  const { authorization, 'sec-websocket-protocol': offer } = headers
  const [, given] = /^Bearer +(\S+)$/i.exec(authorization ?? '') ?? []
  if (given !== undefined) return given
  const offered = offer?.split(',').map(name => name.trim()).find(name => name.startsWith(entry))?.slice(entry.length)
  if (offered === undefined || offered === '') return undefined
  return offered.includes('.') ? offered : Buffer.from(offered, 'base64url').toString()
}
