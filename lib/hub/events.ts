import { channel } from 'node:diagnostics_channel'
import type { BroadcastResult, BrokerEvent, Connection, DrainEvent, LeaveEvent, LossEvent, Publication, Refusal, RefusedEvent, Rooms, RoomsEvents, SessionEvent } from '../../types/index.ts'

/**
 * The channels of `node:diagnostics_channel`. Node.js keeps one channel of each name per process, for all hubs and all copies of this
 * package; each message names its `rooms`. Makes an event, and reads the clock, only if the channel has a subscriber.
 */
const channels = {
  join: channel('fastify-rooms:join'),
  leave: channel('fastify-rooms:leave'),
  message: channel('fastify-rooms:message'),
  broadcast: channel('fastify-rooms:broadcast'),
  refused: channel('fastify-rooms:refused'),
  slow: channel('fastify-rooms:slow'),
  error: channel('fastify-rooms:error'),
  drain: channel('fastify-rooms:drain'),
  broker: channel('fastify-rooms:broker'),
  loss: channel('fastify-rooms:loss')
} as const

type Name = keyof typeof channels
type Event<N extends Name> = RoomsEvents[`fastify-rooms:${N}`]

function publish<N extends Name> (name: N, event: Event<N>): void {
  channels[name].publish(event)
}

/** The members of a session that events show. */
export interface Subject {
  readonly rooms: Rooms<any>
  readonly id: string
  readonly topic: string
  readonly key: string
  readonly user: string | undefined
  readonly connection: Pick<Connection, 'mode' | 'address' | 'bufferedBytes'> & {
    /** When the WebSocket was opened, on the clock of `performance`. */
    readonly openedAt: number
  }
}

function about ({ rooms, id, topic, key, user, connection }: Subject): SessionEvent {
  return { rooms, session: id, topic, topicKey: key, user, address: connection.address, mode: connection.mode }
}

/** Milliseconds since the upgrade. */
function age ({ connection }: Subject): number {
  return performance.now() - connection.openedAt
}

/** A session has become a member. */
export function joined (session: Subject): void {
  if (channels.join.hasSubscribers) publish('join', { ...about(session), milliseconds: age(session) })
}

/** A member has left its room. */
export function memberLeft (session: Subject, code: number, reason: string, by: LeaveEvent['by']): void {
  if (channels.leave.hasSubscribers) publish('leave', { ...about(session), code, reason, by, milliseconds: age(session) })
}

/** A member's frame has arrived. */
export function received (session: Subject, bytes: number): void {
  if (channels.message.hasSubscribers) publish('message', { ...about(session), bytes })
}

/**
 * The broker has answered a publication.
 * @param from - the id of the member that published; `undefined` for the host
 */
export function published (rooms: Rooms<any>, topicKey: string, publication: Publication, { topic, local, published, id }: BroadcastResult, from: string | undefined): void {
  // Counts the bytes of the payload only if the channel has a subscriber.
  if (channels.broadcast.hasSubscribers) publish('broadcast', { rooms, topic, topicKey, from, bytes: publication.payloadLength, local, published, id })
}

/** A join or a frame was refused. */
export function refused ({ rooms, id, topic, key, user, connection }: Subject, what: 'join' | 'frame', reason: Refusal): void {
  if (channels.refused.hasSubscribers) publish('refused', { rooms, what, reason, status: undefined, session: id, topic, topicKey: key, user, address: connection.address })
}

/** A join or a frame was refused that concerns no session, on a connection of several topics. */
export function refusedOn (rooms: Rooms<any>, what: 'join' | 'frame', reason: Refusal, { topic, user, address }: { topic: string | undefined, user: string | undefined, address: string }): void {
  if (channels.refused.hasSubscribers) publish('refused', { rooms, what, reason, status: undefined, session: undefined, topic, topicKey: undefined, user, address })
}

/** A request was refused: an upgrade, or a broadcast. */
export function requestRefused (rooms: Rooms<any>, reason: Refusal, about?: Pick<RefusedEvent, 'status' | 'topic' | 'topicKey' | 'address'>): void {
  if (channels.refused.hasSubscribers) publish('refused', { rooms, what: 'request', reason, status: about?.status, session: undefined, topic: about?.topic, topicKey: about?.topicKey, user: undefined, address: about?.address })
}

/** A member has fallen behind. */
export function fellBehind (session: Subject, policy: string): void {
  if (channels.slow.hasSubscribers) publish('slow', { ...about(session), policy, bytes: session.connection.bufferedBytes })
}

/** A hook has failed. */
export function failed (rooms: Rooms<any>, error: Error, session: Pick<Subject, 'id' | 'topic'> | undefined): void {
  if (channels.error.hasSubscribers) publish('error', { rooms, error, session: session?.id, topic: session?.topic })
}

/** A drain begins or has ended. */
export function drained (rooms: Rooms<any>, phase: DrainEvent['phase'], connections: number): void {
  if (channels.drain.hasSubscribers) publish('drain', { rooms, phase, connections })
}

/** The broker has reported its state, or a fault that does not change it. */
export function brokerChanged (rooms: Rooms<any>, { state, before, milliseconds, cause }: Omit<BrokerEvent, 'rooms'>): void {
  if (channels.broker.hasSubscribers) publish('broker', { rooms, state, before, milliseconds, cause })
}

/** The members of a topic are told of a loss. */
export function lost (rooms: Rooms<any>, topic: string, topicKey: string, { reason, count, from, to }: Pick<LossEvent, 'reason'> & { count?: number, from?: string, to?: string }): void {
  if (channels.loss.hasSubscribers) publish('loss', { rooms, topic, topicKey, reason, count, from, to })
}
