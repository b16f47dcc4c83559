import type { FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { Refusal } from '../../types/index.ts'
import { requestRefused } from '../hub/events.ts'
import type { RoutesHub } from '../hub/hub-api.ts'
import { refusalOf, refusalOfStatus } from '../limits/refusals.ts'
import { isTopicName } from '../protocol/topic-name.ts'
import { kRefusal } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { list } from './add-route.ts'
import { refusedAddress } from './client-address.ts'

type Hooks = Pick<RouteShorthandOptions, 'onError' | 'onResponse'>
type Refused = Error & { code?: string, validationContext?: string }
type Answered = FastifyRequest & { [kRefusal]: Refusal | null }

/** The status of a request for another protocol. It does not count as a refusal. */
const upgradeRequired = 426

function reasonOf (error: Refused): Refusal {
  if (error.validationContext === 'body') return 'invalid'
  // The reason of this code is `work` for messages, but `overloaded` for requests.
  return error.code === 'FST_ROOMS_OVERLOADED' ? 'overloaded' : refusalOf(error)
}

/** Stores the reason in `onError`, because the host's error handler may answer with any status. */
function storeReason (request: FastifyRequest, _reply: FastifyReply, error: Refused, done: () => void): void {
  (request as Answered)[kRefusal] = reasonOf(error)
  done()
}

function topicOf (definition: TopicDefinition | undefined, { params }: FastifyRequest): string | undefined {
  if (definition === undefined) return undefined
  const { key, stem, family } = definition
  if (!family) return key
  const name = stem + (params as { topic: string }).topic
  return isTopicName(name) ? name : undefined
}

/**
 * Returns the host's hooks of a route, followed by hooks that count refused requests.
 * @param definition - `undefined` if the URL names no topic
 */
export function countRefusals (hub: RoutesHub, definition: TopicDefinition | undefined, { onError, onResponse }: Hooks): Required<Hooks> {
  const count = (request: FastifyRequest, { statusCode: status }: FastifyReply, done: () => void): void => {
    if (status >= 400 && status !== upgradeRequired) {
      // There is no stored reason if a hook of the host refused by a reply and not by an error.
      const reason = (request as Answered)[kRefusal] ?? refusalOfStatus(status)
      hub.counters.refusals[reason]++
      requestRefused(hub.rooms, reason, { status, topic: topicOf(definition, request), topicKey: definition?.key, address: refusedAddress(request) })
    }
    done()
  }
  return { onError: [...list(onError), storeReason] as never, onResponse: [...list(onResponse), count] as never }
}
