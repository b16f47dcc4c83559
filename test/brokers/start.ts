import type { Test } from 'tap'
import type { Broker, BrokerState, Position, Publication } from '../../types/index.ts'

interface Entry { topic: string, publication: Publication, position: Position | undefined }

/** Starts a broker that records the entries for its node. Closed with its test. */
export async function startBroker (t: Test, broker: Broker, node = 'node-1') {
  const entries: Entry[] = []
  const states: BrokerState[] = []
  await broker.start(node, {
    entry: (topic, publication, position) => { entries.push({ topic, publication, position }) },
    control: () => {},
    state: state => { states.push(state) },
    lost: () => {}
  })
  t.teardown(() => broker.close())
  return { broker, entries, states }
}

let count = 0

export function publication (topic: string, payload: unknown = null, node = 'node-1'): Publication {
  const json = JSON.stringify(payload)
  return { v: 1, uid: `${node}-${++count}`, node, topic, tail: Buffer.from(`"data":${json}}`), payloadLength: Buffer.byteLength(json), deadline: Date.now() + 5_000 }
}
