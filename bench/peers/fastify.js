// A bare Fastify route that validates the same body as the broadcast route of fastify-rooms and answers as much.
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

await app.listen({ host, port: 0 })
ready(app.server.address().port, () => {})
