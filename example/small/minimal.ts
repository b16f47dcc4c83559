// The open lobby: any topic, any JSON, and a broadcast from any handler.
//
//   npx wscat -c ws://127.0.0.1:3000/rooms/orders
//   curl --json '{"item":"tea"}' http://127.0.0.1:3000/orders
import Fastify from 'fastify'
import fastifyRooms from 'fastify-rooms'

const app = Fastify()
await app.register(fastifyRooms, { prefix: '/rooms' })

app.post('/orders', async (request, reply) => {
  const order = { ...request.body as object, at: new Date() }
  // Published only after the response has succeeded, so an order that fails is not announced.
  request.rooms.broadcast('orders', order)
  return reply.code(201).send(order)
})

const { HOST = '127.0.0.1', PORT = '3000' } = process.env
console.log(await app.listen({ host: HOST, port: Number(PORT) }))
