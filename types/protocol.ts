/**
 * The wire protocol `rooms.v1`: one JSON object per text frame. docs/protocol.md gives the rules.
 */

/** The subprotocol of a connection: frames as objects, or bare payloads. Selected by `Sec-WebSocket-Protocol`. */
export type Mode = 'rooms.v1' | 'rooms.raw'

/** Identifies a frame in its answer: a string of 1 to 64 characters, or a safe integer. */
export type Ref = string | number

/**
 * A place in the order of one topic.
 *
 * `epoch`: 11 to 64 letters and digits (`[A-Za-z0-9]`), random, at least 64 bits; a new one whenever the topic's data was lost. `offset`: a whole
 * number from 0 and below 10 ** 15 that grows by exactly one for each publication of the topic. Any other position is refused.
 */
export interface Position { epoch: string, offset: number }

/** An error in a frame. */
export interface WireError {
  /** A stable code: `FST_ROOMS_…`, or that of an error of the host. */
  code: string
  message: string
  /** The faults of an invalid payload: the path as a JSON pointer, and the expectation. */
  details?: { path: string, message: string }[]
}

/** A member in presence. */
export interface Member<Info = unknown> {
  /** The id of the session. It is public and grants no rights. */
  session: string
  user?: string
  info?: Info
}

export interface HelloFrame {
  type: 'hello'
  /** The position after which the following messages continue. Absent if the broker has no positions. */
  id?: string
  v: 1
  session: string
  topic: string
  /** That of the `join` frame that it answers, on a connection of several topics. */
  ref?: Ref
  /** Milliseconds between two pings of the server; 0 if there are none. */
  heartbeat: number
  /** Largest frame that the server accepts in this topic, in bytes. */
  maxPayload: number
  /** Present only for `?since=<id>`. `false`: messages may be missing, so the client has to reload its state. */
  recovered?: boolean
  /** Present for `?since=`, and if kept messages follow: the number of messages from before the join that follow. */
  replayed?: number
}

export interface MessageFrame<Data = unknown> {
  type: 'message'
  id?: string
  data: Data
  /** The id of the session that published it, if it comes from a member. */
  from?: string
  user?: string
  /** The value that this message replaces. */
  key?: string
}

/**
 * Why a stream has ended. `done`: its producer has written all of it. `failed`: its producer has failed. `stopped`: by `rooms.stop`. `lost`: its producer has gone,
 * because the server was shut down or its process died.
 */
export type EndReason = 'done' | 'failed' | 'stopped' | 'lost'

/** The end of a stream: nothing follows it but `bye`, with 1000. */
export interface EndFrame<Data = unknown> {
  type: 'end'
  id?: string
  reason: EndReason
  /** The value that the producer gave to `run.end`, or the error that it failed with. Absent if there is none, or if it is no longer kept. */
  data?: Data
}

export interface DirectFrame<Data = unknown> {
  type: 'direct'
  data: Data
  from?: string
  user?: string
  /** Present if an answer is requested: `{"type":"ack","ref":…,"data":…}`. */
  ref?: Ref
}

/** `state` replaces the list of members, `join` upserts and `leave` deletes. Without any of them the list is no longer sent, only the number. */
export interface PresenceFrame<Info = unknown> {
  type: 'presence'
  count: number
  state?: Member<Info>[]
  join?: Member<Info>[]
  leave?: { session: string }[]
}

export type AckFrame =
  /** `duplicate`: a message with the same `mid` had been accepted before, and this is the answer to that one. */
  | { type: 'ack', ref: Ref, ok: true, id?: string, data?: unknown, duplicate?: true }
  | { type: 'ack', ref: Ref, ok: false, error: WireError }

export interface ErrorFrame { type: 'error', error: WireError }

/** The answer to a `join` that was refused. Without a `ref` in the `join`, its type is `error`. */
export interface JoinRefusedFrame {
  type: 'ack' | 'error'
  topic: string
  ref?: Ref
  ok?: false
  error: WireError
  /** The close code that a refused join by URL would have had: its range says what to do. */
  close: number
  /** The range of the random time after which to join again, in milliseconds. Absent: do not join again. */
  retry?: { min: number, max: number }
}

/** The member's credentials expire soon, and the session ends with them (4300). */
export interface ExpiringFrame {
  type: 'expiring'
  /** Milliseconds until then. */
  in: number
}

/** Messages of the room that this member does not get. State that depends on them has to be reloaded. */
export interface GapFrame {
  type: 'gap'
  /** The number of messages. Absent if it is not known. */
  count?: number
  /**
   * `slow`: dropped, because this member is slow. `lost`: they may have been lost between the broker and this server. `reset`: the broker has lost
   * its data and started a new epoch of the topic.
   */
  reason: 'slow' | 'lost' | 'reset'
  /** The position before the first message. Absent if there are no positions, or it is not known. */
  from?: string
  /** The position of the last message. Absent if it is not known. */
  to?: string
}

export interface ByeFrame {
  type: 'bye'
  code: number
  reason: string
  /** The range of the random time after which to reconnect, in milliseconds. Absent: do not reconnect. */
  retry?: { min: number, max: number }
  /** The last position given to this connection. */
  id?: string
}

/** The first frame on a connection of several topics. */
export interface ConnectionHelloFrame {
  type: 'hello'
  v: 1
  /** Milliseconds between two pings of the server; 0 if there are none. */
  heartbeat: number
  /** Largest frame that the server accepts in any topic, in bytes. */
  maxPayload: number
}

/** A frame of the server. A client has to ignore unknown members and types. */
export type ServerFrame = HelloFrame | MessageFrame | EndFrame | DirectFrame | PresenceFrame | AckFrame | ErrorFrame | ExpiringFrame | GapFrame | ByeFrame

/** A frame of a client. A client that only listens need not send any. */
export type ClientFrame =
  /** `mid`: names the message, so that it can be sent again without doubt: 1 to 64 characters, at least 16 from an anonymous member. */
  | { type: 'message', data: unknown, ref?: Ref, key?: string, mid?: string }
  | { type: 'direct', to: string, data: unknown, ref?: Ref }
  | { type: 'ack', ref: Ref, data?: unknown }
  | { type: 'presence', info?: unknown, ref?: Ref }
  | { type: 'history', since?: string, limit?: number, ref: Ref }
  | { type: 'auth', token: string, ref?: Ref }
  | { type: 'ping', ref?: Ref }

/** Joins a topic, on a connection of several topics. It is answered by `hello`, or by a `JoinRefusedFrame`. */
export interface JoinFrame {
  type: 'join'
  topic: string
  /** The id of the last message that the client has received, `0` or `latest`. */
  since?: string
  /** Asks for a presence snapshot after `hello`. */
  presence?: boolean
  ref?: Ref
}

/** Leaves a topic, on a connection of several topics. The frames before it are handled first. */
export interface LeaveFrame {
  type: 'leave'
  topic: string
  ref?: Ref
}

/** A frame of the server on a connection of several topics. A `bye` or an `error` without `topic` concerns the connection, as do `expiring` and the ack of `ping` and `auth`. */
export type MultiplexedServerFrame =
  | ConnectionHelloFrame
  | JoinRefusedFrame
  | ExpiringFrame
  | (Exclude<ServerFrame, AckFrame | ErrorFrame | ByeFrame | ExpiringFrame> & { topic: string })
  | ((AckFrame | ErrorFrame | ByeFrame) & { topic?: string })

/** A frame of a client on a connection of several topics. `ping` and `auth` name no topic. */
export type MultiplexedClientFrame = JoinFrame | LeaveFrame | (Exclude<ClientFrame, { type: 'ping' | 'auth' }> & { topic: string }) | Extract<ClientFrame, { type: 'ping' | 'auth' }>

/** A message that a topic keeps. */
export interface StoredMessage<P = unknown> {
  id: string
  data: P
  /** The id of the session that published it. Absent if the host did. */
  from?: string
  /** The user of that session. */
  user?: string
  key?: string
}

/** The end of a stream, as a page has it. */
export interface KeptEnd {
  id: string
  reason: EndReason
  /** Absent if there is none, if `since` was not before the end, or if it is no longer kept. */
  data?: unknown
}

/** A page of the messages that a topic keeps, in order. */
export interface KeptMessages<P = unknown> {
  /** The position up to which the page goes: valid as `since` for the next page, and for a join. Absent if the topic has none. */
  id?: string
  messages: StoredMessage<P>[]
  /** Present if `since` was the `id` of a position. `false`: messages behind it are no longer kept, and these are the newest ones. */
  recovered?: boolean
  /** Nothing between `since`, or the topic's beginning, and its last publication is missing. */
  complete: boolean
  /** Present if the page goes up to the end of a stream: nothing follows. */
  ended?: KeptEnd
}
