import type { BrokerState } from './broker.ts'
import type { DirectFrame, Member, MessageFrame, Mode, PresenceFrame, ServerFrame } from './protocol.ts'
import type { Info, Message, Payload, Publish, TopicName, Topics } from './topics.ts'

export interface BroadcastOptions {
  /** The id of one session that is not to receive it. Live delivery only, no access control. */
  except?: string
  /**
   * Names the value that this message is the newest of (a sensor, say): a member that reads slowly under `slow: 'latest'` gets only the
   * newest of each. 1 to 255 characters; members see it.
   */
  key?: string
}

export interface BroadcastResult<N extends string = string> {
  topic: N
  /** The position of the message, where somebody was there to be told (see docs/protocol.md). */
  id?: string
  /** Members of this node that it was queued to. Never how many have read it. */
  local: number
  /** Whether the broker accepted it. */
  published: boolean
}

/** At least one of the three; a session must match all that are given. One that is there and `undefined` is refused. */
export interface SessionSelector<T = Topics> {
  session?: string
  user?: string
  topic?: TopicName<T>
}

export interface KickOptions {
  /** Close code. Default 4005 `kicked`. */
  code?: number
  /** At most 123 bytes of UTF-8. Default: the code's name. */
  reason?: string
}

export interface SubscribeOptions {
  /** Ends the iteration. */
  signal?: AbortSignal
  /** Messages held for a slow consumer, 1,000 by default; over it the iteration ends with `FST_ROOMS_SUBSCRIBER_SLOW`. */
  buffer?: number
}

export interface AskOptions {
  /** Milliseconds to wait for the answer. Default 10,000. */
  timeout?: number
  signal?: AbortSignal
}

export interface InjectOptions {
  /** Headers of the upgrade request. `host` is `localhost` unless given. */
  headers?: Record<string, string>
  /** Adds `?since=…`. */
  since?: string
  /** Default `rooms.v1`. */
  mode?: Mode
}

export interface NextOptions {
  /** Milliseconds to wait for the frame. Default 5,000. */
  timeout?: number
}

type LastSegment<P extends string> = P extends `${infer Q}?${string}` ? LastSegment<Q> : P extends `${string}/${infer R}` ? LastSegment<R> : P

/** The topic that a URL names in its last segment, whatever stands before it; `never` if that is not known to be a topic. */
export type TopicOfPath<P extends string, T = Topics> = LastSegment<P> extends infer N extends TopicName<T> ? N : never

/** The frames whose content depends on their topic. Private messages come from the host (`message`) or from a member (`publish`). */
interface TopicFrames<N extends string, T> {
  message: MessageFrame<[N] extends [never] ? unknown : Message<N, T>>
  direct: DirectFrame<[N] extends [never] ? unknown : Message<N, T> | Publish<N, T>>
  presence: PresenceFrame<[N] extends [never] ? unknown : Info<N, T>>
}

/** A frame by its type, as members of topic `N` receive it. */
export type FrameOf<K extends ServerFrame['type'], N extends string = never, T = Topics> = K extends keyof TopicFrames<N, T> ? TopicFrames<N, T>[K] : Extract<ServerFrame, { type: K }>

/** A connected client without a port, for tests. `N`: the topic that it is in, if that is known to the compiler. */
export interface InjectedClient<N extends string = never, T = Topics> {
  readonly mode: Mode
  /**
   * The next frame (an object in `rooms.v1`, the text in `rooms.raw`).
   * @throws `FST_ROOMS_INJECT_CLOSED` once the server has closed and all frames are read; `FST_ROOMS_INJECT_TIMEOUT` if none comes within
   * `timeout`: its message lists the last frames that were dropped.
   */
  next (options?: NextOptions): Promise<ServerFrame | string>
  /** The next frame of one type; other frames before it are dropped. */
  next<K extends ServerFrame['type']> (type: K, options?: NextOptions): Promise<FrameOf<K, N, T>>
  /** Sends a frame: an object is serialised, a string goes as it is. */
  send (frame: unknown): void
  /** Closes and waits until the server has let go. */
  close (code?: number, reason?: string): Promise<void>
  /** Settles with the close code and reason. */
  readonly closed: Promise<{ code: number, reason: string }>
}

/** Counters since the start, and gauges. All are of this node. */
export interface Stats {
  /** Gauge: open connections, those still joining included. */
  connections: number
  /** Gauge: rooms with a member or a subscriber. */
  topics: number
  /** Gauge: members of all rooms. */
  members: number
  /** Gauge: bytes accepted for sending that the operating system has not taken yet. */
  queuedBytes: number
  /** Gauge: asynchronous calls of `onMessage` and `onDirect` that have not finished. */
  working: number
  /** Gauge: members that read too slowly, and are sent nothing of their room until they have read. */
  lagging: number
  /** Gauge: publications that the broker has not answered. 0 with the memory broker, which answers at once. */
  publishing: number
  /** Sessions that became members. */
  joined: number
  /** Messages to rooms: from code, the broadcast route and members. */
  broadcasts: number
  /** Messages queued to members by broadcasts. */
  deliveries: number
  /** Private messages queued to members. */
  directs: number
  /** Frames taken from members. */
  received: number
  /** Bytes of these frames: their payload as WebSocket knows it, decompressed. */
  receivedBytes: number
  /** Times that reading from a member was paused, at `limits.pending`. */
  paused: number
  /** Bytes of frames queued to members, header included and compressed where they are; no pings, no close frames, no TLS. */
  sentBytes: number
  /** Frames and payloads from members that were refused. */
  invalid: number
  /** Joins refused after the upgrade. */
  refused: number
  /** Members closed for not reading (4201). */
  slow: number
  /** Messages that members did not get for reading too slowly (`drop`). */
  dropped: number
  /** Messages that members did not get for reading too slowly, since a newer one took their place (`latest`). */
  conflated: number
  /** Connections ended for silence (4203). */
  silent: number
  /** Sessions ended because their credentials had (4300). */
  expired: number
  /** Errors of hooks. */
  errors: number
  /** Publications that the broker has not answered within `limits.publish`. */
  unanswered: number
  /** Entries of the broker that were not delivered, because they, or later ones, had been here before. */
  repeated: number
  /** Times that the members of a topic were told that messages may be missing: the broker said so, left a gap, or counts anew. */
  losses: number
  /** Times that the broker broke its contract. */
  brokerFaults: number
  /** What was refused, by reason. */
  refusals: Refusals
}

/**
 * What was refused since the start, by reason: joins, broadcasts over HTTP and frames of members, each once. The reasons are those
 * below and no others, whatever hosts and clients send, so that they can be labels of a metric.
 */
export interface Refusals {
  /** Joins over `limits.connections`. */
  connections: number
  /** Joins over `limits.perAddress`. */
  perAddress: number
  /** Joins over `limits.topics`. */
  topics: number
  /** Joins over a topic's `limits.members`. */
  members: number
  /** Upgrades, joins and bodies of broadcasts that took longer than `limits.handshake`. */
  handshake: number
  /** Upgrades refused because 1,000 others were being told that there is no room. */
  overloaded: number
  /** Frames over `limits.messages`. */
  messages: number
  /** Frames over `limits.addressMessages`. */
  addressMessages: number
  /** Messages over `limits.work`. */
  work: number
  /** Frames, and bodies of broadcasts, over `limits.payload`. */
  payload: number
  /** Presence info over `limits.info`. */
  info: number
  /** Frames that are none. `limits.badFrames` in a row end the connection. */
  badFrames: number
  /** Payloads that the topic's schema refused, of frames and of broadcasts over HTTP. */
  invalid: number
  /** Violations of RFC 6455. */
  protocol: number
  /** Messages that took longer than `limits.unfinished` to end. */
  unfinished: number
  /** Requests from an origin that may not use the rooms. */
  origin: number
  /** Credentials that have expired before hello, and whatever a hook of the host answered with 401, over HTTP or in a frame. */
  unauthorized: number
  /** 403: `authorize` said no, `onJoin` refused, members may not publish here. */
  forbidden: number
  /** 404 on the plugin's routes, and private messages to nobody. */
  notFound: number
  /** Other answers of 400 to 499. */
  badRequest: number
  /** Whatever a hook of the host answered with 429, and `auth` frames that came before the last was answered. */
  rateLimited: number
  /** Joins while the members are being let go. */
  draining: number
  /** What the broker did not take. */
  broker: number
  /** Joins in raw mode whose `since` cannot be met. */
  position: number
  /** A hook failed, or the server did. */
  failed: number
  /** Joins that the host ended before hello: kicked, or closed in `onJoin`. */
  other: number
}

/** Why something was refused. */
export type Refusal = keyof Refusals

export interface Health {
  /** `true` while joins are taken and the broker is up. */
  ok: boolean
  state: 'open' | 'draining' | 'closed'
  broker: BrokerState
}

/** `app.rooms`. Its calls are never authorised: they are the host's own. */
export interface Rooms<T = Topics> {
  /**
   * Sends a payload to every member of a topic. In one process it is validated, serialised and queued to the members
   * inside the call.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` and `FST_ROOMS_NO_SUCH_TOPIC`, and nobody receives anything; `FST_ROOMS_CLOSED`
   * once the app has closed. Between `preClose` and `onClose` it resolves with `local: 0`.
   */
  broadcast<N extends TopicName<T>> (topic: N, payload: Payload<NoInfer<N>, T>, options?: BroadcastOptions): Promise<BroadcastResult<N>>
  /**
   * Sends a private message to one session; settles as `session.send` does.
   * @throws `FST_ROOMS_NO_SUCH_SESSION`, `FST_ROOMS_INVALID_PAYLOAD` (by the session's topic), `FST_ROOMS_SESSION_CLOSED`.
   */
  send (session: string, payload: unknown): Promise<void>
  /**
   * Sends a private message to all sessions of one user, in all topics: a user with two sessions, in one topic or in two rooms of a
   * family, receives it twice. Resolves with the number of sessions of this node that it was queued to, which may be 0.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` if the topic of any of these sessions does not take the payload; then no session receives it.
   */
  sendToUser (user: string, payload: unknown): Promise<{ local: number }>
  /**
   * The same to the sessions of the user in one topic, with a payload of that topic.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`; `FST_ROOMS_INVALID_PAYLOAD`, even if the user has no session there; `FST_ROOMS_INVALID_ARGUMENT`.
   */
  sendToUser<N extends TopicName<T>> (user: string, payload: Payload<NoInfer<N>, T>, options: { topic: N }): Promise<{ local: number }>
  /**
   * Sends a private message that wants an answer, and resolves with it.
   * @throws `FST_ROOMS_ASK_TIMEOUT`, `FST_ROOMS_NO_SUCH_SESSION`, `FST_ROOMS_NOT_ASKABLE` (a raw session),
   * `FST_ROOMS_INVALID_PAYLOAD`, `FST_ROOMS_SESSION_CLOSED`; the signal's reason where it was aborted.
   */
  ask (session: string, payload: unknown, options?: AskOptions): Promise<unknown>
  /** The members of a topic, at most 1,000 unless `limit` says otherwise. */
  members<N extends TopicName<T>> (topic: N, options?: { limit?: number }): Promise<Member<Info<N, T>>[]>
  /** The number of members of a topic. */
  count (topic: TopicName<T>): Promise<number>
  /** The topics that have members. */
  topics (): Promise<TopicName<T>[]>
  /** Whether a name that came from outside is a topic. In the open lobby: whether it is well formed. */
  has (topic: string): topic is TopicName<T>
  /**
   * The messages of a topic, for a worker on the server: begins with the call, no member, seen by nobody.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`; the iteration `FST_ROOMS_SUBSCRIBER_SLOW`.
   */
  subscribe<N extends TopicName<T>> (topic: N, options?: SubscribeOptions): AsyncIterableIterator<Message<N, T>, void, undefined>
  /**
   * Ends sessions, those still joining included; resolves with how many. They may come back.
   * @throws `FST_ROOMS_INVALID_SELECTOR` where nothing is selected by, `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_INVALID_CLOSE`.
   */
  kick (selector: SessionSelector<T>, options?: KickOptions): Promise<number>
  /**
   * Asks `authorize({ action: 'stay', topic, session })` about sessions, those still joining included, at most 100 at a time: where
   * it says no, 4301; an error with a status of 400 to 499 ends the session as it would in `onJoin`; any other is told to
   * `onError`, and ends it with 1011. Resolves with how many were ended; 0 without `authorize`.
   * @throws `FST_ROOMS_INVALID_SELECTOR` where nothing is selected by, `FST_ROOMS_NO_SUCH_TOPIC`.
   */
  reauthorize (selector: SessionSelector<T>): Promise<number>
  stats (): Stats
  health (): Health
  /** Stops taking joins and lets everybody go with `bye` and 1001; settles when all are gone, at the latest after `drain.timeout`. */
  drain (): Promise<void>
  /**
   * A client without a port, for tests.
   * @param path - the URL as a client would ask for it, prefix included.
   * @throws `FST_ROOMS_INJECT_REFUSED` if the upgrade was refused: `statusCode` and `body` are those of the answer.
   */
  inject<P extends string> (path: P, options?: InjectOptions): Promise<InjectedClient<TopicOfPath<P, T>, T>>
}

/** `request.rooms` */
export interface RequestRooms<T = Topics> {
  /**
   * Validates and serialises at once, and sends when the response has succeeded (status below 400). Nothing is sent
   * where it fails. Returns nothing: awaiting it inside the handler could only deadlock.
   * @throws `FST_ROOMS_INVALID_PAYLOAD`, `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_CLOSED`; `FST_ROOMS_RESPONSE_ENDED` after the response.
   */
  broadcast<N extends TopicName<T>> (topic: N, payload: Payload<NoInfer<N>, T>, options?: BroadcastOptions): void
}
