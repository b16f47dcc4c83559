// Only clients with a token may join, only editors broadcast, and other users write only to their own topic.
//
//   npx wscat -c 'ws://127.0.0.1:3000/rooms/news?token=reader-token'
//   new WebSocket('ws://127.0.0.1:3000/rooms/news', ['rooms.v1', 'bearer.' + base64url(token)])   // stays out of access logs
//   curl --json '"hello"' -H 'authorization: Bearer editor-token' http://127.0.0.1:3000/rooms/news
import createError from '@fastify/error'
import Fastify, { type FastifyRequest } from 'fastify'
import fastifyRooms, { bearerToken } from 'fastify-rooms'

const Unauthorized = createError('UNAUTHORIZED', 'a valid token is required', 401)

/** A real application verifies a signature, or asks its session store. */
const userByToken = new Map([['reader-token', 'reader'], ['editor-token', 'editor']])

function tokenOf (request: FastifyRequest): string | undefined {
  return bearerToken(request) ?? (request.query as { token?: string }).token
}

const app = Fastify()
await app.register(fastifyRooms, {
  prefix: '/rooms',
  identify (request) {
    const user = userByToken.get(tokenOf(request) ?? '')
    if (user === undefined) throw new Unauthorized()
    return { user }
  },
  authorize (context) {
    switch (context.action) {
      case 'join': return context.topic === 'news' || context.topic === context.identity?.user
      case 'stay': return context.topic === 'news' || context.topic === context.session.user // asked by app.rooms.reauthorize when rights have changed
      case 'broadcast': return context.identity?.user === 'editor'
      case 'publish': return context.session.user === context.topic || context.session.user === 'editor'
      default: return false
    }
  }
})

const { HOST = '127.0.0.1', PORT = '3000' } = process.env
console.log(await app.listen({ host: HOST, port: Number(PORT) }))
