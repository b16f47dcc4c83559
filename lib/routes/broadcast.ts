import type { FastifyInstance, FastifyRequest, FastifySchema, onResponseHookHandler, preParsingHookHandler, preValidationHookHandler } from 'fastify'
import { FST_ROOMS_BODY_MISSING } from '../errors.ts'
import { broadcastResponseSchema, paramsSchema } from './schemas.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { broadcastAccess, type AccessContext, type AccessRequest } from './access.ts'
import { addRoute, list, type Compilers } from './add-route.ts'
import { topicPaths } from './paths.ts'
import { countRefusals } from './refusals.ts'
import type { UpgradeGuard } from '../server/upgrade-guard.ts'

/** `POST` to a topic: a body that its schema takes goes to all its members. */
export function broadcastRoute (scope: FastifyInstance, context: AccessContext, definition: TopicDefinition, compilers: Compilers, { stragglers }: UpgradeGuard): void {
  const { hub, registry, options } = context
  const { preParsing, preValidation, preHandler, ...hooks } = options.routes.broadcast

  const beginBody: preParsingHookHandler = (request, reply, payload, done) => {
    stragglers.begin(request.raw, reply.raw)
    done(null, payload)
  }
  const demandBody: preValidationHookHandler = (request, _reply, done) => {
    stragglers.end(request.raw)
    // No body and no content type: nothing was parsed, and a schema that takes null would let it pass.
    done(request.body === undefined ? new FST_ROOMS_BODY_MISSING() : undefined)
  }
  // Refused before anybody read it, by a hook of the host: Node.js reads on, to no end.
  const timeRest: onResponseHookHandler = (request, reply, done) => {
    if (request.raw.complete === false) stragglers.begin(request.raw, reply.raw)
    done()
  }
  const handler = (request: FastifyRequest) => {
    const { topic } = (request as AccessRequest)[kAccess]
    // The body was checked by the route, with the validator that code and members' frames go through.
    return hub.publish(definition, topic, definition.message.stringify(request.body), {})
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
        // The other spellings of the same path.
        ...(index > 0 ? { hide: true } : {}),
        body: definition.message.schema ?? {},
        response: { 200: broadcastResponseSchema },
        ...(definition.family ? { params: paramsSchema(definition, options.limits.topicLength) } : {})
      } as FastifySchema,
      ...compilers,
      onError,
      onResponse: [timeRest, ...list(onResponse)],
      preParsing: [beginBody, ...list(preParsing)],
      preValidation: [demandBody, ...list(preValidation)],
      preHandler: [...list(preHandler), broadcastAccess(context, definition)],
      handler
    })
  })
}
