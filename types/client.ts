/**
 * The client, `fastify-rooms/client`: for browsers, workers and Node.js. These types name no type of the DOM and none of Node.js.
 */
import type { DirectFrame, EndFrame, GapFrame, KeptMessages, Member, MessageFrame, PresenceFrame, Ref } from './protocol.ts'
import type { Info, Message, OpenTopics, Publish, TopicName } from './topics.ts'

/** The members of a WebSocket that the client uses. Those of browsers, Node.js, `ws` and undici have them. */
export interface WebSocketLike {
  readonly readyState: number
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  send (data: string): void
  close (code?: number, reason?: string): void
  /** That of `ws`: cuts the connection without a closing handshake. */
  terminate?(): void
}

/** The class of a WebSocket: `new WebSocket(url, protocols)`. */
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike

/** The members of the answer to a `fetch` that the client uses. */
export interface FetchResponse {
  readonly ok: boolean
  readonly status: number
  readonly headers: { get (name: string): string | null }
  /** A `ReadableStream` of bytes; `null` if there is none. */
  readonly body: any
  text (): Promise<string>
}

/** A function like `fetch`. */
export type FetchLike = (url: string, init: { method?: string, headers: Record<string, string>, body?: string, signal?: any, credentials?: any, cache?: any }) => Promise<FetchResponse>

/** Why a token is asked for. */
export interface TokenRequest {
  /** `true` if the server has refused the last token, or says that it expires soon: a new one is needed, not a stored one. */
  expired: boolean
}

export interface ClientOptions {
  /**
   * The prefix of the plugin: relative to the page (`/rooms`), or absolute (`https://example.com/rooms`, `wss://…`). Its query is kept. Outside of a page it has to
   * be absolute.
   */
  url: string
  /**
   * The token that each connection and request carries, or a function that returns it. The function is called on every attempt to connect, has 10 s, and may return
   * `null` to go without. A WebSocket carries the token as the subprotocol `bearer.<base64url>`, a request as the header `Authorization: Bearer …`. Absent: no token;
   * cookies are sent in any case.
   */
  token?: string | ((request: TokenRequest) => string | null | undefined | Promise<string | null | undefined>) | undefined
  /**
   * Messages that each room keeps while there is no connection: they are sent after the next join, in order, each with a `mid`, so that none is handled
   * twice. Default 0: they are rejected with `unsent`.
   */
  queue?: number | undefined
  /**
   * The path of the connection that several rooms share. Default: `url` itself if it has a path. `false`: each room has its own connection. A server that has no such
   * route makes no difference: each room then has its own, too.
   */
  multiplex?: string | false | undefined
  /** Headers of the requests by `fetch`: snapshots, event streams, and questions why a WebSocket was refused. A WebSocket has none in a browser. */
  headers?: Record<string, string> | undefined
  /** The class of WebSockets. Default: that of the platform. Node.js 20 has none: pass that of `ws` or undici. */
  WebSocket?: WebSocketClass | undefined
  /** The function that makes requests. Default: that of the platform. */
  fetch?: FetchLike | undefined
  /**
   * Is told what would otherwise get lost: errors that a listener throws or that `reload` rejects with, and answers of the server that no call waits for. Default:
   * `console.error`.
   */
  onerror?: ((error: unknown) => void) | undefined
}

/**
 * Whether messages arrive.
 *
 * - `connecting`: the first attempt is under way, or the next one.
 * - `open`: joined. Messages arrive.
 * - `reconnecting`: the connection was lost, and the client comes back by itself.
 * - `waiting`: the page is hidden, frozen or offline. No attempt is made while it is hidden or frozen. The client comes back at once when that ends.
 * - `closed`: no further attempt is made. `error` says why; it is `null` after `leave`, `close` and the end of a stream.
 */
export type RoomStatus = 'connecting' | 'open' | 'reconnecting' | 'waiting' | 'closed'

/**
 * An error of the client or of the server.
 *
 * Codes of the client:
 * - `unsent`: there is no connection, so nothing was sent, and the queue is full or there is none.
 * - `unknown`: the message was sent, and the connection was lost, or 30 s have passed, before an answer came. It may have been accepted.
 * - `token`: the function `token` has thrown, or has not settled within 10 s; `cause` is its error.
 * - `bad_url`: `url` cannot be resolved.
 * - `bad_response`: the URL answers, but not with the JSON of this plugin: it leads elsewhere.
 * - `unreachable`: no server answers.
 * - `blocked`: the server answers requests, but WebSockets do not come through.
 * - `unsupported`: the connection is an event stream, which cannot carry that frame.
 *
 * All others come from the server: those of frames and refusals (`FST_ROOMS_…`), and the reasons of closes (`kicked`, `topic_closed`, `version`).
 */
export interface RoomsError extends Error {
  name: 'RoomsError'
  code: string
  /** The HTTP status of a refusal (under 600), or the close code of a connection (1000 and above). */
  status?: number
  /** Milliseconds after which the server takes requests again, if it has said so. */
  retryAfter?: number
  /** The faults of an invalid payload. */
  details?: { path: string, message: string }[]
}

/** The state of a room. Each change makes a new object; an object never changes. */
export interface RoomState<P = unknown, I = unknown> {
  status: RoomStatus
  /** The transport of the current connection, or of the last one; `null` before the first. */
  transport: 'websocket' | 'event-stream' | null
  /** The id of the own session: `from` of own messages; `null` before the first join. Each join has another. */
  session: string | null
  /** `false`: messages may be missing since a reconnect. It stays `false` until a `reload` has succeeded. */
  recovered: boolean
  /** The last report of messages that will not arrive; `null` if there was none, or after a `reload` that has succeeded. */
  gap: GapFrame | null
  /** The members, with the room option `presence`; `null` if the list is not known: without the option, or in a room of more than 200 members. */
  members: readonly Member<I>[] | null
  /** The number of members, with the room option `presence`; `null` if it is not known. */
  count: number | null
  /** Why there is no connection, or why the last attempt failed. `null` while the room is open. */
  error: RoomsError | null
  /** The last message; `null` if there was none. */
  last: MessageFrame<P> | null
  /** The position up to which the client has all messages: valid as `since`. `null` before the first join, or if the topic has no positions. */
  id: string | null
}

/** One row of a room's log: the status at the beginning or end of an attempt. It names no tokens. */
export interface LogEntry {
  at: Date
  status: RoomStatus
  transport: 'websocket' | 'event-stream' | null
  /** Why the attempt has failed. */
  error: RoomsError | null
  /** The position at that time. */
  id: string | null
}

/** The answer to `client.get`: the messages that a topic keeps, without joining it. */
export interface TopicSnapshot<N extends string = string, P = unknown> extends KeptMessages<P> {
  topic: N
  /** Members of the topic on the node that answered. */
  count: number
}

export interface GetOptions {
  /** The `id` of a message or of an earlier snapshot: the messages behind it. `'latest'`: the newest message of each `key`. Absent: the newest messages. */
  since?: string | undefined
  /** Most messages, 1 to 1,000. Default 100. */
  limit?: number | undefined
}

export interface RoomOptions<N extends string = string, P = unknown> {
  /** The position after which messages follow: the `id` of a snapshot, or of a stored state. `'0'`: all kept messages. `'latest'`: the newest of each `key`. */
  since?: string | undefined
  /** Follows who is in the topic: `members` and `count` of the state, and the event `presence`. Default `false`. */
  presence?: boolean | undefined
  /**
   * Replaces the application's state when messages are missing (`recovered: false`, or a `gap`). It is called with a new snapshot of the topic; messages that are not
   * in it follow when it has returned, or its promise has settled. If it fails, it is called again after a while.
   */
  reload?: ((snapshot: TopicSnapshot<N, P>) => unknown) | undefined
}

export interface PublishOptions {
  /** Names the value that the message replaces: 1 to 255 characters. */
  key?: string | undefined
  /**
   * Names the message, 16 to 64 characters, so that it can be sent again: if the connection is lost before the answer, the client sends it again after the next join,
   * and the server handles it once. With the option `queue`, each message has one by itself.
   */
  mid?: string | undefined
}

/** The events of a room and their values. */
export interface RoomEvents<P = unknown, I = unknown> {
  message: MessageFrame<P>
  /** A private message. If it has a `ref`, the host waits for `room.answer(ref, data)`. */
  direct: DirectFrame
  /** A change of the members, as the server has sent it. The state has the whole list. */
  presence: PresenceFrame<I>
  /** Messages that will not arrive. The state keeps the last one. */
  gap: GapFrame
  /** The end of a stream. The room is `closed` after it. */
  end: EndFrame
  /** A change of `status`, or a further attempt of the same status: the new state. */
  status: RoomState<P, I>
}

/**
 * One topic. Its functions need no `this`.
 *
 * Iterating over it yields the messages that arrive after the iteration has begun. It ends at the end of a stream, and after `leave` and `close`; it throws the
 * `RoomsError` that closes the room. An iteration that falls 1,000 messages behind loses these, and a `gap` says so.
 */
export interface ClientRoom<N extends string = string, P = unknown, S = unknown, I = unknown> extends AsyncIterable<MessageFrame<P>> {
  readonly topic: N
  /**
   * Publishes to the topic. Resolves with the `data` of the server's answer: what the host's `onMessage` has returned.
   * @throws RoomsError `unsent`, `unknown`, or the server's
   */
  publish (data: S, options?: PublishOptions): Promise<unknown>
  /**
   * Sends a private message to a session, or to all sessions of a user (`user:<id>`). Resolves with the `data` of the answer.
   * @throws RoomsError `unsent`, `unknown`, or the server's
   */
  direct (to: string, data: unknown): Promise<unknown>
  /** Answers a private message that has a `ref`. Nothing is sent if the connection is lost: the host's question has ended with it. */
  answer (ref: Ref, data?: unknown): void
  /**
   * Sets the own presence info. It is set again after each reconnect.
   * @throws RoomsError `unsent`, `unknown`, or the server's
   */
  presence (info: I): Promise<unknown>
  /**
   * Reads a page of kept messages over the connection.
   * @throws RoomsError `unsent`, `unknown`, or the server's
   */
  history (options?: GetOptions): Promise<KeptMessages<P>>
  /** The current state: the same object until something changes. */
  getSnapshot (): RoomState<P, I>
  /** Calls a listener after each change of the state. Returns a function that stops it. */
  subscribe (listener: () => void): () => void
  /** Calls a listener for each event. Returns a function that stops it. */
  on<E extends keyof RoomEvents> (event: E, listener: (value: RoomEvents<P, I>[E]) => void): () => void
  /**
   * Reads a snapshot, calls the room option `reload` with it, and continues behind it. `recovered` is `true` and `gap` is `null` then.
   * @throws RoomsError if the snapshot cannot be read; what the option throws
   */
  reload (): Promise<void>
  /** The last 50 attempts, oldest first: `console.table(room.log())`. */
  log (): LogEntry[]
  /** Leaves the topic: iterations end, and the state is `closed`. `client.room` then makes a new room. */
  leave (): void
}

/** The room of a topic of a topic map. */
export type RoomOf<T, N extends TopicName<T>> = ClientRoom<N, Message<N, T>, Publish<N, T>, Info<N, T>>

/** A client of one server. Its functions need no `this`. `T`: the topic map, by `import type`; without it, any topic and `unknown` payloads. */
export interface Client<T = OpenTopics> {
  /**
   * Joins a topic. While the room is not closed, further calls with the same topic return the same room, and their options are ignored. One room alone has a
   * connection of its own; several share one.
   */
  room<const N extends TopicName<T>> (topic: N, options?: RoomOptions<N, Message<N, T>>): RoomOf<T, N>
  /**
   * Reads the messages that a topic keeps, without joining it. `room(topic, { since: snapshot.id })` continues there, without a hole.
   * @throws RoomsError
   */
  get<const N extends TopicName<T>> (topic: N, options?: GetOptions): Promise<TopicSnapshot<N, Message<N, T>>>
  /** Leaves all rooms, for good: no timer, listener or connection is left. Rooms that are made later are closed. */
  close (): void
}
