import type { ClientFrame } from '../../types/index.ts'
import { FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_NO_PRESENCE } from '../errors.ts'
import { readInfo } from '../identity/info.ts'
import type { Membership } from '../session/membership.ts'
import { ifPermitted } from './authorize.ts'
import { acknowledge, invalid, isValid, jsonOf, reply } from './reply.ts'

/** Handles a `presence` frame: a member's new info, or its request for a snapshot. */
export function changePresence (session: Membership, { info, ref }: ClientFrame & { type: 'presence' }): void | Promise<void> {
  const { definition, topic, room, hub } = session
  if (definition.presence === null || room?.roster === undefined) throw new FST_ROOMS_NO_PRESENCE(topic)
  if (info === undefined) {
    // A snapshot is large and its request small, so the next frame is handled when the snapshot has been sent. A peer that has left the topic gets none.
    const sent = session.state === 'closed' ? undefined : reply(session, room.roster.snapshot())
    acknowledge(session, ref)
    return sent
  }
  if (!isValid(session, definition.presence, info, ref)) return
  const json = jsonOf(session, definition.presence, info, ref)
  if (json === undefined) return
  let copy: unknown
  try {
    copy = readInfo(json, hub.settings.limits.info)
  } catch (error) {
    if (!(error instanceof FST_ROOMS_INVALID_PAYLOAD)) throw error
    invalid(session, error, ref)
    return
  }
  return ifPermitted(hub.hooks, { action: 'presence', topic, session, payload: info }, () => {
    if (session.state !== 'closed') {
      session.setInfo(copy)
      hub.presenceChanged(session)
    }
    acknowledge(session, ref)
  })
}
