import type { FastifyReply, FastifyRequest, preHandlerHookHandler } from 'fastify'
import type { Mode } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BAD_SUBPROTOCOL, FST_ROOMS_DRAINING, FST_ROOMS_NO_SUCH_TOPIC, FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { MultiplexedOptions, PermittedJoin } from '../connection/multiplexed.ts'
import type { RoutesHub } from '../hub/hub-api.ts'
import type { AnySession } from '../hub/ports.ts'
import { checkIdentity, withInfo, type KnownIdentity } from '../identity/identity.ts'
import { ifPermitted } from '../frames/authorize.ts'
import { proceed } from '../proceed.ts'
import type { ResolvedOptions } from '../options.ts'
import { modes, negotiate, offers } from '../protocol/subprotocols.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition, TopicRegistry } from '../topics/registry.ts'
import { ifAllowed } from './origin.ts'
import { clientAddress } from './client-address.ts'
import { readingOf, sinceOf } from './negotiation.ts'

/** The result of the access hooks, for the handler. */
export interface Access {
  topic: string
  identity: KnownIdentity | null
  mode: Mode
  /** The place at which a join begins: the id of a position, `0` or `latest`. */
  since?: string | undefined
}

export type AccessRequest = FastifyRequest & { [kAccess]: Access }

/** The parameters that the access hooks of all routes share. */
export interface AccessContext {
  hub: RoutesHub
  registry: TopicRegistry
  options: ResolvedOptions
}

/** Seconds after which refused connections have been closed, and most waits have ended. */
export const retryAfter = 5

/**
 * Returns the topic that a request names.
 * @throws FST_ROOMS_NO_SUCH_TOPIC if it does not fall under the definition of the route
 */
function topicOf (registry: TopicRegistry, definition: TopicDefinition, request: FastifyRequest): string {
  if (!definition.family) return definition.key
  const topic = definition.stem + (request.params as { topic: string }).topic
  // An exact name of the topic map can be encoded so that the router matches the route of a family.
  if (registry.find(topic) !== definition) throw new FST_ROOMS_NO_SUCH_TOPIC(topic)
  return topic
}

/**
 * Continues with the identity of a request, if `authorize` permits the action.
 * @throws the errors that `identify` and `authorize` throw, and FST_ROOMS_FORBIDDEN
 */
function identify ({ hub, options }: AccessContext, action: 'join' | 'broadcast', topic: string, request: FastifyRequest, next: (identity: KnownIdentity | null) => void | Promise<void>): void | Promise<void> {
  return proceed(options.identify === undefined ? null : options.identify(request), value => {
    const identity = checkIdentity(value, 'identify')
    return ifPermitted(hub.hooks, { action, topic, request, identity }, () => { next(identity) })
  })
}

/** Continues if the request asks for no kept messages, or `authorize` permits that. A snapshot asks for them. */
function mayRead ({ hub }: AccessContext, { history }: TopicDefinition, asks: boolean, topic: string, request: FastifyRequest, identity: KnownIdentity | null, next: () => void): void | Promise<void> {
  if (history === null || !asks) next()
  else return ifPermitted(hub.hooks, { action: 'history', topic, request, identity }, next)
}

/** Returns a hook that calls `done` synchronously, without a promise for the request, if all functions of the host are synchronous. */
function hook (check: (request: AccessRequest, reply: FastifyReply) => void | Promise<void>): preHandlerHookHandler {
  return (request, reply, done) => {
    let pending: void | Promise<void>
    try {
      pending = check(request as AccessRequest, reply)
    } catch (error) {
      // A value that is not an error, such as `undefined`, would count as no error for Fastify.
      done(asError(error))
      return
    }
    if (pending === undefined) done()
    else return pending.catch((error: unknown) => { throw asError(error) }) as never // Fastify awaits the promise
  }
}

/** The last hook before a broadcast is handled. */
export function broadcastAccess (context: AccessContext, definition: TopicDefinition): preHandlerHookHandler {
  return hook(request => {
    const topic = topicOf(context.registry, definition, request)
    return ifAllowed(context, request, () => identify(context, 'broadcast', topic, request, identity => {
      request[kAccess] = { topic, identity, mode: 'rooms.v1' }
    }))
  })
}

/** The last access hook before the upgrade of a connection that joins its topics by frames. */
export function multiplexAccess (context: AccessContext): preHandlerHookHandler {
  const { hub, options } = context
  return hook((request, reply) => {
    const { headers } = request.raw
    // Several topics need frames that name them, which the raw mode does not have.
    if (!offers(headers['sec-websocket-protocol'], 'rooms.v1')) throw new FST_ROOMS_BAD_SUBPROTOCOL('rooms.v1')
    if (hub.state !== 'open') throw new FST_ROOMS_DRAINING()
    if (hub.admission.isBusy && hub.admission.connectionBound(clientAddress(request).addressKey) !== undefined) {
      reply.header('retry-after', retryAfter)
      throw new FST_ROOMS_OVERLOADED('too many refused connections are being closed')
    }
    return ifAllowed(context, request, () => proceed(options.identify === undefined ? null : options.identify(request), value => {
      const identity = checkIdentity(value, 'identify')
      if (headers['sec-websocket-protocol'] !== undefined) headers['sec-websocket-protocol'] = 'rooms.v1'
      request[kAccess] = { topic: '', identity, mode: 'rooms.v1' }
    }))
  })
}

/** Returns a function that asks the host about a join by a frame, as the access hooks do about a join by URL: with the request of the upgrade. */
export function joinPermit (context: AccessContext, request: FastifyRequest): MultiplexedOptions['permit'] {
  const { registry, hub, options } = context
  const { onJoin } = options
  const callOnJoin = onJoin === undefined ? undefined : (session: AnySession) => onJoin(session as never, request)
  return ({ topic, since, presence = false }, identity, begunAt) => {
    const definition = registry.get(topic)
    let join: PermittedJoin | undefined
    const pending = ifPermitted(hub.hooks, { action: 'join', topic, request, identity }, () => mayRead(context, definition, since !== undefined, topic, request, identity, () => {
      join = { definition, topic, info: withInfo(definition, identity, options.limits.info, 'identify')?.info, since, presence, onJoin: callOnJoin, begunAt }
    }))
    return pending === undefined ? join! : pending.then(() => join!)
  }
}

/** The last access hook before the upgrade, or the event stream. A snapshot, which joins nothing, takes the same steps. */
export function joinAccess (context: AccessContext, definition: TopicDefinition): preHandlerHookHandler {
  const { admission } = context.hub
  return hook((request, reply) => {
    const topic = topicOf(context.registry, definition, request)
    const { headers } = request.raw
    const mode = negotiate(headers['sec-websocket-protocol'])
    if (mode === null) throw new FST_ROOMS_BAD_SUBPROTOCOL(modes.join(' or ')) // does not quote the header, which may hold a token
    const reading = readingOf(request.raw)
    // An event stream is told by `bye` when to come back, because an EventSource never comes back after a status that is not 200.
    if (context.hub.state !== 'open' && (reading !== 'event-stream' || context.hub.state === 'closed')) throw new FST_ROOMS_DRAINING()
    if (admission.isBusy && admission.bound(definition, topic, clientAddress(request).addressKey) !== undefined) {
      reply.header('retry-after', retryAfter)
      throw new FST_ROOMS_OVERLOADED('too many refused connections are being closed')
    }
    const since = sinceOf(request, reading)
    return ifAllowed(context, request, () => identify(context, 'join', topic, request, identity => mayRead(context, definition, since !== undefined || reading === 'snapshot', topic, request, identity, () => {
      // Only the selected name is left in the header, because ws answers with the first one, whatever its options are.
      if (headers['sec-websocket-protocol'] !== undefined) headers['sec-websocket-protocol'] = mode
      request[kAccess] = { topic, identity: withInfo(definition, identity, context.options.limits.info, 'identify'), mode, since }
    })))
  })
}
