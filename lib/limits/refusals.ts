import type { Refusal, Refusals } from '../../types/index.ts'
import * as events from '../hub/events.ts'

/** The reason of a refusal by the error's code. Other errors are known by their status. */
const byCode: Readonly<Record<string, Refusal>> = {
  FST_ROOMS_BAD_FRAME: 'badFrames',
  FST_ROOMS_FRAME_TOO_LARGE: 'payload',
  FST_ROOMS_INFO_TOO_LARGE: 'info',
  FST_ROOMS_INVALID_PAYLOAD: 'invalid',
  FST_ROOMS_BODY_TIMEOUT: 'handshake',
  FST_ROOMS_ORIGIN_REFUSED: 'origin',
  FST_ROOMS_DRAINING: 'draining',
  FST_ROOMS_OVERLOADED: 'work',
  FST_ROOMS_CLOSED: 'draining',
  FST_ROOMS_BROKER_DOWN: 'broker',
  FST_ROOMS_BROKER_SILENT: 'broker'
}

const byStatus: Readonly<Record<number, Refusal>> = { 401: 'unauthorized', 403: 'forbidden', 404: 'notFound', 413: 'payload', 429: 'rateLimited' }

/** All reasons. None is a word of the host or of a peer, because a metric must not grow a label for each word. */
export function createRefusals (): Refusals {
  return {
    connections: 0,
    perAddress: 0,
    topics: 0,
    topicsPerConnection: 0,
    members: 0,
    handshake: 0,
    overloaded: 0,
    messages: 0,
    addressMessages: 0,
    work: 0,
    payload: 0,
    info: 0,
    badFrames: 0,
    invalid: 0,
    protocol: 0,
    unfinished: 0,
    origin: 0,
    unauthorized: 0,
    forbidden: 0,
    notFound: 0,
    badRequest: 0,
    rateLimited: 0,
    draining: 0,
    broker: 0,
    position: 0,
    failed: 0,
    other: 0
  }
}

/** The reason behind a status of 400 and above. */
export function refusalOfStatus (status: number): Refusal {
  return byStatus[status] ?? (status < 500 ? 'badRequest' : 'failed')
}

/** The reason behind an error that a peer was answered with. */
export function refusalOf (error: Error): Refusal {
  const { code, statusCode } = error as { code?: unknown, statusCode?: unknown }
  return byCode[String(code)] ?? refusalOfStatus(typeof statusCode === 'number' ? statusCode : 500)
}

/** A session whose refusals are counted. */
export interface RefusedSession extends events.Subject {
  readonly hub: { readonly counters: { readonly refusals: Refusals } }
}

/** Counts a refusal of a session's join or frame, and publishes it as an event. */
export function countRefusal (session: RefusedSession, what: 'join' | 'frame', reason: Refusal): void {
  session.hub.counters.refusals[reason]++
  events.refused(session, what, reason)
}
