/**
 * A node that a signal stops. `PORT` is its port, and `REDIS` that of the server of Redis. It prints its URL when it listens, and a line of JSON for each member that
 * joins or leaves, and when it begins to let its members go.
 */
import { subscribe } from 'node:diagnostics_channel'
import closeWithGrace from 'close-with-grace'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import fastifyRooms, { defineTopics, type RoomsEvents } from 'fastify-rooms'
import { redisBroker } from 'fastify-rooms/redis'

const { PORT, REDIS } = process.env
const print = (line: object): void => { console.log(JSON.stringify({ ...line, at: Date.now() })) }

subscribe('fastify-rooms:join', () => { print({ event: 'join' }) })
subscribe('fastify-rooms:leave', event => {
  const { code, by } = event as RoomsEvents['fastify-rooms:leave']
  print({ event: 'leave', code, by })
})
subscribe('fastify-rooms:drain', event => {
  const { phase } = event as RoomsEvents['fastify-rooms:drain']
  print({ event: `drain ${phase}` })
})

const app = Fastify({ trustProxy: '127.0.0.1' })
const topics = defineTopics({ news: { publish: true, post: true, history: true } })
await app.register(fastifyRooms<typeof topics>, {
  prefix: '/rooms',
  topics,
  broker: redisBroker({ client: new Redis(Number(REDIS), '127.0.0.1', { lazyConnect: true }) }),
  authorize: () => true,
  limits: { perAddress: 1_000 } // all members of the test have one
})
closeWithGrace({ delay: 10_000 }, () => app.close())
console.log(await app.listen({ host: '127.0.0.1', port: Number(PORT) }))
