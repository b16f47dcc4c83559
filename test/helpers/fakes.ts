import { Socket } from 'node:net'
import { Connection } from '../../lib/connection/connection.ts'
import { Outgoing } from '../../lib/feed/outgoing.ts'
import { Aftermath } from '../../lib/hub/aftermath.ts'
import { createCounters, type Counters } from '../../lib/hub/counters.ts'
import type { SessionRoom } from '../../lib/room/member.ts'
import { Delivery } from '../../lib/room/delivery.ts'
import { Room, type RoomPorts } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
import { webSocketTransport } from '../../lib/transport/websocket.ts'
import type { ByteStream, WebSocketLike } from '../../lib/transport/websocket-frames.ts'
import { anyPayload } from '../../lib/topics/payload.ts'
import type { TopicDefinition } from '../../lib/topics/registry.ts'
import type { Mode } from '../../types/index.ts'

/** A socket that records the calls. */
export class FakeSocket implements WebSocketLike {
  readyState = 1
  bufferedAmount = 0
  isPaused = false
  pings = 0
  terminations = 0
  extensions = ''
  readonly sent: string[] = []
  readonly closes: { code: number, reason: string }[] = []

  send (data: Buffer | string): void { this.sent.push(data.toString()) }

  ping (): void { this.pings++ }
  close (code: number, reason: string): void {
    this.closes.push({ code, reason })
    this.readyState = 2
  }

  terminate (): void {
    this.terminations++
    this.readyState = 3
  }

  pause (): void { this.isPaused = true }
  resume (): void { this.isPaused = false }
  on (): void {}
}

/** A TCP socket that records the bytes written to it: whole batches go here, past ws. */
export class FakeStream extends Socket {
  readonly written: Buffer[] = []
  override readonly writableNeedDrain: boolean = true
  override write (bytes: any): boolean {
    this.written.push(bytes)
    return true
  }
}

type Bytes = { bytesRead?: number }

/** A session whose fields a test may write. */
export type FakeSession = MemberSession & { -readonly [Name in 'id' | 'topic' | 'definition' | 'deliver' | 'end' | 'fail']: MemberSession[Name] } & { user: string | undefined, room: SessionRoom | undefined }

export interface FakeMember<T extends ByteStream = Bytes> {
  session: FakeSession
  connection: Connection<MemberSession>
  socket: FakeSocket
  stream: T
}

/** A member without a hub, with the fields of a session that rooms and timers use. */
export function fakeMember<T extends ByteStream = Bytes> (id: string, mode: Mode = 'rooms.v1', stream: T = { bytesRead: 0 } as ByteStream as T): FakeMember<T> {
  const socket = new FakeSocket()
  const transport = webSocketTransport(socket, stream, mode)
  const connection = new Connection<MemberSession>({} as never, { transport, address: '127.0.0.1', user: undefined, expiresAt: undefined, rate: { capacity: 1_000, per: 1_000 } })
  const session = { id, topic: 'news', connection, transport, user: undefined, info: undefined, state: 'open', index: -1, lag: undefined, isAnnounced: false, room: undefined, deliver () {}, end () {}, flush () {} } as unknown as FakeSession
  connection.session = session
  return { session, connection, socket, stream }
}

export function fakeDefinition (more: Partial<TopicDefinition> = {}): TopicDefinition {
  return { key: '*', stem: '', family: true, message: anyPayload, publish: anyPayload, converted: false, presence: anyPayload, grace: 0, post: false, maxMembers: Infinity, maxPayload: 65_536, rate: { capacity: 1_000, per: 1_000 }, slow: { policy: 'close', bytes: 1_000 }, history: null, outage: 'wait', stream: false, ...more }
}

/** The ports of a room without a hub. */
export function fakePorts (more: Partial<RoomPorts<MemberSession>> = {}): RoomPorts<MemberSession> & { counters: Counters } {
  const counters = createCounters()
  const fail = (): never => { throw new Error('not in this test') }
  return {
    feed: { broker: { attach: fail, delivered: fail, review: () => {} }, aftermath: new Aftermath(), counters, fault: fail },
    counters,
    deflate: undefined,
    losses: { tell: fail },
    turn: { queued: () => {} },
    member: () => undefined,
    held: () => new Set(),
    ...more
  } as RoomPorts<MemberSession> & { counters: Counters }
}

/** A room with members of these ids. */
export function fakeRoom (ids: string[], definition: TopicDefinition = fakeDefinition()): { room: Room<MemberSession>, members: FakeMember[] } {
  const room = new Room<MemberSession>('news', definition, fakePorts())
  const members = ids.map(id => fakeMember(id))
  for (const { session } of members) room.add(session)
  return { room, members }
}

/** A message of an untyped topic. */
export function fakeDelivery (json: string, key?: string): Delivery {
  return new Delivery(new Outgoing({ uid: 'u1', node: 'n1', topic: 'news', deadline: 0, key }, json), { epoch: 'e', offset: 1 }, true)
}

/** The payloads of the messages that a member received. */
export const got = ({ socket }: { socket: FakeSocket }): unknown[] => socket.sent.map(text => JSON.parse(text).data)

/** Stops the clock at `now` until the returned function is called. Timers go on. */
export function stopClock (now = performance.now()): () => void {
  const own = Object.getOwnPropertyDescriptor(performance, 'now')
  Object.defineProperty(performance, 'now', { value: () => now, configurable: true })
  return () => {
    if (own === undefined) Reflect.deleteProperty(performance, 'now')
    else Object.defineProperty(performance, 'now', own)
  }
}

/** Runs a function with the clock at `now`. */
export function at<T> (now: number, call: () => T): T {
  const start = stopClock(now)
  try {
    return call()
  } finally {
    start()
  }
}
