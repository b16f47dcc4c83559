import type { ClientFrame, LeaveReason, Session } from '../../types/index.ts'
import type { ConnectedSession, Connection } from '../connection/connection.ts'
import type { DirectReceiver, SessionHub } from '../hub/ports.ts'
import type { RoomMember, SessionRoom } from '../room/member.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { MessageIterator } from './message-iterator.ts'
import type { MessageQueue } from './message-queue.ts'
import type { PendingRequests } from './requests.ts'

/** A session as the rest of the package sees it: one connection in one topic. Its class is in session.ts; lifecycle.ts alone writes its state. */
export interface Membership extends Omit<Session<string, any>, 'connection'>, RoomMember, ConnectedSession, DirectReceiver {
  readonly id: string
  readonly topic: string
  readonly user: string | undefined
  readonly info: any
  readonly state: Session['state']
  readonly connection: Connection<Membership>
  readonly definition: TopicDefinition
  readonly hub: SessionHub
  /** `undefined` until it has entered its room. */
  readonly room: SessionRoom | undefined
  /** How it ended; set when it has ended. */
  readonly ending: LeaveReason
  /** `onJoin` has accepted it, so `onLeave` is owed. */
  readonly isAccepted: boolean
  /** The server has ended it: frames that the peer had sent before no longer count. */
  readonly isEndedByServer: boolean
  /** The end of the frame of each message that it publishes. */
  readonly senderFields: string
  /** Whether the peer is sent frames other than messages. */
  readonly canBeAnswered: boolean
  /** The host reads its messages. */
  readonly iterator: MessageIterator | undefined
  /** The host's requests that wait for an answer. */
  readonly requests: PendingRequests | undefined
  /** Its frames that are handled in order; `undefined` until its peer has sent one. */
  readonly queue: MessageQueue | undefined
  /** Queues a frame. Returns whether reading from the peer pauses with it. */
  enqueue (frame: ClientFrame): boolean
  /** Sets its presence info. */
  setInfo (info: unknown): void
  /** Writes a frame for this member alone, behind those of its room, without a check of what is buffered. */
  write (text: string): void
  /** Sends what the host has sent before hello. */
  sendEarly (): void
  /** Sends the host's question to the peer and waits for the answer. */
  ask (payload: unknown, timeout: number, signal?: AbortSignal): Promise<unknown>
  /** Aborts `signal`. */
  abort (): void
  /** Tells the host of an error of a hook about this session. */
  fail (error: Error): void
}
