import type { ClientFrame, DirectTarget } from '../../types/index.ts'
import { FST_ROOMS_FORBIDDEN, FST_ROOMS_NO_SUCH_SESSION } from '../errors.ts'
import { asError, isClientError } from '../error-utils.ts'
import type { HubContext } from '../hub/context.ts'
import type { MemberSession } from '../session/session.ts'
import { acknowledge, isValid, jsonOf } from './reply.ts'
import { callHandler } from './call-handler.ts'
import { PendingDirect, queueDirect } from './pending-direct.ts'
import { ifPermitted, proceed } from './authorize.ts'

type Direct = ClientFrame & { type: 'direct' }

const userPrefix = 'user:'

/** The sessions that a member's `to` names. */
function named (hub: HubContext, to: string): MemberSession[] {
  if (to.startsWith(userPrefix)) return [...hub.users.get(to.slice(userPrefix.length)) ?? []]
  const session = hub.sessions.get(to)
  return session === undefined ? [] : [session]
}

/** The addressee that a member's `to` names, for `authorize` and `onDirect`. */
function addressee (to: string): { user: string } | { session: string } {
  return to.startsWith(userPrefix) ? { user: to.slice(userPrefix.length) } : { session: to }
}

/**
 * A private message of a member. Without `authorize` it reaches sessions of the sender's own topic; with it, those of each topic that it
 * permits. A session that the sender may not reach looks like one that does not exist.
 */
export function sendDirect (hub: HubContext, session: MemberSession, frame: Direct): void | Promise<void> {
  const { definition, topic } = session
  const { to, data, ref } = frame
  if (definition.publish === null) throw new FST_ROOMS_FORBIDDEN('members may not write here')
  if (!isValid(hub, session, definition.publish, data, ref)) return
  const receivers = named(hub, to)
  if (hub.hooks.authorize === undefined) return pass(hub, session, frame, receivers.filter(receiver => receiver.topic === topic))
  return passPermitted(hub, session, frame, receivers)
}

async function passPermitted (hub: HubContext, session: MemberSession, frame: Direct, receivers: MemberSession[]): Promise<void> {
  const { topic } = session
  const { to, data } = frame
  const permitted: MemberSession[] = []
  let isPermitted = false
  let refusal: Error | undefined
  const topics = new Set(receivers.map(receiver => receiver.topic))
  // onDirect is called without receivers, too, but never without permission: then the question is about the sender's own topic.
  const isAlone = !topics.has(topic) && hub.hooks.onDirect.has(session.key)
  for (const name of isAlone ? [...topics, topic] : topics) {
    if (!topics.has(name) && (isPermitted || refusal !== undefined)) break
    const target: DirectTarget = { topic: name, ...addressee(to) }
    try {
      await ifPermitted(hub, { action: 'direct', topic, session, payload: data, target }, () => {
        isPermitted = true
        permitted.push(...receivers.filter(receiver => receiver.topic === name))
      })
    } catch (error) {
      // If another topic permits it, nothing else reports a hook that failed.
      const failure = asError(error)
      if (!isClientError(failure)) hub.fail(failure, session)
      // A plain no about another topic says nothing, not even that a session is there.
      if (name === topic || !(failure instanceof FST_ROOMS_FORBIDDEN)) refusal ??= failure
    }
  }
  if (!isPermitted && refusal !== undefined) throw refusal
  return pass(hub, session, frame, permitted)
}

/** A private message that is valid and permitted: to `onDirect`, or to its receivers. */
function pass (hub: HubContext, session: MemberSession, { to, data, ref }: Direct, receivers: MemberSession[]): void | Promise<void> {
  if (session.dismissed) return
  const open = receivers.filter(receiver => receiver.state === 'open')
  const handler = hub.hooks.onDirect.get(session.key)
  if (handler === undefined && open.length === 0) throw new FST_ROOMS_NO_SUCH_SESSION(to.slice(0, 64))
  // A payload that cannot be written again as JSON is the member's fault, and not that of the host's handler.
  const json = jsonOf(hub, session, session.definition.publish!, data, ref)
  if (json === undefined) return
  if (handler !== undefined) {
    const direct = new PendingDirect(session, json, addressee(to), open)
    return proceed(callHandler(hub, handler, session, data, direct), answer => {
      acknowledge(session, ref, undefined, answer === undefined ? { local: direct.local } : answer)
    })
  }
  const local = open.filter(receiver => queueDirect(session, receiver, json)).length
  if (local === 0) throw new FST_ROOMS_NO_SUCH_SESSION(to.slice(0, 64))
  acknowledge(session, ref, undefined, { local })
}
