import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from 'fastify'
import { detachAnswer, streamOf } from '../internals.ts'
import { hearErrors, hearErrorsAlone, webSocketPeer, type MemberSocket } from '../transport/ws/listeners.ts'
import { documentedQuery, paramsSchema, snapshotResponseSchema } from './schemas.ts'
import { snapshotHandler } from './snapshot.ts'
import { kAccess, kInjected, kConnection, kJoins } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { joinAccess, type AccessContext, type AccessRequest } from './access.ts'
import { addRoute, list, type Compilers } from './add-route.ts'
import { corkThisTurn } from '../server/cork.ts'
import { topicPaths } from './paths.ts'
import { countRefusals } from './refusals.ts'
import { dropReply } from '../api/request-rooms.ts'
import { connectRequest } from './connect-request.ts'
import { eventStreamHandler } from './event-stream.ts'
import { readingOf } from './negotiation.ts'
import type { UpgradeGuard } from '../server/upgrade-guard.ts'

type Socket = MemberSocket & Parameters<typeof hearErrorsAlone>[0]
type Upgrade = IncomingMessage & { [kJoins]?: true, [kInjected]?: (socket: Socket) => void }

/** Detaches the response, which is never sent, from its socket, because it would keep request and reply in memory as long as the connection lives. */
function detachResponse (socket: Socket, request: FastifyRequest): void {
  const stream = streamOf(socket)
  if (stream !== undefined) detachAnswer(stream)
  dropReply(request)
}

/** The last hook before an upgrade. Corks the socket, so that the upgrade response and hello leave in one write. */
function answerWithHello (request: FastifyRequest, _reply: FastifyReply, done: () => void): void {
  if (request.ws) {
    (request.raw as Upgrade)[kJoins] = true
    corkThisTurn(request.raw.socket)
  }
  done()
}

/** Terminates a WebSocket that has no session at the end of its turn, because its upgrade came too late or the host's code threw. */
function endUnclaimed (socket: Socket): void {
  if (socket[kConnection] === null) socket.terminate()
}

type Accept = (socket: Socket, request: Upgrade) => void
type UpgradeServer = { handleUpgrade (request: Upgrade, stream: unknown, head: Buffer, accept: Accept): void }

/**
 * Adds a listener for errors to each WebSocket of the plugin when it is created. The callback of `handleUpgrade` is replaced for that, because ws
 * calls it before any other listener or handler.
 * @param websocketServer - a server of ws; each hub that shares it may call this
 */
export function listenForErrors (websocketServer: object): void {
  const server = websocketServer as UpgradeServer
  const { handleUpgrade } = server
  server.handleUpgrade = function (request, stream, head, accept) {
    handleUpgrade.call(this, request, stream, head, (socket, upgrade) => {
      if (request[kJoins] === true && socket[kConnection] === undefined) {
        hearErrors(socket)
        process.nextTick(endUnclaimed, socket)
      }
      accept(socket, upgrade)
    })
  }
}

/** Adds the route of `GET` of a topic: an upgrade and an event stream join the topic, another request reads it without joining. */
export function socketRoute (scope: FastifyInstance, context: AccessContext, definition: TopicDefinition, compilers: Compilers, guard: UpgradeGuard): void {
  const { hub, registry, options } = context
  const { onJoin } = options
  const { preHandler, ...hooks } = options.routes.socket

  const wsHandler = (socket: Socket, request: FastifyRequest): void => {
    const { mode } = (request as AccessRequest)[kAccess]
    // Removed, so that @fastify/websocket does not close it first, without a code. Without `clientTracking` there is no set of clients.
    scope.websocketServer.clients?.delete(socket as never)
    // Removes the listener of @fastify/websocket, because it would log violations of a peer as errors, and keeps the request in memory.
    hearErrorsAlone(socket)
    const begunAt = guard.upgraded(request.raw.socket)
    detachResponse(socket, request)
    if (begunAt === undefined) return;
    (request.raw as Upgrade)[kInjected]?.(socket)
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
        response: { 200: snapshotResponseSchema(definition) },
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
