import type { FastifyRequest } from 'fastify'
import type { ConnectRequest } from '../hub/hub-api.ts'
import type { AnySession } from '../hub/ports.ts'
import type { ResolvedOptions } from '../options.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { AccessRequest } from './access.ts'
import { clientAddress } from './client-address.ts'

/** Returns the parts of a join that are the same for all transports. */
export function connectRequest (definition: TopicDefinition, request: FastifyRequest, onJoin: ResolvedOptions['onJoin']): Omit<ConnectRequest, 'transport' | 'listen' | 'begunAt'> {
  const { topic, identity, since } = (request as AccessRequest)[kAccess]
  const { presence } = request.query as { presence?: string }
  return {
    ...clientAddress(request),
    definition,
    topic,
    user: identity?.user,
    info: identity?.info,
    expiresAt: identity?.expires?.getTime(),
    since,
    presence: presence === '1',
    onJoin: onJoin === undefined ? undefined : (session: AnySession) => onJoin(session as never, request)
  }
}
