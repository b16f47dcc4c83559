// @fastify/sse with a loop over the replies of a room, each of which serialises and writes for itself.
import fastifySse from '@fastify/sse'
import Fastify from 'fastify'
import { host, ready, setup } from './control.js'

const app = Fastify()
const rooms = new Map(Array.from({ length: setup.rooms ?? 1 }, (_, index) => [`room:${index}`, new Set()]))

await app.register(fastifySse)

app.get('/r/:room', { sse: 'only' }, async (request, reply) => {
  const members = rooms.get(request.params.room)
  reply.sse.keepAlive()
  reply.sse.onClose(() => { members.delete(reply.sse) })
  await reply.sse.send({ data: 'hello' })
  members.add(reply.sse)
})

await app.listen({ host, port: 0 })
ready(app.server.address().port, (room, message) => {
  for (const stream of rooms.get(room)) stream.send({ id: String(message.seq), data: message }).catch(() => {})
})
