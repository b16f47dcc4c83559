import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FST_ROOMS_UPGRADE_REQUIRED } from '../errors.ts'
import type { MemberSession } from '../hub/session.ts'
import type { Transport, WebSocketLike } from '../hub/socket/connection.ts'
import { paramsSchema, querySchema } from '../schemas.ts'
import { kAccess, kInjected } from '../symbols.ts'
import type { TopicDefinition } from '../topics.ts'
import { joinAccess, type AccessContext, type AccessRequest } from './access.ts'
import { addRoute, list, type Compilers } from './add-route.ts'
import { corkThisTurn } from './cork.ts'
import { topicPaths } from './paths.ts'
import { countRefusals } from './refusals.ts'
import { forgetReply } from './request-rooms.ts'
import { sourceOf } from './source.ts'
import type { UpgradeGuard } from './upgrade-guard.ts'

interface Stream extends Transport { _httpMessage?: { detachSocket (socket: Stream): void } | null }
type Socket = WebSocketLike & { _socket?: Stream, listeners (event: 'error'): ((error: Error) => void)[], removeListener (event: 'error', listener: (error: Error) => void): unknown }

async function upgradeRequired (_request: FastifyRequest, reply: FastifyReply): Promise<never> {
  reply.header('upgrade', 'websocket').header('connection', 'upgrade')
  throw new FST_ROOMS_UPGRADE_REQUIRED()
}

/** The response that never comes would stay with the socket for as long as it lives, and with it reply and request. */
function letGo (socket: Socket, request: FastifyRequest): void {
  const stream = socket._socket
  stream?._httpMessage?.detachSocket(stream)
  forgetReply(request)
}

function answerWithHello (request: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  if (request.ws) corkThisTurn(request.raw.socket)
  done()
}

/** `GET` of a topic: an upgrade joins it. */
export function socketRoute (scope: FastifyInstance, context: AccessContext, definition: TopicDefinition, compilers: Compilers, guard: UpgradeGuard): void {
  const { hub, registry, options } = context
  const { onJoin } = options
  const { preHandler, ...hooks } = options.routes.socket

  const wsHandler = (socket: Socket, request: FastifyRequest): void => {
    const { topic, identity, mode } = (request as AccessRequest)[kAccess]
    const { since, presence } = request.query as { since?: string, presence?: string }
    // Closing is ours: @fastify/websocket would close without a code, and first. Without `clientTracking` it keeps none.
    scope.websocketServer.clients?.delete(socket as never)
    // Its listener would log what is none of its business, and holds the request for as long as the connection lives.
    for (const listener of socket.listeners('error')) socket.removeListener('error', listener)
    const begunAt = guard.release(request.raw.socket)
    letGo(socket, request)
    if (begunAt === undefined) return;
    (request.raw as { [kInjected]?: (socket: Socket) => void })[kInjected]?.(socket)
    hub.arrive({
      socket,
      transport: socket._socket,
      mode,
      ...sourceOf(request),
      definition,
      topic,
      user: identity?.user,
      info: identity?.info,
      expiresAt: identity?.expires?.getTime(),
      begunAt,
      since,
      presence: presence === '1',
      onJoin: onJoin === undefined ? undefined : (session: MemberSession) => onJoin(session as never, request)
    })
  }

  for (const url of topicPaths(registry, definition)) {
    addRoute(scope, {
      ...hooks,
      method: 'GET',
      url,
      exposeHeadRoute: false,
      schema: {
        hide: true,
        querystring: querySchema,
        ...(definition.family ? { params: paramsSchema(definition, options.limits.topicLength) } : {})
      },
      ...compilers,
      ...countRefusals(hub, definition, hooks),
      preHandler: [...list(preHandler), joinAccess(context, definition), answerWithHello],
      handler: upgradeRequired,
      wsHandler: wsHandler as never
    } as never)
  }
}
