import type { FastifyInstance, FastifyRequest, FastifySchema } from 'fastify'
import { FST_ROOMS_UPGRADE_REQUIRED } from '../errors.ts'
import { streamOf } from '../internals.ts'
import type { UpgradeGuard } from '../server/upgrade-guard.ts'
import { kAccess } from '../symbols.ts'
import { multiplexedPeer } from '../transport/ws/listeners.ts'
import { joinPermit, multiplexAccess, type AccessContext, type AccessRequest } from './access.ts'
import { addRoute, list, type Compilers } from './add-route.ts'
import { clientAddress } from './client-address.ts'
import { asksForUpgrade } from './negotiation.ts'
import { countRefusals } from './refusals.ts'
import { answerWithHello, takeUpgrade, type UpgradedSocket } from './upgrade.ts'

/** The answer to a request without an upgrade, for a client that looks for the reason of a refused upgrade. */
const description = { v: 1, protocols: ['rooms.v1'] } as const

/** Not in an OpenAPI document, because a request without an upgrade only describes the route. */
const schema = {
  hide: true,
  response: {
    200: {
      type: 'object',
      description: 'without an upgrade: the version of the protocol, and the subprotocols of the WebSocket',
      properties: { v: { type: 'integer' }, protocols: { type: 'array', items: { type: 'string' } } }
    }
  }
} as FastifySchema

/** Replaces that of the host. The schema has nothing that a request is checked by, so no validator is compiled. */
const serializerCompiler: Compilers['serializerCompiler'] = () => data => JSON.stringify(data)

/**
 * Adds the route of a connection that joins its topics by frames.
 * @param url - its path below the prefix
 * @param maxPayload - largest frame of any topic, in bytes
 */
export function multiplexRoute (scope: FastifyInstance, context: AccessContext, url: string, maxPayload: number, guard: UpgradeGuard): void {
  const { hub, options } = context
  const { preHandler, ...hooks } = options.routes.socket
  const { slow } = options
  const rate = highestRate(context)

  const wsHandler = (socket: UpgradedSocket, request: FastifyRequest): void => {
    const begunAt = takeUpgrade(scope, guard, socket, request)
    if (begunAt === undefined) return
    const { identity } = (request as AccessRequest)[kAccess]
    hub.connectMultiplexed({
      ...clientAddress(request),
      ...multiplexedPeer(socket, streamOf(socket), hub.gathered),
      user: identity?.user,
      expiresAt: identity?.expires?.getTime(),
      identity,
      rate,
      maxPayload,
      slowBytes: slow.bytes,
      permit: joinPermit(context, request),
      begunAt
    })
  }

  const handler = (request: FastifyRequest): object => {
    if (asksForUpgrade(request.headers)) throw new FST_ROOMS_UPGRADE_REQUIRED()
    return description
  }

  addRoute(scope, {
    ...hooks,
    method: 'GET',
    url,
    exposeHeadRoute: false,
    schema,
    serializerCompiler,
    ...countRefusals(hub, undefined, hooks),
    preHandler: [...list(preHandler), multiplexAccess(context), answerWithHello],
    handler,
    wsHandler: wsHandler as never
  } as never, 'or another path in "multiplex" (false: no such route)')
}

/** The rate of a connection of several topics: the highest that any topic allows. A topic with a lower one keeps it. */
function highestRate ({ options: { limits: { messages, per } }, registry: { definitions } }: AccessContext): { capacity: number, per: number } {
  return definitions.map(({ rate }) => rate).reduce((highest, rate) => rate.capacity / rate.per > highest.capacity / highest.per ? rate : highest, { capacity: messages, per })
}
