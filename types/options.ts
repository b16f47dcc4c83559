import type { WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { AsyncApiDocument, AsyncApiOptions } from './asyncapi.ts'
import type { Broker } from './broker.ts'
import type { AnySession, AnyUserPresence, Session } from './session.ts'
import type { Closed, Converted, Message, NameOf, Publish, Publishable, SlowPolicy, TopicHistory, TopicMap, TopicName, Topics } from './topics.ts'

/** The identity of a request, as `identify` and `onAuth` return it. */
export interface Identity {
  /** 1 to 255 characters. Public: members see it in presence and messages. */
  user: string
  /** Presence info, checked by the topic's `presence` schema. */
  info?: unknown
  /**
   * The time at which the credentials expire and the session ends (4300): a Date, milliseconds since 1970, or seconds as in a JWT's `exp`
   * (numbers below 100,000,000,000 are seconds). Absent: never. In the past: 401 `FST_ROOMS_TOKEN_EXPIRED`. `authorize` gets a Date.
   */
  expires?: Date | number | undefined
}

/**
 * The argument of `authorize`. `broadcast` is a request to the broadcast route; `stay` comes from `rooms.reauthorize`; `history` is the reading of kept
 * messages: by a request (a join with `since`, or a plain `GET`, of a topic that keeps some; it is asked after `join`) or by a member's frame.
 */
export type AuthorizeContext<T = Topics> =
  | { action: 'join' | 'broadcast' | 'history', topic: TopicName<T>, request: FastifyRequest, identity: Identity | null }
  | { action: 'history', topic: TopicName<T>, session: AnySession<T> }
  | { action: 'stay', topic: TopicName<T>, session: AnySession<T> }
  | { action: 'publish', topic: TopicName<T>, session: AnySession<T>, payload: unknown, key: string | undefined }
  | { action: 'presence', topic: TopicName<T>, session: AnySession<T>, payload: unknown }
  | { action: 'direct', topic: TopicName<T>, session: AnySession<T>, payload: unknown, target: DirectTarget }

/**
 * The receivers of a private message. `authorize` is called once for each topic that has such sessions; with `onDirect` also for the sender's own
 * topic, if none of these topics is permitted or there are no such sessions. Without `authorize` only the sender's own topic is reached.
 */
export interface DirectTarget {
  /** The topic of the sessions that would receive it. */
  topic: string
  /** The id of the session, if the member named a session. */
  session?: string
  /** The user, if the member named a user. */
  user?: string
}

/** The end of a session. `code` is the close code, 1006 if the connection ended without a close frame; `reason` is at most 123 bytes. */
export interface LeaveReason { code: number, reason: string }

/** An invalid message of a member. `details` has the faults of a payload that the schema refused, with paths as JSON pointers. */
export interface InvalidMessage {
  code: string
  message: string
  details?: { path: string, message: string }[]
}

/** Members of a message frame beside the payload. */
export interface MessageDetails {
  /** The value that the message replaces. A handler that broadcasts passes it on. */
  key: string | undefined
  /** The name that the member gave the message, 1 to 64 characters. It is unique per user and topic at most, and may be the key of a row of the host. */
  mid: string | undefined
}

/** A private message of a member that has not been delivered yet. */
export interface DirectDetails<K extends string = string, T = Topics> {
  /** The session or the user that the member named. */
  readonly to: { readonly session: string } | { readonly user: string }
  /** The sessions that it would reach: open, and permitted by `authorize`. Empty for example if the user is offline. */
  readonly receivers: readonly AnySession<T>[]
  /**
   * Queues the member's own payload to `receivers`, as a `direct` frame from the member.
   * @returns the number of sessions that it was queued to, without those that have ended meanwhile; 0 if the server has ended the sender.
   */
  deliver (): number
  /**
   * Queues another payload instead. Its type is that of the member's own topic; if `receivers` are in another topic, name that:
   * `deliver<'inbox:ann'>(payload)`.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` if the `message` schema of the topic of a receiver refuses it; then no session receives it.
   */
  deliver<N extends TopicName<T> = NameOf<K, T> & TopicName<T>> (payload: Message<NoInfer<N>, T>): number
}

type OnDirect<K extends string, T, P = Publish<K, T>> = (session: Session<K, T>, payload: P, direct: DirectDetails<K, T>) => unknown
type DirectHandlers<T> = Closed<T> extends false ? Record<string, OnDirect<string, T, any>> : { [K in keyof T & string]?: K extends Publishable<T> ? OnDirect<K, T> : never }

type OnMessage<K extends string, T> = (session: Session<K, T>, payload: Publish<K, T>, message: MessageDetails) => unknown
type Handlers<T> = Closed<T> extends false ? { onMessage?: Record<string, (session: Session<string, T>, payload: any, message: MessageDetails) => unknown> } :
    [Converted<T>] extends [never] ? { onMessage?: { [K in keyof T & string]?: K extends Publishable<T> ? OnMessage<K, T> : never } } :
        { onMessage: { [K in Converted<T>]: OnMessage<K, T> } & { [K in Exclude<Publishable<T>, Converted<T>>]?: OnMessage<K, T> } }

/** The options of a route that the host may set. None of them can turn validation off. */
export type RouteHooks = Pick<RouteShorthandOptions, 'onRequest' | 'preParsing' | 'preValidation' | 'preHandler' | 'onTimeout' | 'onError' | 'onSend' | 'onResponse' | 'config' | 'constraints' | 'logLevel'>

/** The routes of the contract document, and what it says besides the topics. */
export interface AsyncApiRoutes extends AsyncApiOptions {
  /** Path of the page, behind `prefix`. The document is at `/json` and `/yaml` below it. Default `/asyncapi`. */
  routePrefix?: `/${string}`
  /** Hooks of these routes, for example to ask for a login. The hooks of the app run before them. */
  hooks?: Pick<RouteShorthandOptions, 'onRequest' | 'preHandler'>
  /**
   * Called for each request of these routes with a document of its own, which it may change or replace, for example to leave out channels that the client
   * may not see. The page shows the result, too. If it throws, the request is answered with the error's `statusCode`.
   */
  transform?: (document: AsyncApiDocument, request: FastifyRequest) => AsyncApiDocument | void | Promise<AsyncApiDocument | void>
}

/** `topics` is the result of `defineTopics`. Without it there is an open lobby; a program that has declared `Register` has to give it. */
type Declared<T> = Closed<T> extends true ? { topics: T } : { topics?: TopicMap }

/** Registration options. `docs/options.md` lists defaults and bounds. */
export type RoomsOptions<T = Topics> = {
  /** Path before the topic. Default: none, so that `/:topic` matches every path of one segment that has no route of the host. */
  prefix?: string
  /**
   * Path, below `prefix`, of connections that join several topics by frames. `false`: none. Default: the prefix itself, if it is given; none at the root, because its
   * path is the host's.
   */
  multiplex?: string | false
  /**
   * Returns the identity of a request; `null`: anonymous. If it throws, the request is refused with the error's `statusCode`. Runs before the
   * upgrade, after the host's hooks.
   */
  identify?: (request: FastifyRequest) => Identity | null | Promise<Identity | null>
  /**
   * Returns the identity for the new credentials of a member (an `auth` frame). Another user, or `null`, is refused with `FST_ROOMS_FORBIDDEN`. If
   * it throws, the error is answered as in `onMessage`. In both cases the session goes on until its old credentials expire. Absent:
   * `FST_ROOMS_NO_AUTH`.
   */
  onAuth?: (session: AnySession<T>, token: string) => Identity | null | Promise<Identity | null>
  /**
   * Returns whether an action is permitted. `false` refuses it (HTTP 403 before the upgrade, `FST_ROOMS_FORBIDDEN` after it). If it throws, the
   * action is refused with the error's `statusCode`.
   */
  authorize?: (context: AuthorizeContext<T>) => boolean | Promise<boolean>
  /**
   * Called before hello. Messages that it sends follow hello. `false` or an error refuses the join (4003), and no member sees it in presence.
   */
  onJoin?: (session: AnySession<T>, request: FastifyRequest) => unknown
  /**
   * Called after hello, when the member is in its room. Until it settles, messages, presence and all other frames of the member wait behind what
   * `session.send` sends, so state that it reads and sends has no hole: send it before you open the session's messages, which ends the wait. Frames of
   * the member are handled meanwhile. More than `slow.bytes` that wait make the member slow. It has `limits.handshake` (4100). An error closes the
   * member: with the code for its status if that is 400 to 499, otherwise with 1011.
   */
  onJoined?: (session: AnySession<T>) => unknown
  /** Called once for every session that `onJoin` accepted, when the session has left its room. */
  onLeave?: (session: AnySession<T>, reason: LeaveReason) => unknown
  /**
   * Called when the first session of a user has joined a topic: once per user and topic, over all sessions of this node, or of all nodes if the topic has `presence`
   * and the broker notes members. Not for members without an identity. It cannot refuse the join: an error goes to `onError`.
   */
  onUserJoin?: (presence: AnyUserPresence<T>) => unknown
  /**
   * Called when the last session of a user has left a topic, after its `onLeave`, and after the topic's `presence.grace` if the user has not come back:
   * once for each call of `onUserJoin`. During a drain there is no grace. With several nodes it is called on the node of the last session, or, if that was killed, on
   * another one, with 1006 `node gone`.
   */
  onUserLeave?: (presence: AnyUserPresence<T>, reason: LeaveReason) => unknown
  /** Called with each error of a hook or a connection; `session` is absent if the error concerns none. Default: the error is logged. */
  onError?: (error: Error, session?: AnySession<T>) => unknown
  /**
   * Handlers of members' private messages, by the key of the member's topic. A handler stores, changes, refuses or delivers the message. It is
   * called even if no session is reached. Its return value is the ack's `data`, or `{ local }` if it is `undefined`; an error is answered as in
   * `onMessage`. Absent: the message is delivered.
   */
  onDirect?: DirectHandlers<T>
  /**
   * The reaction to a message that is not valid JSON, not a frame, or refused by the schema. `answer`: an ack or error frame. A function has to
   * return the reaction, not a promise. Default `'answer'`.
   */
  onInvalid?: 'answer' | 'ignore' | 'close' | ((session: AnySession<T>, fault: InvalidMessage) => 'answer' | 'ignore' | 'close')
  /** The `Origin` headers that may join and broadcast. Requests without one are accepted, because they do not come from a browser. Default `'same'`. */
  origin?: 'same' | 'any' | (string | RegExp)[] | ((origin: string, request: FastifyRequest) => boolean | Promise<boolean>)
  /**
   * Milliseconds without a byte from a peer before a ping (`interval`), and without a byte after it before the connection ends (`timeout`).
   * Default `{ interval: 25_000, timeout: 10_000 }`; `false`: no pings.
   */
  heartbeat?: false | { interval?: number, timeout?: number }
  /** `notice`: milliseconds from the `expiring` frame to the end of a member's credentials; 0: no frame. Default 30,000. */
  expiry?: { notice?: number }
  limits?: {
    /** Open connections. Default 100,000. Over it: 4104. */
    connections?: number
    /**
     * Open connections of one address (`request.ip`, so `trustProxy` applies; for IPv6 a network of 64 bits). Over it: 4104. Default 100, except
     * for addresses of the machine itself; a given value applies to these, too.
     */
    perAddress?: number
    /**
     * Frames of one member within `per`: the burst, and the sustained rate. A topic can override it. Default 10,000. Frames over it are refused
     * with `FST_ROOMS_RATE_LIMITED`; a member with as many refused frames that goes on is closed with 4101.
     */
    messages?: number
    /** Milliseconds for `messages` and `addressMessages`. Default 1,000. */
    per?: number
    /**
     * Frames of all members of one address within `per`. Default: ten times the highest rate of one member in any topic, except for addresses of
     * the machine itself; a given value applies to these, too.
     */
    addressMessages?: number
    /** Rooms at a time. Default 100,000. Over it: 4100. */
    topics?: number
    /** Topics that one connection joins by frames. Default 100. Over it: `FST_ROOMS_TOO_MANY_TOPICS`. */
    topicsPerConnection?: number
    /** Largest frame of a member and body of a broadcast route, in bytes. Default 65,536. */
    payload?: number
    /** Largest presence info, in bytes of JSON. Default 1,024. */
    info?: number
    /** Unfinished messages of one member at which reading from it pauses. Default 16. */
    pending?: number
    /** Unfinished calls of `onMessage` and `onDirect` for all members. Default 10,000. Over it: `FST_ROOMS_OVERLOADED`. */
    work?: number
    /**
     * Answers to messages with a `mid` or an `Idempotency-Key` that are remembered for 5 minutes. Default 100,000. Over it the oldest are forgotten. An
     * answer with `data` counts once more for each 256 characters of its JSON.
     */
    mids?: number
    /** Longest topic name, in characters: 1 to 255. Default 255. A longer name is not a topic. */
    topicLength?: number
    /** Consecutive bad frames at which a member is closed with 4000. Default 10. */
    badFrames?: number
    /** Milliseconds for an upgrade, for the body of a broadcast, for `onJoin`, and for `onJoined`, each. Default 10,000. */
    handshake?: number
    /** Milliseconds that a publication waits for the broker. Default 5,000. After that: `published: false`, or an ack with `FST_ROOMS_BROKER_DOWN`. */
    publish?: number
    /** Bytes of all kept messages of all topics. Default 268,435,456. Over it, the topics that were quiet longest lose theirs. */
    history?: number
    /** Requests that wait for a message (`?wait=`). Default 10,000. Over it: 503 `FST_ROOMS_OVERLOADED`. */
    waiters?: number
    /**
     * Milliseconds from the first to the last byte of a member's message, or of any other WebSocket frame. Default 30,000. Over it: 1008. Also the milliseconds for
     * which a member may take none of the kept messages that it is sent. Over it: 4201.
     */
    unfinished?: number
  }
  /**
   * The policy for a slow member: its buffered bytes from earlier turns of the event loop, together with those of this turn, exceed `bytes`
   * (default 1,048,576). A topic can override both. Default `'close'`. A function has to return the policy, not a promise; if it throws or returns
   * another value, the member is closed.
   */
  slow?: { policy?: SlowPolicy | ((session: AnySession<T>, backlog: { bytes: number }) => SlowPolicy), bytes?: number }
  /**
   * The messages that topics keep, unless they say otherwise: in memory with the memory broker. `true`: the newest 100 of each topic, at most 1 MiB, for five
   * minutes after the last one. Default `false`.
   */
  history?: boolean | TopicHistory
  /** How members are closed when the app closes, or by `rooms.drain()`. */
  drain?: {
    /** Milliseconds for the whole drain. Connections still open after that are terminated. Default 5,000; must be below Fastify's `pluginTimeout`. */
    timeout?: number
    /** Members closed at a time. Default 500; more if `timeout` would not be enough otherwise. */
    batch?: number
    /** Milliseconds from one batch to the next. Default 50. */
    interval?: number
    /**
     * Bounds of `bye.retry`, the range in which closed members reconnect, in milliseconds. Between them the range starts at 900 and grows by 1.5 for
     * each member. Default `{ min: 100, max: 15_000 }`.
     */
    retry?: { min?: number, max?: number }
  }
  /** Carries publications between nodes. Default `memoryBroker()`. */
  broker?: Broker
  /** Options for @fastify/websocket. Refused with `FST_ROOMS_WEBSOCKET_REGISTERED` if the host has registered it. */
  websocket?: { options?: WebsocketPluginOptions['options'] }
  /** Hooks and other options of the plugin's routes. The hooks run before the plugin's. */
  routes?: { socket?: RouteHooks, broadcast?: RouteHooks }
  /**
   * Adds routes with the contract of the topics as an AsyncAPI document (JSON, YAML) and as a page without scripts. `true`: with the defaults. Default
   * `false`. `rooms.asyncapi()` returns the document in any case.
   */
  asyncapi?: boolean | AsyncApiRoutes
} & Handlers<T> & Declared<T>
