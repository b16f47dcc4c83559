import type { AsyncApiDocument, AsyncApiOptions } from './asyncapi.ts'
import type { BrokerState, BrokerStats, HistoryStats, Outcome } from './broker.ts'
import type { DirectFrame, EndReason, KeptMessages, Member, MessageFrame, Mode, PresenceFrame, ServerFrame } from './protocol.ts'
import type { Info, Message, Payload, Publish, StreamName, TopicName, Topics } from './topics.ts'

export interface BroadcastOptions {
  /** The id of a session that does not get the message live. This is not access control. */
  except?: string
  /**
   * Names the value that this message replaces, for example a sensor's. A slow member under the policy `latest` gets only the newest message of each
   * key. 1 to 255 characters; members see it.
   */
  key?: string
  /**
   * Names the message, 16 to 64 characters: a second broadcast of the host with the same one in the same topic within 5 minutes is not sent, and
   * resolves with the first result and `duplicate: true`. While the first is not answered, it waits (the 101st rejects with `FST_ROOMS_OVERLOADED`).
   * A result with `published: false` is not remembered. The `mid` of a member is never the same as one of the host. Members do not see it.
   */
  mid?: string
  /**
   * The version of the value, a safe integer, for topics with `history: { latest: true }`: if the value that is kept under the same `key` has a greater one, the
   * message is refused with `FST_ROOMS_STALE`, and takes no position. Values without a version replace any other. Members do not see it.
   */
  version?: number
}

export interface BroadcastResult<N extends string = string> {
  topic: N
  /** The position of the message. Absent if the topic has none, for example because it has no members (see docs/protocol.md). */
  id?: string
  /** Members of this node that it was queued to; they may not have read it. */
  local: number
  /** Whether the broker accepted it. */
  published: boolean
  /**
   * Present if `published` is `false`. `'none'`: no other node gets it, and it is not kept. `'unknown'`: the broker has not answered in time, and may have accepted
   * it; repeated with the same `mid`, it is sent once.
   */
  outcome?: 'none' | 'unknown'
  /** Present if it had been accepted before, and was not sent again. The other members are those of the first result. */
  duplicate?: true
}

/** The result of a private message to a user. */
export interface UserResult {
  /** Sessions of this node that it was queued to. */
  local: number
  /** Whether the broker has taken it for the user's sessions on other nodes, or there are none. */
  published: boolean
}

/** Selects sessions that match every given member. At least one is required, and `undefined` is refused. */
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

/** A user of a topic, as `rooms.members` lists it. */
export interface UserMember<Info = unknown> {
  user: string
  /** Presence info of the session that connected last. In a fleet: of the one on this node, if there is one. */
  info?: Info
  /**
   * The ids of the user's sessions, the one that connected last at the end; those of other nodes are at the beginning. Empty: the user has left this node, and
   * `presence.grace` has not passed.
   */
  sessions: string[]
}

/** Options of calls that read the members of topics. */
export interface LocalOptions {
  /** `true`: only this node is asked. Default: all nodes. Without other nodes (the memory broker) it changes nothing. */
  local?: boolean
}

export interface MembersOptions extends LocalOptions {
  /** Most members, or users. Default 1,000. */
  limit?: number
  /** `'user'`: each user once, with all its sessions. */
  by?: 'session' | 'user'
}

export interface SubscribeOptions {
  /** Ends the iteration when aborted. */
  signal?: AbortSignal
  /** Most messages queued for a slow consumer. Default 1,000. Over it the iteration ends with `FST_ROOMS_SUBSCRIBER_SLOW`. */
  buffer?: number
}

/** The page of kept messages that `rooms.history` reads. */
export interface HistoryOptions {
  /**
   * The `id` of a message, of a hello or of an earlier page: the messages behind it. `'latest'`: the newest message of each `key`. Absent, or `'0'`: the newest
   * messages.
   */
  since?: string
  /** Most messages. Default 100, at most 1,000. A page has at most 1 MiB, unless a single message is larger. */
  limit?: number
}

/** The answer to a plain `GET` of a topic's URL: its messages, without joining it. */
export interface Snapshot<N extends TopicName<T>, T = Topics> extends KeptMessages<Message<N, T>> {
  topic: N
  /** Members of the topic, on all nodes if the broker tells their number, else on this node. */
  count: number
}

export interface WriteOptions {
  /** Names the value that this message replaces, as in a broadcast. */
  key?: string
}

export interface PipeOptions<P = unknown> {
  /**
   * Joins two messages that follow each other: the parts that one turn of the event loop has brought, and those that come while the broker takes its time, are then
   * written as one. Its first argument is the older one. Absent: one message for each part.
   */
  merge?: (a: P, b: P) => P
}

/** How a stream has ended. */
export interface StreamEnd<N extends string = string> {
  topic: N
  /** The position of the end. Absent if another process has ended the stream. */
  id?: string
  reason: EndReason
}

/**
 * The producer of a stream. It outlives every connection. `await using` ends a stream that was left without `end` as `failed`.
 *
 * A message that the broker does not accept within `limits.publish` would be missing for all readers, so it ends the stream as `failed`.
 */
export interface StreamRun<P = unknown, N extends string = string> extends AsyncDisposable {
  readonly topic: N
  /**
   * Aborted when the stream ends in another way than by `end`: by `rooms.stop`, when a drain ends or because the topic was ended elsewhere (an `AbortError`), or by a
   * failure (with its error).
   */
  readonly signal: AbortSignal
  /**
   * Sends a message to all readers, and resolves with its `id`. Messages are sent in the order of the calls. With the memory broker it is queued to the members
   * inside the call. It never waits for readers. The promise need not be awaited: a rejection goes to `onError`, unless the stream has ended.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` and `FST_ROOMS_INVALID_ARGUMENT`, after which the stream goes on; `FST_ROOMS_STREAM_ENDED`; `FST_ROOMS_BROKER_DOWN`, which
   * ends the stream.
   */
  write (payload: P, options?: WriteOptions): Promise<string>
  /**
   * Writes all that a source brings, and ends the stream with it: `done` when the source ends, `failed` if it throws. When the stream ends before, the source is
   * read no further: its iterator's `return`, a reader's `cancel`, or a Node.js stream's `destroy` is called.
   * @returns how the stream has ended
   * @throws the error of the source or of `merge`; `FST_ROOMS_INVALID_PAYLOAD`; `FST_ROOMS_BROKER_DOWN`. The promise need not be awaited: a rejection goes to
   * `onError`.
   */
  pipe (source: AsyncIterable<P> | ReadableStream<P>, options?: PipeOptions<P>): Promise<StreamEnd<N>>
  /**
   * Ends the stream behind all messages that were written.
   * @param data - JSON that the end carries, for example what the answer has cost
   * @returns how the stream has ended, which is another way if it had ended before
   * @throws `FST_ROOMS_INVALID_PAYLOAD` if the data is not JSON; `FST_ROOMS_BROKER_DOWN` if the broker does not take the end: the topic is then free again.
   */
  end (data?: unknown): Promise<StreamEnd<N>>
  /**
   * Ends the stream as `failed`. Readers are told the `code` and `message` of an error with a status of 400 to 499, and nothing of any other error.
   * @returns how the stream has ended, which is another way if it had ended before
   * @throws `FST_ROOMS_BROKER_DOWN` if the broker does not take the end: the topic is then free again.
   */
  fail (error: unknown): Promise<StreamEnd<N>>
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

/** The topic that a URL names in its last segment; `never` if the segment is not known to be a topic. */
export type TopicOfPath<P extends string, T = Topics> = LastSegment<P> extends infer N extends TopicName<T> ? N : never

/** The frames whose content depends on their topic. A private message has the `message` type if the host sent it, the `publish` type if a member did. */
interface TopicFrames<N extends string, T> {
  message: MessageFrame<[N] extends [never] ? unknown : Message<N, T>>
  direct: DirectFrame<[N] extends [never] ? unknown : Message<N, T> | Publish<N, T>>
  presence: PresenceFrame<[N] extends [never] ? unknown : Info<N, T>>
}

/** The frame of one type that members of topic `N` receive. */
export type FrameOf<K extends ServerFrame['type'], N extends string = never, T = Topics> = K extends keyof TopicFrames<N, T> ? TopicFrames<N, T>[K] : Extract<ServerFrame, { type: K }>

/** A connected client without a port, for tests. `N`: its topic, if the compiler can infer it. */
export interface InjectedClient<N extends string = never, T = Topics> {
  readonly mode: Mode
  /**
   * Resolves with the next frame: an object in `rooms.v1`, the text in `rooms.raw`.
   * @throws `FST_ROOMS_INJECT_CLOSED` when the server has closed and all frames are read; `FST_ROOMS_INJECT_TIMEOUT` if no frame arrives within
   * `timeout`; its message lists the last dropped frames.
   */
  next (options?: NextOptions): Promise<ServerFrame | string>
  /** Resolves with the next frame of one type. Other frames before it are dropped. */
  next<K extends ServerFrame['type']> (type: K, options?: NextOptions): Promise<FrameOf<K, N, T>>
  /** Sends a frame. Strings and Buffers are sent as they are, other values as JSON. */
  send (frame: unknown): void
  /** Closes the connection and waits until the server has closed it, too. */
  close (code?: number, reason?: string): Promise<void>
  /** Settles with the close code and reason. */
  readonly closed: Promise<{ code: number, reason: string }>
}

/** The broker, as this node sees it. The memory broker has neither a server nor other nodes: most of its numbers are 0. */
export interface BrokerNumbers extends BrokerStats {
  state: BrokerState
  /** Gauge: milliseconds for which it has been in this state. */
  stateFor: number
  /** Times that it was up, and then was no longer. */
  outages: number
  /** Entries that it has brought for topics with a room here, own ones included. */
  entries: number
  /** Publications of this node that have been settled, by outcome. */
  outcomes: Record<Outcome['state'], number>
}

/** Counters since the start, and gauges, of this node. */
export interface Stats {
  /** Gauge: open connections, those still joining included. */
  connections: number
  /** Gauge: rooms with a member, a subscriber or a request that waits. */
  topics: number
  /** Gauge: members of all rooms. */
  members: number
  /** Gauge: bytes accepted for sending that the operating system has not taken yet. */
  queuedBytes: number
  /** Gauge: unfinished asynchronous calls of `onMessage` and `onDirect`. */
  working: number
  /** Gauge: slow members, which get no messages of their room until they have read the buffered bytes. */
  lagging: number
  /** Gauge: publications that the broker has not answered. 0 with the memory broker, which answers synchronously. */
  publishing: number
  /** Gauge: requests that wait for a message (`GET` of a topic with `wait`). */
  waiting: number
  /** Gauge: streams whose producer is in this process. */
  streams: number
  /** Gauges: messages that topics keep in this process. `evicted` is a counter: topics that lost them over `limits.history`. */
  history: HistoryStats
  /** Gauges and counters of the broker. */
  broker: BrokerNumbers
  /** Sessions that became members. */
  joined: number
  /** Joins with the `id` of a position after which the member gets every message (`recovered: true`). */
  recovered: number
  /** Joins with the `id` of a position after which messages are missing (`recovered: false`). */
  unrecovered: number
  /** Kept messages queued to members that joined. They count as deliveries, too. */
  replayed: number
  /** Messages to rooms, from code, broadcast routes and members. */
  broadcasts: number
  /** Messages that had been accepted before, and were answered with the first result. */
  duplicates: number
  /** Messages queued to members by broadcasts. */
  deliveries: number
  /** Private messages queued to members. */
  directs: number
  /** Frames received from members. */
  received: number
  /** Bytes of these frames: their WebSocket payload, decompressed. */
  receivedBytes: number
  /** Times that reading from a member was paused, at `limits.pending`. */
  paused: number
  /** Bytes of frames queued to members, with headers, after compression; without pings, close frames and TLS. */
  sentBytes: number
  /** Frames and payloads from members that were refused. */
  invalid: number
  /** Joins refused after the upgrade. */
  refused: number
  /** Slow members that were closed (4201). */
  slow: number
  /** Messages that slow members did not get (`drop`). */
  dropped: number
  /** Messages that slow members did not get, because a newer one of the same key replaced them (`latest`). */
  conflated: number
  /** Connections ended because the peer was silent (4203). */
  silent: number
  /** Sessions ended because their credentials had expired (4300). */
  expired: number
  /** Errors of hooks. */
  errors: number
  /** Publications, and messages to other nodes, that the broker has not answered within `limits.publish`. */
  unanswered: number
  /** Entries of the broker that were not delivered, because they, or later ones, had been delivered before. */
  repeated: number
  /** Times that the members of a topic were told that messages may be missing: the broker reported a loss, left a gap, or started a new epoch. */
  losses: number
  /** Times that the broker broke its contract. */
  brokerFaults: number
  /** Messages of other nodes that were ignored, because they are of another version or damaged. */
  unreadable: number
  /** Refusals by reason. */
  refusals: Refusals
}

/**
 * Refused joins, broadcasts over HTTP and frames of members since the start, by reason. Each is counted once. The reasons are a fixed set, so that
 * they can be labels of a metric.
 */
export interface Refusals {
  /** Joins over `limits.connections`. */
  connections: number
  /** Joins over `limits.perAddress`. */
  perAddress: number
  /** Joins over `limits.topics`. */
  topics: number
  /** A connection was over `limits.topicsPerConnection`. */
  topicsPerConnection: number
  /** Joins over a topic's `limits.members`. */
  members: number
  /** Upgrades, joins and bodies of broadcasts that took longer than `limits.handshake`. */
  handshake: number
  /** Upgrades refused because 1,000 refused connections were still being closed, and requests refused because too many waited for a message. */
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
  /** Bad frames. `limits.badFrames` consecutive ones end the connection. */
  badFrames: number
  /** Payloads of frames, and of broadcasts over HTTP, that the topic's schema refused. */
  invalid: number
  /** Violations of RFC 6455. */
  protocol: number
  /** Messages that took longer than `limits.unfinished` to end. */
  unfinished: number
  /** Requests from an origin that may not use the rooms. */
  origin: number
  /** Credentials that expired before hello, and refusals of the host's hooks with 401, over HTTP or in a frame. */
  unauthorized: number
  /** 403: `authorize` or `onJoin` refused, or members may not publish in the topic. */
  forbidden: number
  /** 404 on the plugin's routes, and private messages without a receiver. */
  notFound: number
  /** Other refusals with a status of 400 to 499. */
  badRequest: number
  /** Refusals of the host's hooks with 429, and `auth` frames that arrived before the last one was answered. */
  rateLimited: number
  /** Joins during a drain. */
  draining: number
  /** Messages and joins that failed because of the broker. */
  broker: number
  /** Joins in raw mode with a `since` that cannot be continued. */
  position: number
  /** Refusals because a hook or the server failed. */
  failed: number
  /** Joins that the host ended before hello: kicked, or closed in `onJoin`. */
  other: number
}

/** The reason of a refusal. */
export type Refusal = keyof Refusals

export interface Health {
  /** Whether joins are accepted and the broker is up. */
  ok: boolean
  state: 'open' | 'draining' | 'closed'
  broker: BrokerState
  /** Milliseconds for which the broker has been in this state. */
  brokerFor: number
  /**
   * Why the broker is not up. While it is up: the first fault that it has reported since it came up. It may name addresses of servers. Absent: the broker has given
   * none.
   */
  cause?: string
  /** State, duration, consequences and cause, in one or more English sentences, for people. Programs read the other members. */
  detail: string
}

/** `app.rooms`. `authorize` is not asked about its calls, because they are the host's own. */
export interface Rooms<T = Topics> {
  /**
   * Sends a payload to every member of a topic. With the memory broker it is checked, serialised and queued to the members inside the call.
   * Between `preClose` and `onClose` it resolves with `local: 0`.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` and `FST_ROOMS_NO_SUCH_TOPIC`, in which case no member receives it; `FST_ROOMS_CLOSED` when the app has
   * closed.
   */
  broadcast<N extends TopicName<T>> (topic: N, payload: Payload<NoInfer<N>, T>, options?: BroadcastOptions): Promise<BroadcastResult<N>>
  /**
   * Sends a private message to one session, on any node. Settles as `session.send` does; for a session of another node at the latest when half of `limits.publish` has
   * passed there.
   * @throws `FST_ROOMS_NO_SUCH_SESSION`, `FST_ROOMS_INVALID_PAYLOAD` (of the session's topic), `FST_ROOMS_SESSION_CLOSED`; `FST_ROOMS_BROKER_DOWN` if the session's node
   * does not answer within `limits.publish`: the session may have received it.
   */
  send (session: string, payload: unknown): Promise<void>
  /**
   * Sends a private message to all sessions of a user, in all topics and on all nodes. A user with two sessions, in one topic or in two rooms of a family, receives
   * it twice.
   * @returns the number of sessions of this node that it was queued to, which may be 0, and whether the broker has taken it for other nodes.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` if the topic of one of the sessions of this node refuses the payload; then no session receives it. On another node the
   * error goes to `onError`, and no session of that node receives it.
   */
  sendToUser (user: string, payload: unknown): Promise<UserResult>
  /**
   * Sends a private message to the sessions of a user in one topic, with a payload of that topic.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`; `FST_ROOMS_INVALID_PAYLOAD`, even if the user has no session there; `FST_ROOMS_INVALID_ARGUMENT`.
   */
  sendToUser<N extends TopicName<T>> (user: string, payload: Payload<NoInfer<N>, T>, options: { topic: N }): Promise<UserResult>
  /**
   * Sends a private message that requests an answer to a session, on any node, and resolves with the answer.
   * @throws `FST_ROOMS_BROKER_DOWN` if the broker does not take the question for another node; `FST_ROOMS_ASK_TIMEOUT`, `FST_ROOMS_NO_SUCH_SESSION`, `FST_ROOMS_NOT_ASKABLE` (a raw WebSocket or an event stream), `FST_ROOMS_INVALID_PAYLOAD`,
   * `FST_ROOMS_SESSION_CLOSED`; the signal's reason if it is aborted.
   */
  ask (session: string, payload: unknown, options?: AskOptions): Promise<unknown>
  /**
   * Resolves with the members of a topic, at most `limit` of them. Default 1,000. In a fleet: of a topic with `presence`, on all nodes, those of other nodes first.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_INVALID_ARGUMENT`. In a fleet, unless `local` is `true`: `FST_ROOMS_NOT_LISTED` for a topic without `presence`, or
   * if the broker notes no members; `FST_ROOMS_BROKER_SILENT`, `FST_ROOMS_BROKER_DOWN`.
   */
  members<N extends TopicName<T>> (topic: N, options?: MembersOptions & { by?: 'session' }): Promise<Member<Info<N, T>>[]>
  /**
   * Resolves with the users of a topic, at most `limit` of them, each once with all its sessions. A user that has left is listed until
   * `presence.grace` has passed. Members without an identity are not listed. In a fleet with a room above 200 members, or without one here, the users of `limit`
   * sessions are listed.
   * @throws as above
   */
  members<N extends TopicName<T>> (topic: N, options: MembersOptions & { by: 'user' }): Promise<UserMember<Info<N, T>>[]>
  /**
   * Resolves with the number of members of a topic, in a fleet on all nodes, at most 2 s old.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_INVALID_ARGUMENT`. In a fleet, unless `local` is `true`: `FST_ROOMS_NOT_LISTED` if the broker notes no members;
   * `FST_ROOMS_BROKER_SILENT`, `FST_ROOMS_BROKER_DOWN`.
   */
  count (topic: TopicName<T>, options?: LocalOptions): Promise<number>
  /**
   * Resolves with the topics that have members, in a fleet on any node, up to 2 s ago, and at most 100,000 of them.
   * @throws as `count`
   */
  topics (options?: LocalOptions): Promise<TopicName<T>[]>
  /** Whether a name, for example of a request, is a topic. In the open lobby: whether it is well formed. */
  has (topic: string): topic is TopicName<T>
  /**
   * Resolves with a page of the messages that a topic keeps (see the option `history`). A topic that keeps none has no messages, and is not `complete`.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_INVALID_ARGUMENT`, `FST_ROOMS_BROKER_SILENT`
   */
  history<N extends TopicName<T>> (topic: N, options?: HistoryOptions): Promise<KeptMessages<Message<N, T>>>
  /**
   * Claims a topic with `stream: true`, and resolves with its producer.
   * @throws `FST_ROOMS_STREAM_TAKEN` if it has a producer; `FST_ROOMS_STREAM_ENDED` if it has ended; `FST_ROOMS_NOT_A_STREAM`; `FST_ROOMS_NO_SUCH_TOPIC`;
   * `FST_ROOMS_BROKER_SILENT`; `FST_ROOMS_DRAINING` and `FST_ROOMS_CLOSED`.
   */
  stream<N extends StreamName<T>> (topic: N): Promise<StreamRun<Message<N, T>, N>>
  /**
   * Stops the stream of a topic: aborts the producer's `signal`, and ends the stream as `stopped`, behind all messages that were written. A producer on another node is
   * told; the stream ends at once, also if its producer has gone with its node, and messages that the producer writes meanwhile are refused.
   * @returns whether the topic had a producer here that had not ended, or messages of a stream that had not ended and has no producer here.
   * @throws `FST_ROOMS_NOT_A_STREAM`, `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_BROKER_DOWN`, `FST_ROOMS_BROKER_SILENT`.
   */
  stop (topic: StreamName<T>): Promise<boolean>
  /**
   * Returns an iterator of the messages of a topic from this call on, for a worker on the server. The subscriber is not a member, and presence does
   * not show it.
   * @throws `FST_ROOMS_NO_SUCH_TOPIC`; the iteration throws `FST_ROOMS_SUBSCRIBER_SLOW`, and, for failures of the broker,
   * `FST_ROOMS_MESSAGES_LOST` and `FST_ROOMS_BROKER_SILENT`. The end of a stream ends it.
   */
  subscribe<N extends TopicName<T>> (topic: N, options?: SubscribeOptions): AsyncIterableIterator<Message<N, T>, void, undefined>
  /**
   * Ends sessions on all nodes, those still joining included. Their clients may join again.
   * @returns the number of sessions of this node that were ended; with `session`, that of the node of this session.
   * @throws `FST_ROOMS_INVALID_SELECTOR` for an empty or unknown selector, `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_INVALID_CLOSE`; `FST_ROOMS_BROKER_DOWN` if the broker
   * did not take it for other nodes: the sessions of this node have ended.
   */
  kick (selector: SessionSelector<T>, options?: KickOptions): Promise<number>
  /**
   * Calls `authorize({ action: 'stay', topic, session })` for sessions, those still joining included, at most 100 at a time. If it returns `false`,
   * the session ends with 4301. An error with a status of 400 to 499 ends the session as in `onJoin`; any other error is passed to `onError`, and
   * ends it with 1011. Each node asks its own host about its own sessions.
   * @returns the number of sessions of this node that were ended; with `session`, that of the node of this session; 0 without `authorize`.
   * @throws `FST_ROOMS_INVALID_SELECTOR` for an empty or unknown selector, `FST_ROOMS_NO_SUCH_TOPIC`; `FST_ROOMS_BROKER_DOWN` as `kick`.
   */
  reauthorize (selector: SessionSelector<T>): Promise<number>
  stats (): Stats
  health (): Health
  /**
   * Returns the contract of the topics as an AsyncAPI 3.0.0 document, which the caller may change. It is made at the first call.
   * @param options - `info` and `servers` in place of those of the option `asyncapi`
   * @throws `FST_ROOMS_INVALID_ARGUMENT`
   */
  asyncapi (options?: AsyncApiOptions): AsyncApiDocument
  /** Refuses joins from now on, and closes all connections with `bye` and 1001. Settles when they are closed, at the latest after `drain.timeout`. */
  drain (): Promise<void>
  /**
   * Connects a client without a port, for tests.
   * @param path - the path of the request, with the prefix and the query.
   * @throws `FST_ROOMS_INJECT_REFUSED` if the upgrade was refused; `statusCode` and `body` are those of the response.
   */
  inject<P extends string> (path: P, options?: InjectOptions): Promise<InjectedClient<TopicOfPath<P, T>, T>>
}

/** `request.rooms` */
export interface RequestRooms<T = Topics> {
  /**
   * Checks and serialises a payload, and sends it when the response has succeeded (status below 400). If the response fails, nothing is sent.
   * Returns no promise, because a handler that awaited it would wait for its own response.
   * @throws `FST_ROOMS_INVALID_PAYLOAD`, `FST_ROOMS_NO_SUCH_TOPIC`, `FST_ROOMS_CLOSED`; `FST_ROOMS_RESPONSE_ENDED` after the response.
   */
  broadcast<N extends TopicName<T>> (topic: N, payload: Payload<NoInfer<N>, T>, options?: BroadcastOptions): void
}
