import type { Readable, Writable } from 'node:stream'
import type { Mode } from './protocol.ts'
import type { Rooms } from './rooms.ts'
import type { Closed, Info, Message, NameOf, Publish, Topics } from './topics.ts'

/** The connection of one or more sessions. */
export interface Connection {
  /** An event stream carries frames of `rooms.v1` in one direction: its member cannot publish, answer or renew its credentials. */
  readonly protocol: 'websocket' | 'event-stream'
  readonly mode: Mode
  /** `request.ip` at the join, so `trustProxy` applies; `'unix'` for a unix socket, which has no address. */
  readonly address: string
  /** Bytes accepted for sending that the operating system has not taken yet. */
  readonly bufferedBytes: number
}

/** `joining` until hello, `open` until the decision to end, then `closed`. */
export type SessionState = 'joining' | 'open' | 'closed'

/** A membership: one connection in one topic. */
export interface Session<K extends string = string, T = Topics> {
  /** Opaque and public: it identifies a session and grants no rights. */
  readonly id: string
  /** The key of the topic map that the topic falls under; `*` in the open lobby. */
  readonly key: K
  readonly topic: NameOf<K, T>
  readonly connection: Connection
  /** The user that `identify` returned; `undefined` for an anonymous member. */
  readonly user: string | undefined
  /** Presence info: from `identify`, or from the member's last presence frame. */
  readonly info: Info<K, T> | undefined
  readonly state: SessionState
  /** The time of the upgrade. A new object at each read. */
  readonly connectedAt: Date
  /** The time at which its credentials expire and it ends (4300); `undefined`: never. A new object at each read. */
  readonly expires: Date | undefined
  readonly rooms: Rooms<T>
  /** Aborted when the session ends; the reason is the error `FST_ROOMS_SESSION_CLOSED`. */
  readonly signal: AbortSignal
  /**
   * Sends a private message (a `direct` frame; the bare payload in raw mode). A message sent before hello is queued and follows hello.
   * While `onJoined` runs, it passes the frames of the room that wait.
   *
   * Settles when the buffered bytes are below the high-water mark (64 KiB), so a caller that awaits it cannot outrun the peer. It need not be
   * awaited: a session that closes meanwhile causes no unhandled rejection.
   * @throws `FST_ROOMS_INVALID_PAYLOAD`, `FST_ROOMS_SESSION_CLOSED`.
   */
  send (payload: Message<K, T>): Promise<void>
  /**
   * Ends this session. It leaves its room at once; then `bye` and the close frame are sent.
   * @param code - 1000 (the default), 3000–4999, or another code that a server may send.
   * @param reason - at most 123 bytes of UTF-8; default: the code's name.
   * @throws `FST_ROOMS_INVALID_CLOSE`.
   */
  close (code?: number, reason?: string): void
  /**
   * Returns an iterator of the member's messages. Opening it turns off `onMessage` and the default broadcast for this session. Leaving the loop
   * ends the session (1000), as leaving a loop over a Node.js stream destroys the stream. In `onJoin`, opening it accepts the member; in `onJoined`, it
   * ends the wait of the room's frames.
   * @throws `FST_ROOMS_SESSION_CLAIMED` if the messages are already being read.
   */
  [Symbol.asyncIterator] (): AsyncIterator<Publish<K, T>, void, undefined>
  /** The member's messages as a Node.js stream in object mode. Reading this property has the effect of opening the iterator. */
  readonly readable: Readable
  /**
   * A Node.js stream in object mode whose chunks go through `send`, with back-pressure. Its end closes the session (1000). A write after the session
   * has closed is an error of the stream. Give `{ signal: session.signal }` to a `pipeline` from a source that may be idle, so that it ends with
   * the session.
   */
  readonly writable: Writable
  /** The members that a logger shows. `info` is not among them. */
  toJSON (): SessionSummary
}

/** The members of a session that a logger shows. */
export type SessionSummary = Pick<Session, 'id' | 'key' | 'topic' | 'user' | 'state' | 'connectedAt' | 'expires'>

/** A session of any topic of the map: a union over its keys, so that `session.key` narrows it. */
export type AnySession<T = Topics> = Closed<T> extends false ? Session<string, T> : { [K in keyof T & string]: Session<K, T> }[keyof T & string]

/** A user in a topic: all sessions there that this node has of the user. */
export interface UserPresence<K extends string = string, T = Topics> {
  readonly user: string
  /** The key of the topic map that the topic falls under; `*` in the open lobby. */
  readonly key: K
  readonly topic: NameOf<K, T>
  /** Presence info of the session that joined first (`onUserJoin`), or left last (`onUserLeave`). */
  readonly info: Info<K, T> | undefined
  readonly rooms: Rooms<T>
}

/** A user in any topic of the map: a union over its keys, so that `key` narrows it. */
export type AnyUserPresence<T = Topics> = Closed<T> extends false ? UserPresence<string, T> : { [K in keyof T & string]: UserPresence<K, T> }[keyof T & string]
