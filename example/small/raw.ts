// rooms.raw: a frame is only the payload, for devices and for clients that know no envelope.
//
//   npx wscat -s rooms.raw -c ws://127.0.0.1:3000/rooms/clock    the time, every second
//   npx wscat -s rooms.raw -c ws://127.0.0.1:3000/rooms/echo     what you type comes back
//
// A client of rooms.v1 (no -s) is in the same rooms, and gets the same payloads in message and direct frames.
import Fastify from 'fastify'
import fastifyRooms from 'fastify-rooms'

const app = Fastify()
await app.register(fastifyRooms, {
  prefix: '/rooms',
  onMessage: {
    async '*' (session, payload) {
      if (session.topic === 'echo') await session.send(payload)
      else await session.rooms.broadcast(session.topic, payload)
    }
  }
})

const clock = setInterval(() => { app.rooms.broadcast('clock', new Date().toISOString()) }, 1_000)
app.addHook('preClose', async () => { clearInterval(clock) })

const { HOST = '127.0.0.1', PORT = '3000' } = process.env
console.log(await app.listen({ host: HOST, port: Number(PORT) }))
