import type { ClientFrame } from '../../types/index.ts'
import { FST_ROOMS_INFO_TOO_LARGE, FST_ROOMS_NO_PRESENCE } from '../errors.ts'
import { acknowledge, isValid, jsonOf, reply } from './answers.ts'
import type { HubContext } from './context.ts'
import { ifPermitted } from './permission.ts'
import type { MemberSession } from './session.ts'

/** @throws FST_ROOMS_INFO_TOO_LARGE */
export function checkInfoSize (json: string, limit: number): void {
  const bytes = Buffer.byteLength(json)
  if (bytes > limit) throw new FST_ROOMS_INFO_TOO_LARGE(bytes, limit)
}

/** A member's presence frame: its new info, or the wish to see who is here. */
export function setInfo (hub: HubContext, session: MemberSession, { info, ref }: ClientFrame & { type: 'presence' }): void | Promise<void> {
  const { definition, topic, room } = session
  if (definition.presence === null || room?.presence === undefined) throw new FST_ROOMS_NO_PRESENCE(topic)
  if (info === undefined) {
    reply(hub, session, room.presence.snapshot())
    acknowledge(hub, session, ref)
    return
  }
  if (!isValid(hub, session, definition.presence, info, ref)) return
  const json = jsonOf(hub, session, info, ref)
  if (json === undefined) return
  checkInfoSize(json, hub.settings.limits.info)
  return ifPermitted(hub, { action: 'presence', topic, session, payload: info }, () => {
    if (session.state === 'closed') return
    session.info = info
    hub.presenceChanged(session)
    acknowledge(hub, session, ref)
  })
}
