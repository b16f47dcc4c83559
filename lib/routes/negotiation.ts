import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply } from 'fastify'

/** How exactly a range of an `Accept` header names JSON. */
const precisions: Readonly<Record<string, number>> = { '*/*': 1, 'application/*': 2, 'application/json': 3 }

/**
 * Whether a request asks for another protocol. A WebSocket handshake that has lost its `Upgrade` header in a proxy counts, too: its client would not understand a
 * response without an upgrade.
 */
export function asksForUpgrade (headers: IncomingHttpHeaders): boolean {
  return headers.upgrade !== undefined || headers['sec-websocket-key'] !== undefined
}

/** Whether an `Accept` header takes JSON. The most exact range decides (RFC 9110 12.5.1). */
export function acceptsJson (accept: string | undefined): boolean {
  if (accept === undefined) return true
  let precision = 0
  let quality = 0
  for (const range of accept.toLowerCase().split(',')) {
    const [type, ...parameters] = range.split(';').map(part => part.trim())
    const found = precisions[type!] ?? 0
    if (found <= precision) continue
    precision = found
    const weight = parameters.find(parameter => parameter.startsWith('q='))
    quality = weight === undefined ? 1 : Number(weight.slice(2))
  }
  return quality > 0
}

/** Says that the response depends on a header of the request, besides those that a hook of the host has named. */
export function addVary (reply: FastifyReply, header: string): void {
  const given = reply.getHeader('vary')
  reply.header('vary', given === undefined ? header : `${String(given)}, ${header}`)
}
