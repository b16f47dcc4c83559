/**
 * The wire protocol `rooms.v1`: one JSON object per text frame. docs/protocol.md gives the rules.
 */

/** What a connection speaks: enveloped frames, or the bare payload. Chosen by `Sec-WebSocket-Protocol`. */
export type Mode = 'rooms.v1' | 'rooms.raw'

/** Names the answer to a frame: a string of at most 64 characters, or a safe integer. */
export type Ref = string | number

/** A coded error as it travels. */
export interface WireError {
  /** Stable, `FST_ROOMS_…` or the code of the host's own error. */
  code: string
  message: string
  /** For an invalid payload: where, and what was expected there. */
  details?: { path: string, message: string }[]
}

/** One member as presence shows it. */
export interface Member<Info = unknown> {
  /** The session's id: public, it names and authorises nothing. */
  session: string
  user?: string
  info?: Info
}

export interface HelloFrame {
  type: 'hello'
  /** The position that what follows continues. Absent where the broker has no positions. */
  id?: string
  v: 1
  session: string
  topic: string
  /** Milliseconds between two pings of the server, 0 where heartbeats are off. */
  heartbeat: number
  /** Largest frame that the server takes here, in bytes. */
  maxPayload: number
  /** Only where `?since=<id>` was given; `false`: reload your state. */
  recovered?: boolean
  /** Only where `?since=` was given: how many messages follow from before the join. */
  replayed?: number
}

export interface MessageFrame<Data = unknown> {
  type: 'message'
  id?: string
  data: Data
  /** The session that published it, where a member did. */
  from?: string
  user?: string
  /** The value that this message is the newest of. */
  key?: string
}

export interface DirectFrame<Data = unknown> {
  type: 'direct'
  data: Data
  from?: string
  user?: string
  /** An answer is wanted: send `{"type":"ack","ref":…,"data":…}`. */
  ref?: Ref
}

/** `state` replaces the list; `join` upserts and `leave` deletes; neither: forget the list, here is the number. */
export interface PresenceFrame<Info = unknown> {
  type: 'presence'
  count: number
  state?: Member<Info>[]
  join?: Member<Info>[]
  leave?: { session: string }[]
}

export type AckFrame =
  | { type: 'ack', ref: Ref, ok: true, id?: string, data?: unknown }
  | { type: 'ack', ref: Ref, ok: false, error: WireError }

export interface ErrorFrame { type: 'error', error: WireError }

/** The member's credentials end soon, and the session with them (4300). */
export interface ExpiringFrame {
  type: 'expiring'
  /** Milliseconds until then. */
  in: number
}

/** Messages of the room that this member will not get. Reload what depends on them. */
export interface GapFrame {
  type: 'gap'
  /** How many messages. Absent if that is not known. */
  count?: number
  /**
   * `slow`: this member has read too slowly for them. `lost`: they may have been lost on their way from the broker to this server. `reset`: the broker has lost its
   * data and counts the messages of the topic anew.
   */
  reason: 'slow' | 'lost' | 'reset'
  /** The position before the first of them. Absent if there are no positions, or it is not known. */
  from?: string
  /** The position of the last of them. Absent if it is not known. */
  to?: string
}

export interface ByeFrame {
  type: 'bye'
  code: number
  reason: string
  /** Reconnect after a random time in this range, in milliseconds. Absent: do not. */
  retry?: { min: number, max: number }
  /** The last position given to this connection. */
  id?: string
}

/** Everything the server sends. A receiver ignores members and types that it does not know. */
export type ServerFrame = HelloFrame | MessageFrame | DirectFrame | PresenceFrame | AckFrame | ErrorFrame | ExpiringFrame | GapFrame | ByeFrame

/** Everything a client may send. A listener never has to send anything. */
export type ClientFrame =
  | { type: 'message', data: unknown, ref?: Ref, key?: string }
  | { type: 'direct', to: string, data: unknown, ref?: Ref }
  | { type: 'ack', ref: Ref, data?: unknown }
  | { type: 'presence', info?: unknown, ref?: Ref }
  | { type: 'auth', token: string, ref?: Ref }
  | { type: 'ping', ref?: Ref }
