import { connect } from '@nats-io/transport-node'
import { Redis } from 'ioredis'
import { NatsBroker } from '../../lib/nats/broker.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import type { Broker } from '../../types/index.ts'
import type { NodeSettings } from './node.ts'

/** The broker of a node, and the topics that its fleet has. */
export interface NodeBroker {
  readonly broker: Broker
  readonly topics: object
  /** Ends the connection that a host has made for the broker. */
  end (): unknown
}

/** Milliseconds that a topic stays subscribed after its last member. */
const linger = 500

/** Whether a topic has members that all nodes know. */
export function hasPresence (topic: string): boolean {
  return /^(?:lobby|party):/.test(topic)
}

/** Milliseconds for which the leave of a user of `party` is held. */
export const grace = 1_000

export const brokers: Record<NodeSettings['broker'], (settings: NodeSettings) => NodeBroker> = {
  /** Topics: `log` keeps all that a schedule publishes, `short` less than it misses, `plain` nothing, `lobby` has presence, and `party` a grace, too. */
  redis ({ brokerPort, heartbeat, times }) {
    const client = new Redis(brokerPort, '127.0.0.1', { lazyConnect: true })
    return {
      broker: redisBroker({ client, heartbeat, linger }, times),
      topics: {
        'log:*': { history: { size: 20_000, bytes: 50_000_000, replay: 50_000_000 }, publish: true, post: true },
        'short:*': { history: { size: 3 }, publish: true, post: true },
        'plain:*': { publish: true, post: true },
        'lobby:*': { presence: true },
        'party:*': { presence: { grace } }
      },
      end: () => { client.disconnect() }
    }
  },

  nats ({ brokerPort, probe }) {
    const connection = connect({ servers: `127.0.0.1:${brokerPort}`, waitOnFirstConnect: true, maxReconnectAttempts: -1, reconnectTimeWait: 250, reconnectJitter: 50, timeout: 1_000 })
    return {
      broker: new NatsBroker({ connection, prefix: 'rooms', probe }, { linger, patience: 2_000 }),
      topics: { 'plain:*': { publish: true, post: true } },
      async end () { await (await connection).close() }
    }
  }
}
