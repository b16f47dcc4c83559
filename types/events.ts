import type { BrokerState } from './broker.ts'
import type { Mode } from './protocol.ts'
import type { Refusal, Rooms } from './rooms.ts'

/**
 * The messages of the channels of `node:diagnostics_channel`. A message is created only if the channel has a subscriber. It contains no payload, no
 * header, and of a URL only the topic.
 */

/** Members of every message. `rooms` is the `app.rooms` that it is about, because a process may have several. */
export interface RoomsEvent { rooms: Rooms<any> }

/** Members of every message about one session. */
export interface SessionEvent extends RoomsEvent {
  /** The id of the session. */
  session: string
  topic: string
  /** The key of the topic map that the topic falls under; `*` in the open lobby. */
  topicKey: string
  /** The user that `identify` returned; `undefined` for an anonymous member. */
  user: string | undefined
  /** The address of the connection: `request.ip` at the upgrade, `'unix'` for a unix socket. */
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
  /** The close code of the server, or of the peer. */
  code: number
  /** If `by` is `'peer'`, this is text of the peer. */
  reason: string
  by: 'server' | 'peer'
  /** Milliseconds since the upgrade. */
  milliseconds: number
}

/** `fastify-rooms:message`: a frame of a member has arrived after hello. It may be invalid. */
export interface MessageEvent extends SessionEvent {
  /** Bytes of the frame's WebSocket payload. */
  bytes: number
}

/** `fastify-rooms:broadcast`: the broker has answered a publication. There is one message for each publication. */
export interface BroadcastEvent extends RoomsEvent {
  topic: string
  topicKey: string
  /** The id of the member's session, if its message was published unchanged; `undefined` for a broadcast of the host. */
  from: string | undefined
  /** Bytes of the serialised payload. */
  bytes: number
  /** Members of this node that it was queued to. */
  local: number
  /** Whether the broker accepted it. */
  published: boolean
  /** Its position; `undefined` if the topic has none. */
  id: string | undefined
}

/** `fastify-rooms:refused`: a refusal that `stats().refusals` counts. */
export interface RefusedEvent extends RoomsEvent {
  what: 'request' | 'join' | 'frame'
  reason: Refusal
  /** The status of the HTTP response; `undefined` for a frame, for a join after its upgrade, and for an upgrade that timed out. */
  status: number | undefined
  /** The id of the session; `undefined` for a request. */
  session: string | undefined
  /** `undefined` if the request named no well-formed topic. */
  topic: string | undefined
  topicKey: string | undefined
  /** `undefined` for a request, because it may be refused before `identify` is called. */
  user: string | undefined
  /** `undefined` for an upgrade that timed out, and for a request whose connection is closed. */
  address: string | undefined
}

/** `fastify-rooms:slow`: the policy of a topic is applied to a slow member. */
export interface SlowEvent extends SessionEvent {
  policy: string
  /** Its buffered bytes. */
  bytes: number
}

/** `fastify-rooms:error`: an error of a hook, once, before `onError` is called with it. */
export interface ErrorEvent extends RoomsEvent {
  error: Error
  /** The id of the session that it concerns; `undefined` if it concerns none. */
  session: string | undefined
  topic: string | undefined
}

/** `fastify-rooms:drain`: a drain has begun, or has ended. */
export interface DrainEvent extends RoomsEvent {
  phase: 'begin' | 'end'
  /** Open connections. */
  connections: number
}

/** `fastify-rooms:broker`: the broker has come up or gone down, or has reported a fault that does not change its state. */
export interface BrokerEvent extends RoomsEvent {
  state: BrokerState
  /** The state before, which is the same one if a fault was reported; `undefined` if this is the first report. */
  before: BrokerState | undefined
  /** Milliseconds for which it had been in the state before. */
  milliseconds: number
  cause: Error | undefined
}

/** `fastify-rooms:loss`: the members of a topic on this node are told that messages may be missing, or that its positions have begun anew. */
export interface LossEvent extends RoomsEvent {
  topic: string
  topicKey: string
  reason: 'lost' | 'reset'
  /** Messages that are missing; `undefined` if their number is not known. */
  count: number | undefined
  /** The position before the loss; `undefined` if it is not known. */
  from: string | undefined
  /** The position at the end of the loss; `undefined` if it is not known. */
  to: string | undefined
}

/** The messages by channel. */
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
  'fastify-rooms:loss': LossEvent
}
