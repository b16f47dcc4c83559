import type { Test } from 'tap'
import { NatsBroker, type NatsTimes } from '../../lib/nats/broker.ts'
import type { Broker, BrokerState, Publication } from '../../types/index.ts'
import type { NatsBrokerOptions } from '../../types/nats.ts'

/** A broker over NATS with the calls of its handlers, in their order. */
export interface Node {
  readonly name: string
  readonly broker: Broker
  readonly entries: { topic: string, publication: Publication }[]
  /** `<node> <bytes>` */
  readonly controls: string[]
  readonly states: BrokerState[]
  readonly causes: (Error & { code?: string, cause?: unknown })[]
  readonly lost: (string[] | 'all')[]
  /** The payloads of the entries. */
  payloads (): unknown[]
  publish (topic: string, payload: unknown, more?: Partial<Publication>): Promise<string>
}

let count = 0

export function publicationOf (node: string, topic: string, payload: unknown = null): Publication {
  const json = JSON.stringify(payload)
  return { v: 1, uid: `${node}-${++count}`, node, topic, tail: Buffer.from(`"data":${json}}`), payloadLength: Buffer.byteLength(json), deadline: Date.now() + 5_000 }
}

/** Starts a broker, which is closed with its test. */
export async function startNode (t: Test, name: string, options: Partial<NatsBrokerOptions>, times: Partial<NatsTimes> = {}): Promise<Node> {
  const broker: Broker = new NatsBroker({ prefix: 'rooms', probe: 50, ...options } as Required<NatsBrokerOptions>, { linger: 30_000, patience: 2_000, ...times })
  const node: Node = {
    name,
    broker,
    entries: [],
    controls: [],
    states: [],
    causes: [],
    lost: [],
    payloads: () => node.entries.map(({ publication: { tail, payloadLength } }) => JSON.parse(tail.toString('utf8', 7, 7 + payloadLength)) as unknown),
    publish: async (topic, payload, more) => (await broker.publish([{ ...publicationOf(name, topic, payload), ...more }]))[0]!.state
  }
  t.teardown(() => broker.close())
  await broker.start(name, {
    entry: (topic, publication) => { node.entries.push({ topic, publication }) },
    control: (from, bytes) => { node.controls.push(`${from} ${bytes}`) },
    state: (state, cause) => {
      node.states.push(state)
      if (cause !== undefined) node.causes.push(cause)
    },
    lost: topics => { node.lost.push(topics) }
  })
  return node
}
