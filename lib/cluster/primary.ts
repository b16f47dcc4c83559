import type { Cluster, Worker } from 'node:cluster'
import type { MessagePort } from 'node:worker_threads'
import type { ClusterPrimary } from '../../types/cluster.ts'
import { FST_ROOMS_NO_CLUSTER } from '../errors.ts'
import { ExchangeHost, type Peer } from './host.ts'

/** The members of `node:cluster` that the primary uses. */
export type ClusterModule = Pick<Cluster, 'isPrimary' | 'settings' | 'setupPrimary' | 'workers' | 'on' | 'off'>

/** The clusters that have a state. */
const open = new WeakSet<ClusterModule>()

/** Keeps the state that the workers of a cluster share, in its primary. */
export function openPrimary (cluster: ClusterModule): ClusterPrimary {
  if (!cluster.isPrimary) throw new FST_ROOMS_NO_CLUSTER('clusterPrimary() is for the primary of node:cluster; call clusterBroker() in a worker')
  if (open.has(cluster)) throw new FST_ROOMS_NO_CLUSTER('clusterPrimary() has been called before: one state is enough for all workers')
  const running = Object.values(cluster.workers ?? {}) as Worker[]
  if (running.length === 0) cluster.setupPrimary({ serialization: 'advanced' })
  else if (cluster.settings.serialization !== 'advanced') throw new FST_ROOMS_NO_CLUSTER('the channels to running workers carry JSON: call clusterPrimary() before the first cluster.fork()')
  open.add(cluster)

  const host = new ExchangeHost()
  const workers = new Map<Worker, Peer>()
  const ports = new Set<() => void>()
  const peerOf = (worker: Worker): Peer => {
    let peer = workers.get(worker)
    if (peer === undefined) {
      workers.set(worker, peer = host.peer(message => {
        // Its last error is told by `disconnect`.
        if (worker.isConnected()) worker.send(message, () => {})
      }))
    }
    return peer
  }
  const received = (worker: Worker, message: unknown): void => { peerOf(worker).receive(message) }
  const ended = (worker: Worker): void => {
    workers.get(worker)?.ended()
    workers.delete(worker)
  }
  cluster.on('message', received)
  cluster.on('disconnect', ended)
  cluster.on('exit', ended)
  for (const worker of running) peerOf(worker).invite()

  return {
    connect (port: MessagePort) {
      const peer = host.peer(message => { port.postMessage(message) })
      const received = (message: unknown): void => { peer.receive(message) }
      const release = (): void => {
        port.off('message', received)
        port.off('close', closed)
        ports.delete(release)
      }
      const closed = (): void => {
        release()
        peer.ended()
      }
      port.on('message', received)
      port.on('close', closed)
      // The threads keep the process, not their ports.
      port.unref()
      peer.invite()
      ports.add(release)
    },
    stats: () => host.stats(),
    close () {
      cluster.off('message', received)
      cluster.off('disconnect', ended)
      cluster.off('exit', ended)
      host.close()
      for (const release of ports) release()
      open.delete(cluster)
    }
  }
}
