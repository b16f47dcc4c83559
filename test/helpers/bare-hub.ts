import { EventEmitter } from 'node:events'
import type { Hooks, Log, Settings } from '../../lib/hub/ports.ts'
import { FakeSocket } from './fakes.ts'

/** A logger that writes nothing. */
export const silent: Log = { debug () {}, info () {}, warn () {}, error () {} }

/** The hooks of a hub without hooks of the host. */
export function bareHooks (more: Partial<Hooks> = {}): Hooks {
  return { authorize: undefined, onMessage: new Map(), onDirect: new Map(), onAuth: undefined, onJoined: undefined, onLeave: undefined, onUserJoin: undefined, onUserLeave: undefined, onError: undefined, onInvalid: 'answer', ...more }
}

/** Limits of a hub without Fastify, which has no timers. */
export function bareSettings ({ limits, ...more }: Partial<Omit<Settings, 'limits'>> & { limits?: Partial<Settings['limits']> } = {}): Settings {
  return {
    heartbeat: false,
    notice: 0,
    limits: { connections: 100, topics: 100, info: 100, pending: 16, work: 100, mids: 100, badFrames: 10, handshake: 10_000, publish: 5_000, unfinished: 30_000, history: 268_435_456, waiters: 100, topicsPerConnection: 100, ...limits },
    address: { connections: undefined, rate: { capacity: 1_000, per: 1_000 }, rateIsGiven: false },
    drain: { timeout: 20, batch: 500, interval: 50, retry: { min: 100, max: 15_000 } },
    maxPayload: Infinity,
    deflate: undefined,
    ...more
  }
}

/** A socket with events. `gone` does the same as ws when the connection has closed. */
export class LiveSocket extends FakeSocket {
  readonly events = new EventEmitter()
  override on (event?: string, listener?: (...args: any[]) => void): void { this.events.on(event!, listener!.bind(this)) }
  receive (frame: unknown): void { this.events.emit('message', Buffer.from(JSON.stringify(frame)), false) }
  gone (code = 1006): void {
    this.readyState = 3
    this.events.emit('close', code, Buffer.alloc(0))
  }
}
