/**
 * A program of `node:cluster` with two workers, each on a port of its own. The primary prints a line of JSON for each worker that listens, and kills the worker whose
 * number it reads. A worker that has ended is replaced.
 */
import cluster from 'node:cluster'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import Fastify from 'fastify'
import { clusterBroker, clusterPrimary } from '../../lib/cluster/index.ts'
import fastifyRooms, { defineTopics } from '../../lib/index.ts'

if (cluster.isPrimary) {
  const primary = clusterPrimary()
  cluster.fork()
  cluster.fork()
  cluster.on('message', (worker, message: { port?: number }) => {
    if (message.port !== undefined) console.log(JSON.stringify({ worker: worker.id, port: message.port }))
  })
  cluster.on('exit', () => { cluster.fork() })
  createInterface(process.stdin).on('line', line => {
    if (line === 'stats') console.log(JSON.stringify({ stats: primary.stats() }))
    else cluster.workers![line]!.process.kill('SIGKILL')
  })
} else {
  const app = Fastify()
  const topics = defineTopics({ chat: { publish: true, post: true, history: true, presence: true } })
  await app.register(fastifyRooms<typeof topics>, { prefix: '/rooms', topics, broker: clusterBroker(), authorize: () => true })
  await app.listen({ host: '127.0.0.1', port: 0, exclusive: true })
  process.send!({ port: (app.server.address() as AddressInfo).port })
}
