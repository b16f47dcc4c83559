import type { Stats } from '../../types/index.ts'
import { createRefusals } from '../limits/refusals.ts'

/** The members of `stats()` that only grow. Its gauges are counted when it is called. */
export type Counters = Omit<Stats, 'connections' | 'topics' | 'members' | 'queuedBytes' | 'working' | 'lagging' | 'publishing' | 'waiting' | 'streams' | 'history' | 'broker'>

export function createCounters (): Counters {
  return { joined: 0, recovered: 0, unrecovered: 0, replayed: 0, broadcasts: 0, duplicates: 0, deliveries: 0, directs: 0, received: 0, receivedBytes: 0, paused: 0, sentBytes: 0, invalid: 0, refused: 0, slow: 0, dropped: 0, conflated: 0, silent: 0, expired: 0, errors: 0, unanswered: 0, repeated: 0, losses: 0, brokerFaults: 0, unreadable: 0, refusals: createRefusals() }
}
