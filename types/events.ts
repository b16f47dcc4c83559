import type { BrokerState } from './broker.ts'
import type { Mode } from './protocol.ts'
import type { Refusal, Rooms } from './rooms.ts'

/**
 * What the channels of `node:diagnostics_channel` carry. A message is made where somebody has subscribed, and only then. It holds
 * no payload, no header and nothing of a URL but the topic.
 */

/** In every message: whose rooms it is about, since a process may have several. The same object as `app.rooms`. */
export interface RoomsEvent { rooms: Rooms<any> }

/** In every message about one session. */
export interface SessionEvent extends RoomsEvent {
  /** The id of the session. */
  session: string
  topic: string
  /** The key of the topic map that the topic falls under; `*` in the open lobby. */
  topicKey: string
  /** What `identify` said; `undefined` for an anonymous one. */
  user: string | undefined
  /** Where the connection came from: `request.ip` at the upgrade, `'unix'` for a unix socket. */
  address: string
  mode: Mode
}

/** `fastify-rooms:join`: a session has become a member; its hello is queued. */
export interface JoinEvent extends SessionEvent {
  /** Milliseconds from the upgrade to hello, `onJoin` included. */
  milliseconds: number
}

/** `fastify-rooms:leave`: a member has left its room. Not for joins that were refused. */
export interface LeaveEvent extends SessionEvent {
  /** The close code: of the server, or what the peer said. */
  code: number
  /** Where `by` is `'peer'` it is text of the peer. */
  reason: string
  by: 'server' | 'peer'
  /** Milliseconds since the upgrade. */
  milliseconds: number
}

/** `fastify-rooms:message`: a frame of a member has come, after hello, whatever is in it. */
export interface MessageEvent extends SessionEvent {
  /** Bytes of the frame's payload as WebSocket knows it. */
  bytes: number
}

/** `fastify-rooms:broadcast`: a publication, once, and not once per member; after the broker has answered. */
export interface BroadcastEvent extends RoomsEvent {
  topic: string
  topicKey: string
  /** The id of the member whose message it is as it was sent; `undefined` for the host's own. */
  from: string | undefined
  /** Bytes of the serialised payload. */
  bytes: number
  /** Members of this node that it was queued to. */
  local: number
  /** Whether the broker accepted it. */
  published: boolean
  /** Its position; `undefined` where the topic has none. */
  id: string | undefined
}

/** `fastify-rooms:refused`: what `stats().refusals` counts, each once. */
export interface RefusedEvent extends RoomsEvent {
  what: 'request' | 'join' | 'frame'
  reason: Refusal
  /** Of an HTTP answer; `undefined` for a frame, for a join after its upgrade, and for an upgrade that was cut. */
  status: number | undefined
  /** The id of the session; `undefined` for a request. */
  session: string | undefined
  /** `undefined` where the request named none that is well formed. */
  topic: string | undefined
  topicKey: string | undefined
  /** `undefined` for a request: whoever is refused may not have been asked for a name yet. */
  user: string | undefined
  /** `undefined` for an upgrade that was cut, and for a request whose connection has gone. */
  address: string | undefined
}

/** `fastify-rooms:slow`: a member does not read, and its topic's policy is carried out. */
export interface SlowEvent extends SessionEvent {
  policy: string
  /** Bytes that wait for it. */
  bytes: number
}

/** `fastify-rooms:error`: an error of a hook, once; before `onError` is told. */
export interface ErrorEvent extends RoomsEvent {
  error: Error
  /** The id of the session that it is about; `undefined` where it is about none. */
  session: string | undefined
  topic: string | undefined
}

/** `fastify-rooms:drain`: everybody is being let go, or has gone. */
export interface DrainEvent extends RoomsEvent {
  phase: 'begin' | 'end'
  /** Connections that are left. */
  connections: number
}

/** `fastify-rooms:broker`: the broker has come up or gone down. */
export interface BrokerEvent extends RoomsEvent {
  state: BrokerState
  cause: Error | undefined
}

/** The channels by name, with what each carries. */
export interface RoomsEvents {
  'fastify-rooms:join': JoinEvent
  'fastify-rooms:leave': LeaveEvent
  'fastify-rooms:message': MessageEvent
  'fastify-rooms:broadcast': BroadcastEvent
  'fastify-rooms:refused': RefusedEvent
  'fastify-rooms:slow': SlowEvent
  'fastify-rooms:error': ErrorEvent
  'fastify-rooms:drain': DrainEvent
  'fastify-rooms:broker': BrokerEvent
}
