import type { ClientFrame } from '../../types/index.ts'
import { notPublished } from '../error-utils.ts'
import { FST_ROOMS_FORBIDDEN } from '../errors.ts'
import { memberKey, type Accept } from '../feed/mids.ts'
import type { Membership } from '../session/membership.ts'
import { proceed } from '../proceed.ts'
import { ifPermitted } from './authorize.ts'
import { callHandler } from './call-handler.ts'
import { acknowledge, isValid, jsonOf } from './reply.ts'

type MessageFrame = ClientFrame & { type: 'message' }

/** Handles a `message` frame. */
export function publishMessage (session: Membership, frame: MessageFrame): void | Promise<void> {
  const { definition, topic } = session
  if (definition.publish === null) throw new FST_ROOMS_FORBIDDEN('members may not publish here')
  if (!isValid(session, definition.publish, frame.data, frame.ref)) return
  return ifPermitted(session.hub.hooks, { action: 'publish', topic, session, payload: frame.data, key: frame.key }, () => frame.mid === undefined ? pass(session, frame) : passOnce(session, frame, frame.mid))
}

/** Passes a message on, unless one with its `mid` was accepted before. Then the member gets that one's answer. */
function passOnce (session: Membership, frame: MessageFrame, mid: string): void | Promise<void> {
  const onceKey = memberKey(session.topic, session.user, mid)
  return session.hub.mids.once(onceKey, accept => pass(session, frame, { accept, onceKey }), answer => {
    // Without an answer the server is closing, and has ended the session.
    if (answer !== undefined) acknowledge(session, frame.ref, answer.id, answer.data, true)
  })
}

/**
 * Passes a message that is valid and permitted to the host's reader, to its handler, or to the room.
 * @param once - of a message with a `mid`: `accept` is called if it is accepted, before it is acknowledged
 */
function pass (session: Membership, { data, ref, key, mid }: MessageFrame, { accept, onceKey }: { accept?: Accept, onceKey?: string } = {}): void | Promise<void> {
  const { hub, iterator } = session
  if (session.isEndedByServer) return
  if (iterator !== undefined) {
    return proceed(iterator.offer(data), () => {
      accept?.(undefined, 0)
      acknowledge(session, ref)
    })
  }

  const handler = hub.hooks.onMessage.get(session.key)
  if (handler !== undefined) {
    return proceed(callHandler(session, handler, data, { key, mid }), answer => {
      accept?.(undefined, 0, answer)
      acknowledge(session, ref, undefined, answer)
    })
  }

  const json = jsonOf(session, session.definition.publish!, data, ref)
  if (json === undefined) return
  return proceed(hub.publish(session.definition, session.topic, json, { senderFields: session.senderFields, from: session.id, key, onceKey }), result => {
    if (!result.published) throw notPublished(result)
    accept?.(result.id, result.local)
    acknowledge(session, ref, result.id, undefined, result.duplicate)
  })
}
