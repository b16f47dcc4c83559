import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from 'fastify'
import { streamOf } from '../internals.ts'
import { webSocketPeer } from '../transport/ws/listeners.ts'
import { documentedQuery, paramsSchema, snapshotResponseSchema } from './schemas.ts'
import { snapshotHandler } from './snapshot.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { joinAccess, type AccessContext, type AccessRequest } from './access.ts'
import { addRoute, list, type Compilers } from './add-route.ts'
import { topicPaths } from './paths.ts'
import { countRefusals } from './refusals.ts'
import { answerWithHello, takeUpgrade, type UpgradedSocket } from './upgrade.ts'
import { connectRequest } from './connect-request.ts'
import { eventStreamHandler } from './event-stream.ts'
import { readingOf } from './negotiation.ts'
import type { UpgradeGuard } from '../server/upgrade-guard.ts'

/** Adds the route of `GET` of a topic: an upgrade and an event stream join the topic, another request reads it without joining. */
export function socketRoute (scope: FastifyInstance, context: AccessContext, definition: TopicDefinition, compilers: Compilers, guard: UpgradeGuard): void {
  const { hub, registry, options } = context
  const { onJoin } = options
  const { preHandler, ...hooks } = options.routes.socket

  const wsHandler = (socket: UpgradedSocket, request: FastifyRequest): void => {
    const begunAt = takeUpgrade(scope, guard, socket, request)
    if (begunAt === undefined) return
    const { mode } = (request as AccessRequest)[kAccess]
    hub.connect({
      ...connectRequest(definition, request, onJoin),
      ...webSocketPeer(socket, streamOf(socket), mode),
      begunAt
    })
  }

  const snapshot = snapshotHandler(context, definition)
  const stream = eventStreamHandler(context, definition)
  const handler = (request: FastifyRequest, reply: FastifyReply): unknown => readingOf(request.raw) === 'event-stream' ? stream(request, reply) : snapshot(request, reply)

  topicPaths(registry, definition).forEach((url, index) => {
    addRoute(scope, {
      ...hooks,
      method: 'GET',
      url,
      exposeHeadRoute: false,
      schema: {
        summary: definition.family ? `Read a topic of ${definition.key}, or join it with a WebSocket` : `Read ${definition.key}, or join it with a WebSocket`,
        // Only the first path is documented; the others are spellings of it.
        ...(index > 0 ? { hide: true } : {}),
        querystring: documentedQuery,
        response: { 200: snapshotResponseSchema(definition, scope.getSchemas()) },
        ...(definition.family ? { params: paramsSchema(definition, options.limits.topicLength) } : {})
      } as FastifySchema,
      ...compilers,
      ...countRefusals(hub, definition, hooks),
      preHandler: [...list(preHandler), joinAccess(context, definition), answerWithHello],
      handler,
      wsHandler: wsHandler as never
    } as never)
  })
}
