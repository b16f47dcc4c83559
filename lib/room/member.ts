import type { SessionState } from '../../types/index.ts'
import type { Feed } from '../feed/feed.ts'
import type { PresentMember, Roster } from '../presence/roster.ts'
import type { Replay, ReplayPlan } from '../history/replay.ts'
import type { Ending } from '../session/ending.ts'
import type { Transport } from '../transport/transport.ts'
import type { Lag } from './lag.ts'

/** A member as its room sees it. The room writes `index` and `lag`. */
export interface RoomMember extends PresentMember {
  readonly id: string
  readonly state: SessionState
  readonly transport: Transport
  /** Its place in the room's arrays. */
  index: number
  /** Where it stopped, while it is slow. */
  lag: Lag | undefined
  end (ending: Ending): void
}

/** A room as its sessions see it. */
export interface SessionRoom {
  readonly feed: Feed
  /** `undefined` if the topic has no presence. */
  readonly roster: Roster | undefined
  /** Its members on other nodes. `ready` is set as long as they are being read for the first time. */
  readonly remote: { readonly ready: Promise<void> | undefined } | undefined
  /** Joins under way. */
  joining: number
  /** The messages that the topic keeps; `undefined` if it keeps none. */
  readonly replay: Replay | undefined
  /** The topic has ended: no message follows. */
  readonly isEnded: boolean
  add (member: RoomMember): void
  /** Adds a member that is sent kept messages before live ones: call `sendKept` until it returns something else than `'more'`. */
  addReplaying (member: RoomMember, plan: ReplayPlan): void
  /**
   * Sends a member kept messages, until many bytes are buffered. `'more'`: call it again when the peer has read them. `'done'`: the member has all of them, and gets
   * live ones from now on. `'lost'`: some of them are no longer kept.
   */
  sendKept (member: RoomMember, turn: number): 'more' | 'done' | 'lost'
  /** Sends one member the end of a stream, which it has not been sent with the messages. */
  sendEnd (member: RoomMember): void
  /** Lets all frames wait for a member, except those that are sent at once, until `onJoined` has settled. */
  hold (member: RoomMember): void
  /**
   * Sends one member a frame of its own, behind all that the room has sent so far: at once if the room has nothing to send in this turn.
   * @param passesHold - the frame does not wait for `onJoined`
   */
  sendTo (member: RoomMember, frame: Buffer, passesHold?: boolean): void
  /** Sends one member what the room has for it in this turn. */
  flushMember (member: RoomMember): void
  /** Bytes of the member's own frames that leave with this turn; `undefined` if it gets what the others get. */
  ownBytes (member: RoomMember): number | undefined
}
