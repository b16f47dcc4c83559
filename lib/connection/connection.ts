import { inspect, type InspectOptions } from 'node:util'
import type { ClientFrame, Connection as PublicConnection, Mode, Ref, Refusal, SessionState } from '../../types/index.ts'
import type { Counters } from '../hub/counters.ts'
import type { Host, Settings } from '../hub/ports.ts'
import type { AddressBucket } from '../limits/addresses.ts'
import type { Bucket, Rate } from '../limits/token-bucket.ts'
import { countRefusal, type RefusedSession } from '../limits/refusals.ts'
import type { Ending } from '../session/ending.ts'
import type { Transport } from '../transport/transport.ts'

/** A session as its connection sees it. */
export interface ConnectedSession extends RefusedSession {
  readonly state: SessionState
  /** Takes a frame of the peer that names its topic. */
  take (frame: ClientFrame): void
  /** Sends the peer a frame that is not a message. */
  deliver (text: string, passesHold?: boolean, id?: string): void | Promise<void>
  /** Writes what its room has for it in this turn. */
  flush (): void
  /** Ends the membership. */
  end (ending: Ending): void
}

/** The members of the hub that connections use. */
export interface ConnectionHub extends Pick<Host, 'log'> {
  readonly settings: Settings
  readonly counters: Counters
  /** Milliseconds for which the event loop has not turned at `now`; 0 if it has turned as usual. */
  stalledFor (now: number): number
  /** The receiver of ws is not one that this package knows. */
  warnOfReceiver (): void
  /** The socket has closed. */
  disconnected (connection: Connection<any>, code: number, reason: string): void
}

/** How a connection begins. */
export interface ConnectionOptions {
  readonly transport: Transport
  /** `request.ip` */
  readonly address: string
  readonly user: string | undefined
  /** When its credentials end, in milliseconds since the epoch. */
  readonly expiresAt: number | undefined
  /** The rate that its frames may have. */
  readonly rate: Rate
}

/**
 * One peer: its transport, its identity, and its sessions. A connection whose URL names a topic has one session and ends with it.
 *
 * Heartbeat, expiry, frame rate, bad frames and read holds are kept per connection, whatever its sessions. The fields of each are written by the module that is
 * named above them.
 */
export class Connection<S extends ConnectedSession = ConnectedSession> implements PublicConnection, Bucket {
  readonly hub: ConnectionHub
  readonly transport: Transport
  readonly address: string
  readonly user: string | undefined
  /** On the clock of `performance`. */
  readonly openedAt: number
  /** The session of the topic in its URL. A connection that joins its topics by frames has none (see multiplexed.ts). */
  session!: S

  // expiry.ts
  expiresAt: number | undefined
  /** Kept by the timing wheel. */
  slot = 0
  /** The host checks new credentials of the peer. */
  isAuthenticating = false

  // limits/admission.ts
  /** The bucket of its address; `undefined` if the connection was not admitted. */
  addressBucket: AddressBucket | undefined = undefined

  // frame-rate.ts
  readonly rate: Rate
  tokens: number
  filledAt: number
  creditedUntil = 0
  /** The last frame was over the rate. */
  isOverRate = false

  // receive.ts
  /** Refused frames since the last good one. */
  badFrames = 0
  /** Frames that arrived before hello; `undefined` after it. */
  held: { data: Buffer, isBinary: boolean }[] | undefined = undefined
  isJoined = false

  // heartbeat.ts
  /** The transport's `activity` at the last look, and when it changed. */
  seenBytes: number | undefined = undefined
  seenAt: number
  /** When the ping was sent that is not answered; 0 if there is none. */
  pingedAt = 0
  /** A ping was sent, and no pong has arrived since. */
  awaitsPong = false
  /** When the close frame was sent or received; 0 before. */
  closingAt = 0
  /** Milliseconds for which this process has stood still since the connection was opened. */
  stalled = 0
  /** When the message that has not ended was first seen; 0 if there is none. */
  unfinishedAt = 0

  // Read holds, and the time for which the peer's bytes were left waiting by them
  /** Milliseconds for which received bytes were left waiting, and which frame-rate.ts has not credited yet. */
  withheld = 0
  /** When `withheld` last grew; 0 if all that had waited has been read. */
  withheldAt = 0
  #holds: Set<object> | undefined = undefined
  #pausedAt = 0

  constructor (hub: ConnectionHub, { transport, address, user, expiresAt, rate }: ConnectionOptions) {
    this.hub = hub
    this.transport = transport
    this.address = address
    this.user = user
    this.expiresAt = expiresAt
    this.rate = rate
    this.tokens = rate.capacity
    this.seenAt = this.filledAt = this.openedAt = performance.now()
  }

  get protocol (): PublicConnection['protocol'] { return this.transport.canReceive ? 'websocket' : 'event-stream' }
  get mode (): Mode { return this.transport.envelope.mode }
  get bufferedBytes (): number { return this.transport.bufferedBytes }
  /** Its URL names no topic: it joins its topics by frames. */
  get isMultiplexed (): boolean { return false }
  /** Nothing is taken from the peer any more. */
  get isEnded (): boolean { return this.session.state === 'closed' }
  /** Its sessions, those that are joining included. */
  get sessions (): Iterable<S> { return [this.session] }

  /** Whether a join has taken at least this many milliseconds. */
  hasLateJoin (now: number, handshake: number): boolean {
    return this.session.state === 'joining' && now - this.openedAt - this.stalled >= handshake
  }

  /** Sends the peer a frame that concerns no topic. */
  say (text: string): void { this.session.deliver(text) }

  /** Counts a refused frame that names no topic. */
  countRefusal (reason: Refusal): void { countRefusal(this.session, 'frame', reason) }

  /** The `ref` of the frame that joins a session. */
  refOf (_session: S): Ref | undefined { return undefined }

  /** Answers the frame that began a join which is refused. Returns `false` if the join was begun by the URL: its peer is told by `bye`. */
  refuseJoin (_session: S, _ending: Ending): boolean { return false }

  /** Call this when a session has left its room and all lists. */
  forget (_session: S): void {}

  /** Stops reading from the peer, so that TCP pushes back, while any reason stands. */
  holdReading (reason: object): void {
    // The peer's answer to a close frame has to be read.
    if (this.closingAt !== 0) return
    this.#holds ??= new Set()
    this.#holds.add(reason)
    if (this.transport.isPaused) return
    this.#pausedAt = performance.now()
    this.transport.pause()
  }

  /** Ends a reason for not reading. The last one that ends lets reading go on. */
  releaseReading (reason: object): void {
    if (this.#holds?.delete(reason) !== true || this.#holds.size > 0) return
    // The peer could not be heard while reading was paused, so its silence begins anew.
    const now = performance.now()
    this.heard(now)
    this.keptWaiting(this.#pausedAt, now)
    if (this.unfinishedAt !== 0) this.unfinishedAt += now - this.#pausedAt
    this.transport.resume()
  }

  /** Notes that this process has stood still: the peer's bytes were left waiting meanwhile, and whatever is timed gets as much longer. */
  stalledFor (milliseconds: number, now: number): void {
    this.keptWaiting(now - milliseconds, now)
    this.stalled += milliseconds
    if (this.unfinishedAt !== 0) this.unfinishedAt += milliseconds
    if (this.closingAt !== 0) this.closingAt += milliseconds
  }

  /** Notes that the peer's bytes were left waiting since `from`, and can be read from now on. */
  keptWaiting (from: number, now: number): void {
    this.withheld += now - from
    this.withheldAt = now
  }

  /** Notes that the peer lives. */
  heard (now: number): void {
    this.seenAt = now
    this.pingedAt = 0
  }

  /** Notes that a close frame was sent or received. */
  closes (): void {
    this.closingAt = performance.now()
  }

  /** Logs an error of the stream below, which closes by itself. It is not an error of the host. */
  failed (err: Error): void {
    this.hub.log.debug({ err, ...this.logFields() }, 'connection error')
  }

  /** The members of a line of the log about the connection. */
  protected logFields (): object { return { session: this.session.id } }

  /** Call this when a membership has ended. Closes the connection if its URL named that topic. */
  sessionEnded (_session: S, ending: Ending): void {
    this.shut(ending)
  }

  /** Sends the close frame, once. */
  protected shut ({ code, reason }: Ending): void {
    if (this.closingAt !== 0) return
    this.closes()
    this.transport.close(code, reason)
    // The peer's answer has to be read, or the close would wait for its timeout.
    this.#holds = undefined
    if (this.transport.isPaused) this.transport.resume()
  }

  /** Ends all sessions, and with them the connection. */
  close (ending: Ending): void {
    for (const session of this.sessions) session.end(ending)
  }

  /** The public members alone, because a log that shows a connection must not show the hub and other members. */
  toJSON (): PublicConnection {
    const { protocol, mode, address, bufferedBytes } = this
    return { protocol, mode, address, bufferedBytes }
  }

  [inspect.custom] (_depth: number, options: InspectOptions): string {
    return `Connection ${inspect(this.toJSON(), options)}`
  }
}
