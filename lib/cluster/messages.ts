import type { GoneUser, Position, PresenceChange, PresenceDelta, Publication, Retention } from '../../types/index.ts'
import { bufferOf } from '../bytes.ts'

/** The version of the messages between workers and their primary. A message of another version is ignored. */
export const version = 1

/** The calls of a broker that the exchange answers. */
export const callNames = ['attach', 'detach', 'publish', 'history', 'control', 'hold', 'change', 'read', 'report', 'counts', 'topics', 'claim', 'taken', 'unclaim'] as const
export type CallName = typeof callNames[number]

export interface Call {
  readonly id: number
  readonly name: CallName
  readonly args: readonly unknown[]
}

/** Everything that a node has said, for an exchange that does not know it. */
export interface Hello {
  /** Most bytes of kept messages that the node's app allows. */
  readonly historyBytes: number
  readonly topics: readonly (readonly [topic: string, retention: Retention | undefined])[]
  readonly users: readonly string[]
  /** The node's members of topics with presence. */
  readonly members: readonly PresenceChange[]
  /** Topics whose streams the node writes. */
  readonly streams: readonly string[]
  /** Arrives as bytes only if the channel carries bytes. */
  readonly probe: Uint8Array
}

/** A message from a node to the exchange: all that it has to say at the end of a turn. */
export interface NodeMessage {
  readonly 'fastify-rooms': typeof version
  /** The name of the exchange. */
  readonly name: string
  readonly node: string
  readonly hello?: Hello
  readonly calls?: readonly Call[]
  /** Bytes of messages that the node has read since its last `read`. */
  readonly read?: number
  /** The number of the last report of users that are gone which the node has taken. */
  readonly gone?: number
  /** The node leaves. */
  readonly bye?: true
}

export type ExchangeEvent =
  | { type: 'welcome', back: GoneUser[] }
  | { type: 'refused', reason: string }
  | { type: 'answer', id: number, value: unknown }
  | { type: 'failed', id: number, reason: string }
  | { type: 'entry', publication: Publication, position: Position }
  /** The entry of a publication of the node, which has its bytes. */
  | { type: 'own', topic: string, uid: string, position: Position }
  | { type: 'control', from: string, bytes: Uint8Array }
  | { type: 'presence', topic: string, delta: PresenceDelta }
  /** Reports are numbered from 1 on, by the state of the primary. */
  | { type: 'gone', report: number, users: readonly GoneUser[] }
  /** The node is to end these streams, whose node has died. They are its own from now on. */
  | { type: 'orphaned', topics: readonly string[] }
  | { type: 'lost' }
  /** The node is to say what it has read. */
  | { type: 'check' }
  | { type: 'closed' }

/** A message from the primary to a node. */
export interface ExchangeMessage {
  readonly 'fastify-rooms': typeof version
  /** Absent: nodes of all names. */
  readonly name?: string
  /** Absent: all nodes. Without events they are asked to say hello, unless they have done so to this primary. */
  readonly node?: string
  /** The id of the state of the primary: after a restart it is another one. */
  readonly state: string
  readonly events: readonly ExchangeEvent[]
  /** Bytes of the events that the node has not asked for, as the exchange counts them. */
  readonly size: number
}

/** The version of a message of a node or of an exchange; `undefined`: the message is the host's, which uses the same channel. */
export function versionOf (message: unknown): unknown {
  return typeof message === 'object' && message !== null ? (message as { 'fastify-rooms'?: unknown })['fastify-rooms'] : undefined
}

/** Whether a message is one of a node or of an exchange, and of this version. */
export function isOurs (message: unknown): message is NodeMessage | ExchangeMessage {
  return versionOf(message) === version
}

/** A publication whose bytes are a Buffer: the same one, or a copy if it came through the port of a worker thread, which gives no Buffers. */
export function withBuffer (publication: Publication): Publication {
  return Buffer.isBuffer(publication.tail) ? publication : { ...publication, tail: bufferOf(publication.tail) }
}

/** A value as text, for the log. */
export function excerpt (value: unknown): string {
  return typeof value === 'string' || typeof value === 'number' ? String(value).slice(0, 32) : typeof value
}

/** Says which version a message has that cannot be read. */
export function otherVersion (message: unknown): string {
  return `a message of the primary has version ${excerpt(versionOf(message))}, and this worker reads ${version}`
}
