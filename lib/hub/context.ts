import type { AuthorizeContext, BroadcastResult, BrokerState, DirectDetails, InvalidMessage, LeaveReason, Refusal, Rooms } from '../../types/index.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { Counters } from './counters.ts'
import type { DrainSettings } from './drain.ts'
import type { Backlog } from '../room/slow-members.ts'
import type { DeflateOptions } from '../transport/ws/deflate.ts'
import type { Expiry } from '../connection/expiry.ts'
import type { Workload } from '../session/in-flight.ts'
import type { AddressLimits } from '../limits/addresses.ts'
import type { Room } from '../room/room.ts'
import type { MemberSession } from '../session/session.ts'

/** The methods of a logger that the hub calls. */
export interface Log {
  debug (object: object, message: string): void
  info (object: object, message: string): void
  warn (object: object, message: string): void
  error (object: object, message: string): void
}

/** The host's functions, loosely typed: the public types have checked them. */
export interface Hooks {
  authorize: ((context: AuthorizeContext<any>) => unknown) | undefined
  onMessage: ReadonlyMap<string, (session: MemberSession, payload: unknown, message: { key: string | undefined }) => unknown>
  onDirect: ReadonlyMap<string, (session: MemberSession, payload: unknown, direct: DirectDetails<string, any>) => unknown>
  onAuth: ((session: MemberSession, token: string) => unknown) | undefined
  onLeave: ((session: MemberSession, reason: LeaveReason) => unknown) | undefined
  onError: ((error: Error, session?: MemberSession) => unknown) | undefined
  onInvalid: 'answer' | 'ignore' | 'close' | ((session: MemberSession, fault: InvalidMessage) => unknown)
}

/** Bounds, in milliseconds and bytes, of the options of the same names. */
export interface Settings {
  heartbeat: false | { readonly interval: number, readonly timeout: number }
  /** `expiry.notice` */
  notice: number
  limits: { readonly connections: number, readonly topics: number, readonly info: number, readonly pending: number, readonly work: number, readonly badFrames: number, readonly handshake: number, readonly publish: number, readonly unfinished: number }
  /** `limits.perAddress`, `limits.addressMessages` */
  address: AddressLimits
  drain: DrainSettings
  /** Bytes of the largest message that is read at all, for ws to bound. */
  maxPayload: number
  /** `perMessageDeflate` of ws, where it is on. */
  deflate: DeflateOptions | undefined
}

/** Why a session ends: the peer went away, or the server decided so; of a join that is refused, for what reason. */
export interface Ending extends LeaveReason { by: 'peer' | 'server', refusal?: Refusal }

/** What a publication says besides its payload: who published it, if a member (its `signature` in frames, and its id), who is not to get it, and what it is the newest value of. */
export interface Origin { signature?: string | undefined, from?: string | undefined, except?: string | undefined, key?: string | undefined }

/** What sessions and their work use of the hub. */
export interface HubContext {
  readonly hooks: Hooks
  readonly settings: Settings
  readonly counters: Counters
  readonly log: Log
  /** `app.rooms` */
  readonly rooms: Rooms<any>
  readonly brokerState: BrokerState
  /** Of members' credentials. */
  readonly expiry: Expiry
  /** Calls of `onMessage` and `onDirect` that have not finished. */
  working: number
  /** What members have sent and is being worked on. */
  readonly workload: Workload
  /** While draining nothing new is taken from members. */
  readonly state: 'open' | 'draining' | 'closed'
  /** Connections that there were when the drain began; 0 before. */
  readonly leaving: number
  /** Sessions by id, those still joining included. */
  readonly sessions: ReadonlyMap<string, MemberSession>
  /** Sessions by user. */
  readonly users: ReadonlyMap<string, ReadonlySet<MemberSession>>
  /** Sessions whose socket is not closed yet. */
  readonly links: ReadonlySet<MemberSession>
  readonly roomByTopic: ReadonlyMap<string, Room>
  /** The one road of every message to a room: at once where the broker answers at once. */
  publish (definition: TopicDefinition, topic: string, json: string, origin: Origin): BroadcastResult | Promise<BroadcastResult>
  /** Milliseconds for which the event loop has not turned at `now`; 0 where that is as usual. */
  stalledFor (now: number): number
  /** Ends a membership, once. */
  end (session: MemberSession, ending: Ending): void
  /** Its connection is closed. */
  closed (session: MemberSession, code: number, reason: string): void
  /** A joining session is accepted: by its onJoin, or because its messages are being read. */
  accept (session: MemberSession): void
  /** Watches over members that read too slowly. */
  readonly backlog: Backlog
  /** A member joined, or has new info. */
  presenceChanged (session: MemberSession): void
  /** A receiver of ws is not one that is known. */
  warnOfReceiver (): void
  /** An error of a hook: counted, and told to onError. Once per error. @param whileHandling - it comes out of onError: it goes to the log */
  fail (error: Error, session?: MemberSession, whileHandling?: boolean): void
  /** Whether an onError about this session runs: what is sent to it now is sent by that. */
  isHandling (session: MemberSession): boolean
}
