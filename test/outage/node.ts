import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import Fastify from 'fastify'
import fastifyRooms from '../../lib/index.ts'
import type { BrokerEvent, BrokerState, Rooms } from '../../types/index.ts'
import { brokers, hasPresence } from './brokers.ts'

/** The settings of a node of the fleet. */
export interface NodeSettings {
  readonly broker: 'redis' | 'nats'
  /** The port of its app. */
  readonly port: number
  /** The port under which it reaches its broker. */
  readonly brokerPort: number
  readonly heartbeat: number
  readonly probe: number
  /** Milliseconds between two signs of life, and until a node counts as dead. */
  readonly times: { readonly every: number, readonly ttl: number }
}

/** Reports of a node to the process that started it. */
export type NodeReport =
  | { readonly type: 'ready' }
  | { readonly type: 'id', readonly id: string }
  | { readonly type: 'state', readonly state: BrokerState, readonly cause: string | undefined, readonly at: number }
  | { readonly type: 'fault', readonly text: string }
  | { readonly type: 'user' } & UserEvent
  | { readonly type: 'answer', readonly call: number, readonly value: unknown }

/** A user has joined a topic with presence, or has left it, as the hook of a node was told. */
export interface UserEvent {
  readonly event: 'join' | 'leave'
  readonly topic: string
  readonly user: string
}

/** A topic as a node sees it, over all nodes. */
export interface TopicView {
  readonly count: number
  /** The sessions of its members, and its users, in order; none if the topic has no presence. */
  readonly sessions: readonly string[]
  readonly users: readonly string[]
}

/** A question to a node. */
export interface NodeQuestion {
  readonly call: number
  readonly name: 'stats' | 'presence' | 'close'
  /** The topics that a question for `presence` is about. */
  readonly topics?: readonly string[]
}

export interface RunningNode {
  stats (): unknown
  /** Says who is in topics. */
  presence (topics: readonly string[]): Promise<TopicView[]>
  close (): Promise<void>
}

/** Starts a node. @param report - is told of its states and of errors that no user should see */
export async function startNode (settings: NodeSettings, report: (report: NodeReport) => void): Promise<RunningNode> {
  const { broker, topics, end } = brokers[settings.broker](settings)
  const start = broker.start.bind(broker)
  broker.start = (id, handlers) => {
    report({ type: 'id', id })
    return start(id, handlers)
  }
  const app = Fastify({ forceCloseConnections: true })
  const tell = (event: unknown): void => {
    const { rooms, state, cause } = event as BrokerEvent
    // The first state comes before the app has its rooms.
    const own = (app as { rooms?: unknown }).rooms
    if (own === undefined || own === rooms) report({ type: 'state', state, cause: cause?.message, at: Date.now() })
  }
  const userHook = (event: UserEvent['event']) => ({ topic, user }: { topic: string, user: string }): void => {
    if (hasPresence(topic)) report({ type: 'user', event, topic, user })
  }
  subscribe('fastify-rooms:broker', tell)
  await app.register(fastifyRooms as any, {
    prefix: '/rooms',
    broker,
    topics,
    identify: (request: { query: { user?: string } }) => request.query.user === undefined ? null : { user: request.query.user },
    authorize: () => true,
    onUserJoin: userHook('join'),
    onUserLeave: userHook('leave'),
    onError: (error: Error & { code?: string }) => {
      // During an outage the host gets errors of its client, and of calls that were not answered.
      if (error.code === 'FST_ROOMS_BROKER_FAULT' || error instanceof TypeError || error instanceof RangeError) report({ type: 'fault', text: `onError: ${error.code} ${error.stack}` })
    },
    drain: { timeout: 100, interval: 1 },
    limits: { perAddress: 100_000, addressMessages: 1_000_000, messages: 100_000 }
  })
  await app.listen({ host: '127.0.0.1', port: settings.port })
  const { rooms } = app as unknown as { rooms: Rooms<any> }
  const see = async (topic: string): Promise<TopicView> => {
    const [members, users] = hasPresence(topic) ? await Promise.all([rooms.members(topic), rooms.members(topic, { by: 'user' })]) : [[], []]
    return { count: await rooms.count(topic), sessions: members.map(({ session }) => session).sort(), users: users.map(({ user }) => user).sort() }
  }
  return {
    presence: topics => Promise.all(topics.map(see)),
    stats: () => ({ ...rooms.stats(), ...broker.stats?.(), rss: process.memoryUsage().rss }),
    async close () {
      await app.close()
      unsubscribe('fastify-rooms:broker', tell)
      await end()
    }
  }
}

if (process.env.OUTAGE_NODE !== undefined && process.send !== undefined) {
  const report = (report: NodeReport): void => { process.send!(report) }
  process.on('unhandledRejection', error => { report({ type: 'fault', text: `unhandled rejection: ${(error as Error)?.stack ?? error}` }) })
  process.on('uncaughtException', error => {
    process.send!({ type: 'fault', text: `uncaught: ${error.stack}` } satisfies NodeReport, () => process.exit(1))
  })
  process.on('disconnect', () => { process.exit(0) })
  const node = await startNode(JSON.parse(process.env.OUTAGE_NODE), report)
  process.on('message', async ({ call, name, topics = [] }: NodeQuestion) => {
    report({ type: 'answer', call, value: await node[name](topics) ?? null })
    if (name === 'close') process.disconnect!()
  })
  process.once('SIGTERM', async () => {
    await node.close()
    process.disconnect!()
  })
  report({ type: 'ready' })
}
