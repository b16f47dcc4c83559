import cluster from 'node:cluster'
import type { Broker } from '../../types/index.ts'
import type { ClusterBrokerOptions, ClusterPrimary } from '../../types/cluster.ts'
import { FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_NO_CLUSTER } from '../errors.ts'
import { ClusterBroker } from './broker.ts'
import { portLink, processLink } from './links.ts'
import { openPrimary } from './primary.ts'

export type * from '../../types/cluster.ts'

/**
 * Keeps the state that the workers of this process share: positions, kept messages, members. Call it once in the primary of `node:cluster`, before the first `fork`,
 * because it sets `serialization: 'advanced'` for the channels to workers. The state ends with the process.
 *
 * ```ts
 * clusterPrimary()
 * for (let core = 0; core < os.availableParallelism(); core++) cluster.fork()
 * ```
 *
 * @throws FST_ROOMS_NO_CLUSTER in a worker, at the second call, and if running workers have channels that carry JSON
 */
export function clusterPrimary (): ClusterPrimary {
  return openPrimary(cluster)
}

/**
 * Returns the broker of one node in a worker of `node:cluster`, or with `port` in a worker thread. All nodes of the machine share their topics, with one order, history,
 * presence and exact resume. Each registration of the plugin needs a broker of its own.
 *
 * ```ts
 * await app.register(fastifyRooms, { prefix: '/rooms', broker: clusterBroker() })
 * ```
 *
 * @throws FST_ROOMS_NO_CLUSTER in a process that is no worker, without `port`; FST_ROOMS_INVALID_ARGUMENT for a wrong `name` or `port`
 */
export function clusterBroker ({ name = 'rooms', port }: ClusterBrokerOptions = {}): Broker {
  if (typeof name !== 'string' || name.length < 1 || name.length > 100) throw new FST_ROOMS_INVALID_ARGUMENT('name', 'a string of 1 to 100 characters')
  if (port !== undefined) {
    if (typeof port?.postMessage !== 'function' || typeof port.on !== 'function') throw new FST_ROOMS_INVALID_ARGUMENT('port', 'a MessagePort of node:worker_threads')
    return new ClusterBroker(name, portLink(port))
  }
  if (!cluster.isWorker || process.send === undefined) throw new FST_ROOMS_NO_CLUSTER('clusterBroker() is for workers of node:cluster; a single process needs no broker, and a worker thread gives "port"')
  return new ClusterBroker(name, processLink(process))
}
