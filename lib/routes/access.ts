import type { FastifyReply, FastifyRequest, preHandlerHookHandler } from 'fastify'
import type { Mode } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BAD_SUBPROTOCOL, FST_ROOMS_DRAINING, FST_ROOMS_NO_SUCH_TOPIC, FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { RoutesHub } from '../hub/hub-api.ts'
import { checkIdentity, withInfo, type KnownIdentity } from '../identity/identity.ts'
import { ifPermitted, proceed } from '../frames/authorize.ts'
import type { ResolvedOptions } from '../options.ts'
import { modes, negotiate } from '../protocol/subprotocols.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition, TopicRegistry } from '../topics/registry.ts'
import { ifAllowed } from './origin.ts'
import { sourceOf } from './client-address.ts'

/** What the hooks found out about a request, for its handler. */
export interface Access {
  topic: string
  identity: KnownIdentity | null
  mode: Mode
}

export type AccessRequest = FastifyRequest & { [kAccess]: Access }

/** What the access hooks of all routes share. */
export interface AccessContext {
  hub: RoutesHub
  registry: TopicRegistry
  options: ResolvedOptions
}

/** Seconds in which those who are being refused have let go. */
const retryAfter = 5

/** The topic that a request names, which must fall under the definition whose route it took. @throws FST_ROOMS_NO_SUCH_TOPIC */
function topicOf (registry: TopicRegistry, definition: TopicDefinition, request: FastifyRequest): string {
  if (!definition.family) return definition.key
  const topic = definition.stem + (request.params as { topic: string }).topic
  // A name that is declared on its own can also be spelled so that the router takes it for a member of the family.
  if (registry.find(topic) !== definition) throw new FST_ROOMS_NO_SUCH_TOPIC(topic)
  return topic
}

/** Goes on with who it is, where that one may. @throws what the host throws */
function identified ({ hub, options }: AccessContext, action: 'join' | 'broadcast', topic: string, request: FastifyRequest, next: (identity: KnownIdentity | null) => void): void | Promise<void> {
  return proceed(options.identify === undefined ? null : options.identify(request), value => {
    const identity = checkIdentity(value, 'identify')
    return ifPermitted(hub.hooks, { action, topic, request, identity }, () => { next(identity) })
  })
}

/** A hook that calls `done` at once, and costs the request no promise, where all that the host has to say is said at once. */
function hook (check: (request: AccessRequest, reply: FastifyReply) => void | Promise<void>): preHandlerHookHandler {
  return (request, reply, done) => {
    let pending: void | Promise<void>
    try {
      pending = check(request as AccessRequest, reply)
    } catch (error) {
      // To Fastify a hook that throws nothing has not thrown.
      done(asError(error))
      return
    }
    if (pending === undefined) done()
    else return pending.catch((error: unknown) => { throw asError(error) }) as never // Fastify waits for it
  }
}

/** The last hook before a broadcast. */
export function broadcastAccess (context: AccessContext, definition: TopicDefinition): preHandlerHookHandler {
  return hook(request => {
    const topic = topicOf(context.registry, definition, request)
    return ifAllowed(context, request, () => identified(context, 'broadcast', topic, request, identity => {
      request[kAccess] = { topic, identity, mode: 'rooms.v1' }
    }))
  })
}

/** The last hook before the upgrade. A plain GET runs it, too, so that a page can ask why it was refused. */
export function joinAccess (context: AccessContext, definition: TopicDefinition): preHandlerHookHandler {
  const { admission } = context.hub
  return hook((request, reply) => {
    const topic = topicOf(context.registry, definition, request)
    const { headers } = request.raw
    const mode = negotiate(headers['sec-websocket-protocol'])
    if (mode === null) throw new FST_ROOMS_BAD_SUBPROTOCOL(modes.join(' or ')) // the offer is not quoted: a token may be in it
    if (context.hub.state !== 'open') throw new FST_ROOMS_DRAINING()
    if (admission.isBusy && admission.bound(definition, topic, sourceOf(request).addressKey) !== undefined) {
      reply.header('retry-after', retryAfter)
      throw new FST_ROOMS_OVERLOADED('too many are being told that there is no room')
    }
    return ifAllowed(context, request, () => identified(context, 'join', topic, request, identity => {
      // ws answers with the first name of the offer, whoever registered it and however: so only ours is left.
      if (headers['sec-websocket-protocol'] !== undefined) headers['sec-websocket-protocol'] = mode
      request[kAccess] = { topic, identity: withInfo(definition, identity, context.options.limits.info, 'identify'), mode }
    }))
  })
}
