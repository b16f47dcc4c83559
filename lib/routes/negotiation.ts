import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { isSince } from '../protocol/position.ts'

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

/** Whether an `Accept` header names event streams. EventSource sends that type alone. A range that merely includes it does not count. */
function acceptsEventStream (accept: string | undefined): boolean {
  return accept !== undefined && accept.toLowerCase().split(',').some(range => {
    const [type, ...parameters] = range.split(';').map(part => part.trim())
    return type === 'text/event-stream' && !parameters.some(parameter => /^q=0(?:\.0*)?$/.test(parameter))
  })
}

/** How a `GET` of a topic reads it. An event stream is preferred to a snapshot. */
export type Reading = 'websocket' | 'event-stream' | 'snapshot'

export function readingOf ({ headers }: IncomingMessage): Reading {
  if (asksForUpgrade(headers)) return 'websocket'
  return acceptsEventStream(headers.accept) ? 'event-stream' : 'snapshot'
}

/** An id that no topic has. */
const unknownPosition = `${'unknown'.repeat(2)}-0`

/**
 * Returns where a request begins to read. An EventSource that comes back names the last event that it got, and repeats the query of its first request. An id that is
 * not valid counts as a position that is lost, because an EventSource would never come back after a refusal.
 */
export function sinceOf ({ raw: { headers }, query }: FastifyRequest, reading: Reading): string | undefined {
  const { since } = query as { since?: string }
  const { 'last-event-id': last } = headers
  if (reading !== 'event-stream' || last === undefined || last === '') return since
  return isSince(last) ? last : unknownPosition
}

/** Says that the response depends on a header of the request, besides those that a hook of the host has named. */
export function addVary (reply: FastifyReply, header: string): void {
  const given = reply.getHeader('vary')
  reply.header('vary', given === undefined ? header : `${String(given)}, ${header}`)
}
