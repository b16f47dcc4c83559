import type { Test } from 'tap'
import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import type { LeaveReason } from '../../types/index.ts'
import { createRooms, join, listen, type AnyOptions, type Client, type LogLine } from '../helpers/app.ts'
import type { PresenceBroker, PresenceServer } from '../helpers/presence-broker.ts'

/** One node of a fleet. */
export interface Node {
  readonly app: FastifyInstance
  readonly rooms: any
  readonly broker: PresenceBroker
  readonly logs: LogLine[]
  readonly errors: (Error & { code?: string })[]
  readonly reasons: LeaveReason[]
  /** Joins a topic, with a presence snapshot. */
  join (query?: string, topic?: string): Promise<Client & { hello: { session: string } }>
}

/**
 * Starts a node with the topics `chat` (presence, with this grace) and `live` (no presence).
 * @param calls - what its hooks are called with
 */
export async function startNode (t: Test, server: PresenceServer, calls: string[] = [], options: AnyOptions & { grace?: number } = {}): Promise<Node> {
  const { grace = 0, ...others } = options
  const broker = server.broker()
  const errors: Error[] = []
  const reasons: LeaveReason[] = []
  const logs: LogLine[] = []
  const infoOf = ({ user, info }: { user: string, info?: any }): string => `${user}${info === undefined ? '' : ` (${info.tab})`}`
  const app = await createRooms(t, {
    broker,
    topics: { chat: { publish: true, presence: { info: Type.Object({ tab: Type.Number() }), grace } }, live: { publish: true } },
    identify: request => {
      const { user, tab } = request.query as { user?: string, tab?: string }
      return user === undefined ? null : { user, ...(tab === undefined ? {} : { info: { tab: Number(tab) } }) }
    },
    onUserJoin: presence => { calls.push(`+${infoOf(presence)}`) },
    onUserLeave: (presence, reason) => {
      calls.push(`-${infoOf(presence)}`)
      reasons.push(reason)
    },
    onError: error => { errors.push(error) },
    ...others
  }, logs)
  const host = await listen(app)
  return {
    app,
    rooms: app.rooms,
    broker,
    logs,
    errors,
    reasons,
    join: (query = '', topic = 'chat') => join(t, `${host}/rooms/${topic}?presence=1&${query}`)
  }
}

/** The presence frames of a client. */
export const framesOf = (client: Client): any[] => client.received.map(text => JSON.parse(text)).filter(({ type }) => type === 'presence')

/** The list that a client keeps by the rules of docs/protocol.md after each of its presence frames: users, or session ids. Throws if a count differs from its list. */
export function historyOf (client: Client): (string[] | number)[] {
  let list: Map<string, any> | undefined
  return framesOf(client).map(({ state, join, leave, count }) => {
    if (state !== undefined) list = new Map(state.map((member: any) => [member.session, member]))
    else if (join === undefined && leave === undefined) list = undefined
    if (list === undefined) return count
    for (const member of join ?? []) list.set(member.session, member)
    for (const { session } of leave ?? []) list.delete(session)
    if (list.size !== count) throw new Error(`a count of ${count} beside a list of ${list.size}`)
    return Array.from(list.values(), ({ user, session }) => user ?? session).sort()
  })
}

/** The last of these lists. */
export const shown = (client: Client): string[] | number | undefined => historyOf(client).at(-1)

/** Waits for turns of the event loop. */
export const turns = async (count: number): Promise<void> => { for (let n = 0; n < count; n++) await new Promise(resolve => setImmediate(resolve)) }
/** How often a node has read members. */
export const reads = ({ broker }: Node) => broker.calls.filter(({ call }) => call === 'read').length

/** Runs a function while all timers of this time fire at once. */
export async function shortened (milliseconds: number, run: () => Promise<unknown>): Promise<void> {
  const real = globalThis.setTimeout
  globalThis.setTimeout = ((call: () => void, time: number) => real(call, time === milliseconds ? 1 : time)) as never
  try {
    await run()
  } finally {
    globalThis.setTimeout = real
  }
}

/** Joins members to a topic on a node that has no app. */
export const others = (server: PresenceServer, ids: string[], node = 'other') => server.change(node, ids.map(session => ({ topic: 'chat', session, user: session, type: 'set' as const })))
/** Takes them out again. */
export const leave = (server: PresenceServer, ids: string[], node = 'other') => server.change(node, ids.map(session => ({ topic: 'chat', session, user: session, type: 'leave' as const })))

/** Some session ids. */
export const names = (count: number, prefix = 'm') => Array.from({ length: count }, (_, n) => `${prefix}${n}`)
