import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, onResponseHookHandler, preParsingHookHandler, preValidationHookHandler } from 'fastify'
import type { BroadcastResult } from '../../types/index.ts'
import { notPublished } from '../error-utils.ts'
import { FST_ROOMS_BODY_MISSING } from '../errors.ts'
import { memberKey, publishOnce } from '../feed/mids.ts'
import { proceed } from '../proceed.ts'
import { readIdempotencyKey } from './idempotency-key.ts'
import { broadcastHeadersSchema, broadcastResponseSchema, documentedSchema, paramsSchema } from './schemas.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { broadcastAccess, type AccessContext, type AccessRequest } from './access.ts'
import { addRoute, list, type Compilers } from './add-route.ts'
import { topicPaths } from './paths.ts'
import { countRefusals } from './refusals.ts'
import type { UpgradeGuard } from '../server/upgrade-guard.ts'

/** Seconds after which a broker that was down has mostly been found again. */
const retryAfter = 2

/** Adds the route of `POST` to a topic, which sends a body that the topic's schema takes to all members. */
export function broadcastRoute (scope: FastifyInstance, context: AccessContext, definition: TopicDefinition, compilers: Compilers, { shutdown }: UpgradeGuard): void {
  const { hub, registry, options } = context
  const { preParsing, preValidation, preHandler, ...hooks } = options.routes.broadcast

  const beginBody: preParsingHookHandler = (request, reply, payload, done) => {
    shutdown.beginBody(request.raw, reply.raw)
    done(null, payload)
  }
  const requireBody: preValidationHookHandler = (request, _reply, done) => {
    shutdown.endBody(request.raw)
    // Without a body and a content type nothing is parsed, and a schema that takes null would accept the request.
    done(request.body === undefined ? new FST_ROOMS_BODY_MISSING() : undefined)
  }
  // A hook of the host may refuse a request before its body is read. Node.js then reads the rest without a timeout.
  const timeRest: onResponseHookHandler = (request, reply, done) => {
    if (request.raw.complete === false) shutdown.beginBody(request.raw, reply.raw)
    done()
  }
  const answer = (reply: FastifyReply, result: BroadcastResult): BroadcastResult => {
    // Members of a topic that keeps nothing have got the message on this node.
    if (result.published || definition.history === null) return result
    reply.header('retry-after', retryAfter)
    throw notPublished(result)
  }
  const handler = (request: FastifyRequest, reply: FastifyReply) => {
    const { topic, identity } = (request as AccessRequest)[kAccess]
    // The route has checked the body with the topic's validator.
    const json = definition.message.stringify(request.body)
    const header = request.headers['idempotency-key']
    if (header === undefined) return proceed(hub.publish(definition, topic, json, {}), result => answer(reply, result))
    const key = memberKey(topic, identity?.user, readIdempotencyKey(header, identity === null))
    return proceed(publishOnce(hub.mids, key, topic, () => hub.publish(definition, topic, json, { onceKey: key })), result => answer(reply, result))
  }

  const { onError, onResponse } = countRefusals(hub, definition, hooks)
  const paths = typeof definition.post === 'string' ? [definition.post] : topicPaths(registry, definition)
  paths.forEach((url, index) => {
    addRoute(scope, {
      ...hooks,
      method: 'POST',
      url,
      bodyLimit: definition.maxPayload,
      schema: {
        summary: definition.family ? `Broadcast to a topic of ${definition.key}` : `Broadcast to ${definition.key}`,
        // Only the first path is documented; the others are spellings of it.
        ...(index > 0 ? { hide: true } : {}),
        headers: broadcastHeadersSchema,
        body: documentedSchema(definition.message.schema, scope.getSchemas()),
        response: { 200: broadcastResponseSchema },
        ...(definition.family ? { params: paramsSchema(definition, options.limits.topicLength) } : {})
      } as FastifySchema,
      ...compilers,
      onError,
      onResponse: [timeRest, ...list(onResponse)],
      preParsing: [beginBody, ...list(preParsing)],
      preValidation: [requireBody, ...list(preValidation)],
      preHandler: [...list(preHandler), broadcastAccess(context, definition)],
      handler
    })
  })
}
