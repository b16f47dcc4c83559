import type { AuthorizeContext, BroadcastResult, DirectDetails, EndReason, InvalidMessage, KeptMessages, LeaveReason, Ref, Rooms, Session, SessionState, UserPresence } from '../../types/index.ts'
import type { Expiry } from '../connection/expiry.ts'
import type { PageRequest } from '../history/read.ts'
import type { Once } from '../feed/mids.ts'
import type { AddressLimits } from '../limits/addresses.ts'
import type { Roster } from '../presence/roster.ts'
import type { InFlight } from '../session/in-flight.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { DeflateOptions } from '../transport/ws/deflate.ts'
import type { Counters } from './counters.ts'
import type { DrainSettings } from './drain.ts'

/** A session as the host's hooks get it. */
export type AnySession = Session<string, any>

/** The methods of a logger that the hub calls. */
export interface Log {
  debug (object: object, message: string): void
  info (object: object, message: string): void
  warn (object: object, message: string): void
  error (object: object, message: string): void
}

/** The host's hooks, loosely typed, because the public types have checked them. */
export interface Hooks {
  authorize: ((context: AuthorizeContext<any>) => unknown) | undefined
  onMessage: ReadonlyMap<string, (session: AnySession, payload: unknown, message: { key: string | undefined, mid: string | undefined }) => unknown>
  onDirect: ReadonlyMap<string, (session: AnySession, payload: unknown, direct: DirectDetails<string, any>) => unknown>
  onAuth: ((session: AnySession, token: string) => unknown) | undefined
  onJoined: ((session: AnySession) => unknown) | undefined
  onLeave: ((session: AnySession, reason: LeaveReason) => unknown) | undefined
  onUserJoin: ((presence: UserPresence<string, any>) => unknown) | undefined
  onUserLeave: ((presence: UserPresence<string, any>, reason: LeaveReason) => unknown) | undefined
  onError: ((error: Error, session?: AnySession) => unknown) | undefined
  onInvalid: 'answer' | 'ignore' | 'close' | ((session: AnySession, fault: InvalidMessage) => unknown)
}

/** Bounds of the options of the same names, in milliseconds and bytes. */
export interface Settings {
  heartbeat: false | { readonly interval: number, readonly timeout: number }
  /** `expiry.notice` */
  notice: number
  limits: { readonly connections: number, readonly topics: number, readonly info: number, readonly pending: number, readonly work: number, readonly mids: number, readonly badFrames: number, readonly handshake: number, readonly publish: number, readonly unfinished: number, readonly history: number, readonly waiters: number, readonly topicsPerConnection: number }
  /** `limits.perAddress`, `limits.addressMessages` */
  address: AddressLimits
  drain: DrainSettings
  /** Bytes of the largest message that ws reads. */
  maxPayload: number
  /** `perMessageDeflate` of ws; `undefined` if it is off. */
  deflate: DeflateOptions | undefined
}

/** The members of a publication besides its topic and payload. */
export interface PublishOptions {
  /** The end of its frame, if a member publishes: it names the member. */
  senderFields?: string | undefined
  /** The id of the session that publishes. */
  from?: string | undefined
  /** The id of a session that is not sent the message. */
  except?: string | undefined
  key?: string | undefined
  /** The version of the value, if the topic keeps the newest one of each key. */
  version?: number | undefined
  /** The publication ends its topic: the payload is the data of the end, `''` if it has none. */
  end?: EndReason | undefined
  /** Names the message over all nodes: its `mid` and its sender (`memberKey`, `hostKey`). */
  onceKey?: string | undefined
}

/** `open`, then `draining` (members are let go, and nothing new is taken from them), then `closed`. */
export type HubState = 'open' | 'draining' | 'closed'

/** The host: its hooks, its log, and the way on which errors of its hooks reach it. */
export interface Host {
  readonly hooks: Hooks
  /** Never throws. */
  readonly log: Log
  /** `app.rooms` */
  readonly rooms: Rooms<any>
  /**
   * Counts an error of a hook, and tells `onError` of it, once per error.
   * @param whileHandling - the error comes out of handling another one: it goes to the log alone
   */
  fail (error: Error, session?: AnySession, whileHandling?: boolean): void
  /** Whether an `onError` about this session runs, so that a message sent to it now is sent by that hook. */
  isHandling (session: AnySession): boolean
}

/** The way of a message to a room. */
export interface Publishing {
  /** Messages that carry a `mid`, each of which is handled once. */
  readonly mids: Once
  /**
   * Publishes to a topic. Returns a result, and not a promise, if the broker answers at once.
   * @throws FST_ROOMS_CLOSED; FST_ROOMS_STREAM_TAKEN and FST_ROOMS_STREAM_ENDED for a stream
   */
  publish (definition: TopicDefinition, topic: string, json: string, options: PublishOptions): BroadcastResult | Promise<BroadcastResult>
}

/** The way to the messages that topics keep. */
export interface HistoryReading {
  /**
   * Reads a page of them. A topic that keeps none has no messages.
   * @throws FST_ROOMS_CLOSED, FST_ROOMS_BROKER_SILENT
   */
  history (definition: TopicDefinition, topic: string, request: PageRequest): Promise<KeptMessages<any>>
}

/** A session as the receiver of a private message. */
export interface DirectReceiver {
  readonly id: string
  readonly topic: string
  readonly state: SessionState
  readonly definition: TopicDefinition
  /** The text of a private message, in the envelope of this session. */
  privateText (json: string, from?: string, user?: string, ref?: Ref): string
  /**
   * @param passesHold - the message does not wait for `onJoined`
   * @throws FST_ROOMS_SESSION_CLOSED
   */
  sendPrivate (text: string, passesHold?: boolean): void | Promise<void>
}

/** The sessions of this node, those still joining included. */
export interface Directory<S> {
  find (id: string): S | undefined
  ofUser (user: string): Iterable<S>
}

/** The way of members' private messages to sessions on other nodes. */
export interface DirectsElsewhere {
  /** Whether `to`, as a `direct` frame names it, may mean sessions on other nodes. */
  mayReach (to: string): boolean
  /**
   * Sends a private message to the sessions on other nodes that `to` means and that are members of this topic.
   * @returns whether the session was there; for a user, whether the broker has sent it to a node
   * @throws FST_ROOMS_BROKER_DOWN, FST_ROOMS_CLOSED
   */
  direct (sender: { readonly id: string, readonly user: string | undefined }, to: string, topic: string, json: string): Promise<boolean>
}

/** Watches over members that read too slowly. */
export interface SlowConsumers<S> {
  /**
   * Whether a member can be sent a private frame of this many bytes. If not, it is closed, whatever the policy, because nothing private is ever dropped.
   * Call `sent` after the write.
   */
  admits (session: S, bytes: number): boolean
  sent (session: S): void
}

/** The members of the hub that sessions, and the frames of their peers, use. */
export interface SessionHub extends Host, Publishing, HistoryReading {
  readonly settings: Settings
  readonly counters: Counters
  readonly state: HubState
  readonly directory: Directory<DirectReceiver>
  /** The sessions on other nodes. */
  readonly fleet: DirectsElsewhere
  /** Watches over the credentials of connections. */
  readonly expiry: Pick<Expiry<any>, 'check' | 'renew'>
  /** Sessions with work in flight. */
  readonly inFlight: InFlight
  /** Calls of `onMessage` and `onDirect` that have not finished. */
  working: number
  /** A member has joined, or has new info. */
  presenceChanged (session: { readonly room: { readonly roster: Roster | undefined } | undefined }): void
  /** Ends the wait of a member for `onJoined`: sends it what has waited. Does nothing if the member does not wait. */
  release (session: { readonly id: string }): void
}
