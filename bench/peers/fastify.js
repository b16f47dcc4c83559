// Bare Fastify routes: one validates the same body as the broadcast route of fastify-rooms and answers as much, one lets requests wait for the next message.
import Fastify from 'fastify'
import { host, ready, schema } from './control.js'

const app = Fastify()
let count = 0

app.post('/r/:topic', {
  schema: {
    body: schema,
    response: {
      200: {
        type: 'object',
        properties: { topic: { type: 'string' }, id: { type: 'string' }, local: { type: 'integer' }, published: { type: 'boolean' } }
      }
    }
  }
}, async request => ({ topic: request.params.topic, id: `bare-${++count}`, local: 0, published: true }))

const waiting = []

app.get('/r/:topic', (request, reply) => {
  reply.header('cache-control', 'no-store').type('application/json; charset=utf-8')
  waiting.push(reply)
})

await app.listen({ host, port: 0 })
ready(app.server.address().port, async (room, message) => {
  const id = `${'0'.repeat(16)}-${message.seq}`
  const text = `{"topic":"${room}","id":"${id}","count":0,"messages":[{"id":"${id}","data":${JSON.stringify(message)}}],"recovered":true,"complete":true}`
  for (const reply of waiting.splice(0)) reply.send(text)
  return { id }
}, undefined, () => waiting.length)
