import type { Readable, Writable } from 'node:stream'
import type { Mode } from './protocol.ts'
import type { Rooms } from './rooms.ts'
import type { Closed, Info, Message, NameOf, Publish, Topics } from './topics.ts'

/** The socket behind one or more sessions. */
export interface Connection {
  readonly mode: Mode
  /** `request.ip` at the upgrade, so `trustProxy` counts; `'unix'` for a unix socket, which has no address. */
  readonly address: string
  /** Bytes accepted for sending that the operating system has not taken yet. */
  readonly bufferedBytes: number
}

/** `joining` until hello, `open` until the decision to end, then `closed`. */
export type SessionState = 'joining' | 'open' | 'closed'

/** A membership: one connection in one topic. */
export interface Session<K extends string = string, T = Topics> {
  /** Opaque and public: it names a session and authorises nothing. */
  readonly id: string
  /** The key of the topic map that the topic falls under; `*` in the open lobby. */
  readonly key: K
  readonly topic: NameOf<K, T>
  readonly connection: Connection
  /** What `identify` said; `undefined` for an anonymous member. */
  readonly user: string | undefined
  /** Presence info: what `identify` gave, or the member's own last presence frame. */
  readonly info: Info<K, T> | undefined
  readonly state: SessionState
  /** A new object each time. */
  readonly connectedAt: Date
  /** When its credentials end, and it with them (4300); `undefined`: never. A new object each time. */
  readonly expires: Date | undefined
  readonly rooms: Rooms<T>
  /** Aborted when the session ends; its reason is the error `FST_ROOMS_SESSION_CLOSED`. */
  readonly signal: AbortSignal
  /**
   * Sends a private message (a `direct` frame; the bare payload in raw mode). Before hello it waits, and follows hello.
   *
   * Settles when its bytes are below the high-water mark (64 KiB), so a caller that awaits it cannot outrun the peer.
   * @throws `FST_ROOMS_INVALID_PAYLOAD`, `FST_ROOMS_SESSION_CLOSED`. Not awaiting it is safe: a session that has closed
   * meanwhile raises no unhandled rejection.
   */
  send (payload: Message<K, T>): Promise<void>
  /**
   * Ends this session: out of its room at once, then `bye` and the close frame.
   * @param code - 1000 (the default), 3000–4999, or another code that a server may send. Otherwise `FST_ROOMS_INVALID_CLOSE`.
   * @param reason - at most 123 bytes of UTF-8; default: the code's name.
   */
  close (code?: number, reason?: string): void
  /**
   * The member's messages as a stream. Opening it claims them: `onMessage` and the default broadcast are off for this
   * session. Leaving the loop ends the session (1000), as leaving a loop over a Node.js stream destroys the stream.
   */
  [Symbol.asyncIterator] (): AsyncIterator<Publish<K, T>, void, undefined>
  /** The same as a Node.js stream in object mode; claims the messages as the iterator does. */
  readonly readable: Readable
  /**
   * A Node.js stream in object mode whose chunks go through `send`, with its back-pressure; its end closes the session (1000). A
   * write after the session has closed is an error of the stream; give `{ signal: session.signal }` to a `pipeline` from a source
   * that may be idle, to end it with the session.
   */
  readonly writable: Writable
  /** What a logger shows of it: who joined where, and neither `info` nor anybody else. */
  toJSON (): SessionSummary
}

/** A session in a log. */
export type SessionSummary = Pick<Session, 'id' | 'key' | 'topic' | 'user' | 'state' | 'connectedAt' | 'expires'>

/** A session of any topic of the map: a union over its keys, so that `session.key` narrows it. */
export type AnySession<T = Topics> = Closed<T> extends false ? Session<string, T> : { [K in keyof T & string]: Session<K, T> }[keyof T & string]
