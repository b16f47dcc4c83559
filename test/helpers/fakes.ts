import { Socket } from 'node:net'
import { Connection, type Transport, type WebSocketLike } from '../../lib/connection/connection.ts'
import { Delivery, Outgoing } from '../../lib/room/delivery.ts'
import { createCounters } from '../../lib/hub/counters.ts'
import { Room } from '../../lib/room/room.ts'
import type { MemberSession } from '../../lib/session/session.ts'
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
export class FakeTransport extends Socket {
  readonly written: Buffer[] = []
  override readonly writableNeedDrain: boolean = true
  override write (bytes: any): boolean {
    this.written.push(bytes)
    return true
  }
}

export interface FakeMember<T extends Transport = { bytesRead?: number }> {
  session: MemberSession
  socket: FakeSocket
  transport: T
}

/** A member without a hub, with the fields of a session that rooms and timers read. */
export function fakeMember<T extends Transport = { bytesRead?: number }> (id: string, mode: Mode = 'rooms.v1', transport: T = { bytesRead: 0 } as Transport as T): FakeMember<T> {
  const socket = new FakeSocket()
  const connection = new Connection(socket, transport, mode, '127.0.0.1')
  const session = { id, connection, user: undefined, info: undefined, state: 'open', index: -1, lag: undefined, announced: false, room: undefined } as unknown as MemberSession
  return { session, socket, transport }
}

export function fakeDefinition (more: Partial<TopicDefinition> = {}): TopicDefinition {
  return { key: '*', stem: '', family: true, message: anyPayload, publish: anyPayload, converted: false, presence: anyPayload, post: false, maxMembers: Infinity, maxPayload: 65_536, rate: { capacity: 1_000, per: 1_000 }, slow: { policy: 'close', bytes: 1_000 }, ...more }
}

/** A room with members of these ids. */
export function fakeRoom (ids: string[], definition: TopicDefinition = fakeDefinition()): { room: Room, members: FakeMember[] } {
  const room = new Room('news', definition, createCounters())
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
