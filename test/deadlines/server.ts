/** A server that a signal stops. `DELAY` is its deadline and `DRAIN` its drain.timeout, in milliseconds. */
import closeWithGrace from 'close-with-grace'
import Fastify from 'fastify'
import fastifyRooms from 'fastify-rooms'

const { DELAY, DRAIN } = process.env

const app = Fastify()
await app.register(fastifyRooms, { prefix: '/rooms', drain: { timeout: Number(DRAIN) } })
closeWithGrace({ delay: Number(DELAY) }, () => app.close())
console.log(await app.listen({ host: '127.0.0.1', port: 0 }))
