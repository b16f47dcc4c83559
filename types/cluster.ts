/**
 * The broker of one machine, `fastify-rooms/cluster`.
 */
import type { MessagePort } from 'node:worker_threads'
import type { HistoryStats } from './broker.ts'

export interface ClusterBrokerOptions {
  /** Nodes of the same name share their topics. 1 to 100 characters. Default `'rooms'`. */
  name?: string
  /** In a worker thread: the port whose other end was given to `connect`. Default: the primary of `node:cluster`. */
  port?: MessagePort
}

/** Numbers of the primary. */
export interface ClusterStats {
  /** Gauge: nodes that are joined: one for each registration of the plugin in each worker. */
  nodes: number
  /** Gauge: nodes that do not read, and miss entries until they do. */
  behind: number
  /** Gauge: topics that at least one node has attached. */
  topics: number
  /** Publications that were accepted. */
  published: number
  /** Entries and other events that nodes did not get, because they did not read. They were told of a loss. */
  dropped: number
  /** Kept messages. */
  history: HistoryStats
}

/** The state that all workers share, in the primary. */
export interface ClusterPrimary {
  /** Lets the node of a worker thread join, which calls `clusterBroker({ port })` with the other end. */
  connect (port: MessagePort): void
  stats (): ClusterStats
  /** Forgets everything, and lets no node join any more. Brokers of workers are down after that. */
  close (): void
}
