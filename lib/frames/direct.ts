import type { ClientFrame, DirectTarget } from '../../types/index.ts'
import { asError, isClientError } from '../error-utils.ts'
import { FST_ROOMS_FORBIDDEN, FST_ROOMS_NO_SUCH_SESSION } from '../errors.ts'
import type { Directory, DirectReceiver } from '../hub/ports.ts'
import type { Membership } from '../session/membership.ts'
import { acknowledge, isValid, jsonOf } from './reply.ts'
import { callHandler } from './call-handler.ts'
import { PendingDirect, queueDirect } from './pending-direct.ts'
import { proceed } from '../proceed.ts'
import { ifPermitted } from './authorize.ts'

type Direct = ClientFrame & { type: 'direct' }

const userPrefix = 'user:'

/** The sessions that a member's `to` names. */
function named (directory: Directory<DirectReceiver>, to: string): DirectReceiver[] {
  if (to.startsWith(userPrefix)) return [...directory.ofUser(to.slice(userPrefix.length))]
  const session = directory.find(to)
  return session === undefined ? [] : [session]
}

/** The addressee that a member's `to` names, for `authorize` and `onDirect`. */
function addressee (to: string): { user: string } | { session: string } {
  return to.startsWith(userPrefix) ? { user: to.slice(userPrefix.length) } : { session: to }
}

/**
 * Handles a `direct` frame: a private message of a member. Without `authorize` it reaches sessions of the sender's own topic; with it, those of each topic that it
 * permits. A session that the sender may not reach looks like one that does not exist.
 */
export function sendDirect (session: Membership, frame: Direct): void | Promise<void> {
  const { definition, topic, hub } = session
  const { to, data, ref } = frame
  if (definition.publish === null) throw new FST_ROOMS_FORBIDDEN('members may not write here')
  if (!isValid(session, definition.publish, data, ref)) return
  const receivers = named(hub.directory, to)
  const mayReach = hub.fleet.mayReach(to)
  if (hub.hooks.authorize === undefined) return pass(session, frame, receivers.filter(receiver => receiver.topic === topic), mayReach)
  return passPermitted(session, frame, receivers, mayReach)
}

/** @param mayReach - there may be receivers on other nodes, in the sender's own topic */
async function passPermitted (session: Membership, frame: Direct, receivers: DirectReceiver[], mayReach: boolean): Promise<void> {
  const { topic } = session
  const { to, data } = frame
  const permitted: DirectReceiver[] = []
  let isPermitted = false
  let isOwnPermitted = false
  let refusal: Error | undefined
  const topics = new Set(receivers.map(receiver => receiver.topic))
  // onDirect is called without receivers, too, but never without permission: then the question is about the sender's own topic.
  const isAlone = !topics.has(topic) && (mayReach || session.hub.hooks.onDirect.has(session.key))
  for (const name of isAlone ? [...topics, topic] : topics) {
    if (!topics.has(name) && !mayReach && (isPermitted || refusal !== undefined)) break
    const target: DirectTarget = { topic: name, ...addressee(to) }
    try {
      await ifPermitted(session.hub.hooks, { action: 'direct', topic, session, payload: data, target }, () => {
        isPermitted = true
        isOwnPermitted ||= name === topic
        permitted.push(...receivers.filter(receiver => receiver.topic === name))
      })
    } catch (error) {
      // If another topic permits the message, nothing else reports the failure of this call.
      const failure = asError(error)
      if (!isClientError(failure)) session.fail(failure)
      // A plain refusal of another topic tells the sender nothing, not even that a session exists.
      if (name === topic || !(failure instanceof FST_ROOMS_FORBIDDEN)) refusal ??= failure
    }
  }
  if (!isPermitted && refusal !== undefined) throw refusal
  return pass(session, frame, permitted, mayReach && isOwnPermitted)
}

/**
 * Passes a private message that is valid and permitted to `onDirect`, or to its receivers.
 * @param mayReach - other nodes may have some, in the sender's own topic
 */
function pass (session: Membership, { to, data, ref }: Direct, receivers: DirectReceiver[], mayReach: boolean): void | Promise<void> {
  if (session.isEndedByServer) return
  const { hub, topic } = session
  const open = receivers.filter(receiver => receiver.state === 'open')
  const handler = hub.hooks.onDirect.get(session.key)
  if (handler === undefined && !mayReach && open.length === 0) throw new FST_ROOMS_NO_SUCH_SESSION(to.slice(0, 64))
  // A payload that cannot be written again as JSON is the member's fault, and not that of the host's handler.
  const json = jsonOf(session, session.definition.publish!, data, ref)
  if (json === undefined) return
  const sendElsewhere = mayReach ? (json: string) => hub.fleet.direct(session, to, topic, json) : undefined
  if (handler !== undefined) {
    const direct = new PendingDirect(session, json, addressee(to), open, sendElsewhere)
    return proceed(callHandler(session, handler, data, direct), answer => {
      if (answer !== undefined || direct.sent === undefined) acknowledge(session, ref, undefined, answer === undefined ? { local: direct.local } : answer)
      else return ifSent(direct.local, direct.sent, () => { acknowledge(session, ref, undefined, { local: direct.local }) })
    })
  }
  const local = open.filter(receiver => queueDirect(session, receiver, json)).length
  const answer = (isSent: boolean): void => {
    if (local === 0 && !isSent) throw new FST_ROOMS_NO_SUCH_SESSION(to.slice(0, 64))
    acknowledge(session, ref, undefined, { local })
  }
  if (sendElsewhere === undefined) answer(false)
  else return ifSent(local, sendElsewhere(json), answer)
}

/**
 * Goes on when a private message has reached other nodes.
 * @param local - sessions of this node that have got it: they would get it again if the member were told of a failure, and sent it again
 * @throws FST_ROOMS_BROKER_DOWN, if there are none
 */
async function ifSent (local: number, sent: Promise<boolean>, next: (isSent: boolean) => void): Promise<void> {
  let isSent = false
  try {
    isSent = await sent
  } catch (error) {
    if (local === 0) throw error
  }
  next(isSent)
}
