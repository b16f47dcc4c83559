import type { WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { Broker } from './broker.ts'
import type { AnySession, Session } from './session.ts'
import type { Closed, Converted, Message, NameOf, Publish, Publishable, SlowPolicy, TopicMap, TopicName, Topics } from './topics.ts'

/** Who a request is. */
export interface Identity {
  /** 1–255 characters. Public: presence and messages show it. */
  user: string
  /** Presence info. Validated by the topic's `presence` schema. */
  info?: unknown
  /**
   * When the credentials end, and with them the session (4300): a Date, milliseconds since the epoch, or seconds as in a JWT's `exp`
   * (numbers below 100,000,000,000 are seconds). Absent: never. Already past: 401 `FST_ROOMS_TOKEN_EXPIRED`. `authorize` sees a Date.
   */
  expires?: Date | number | undefined
}

/** What `authorize` is asked. `broadcast` is the broadcast route; `stay` is asked by `rooms.reauthorize`; `history` is asked once there is history. */
export type AuthorizeContext<T = Topics> =
  | { action: 'join' | 'broadcast' | 'history', topic: TopicName<T>, request: FastifyRequest, identity: Identity | null }
  | { action: 'stay', topic: TopicName<T>, session: AnySession<T> }
  | { action: 'publish', topic: TopicName<T>, session: AnySession<T>, payload: unknown, key: string | undefined }
  | { action: 'presence', topic: TopicName<T>, session: AnySession<T>, payload: unknown }
  | { action: 'direct', topic: TopicName<T>, session: AnySession<T>, payload: unknown, target: DirectTarget }

/**
 * Whom a member writes to. `authorize` is asked once per topic that holds such sessions; with `onDirect`, if none of these topics permits it or
 * there are no such sessions, also about the sender's own topic. Without `authorize` only the sender's own topic is reached.
 */
export interface DirectTarget {
  /** The topic of the sessions that would receive it. */
  topic: string
  /** Where one session was named. */
  session?: string
  /** Where a user was named. */
  user?: string
}

/** Why and how a session ended. `code` is the close code, 1006 where the connection just went away. */
export interface LeaveReason { code: number, reason: string }

/** A message of a member that its topic does not take. */
export interface InvalidMessage {
  code: string
  message: string
  details?: { path: string, message: string }[]
}

/** What else a member's message says. `key`: what it is the newest value of; a handler that broadcasts passes it on. */
export interface MessageDetails { key: string | undefined }

/** A private message of a member, before it is delivered. */
export interface DirectDetails<K extends string = string, T = Topics> {
  /** The session or the user that the member named. */
  readonly to: { readonly session: string } | { readonly user: string }
  /** The sessions that it would reach: open, and permitted by `authorize`. Empty if the user is offline, for example. */
  readonly receivers: readonly AnySession<T>[]
  /**
   * Queues the member's own payload to `receivers`, as a `direct` frame from the member. Returns the number of sessions that it was queued
   * to: not those that have ended meanwhile, and none if the server has ended the sender meanwhile.
   */
  deliver (): number
  /**
   * Queues another payload in its place. It is typed by the member's own topic; if `receivers` are in others, name theirs:
   * `deliver<'inbox:ann'>(payload)`.
   * @throws `FST_ROOMS_INVALID_PAYLOAD` if the `message` schema of the topic of one of `receivers` does not take it; then no session receives it.
   */
  deliver<N extends TopicName<T> = NameOf<K, T> & TopicName<T>> (payload: Message<NoInfer<N>, T>): number
}

type OnDirect<K extends string, T, P = Publish<K, T>> = (session: Session<K, T>, payload: P, direct: DirectDetails<K, T>) => unknown
type DirectHandlers<T> = Closed<T> extends false ? Record<string, OnDirect<string, T, any>> : { [K in keyof T & string]?: K extends Publishable<T> ? OnDirect<K, T> : never }

type OnMessage<K extends string, T> = (session: Session<K, T>, payload: Publish<K, T>, message: MessageDetails) => unknown
type Handlers<T> = Closed<T> extends false ? { onMessage?: Record<string, (session: Session<string, T>, payload: any, message: MessageDetails) => unknown> } :
    [Converted<T>] extends [never] ? { onMessage?: { [K in keyof T & string]?: K extends Publishable<T> ? OnMessage<K, T> : never } } :
        { onMessage: { [K in Converted<T>]: OnMessage<K, T> } & { [K in Exclude<Publishable<T>, Converted<T>>]?: OnMessage<K, T> } }

/** The hooks of a route that the host may add to. Nothing here can switch validation off. */
export type RouteHooks = Pick<RouteShorthandOptions, 'onRequest' | 'preParsing' | 'preValidation' | 'preHandler' | 'onTimeout' | 'onError' | 'onSend' | 'onResponse' | 'config' | 'constraints' | 'logLevel'>

/** What `defineTopics` returned. Absent: an open lobby, which a program that registered its topics does not get by forgetting them. */
type Declared<T> = Closed<T> extends true ? { topics: T } : { topics?: TopicMap }

/** Registration options. `docs/options.md` lists defaults and bounds. */
export type RoomsOptions<T = Topics> = {
  /** Path before the topic. Default: none, and then `/:topic` answers for every one-segment path that the host has no route for. */
  prefix?: string
  /** Who a request is; `null`: anonymous. A throw refuses with the error's own status. Runs before the upgrade, after the host's hooks. */
  identify?: (request: FastifyRequest) => Identity | null | Promise<Identity | null>
  /**
   * New credentials of a member, in band (an `auth` frame): who they say it is, as `identify` would. Another user, or `null`, is refused with
   * `FST_ROOMS_FORBIDDEN`; a throw as in `onMessage`; either way the session goes on until its old credentials end. Absent: `FST_ROOMS_NO_AUTH`.
   */
  onAuth?: (session: AnySession<T>, token: string) => Identity | null | Promise<Identity | null>
  /** `false` refuses (HTTP 403 before the upgrade, `FST_ROOMS_FORBIDDEN` after it); a throw refuses with the error's own status. */
  authorize?: (context: AuthorizeContext<T>) => boolean | Promise<boolean>
  /** Before hello: what it sends follows hello; a throw or `false` refuses (4003), and nobody saw the member. */
  onJoin?: (session: AnySession<T>, request: FastifyRequest) => unknown
  /** Once for every session that `onJoin` accepted. The session has left its room. */
  onLeave?: (session: AnySession<T>, reason: LeaveReason) => unknown
  /** An error in a hook, or of a connection (`session` is absent where none was concerned). Default: it is logged. */
  onError?: (error: Error, session?: AnySession<T>) => unknown
  /**
   * What a private message of a member does, by the key of the member's topic: it stores, changes, refuses or delivers it. Called if no session
   * is reached, too. The return value is the ack's `data`, `{ local }` if it is `undefined`; a throw as in `onMessage`. Absent: it is delivered.
   */
  onDirect?: DirectHandlers<T>
  /** Reaction to a message that is not valid JSON, no frame, or not by the schema. Default `'answer'`: an ack or error frame. */
  onInvalid?: 'answer' | 'ignore' | 'close' | ((session: AnySession<T>, fault: InvalidMessage) => 'answer' | 'ignore' | 'close')
  /** Which `Origin` headers may join and broadcast; requests without one are no browser's. Default `'same'`. */
  origin?: 'same' | 'any' | (string | RegExp)[] | ((origin: string, request: FastifyRequest) => boolean | Promise<boolean>)
  /** Pings find dead peers. Default `{ interval: 25_000, timeout: 10_000 }` (milliseconds). */
  heartbeat?: false | { interval?: number, timeout?: number }
  /** A member whose credentials end is told so many milliseconds before (an `expiring` frame); 0: not at all. Default 30,000. */
  expiry?: { notice?: number }
  limits?: {
    /** Open connections in all. Default 100,000. Over it: 4104. */
    connections?: number
    /**
     * Open connections of one address (`request.ip`, so that `trustProxy` counts; of IPv6 one network of 64 bits). Over it: 4104.
     * Default 100, from which this machine's own addresses are exempt; where it is given, it holds for them, too.
     */
    perAddress?: number
    /**
     * Frames of one member within `per`, so many at once and then steadily as many; a topic may say otherwise. Default 10,000. One more is
     * refused with `FST_ROOMS_RATE_LIMITED`; who was refused as many times and goes on is closed with 4101.
     */
    messages?: number
    /** Milliseconds for `messages` and `addressMessages`. Default 1,000. */
    per?: number
    /**
     * The same for all members of one address together. Default: ten times the most that any topic grants to one member, from which
     * this machine's own addresses are exempt; where it is given, it holds for them, too.
     */
    addressMessages?: number
    /** Rooms at a time. Default 100,000. Over it: 4100. */
    topics?: number
    /** Largest frame of a member and body of a broadcast route, in bytes. Default 65,536. */
    payload?: number
    /** Largest presence info, in bytes of JSON. Default 1,024. */
    info?: number
    /** Messages of one member that are not finished yet before reading from it pauses. Default 16. */
    pending?: number
    /** Calls of `onMessage` and `onDirect` for all members together that have not finished yet. Default 10,000. Over it: `FST_ROOMS_OVERLOADED`. */
    work?: number
    /** Longest topic name, in characters. Default 255, and no more than that. A longer one is no topic. */
    topicLength?: number
    /** Bad frames in a row before 4000. Default 10. */
    badFrames?: number
    /** Milliseconds for an upgrade, for the body of a broadcast, and again for `onJoin`. Default 10,000. */
    handshake?: number
    /** Milliseconds that a publication waits for the broker. Default 5,000. After it: `published: false`; an ack with `FST_ROOMS_BROKER_DOWN`. */
    publish?: number
    /** Milliseconds for a message of a member, or any other frame of the WebSocket, from its first byte to its last. Default 30,000. Over it: 1008. */
    unfinished?: number
  }
  /**
   * What happens to a member that reads more slowly than its room speaks: bytes left over from an earlier turn of the event loop, with those of
   * this one, are over `bytes` (default 1,048,576). A topic's own `slow` comes first. Default `'close'`. A function decides at once; a throw,
   * or what is none of the three, closes.
   */
  slow?: { policy?: SlowPolicy | ((session: AnySession<T>, backlog: { bytes: number }) => SlowPolicy), bytes?: number }
  /** How members are let go when the app closes, or by `rooms.drain()`. */
  drain?: {
    /** Milliseconds for all of it; who is left then is cut. Default 5,000; must fit into Fastify's `pluginTimeout`. */
    timeout?: number
    /** Members let go at a time. Default 500; more where `timeout` would not do otherwise. */
    batch?: number
    /** Milliseconds from one batch to the next. Default 50. */
    interval?: number
    /**
     * Bounds of `bye.retry`, the time in which members that are let go come back, in milliseconds. Within them it grows by 1.5 for each member,
     * from 900. Default `{ min: 100, max: 15_000 }`.
     */
    retry?: { min?: number, max?: number }
  }
  /** What carries publications. Default `memoryBroker()`. */
  broker?: Broker
  /** For @fastify/websocket where this plugin registers it. Refused where the host has done so. */
  websocket?: { options?: WebsocketPluginOptions['options'] }
  /** Hooks for our routes, before ours. */
  routes?: { socket?: RouteHooks, broadcast?: RouteHooks }
} & Handlers<T> & Declared<T>
