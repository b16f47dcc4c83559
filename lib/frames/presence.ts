import type { ClientFrame } from '../../types/index.ts'
import { FST_ROOMS_INFO_TOO_LARGE, FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_NO_PRESENCE } from '../errors.ts'
import type { HubContext } from '../hub/context.ts'
import type { MemberSession } from '../session/session.ts'
import { acknowledge, invalid, isValid, jsonOf, reply } from './reply.ts'
import { ifPermitted } from './authorize.ts'

/** Presence frames are written when nobody is there to be told that the stack did not hold one of the infos in it. */
const maxDepth = 1_000

/** @throws FST_ROOMS_INVALID_PAYLOAD */
function frozen (value: unknown, depth = 0): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (depth === maxDepth) throw new FST_ROOMS_INVALID_PAYLOAD(`it is nested more than ${maxDepth} deep`)
  for (const inner of Object.values(value)) frozen(inner, depth + 1)
  return Object.freeze(value)
}

/** The info as others will see it, from its JSON: a frozen copy, so that what was checked stays as it was. @throws FST_ROOMS_INFO_TOO_LARGE, FST_ROOMS_INVALID_PAYLOAD */
export function readInfo (json: string, limit: number): unknown {
  const bytes = Buffer.byteLength(json)
  if (bytes > limit) throw new FST_ROOMS_INFO_TOO_LARGE(bytes, limit)
  return frozen(JSON.parse(json))
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
  let copy: unknown
  try {
    copy = readInfo(json, hub.settings.limits.info)
  } catch (error) {
    if (!(error instanceof FST_ROOMS_INVALID_PAYLOAD)) throw error
    invalid(hub, session, error, ref)
    return
  }
  return ifPermitted(hub, { action: 'presence', topic, session, payload: info }, () => {
    if (session.state === 'closed') return
    session.info = copy
    hub.presenceChanged(session)
    acknowledge(session, ref)
  })
}
