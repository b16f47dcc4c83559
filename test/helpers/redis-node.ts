import type { Test } from 'tap'
import { Redis } from 'ioredis'
import { redisBroker } from '../../lib/redis/index.ts'
import type { Broker, BrokerState, Outcome, Position, Publication } from '../../types/index.ts'
import type { RedisBrokerOptions } from '../../types/redis.ts'
import { publication } from '../brokers/start.ts'

/** A node whose broker brings entries to a list. */
export interface Node {
  readonly name: string
  readonly broker: Broker
  /** `topic payload` of each entry. */
  readonly entries: string[]
  readonly positions: (Position | undefined)[]
  readonly states: BrokerState[]
  readonly causes: (Error | undefined)[]
  readonly lost: (string[] | 'all')[]
  /** `node bytes` of what other nodes sent. */
  readonly controls: string[]
  /** Publishes one message, which is kept unless `more` says otherwise. */
  publish (topic: string, payload: unknown, more?: { [K in keyof Publication]?: Publication[K] | undefined }): Promise<Outcome[]>
}

let names = 0
const retention = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }

export async function startNode (t: Test, port: number, options: Partial<RedisBrokerOptions> = {}): Promise<Node> {
  const name = `node${++names}`
  const broker = redisBroker({ client: new Redis(port, '127.0.0.1', { lazyConnect: true }), heartbeat: 500, ...options })
  const node: Node = {
    name,
    broker,
    entries: [],
    positions: [],
    states: [],
    causes: [],
    lost: [],
    controls: [],
    publish: async (topic, payload, more) => {
      const given = Object.entries({ ...publication(topic, payload, name), retention, ...more }).filter(([, value]) => value !== undefined)
      return broker.publish([Object.fromEntries(given) as unknown as Publication])
    }
  }
  await broker.start(name, {
    entry: (topic, { tail, payloadLength }, position) => {
      node.entries.push(`${topic} ${tail.toString('utf8', 7, 7 + payloadLength)}`)
      node.positions.push(position)
    },
    control: (from, bytes) => { node.controls.push(`${from} ${bytes.toString()}`) },
    state: (state, cause) => {
      node.states.push(state)
      node.causes.push(cause)
    },
    lost: topics => { node.lost.push(topics) }
  })
  t.teardown(() => broker.close())
  return node
}

/** Waits until a condition holds, or for so many milliseconds. */
export async function until (holds: () => boolean, timeout = 8_000): Promise<void> {
  const end = Date.now() + timeout
  while (!holds() && Date.now() < end) await new Promise(resolve => setTimeout(resolve, 5))
}

/** The entries of topic `a` with these numbers. */
export function range (from: number, to: number): string[] {
  return Array.from({ length: to - from + 1 }, (_, i) => `a ${from + i}`)
}
