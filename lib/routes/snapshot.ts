import type { FastifyReply, FastifyRequest } from 'fastify'
import { FST_ROOMS_BAD_WAIT, FST_ROOMS_NOT_ACCEPTABLE, FST_ROOMS_UPGRADE_REQUIRED } from '../errors.ts'
import { defaultPage } from '../protocol/page-size.ts'
import { parsePosition } from '../protocol/position.ts'
import { kAccess } from '../symbols.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { retryAfter, type AccessContext, type AccessRequest } from './access.ts'
import { acceptsJson, addVary, asksForUpgrade } from './negotiation.ts'

/** Longest wait for a message, in milliseconds. Proxies end requests that take longer. */
const maxWait = 60_000

interface Query { since?: string, limit?: string, wait?: string }

/**
 * Returns the position behind which a request waits for a message.
 * @throws FST_ROOMS_BAD_WAIT if it cannot wait
 */
function checkWait (milliseconds: number, since: string | undefined, { history }: TopicDefinition, topic: string): string {
  if (history === null) throw new FST_ROOMS_BAD_WAIT(`needs a topic that keeps messages, and "${topic}" keeps none`)
  if (since === undefined || parsePosition(since) === null) throw new FST_ROOMS_BAD_WAIT('needs "since" with the id of a message or of an earlier answer')
  if (milliseconds < 1 || milliseconds > maxWait) throw new FST_ROOMS_BAD_WAIT(`takes 1 to ${maxWait} milliseconds`)
  return since
}

/** Returns the handler of a plain `GET` of a topic: its messages as they are, or as soon as there is a new one. The request joins nothing. */
export function snapshotHandler ({ hub }: AccessContext, definition: TopicDefinition): (request: FastifyRequest, reply: FastifyReply) => Promise<string> {
  return async (request, reply) => {
    if (asksForUpgrade(request.headers)) {
      reply.header('upgrade', 'websocket').header('connection', 'upgrade')
      throw new FST_ROOMS_UPGRADE_REQUIRED()
    }
    reply.header('cache-control', 'no-store')
    addVary(reply, 'Accept')
    if (!acceptsJson(request.headers.accept)) throw new FST_ROOMS_NOT_ACCEPTABLE()
    const { topic, identity } = (request as AccessRequest)[kAccess]
    const { since, limit: givenLimit, wait } = request.query as Query
    const limit = givenLimit === undefined ? defaultPage : Number(givenLimit)
    const position = wait === undefined ? undefined : checkWait(Number(wait), since, definition, topic)
    // The wait ends with the credentials, as a session would.
    const left = identity?.expires === undefined ? Infinity : Math.max(1, identity.expires.getTime() - Date.now())
    // A drain that began while the hooks ran has answered the requests that waited, and does not wait for this one.
    const text = position === undefined || hub.state !== 'open' ? await hub.snapshot(definition, topic, { since, limit }) : await waited(reply, () => hub.wait(definition, topic, { since: position, limit }, Math.min(Number(wait), left)))
    reply.header('content-type', 'application/json; charset=utf-8')
    return text
  }
}

/** Waits until there is an answer. The end of the client's connection ends the wait. */
async function waited (reply: FastifyReply, wait: () => { readonly answer: Promise<string>, end (): void }): Promise<string> {
  let waiter
  try {
    waiter = wait()
  } catch (error) {
    reply.header('retry-after', retryAfter)
    throw error
  }
  const raw = reply.raw as typeof reply.raw & { stream?: { readonly destroyed: boolean } } // HTTP/2 responses have a stream, and no `destroyed`
  const end = (): void => { waiter.end() }
  if (raw.destroyed || raw.stream?.destroyed === true) end()
  else raw.once('close', end)
  return waiter.answer
}
