import type { ClientFrame, DirectTarget } from '../../../types/index.ts'
import { FST_ROOMS_FORBIDDEN, FST_ROOMS_NO_SUCH_SESSION, asError, isClientError } from '../../errors.ts'
import type { HubContext } from '../context.ts'
import type { MemberSession } from '../session.ts'
import { acknowledge, isValid, jsonOf } from './answers.ts'
import { ifPermitted } from './permission.ts'

type Direct = ClientFrame & { type: 'direct' }

const userPrefix = 'user:'

/** The sessions that a member's `to` names. */
function named (hub: HubContext, to: string): MemberSession[] {
  if (to.startsWith(userPrefix)) return [...hub.users.get(to.slice(userPrefix.length)) ?? []]
  const session = hub.sessions.get(to)
  return session === undefined ? [] : [session]
}

/**
 * A private message of a member. Without `authorize` it reaches sessions of the sender's own topic; with it, those of each
 * topic that it permits. What a stranger may not reach is not there for it.
 */
export function sendDirect (hub: HubContext, session: MemberSession, frame: Direct): void | Promise<void> {
  const { definition, topic } = session
  const { to, data, ref } = frame
  if (definition.publish === null) throw new FST_ROOMS_FORBIDDEN('members may not write here')
  if (!isValid(hub, session, definition.publish, data, ref)) return
  const receivers = named(hub, to)
  if (hub.hooks.authorize === undefined) {
    deliver(hub, session, frame, receivers.filter(receiver => receiver.topic === topic))
    return
  }
  return deliverPermitted(hub, session, frame, receivers)
}

async function deliverPermitted (hub: HubContext, session: MemberSession, frame: Direct, receivers: MemberSession[]): Promise<void> {
  const { topic } = session
  const { to, data } = frame
  const permitted: MemberSession[] = []
  let refusal: Error | undefined
  for (const name of new Set(receivers.map(receiver => receiver.topic))) {
    const target: DirectTarget = to.startsWith(userPrefix) ? { topic: name, user: to.slice(userPrefix.length) } : { topic: name, session: to }
    try {
      await ifPermitted(hub, { action: 'direct', topic, session, payload: data, target }, () => {
        permitted.push(...receivers.filter(receiver => receiver.topic === name))
      })
    } catch (error) {
      // Where another topic permits it, nobody else would hear of a hook that failed.
      const failure = asError(error)
      if (!isClientError(failure)) hub.fail(failure, session)
      // A plain no about another topic says nothing, not even that somebody is there.
      if (name === topic || !(failure instanceof FST_ROOMS_FORBIDDEN)) refusal ??= failure
    }
  }
  if (permitted.length === 0 && refusal !== undefined) throw refusal
  deliver(hub, session, frame, permitted)
}

function deliver (hub: HubContext, session: MemberSession, { to, data, ref }: Direct, receivers: MemberSession[]): void {
  if (session.dismissed) return
  const open = receivers.filter(receiver => receiver.state === 'open')
  if (open.length === 0) throw new FST_ROOMS_NO_SUCH_SESSION(to.slice(0, 64))
  const json = jsonOf(hub, session, session.definition.publish!, data, ref)
  if (json === undefined) return
  let local = 0
  for (const receiver of open) {
    try {
      receiver.sendPrivate(receiver.privateFrame(json, session.id, session.user))
      local++
    } catch {} // it does not read, and has just been closed for that
  }
  if (local === 0) throw new FST_ROOMS_NO_SUCH_SESSION(to.slice(0, 64))
  acknowledge(session, ref, undefined, { local })
}
