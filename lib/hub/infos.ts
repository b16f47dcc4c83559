import type { ClientFrame } from '../../types/index.ts'
import { FST_ROOMS_INFO_TOO_LARGE, FST_ROOMS_NO_PRESENCE } from '../errors.ts'
import { acknowledge, isValid, jsonOf, reply } from './answers.ts'
import type { HubContext } from './context.ts'
import { ifPermitted } from './permission.ts'
import type { MemberSession } from './session.ts'

/** The info as others will see it, from its JSON: a frozen copy, so that what was checked stays as it was. @throws FST_ROOMS_INFO_TOO_LARGE */
export function readInfo (json: string, limit: number): unknown {
  const bytes = Buffer.byteLength(json)
  if (bytes > limit) throw new FST_ROOMS_INFO_TOO_LARGE(bytes, limit)
  return JSON.parse(json, (_name, value: unknown) => Object.freeze(value))
}

/** A member's presence frame: its new info, or the wish to see who is here. */
export function setInfo (hub: HubContext, session: MemberSession, { info, ref }: ClientFrame & { type: 'presence' }): void | Promise<void> {
  const { definition, topic, room } = session
  if (definition.presence === null || room?.presence === undefined) throw new FST_ROOMS_NO_PRESENCE(topic)
  if (info === undefined) {
    // Snapshots are large where requests are small: the next is made when this one has left.
    const waiting = reply(session, room.presence.snapshot())
    acknowledge(session, ref)
    return waiting
  }
  if (!isValid(hub, session, definition.presence, info, ref)) return
  const json = jsonOf(hub, session, definition.presence, info, ref)
  if (json === undefined) return
  const copy = readInfo(json, hub.settings.limits.info)
  return ifPermitted(hub, { action: 'presence', topic, session, payload: info }, () => {
    if (session.state === 'closed') return
    session.info = copy
    hub.presenceChanged(session)
    acknowledge(session, ref)
  })
}
