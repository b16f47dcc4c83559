import type { Refusal } from '../../types/index.ts'
import { FST_ROOMS_FORBIDDEN } from '../errors.ts'
import { asError, isClientError } from '../error-utils.ts'
import { closeName } from '../protocol/close-codes.ts'
import * as frames from '../protocol/server-frames.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import type { Ending, HubContext } from '../hub/context.ts'
import * as events from '../hub/events.ts'
import { closeCodeFor } from '../frames/reply.ts'
import { receiveHeld } from '../connection/receive.ts'
import { refusalOf } from '../limits/refusals.ts'
import type { Room } from '../room/room.ts'
import type { MemberSession } from './session.ts'

/** What the URL asked for. */
export interface JoinRequest {
  since: string | undefined
  /** Send a presence snapshot after hello. */
  presence: boolean
  /** Calls the host's onJoin. */
  onJoin: ((session: MemberSession) => unknown) | undefined
}

/** An ending of the catalogue, decided by the server. */
export function serverEnding (code: number, refusal?: Refusal): Ending {
  const ending: Ending = { code, reason: closeName(code), by: 'server' }
  return refusal === undefined ? ending : { ...ending, refusal }
}

/** How a session ends about which a hook threw: by what speaks to the peer; else, once the host was told, with the code for failures. */
export function endingFor (hub: HubContext, session: MemberSession, thrown: unknown, failed: number): Ending {
  const error = asError(thrown)
  // An invalid payload was the host's own (see incoming.ts), not the peer's.
  if (isClientError(error) && (error as { code?: unknown }).code !== 'FST_ROOMS_INVALID_PAYLOAD') return serverEnding(closeCodeFor(error), refusalOf(error))
  hub.fail(error, session)
  return serverEnding(failed, 'failed')
}

/**
 * Rule 1: attach, onJoin, then in one synchronous step hello, what onJoin sent, and the presence join. Whatever fails before
 * that is a close, and nobody saw the member.
 */
export async function join (hub: HubContext, session: MemberSession, room: Room, request: JoinRequest): Promise<void> {
  // Whoever comes into a room that is there already, and is asked nothing, waits for nothing: hello leaves with the upgrade.
  if (!room.feed.isReady) {
    try {
      await room.feed.ready
    } catch (error) {
      hub.fail(asError(error), session)
      hub.end(session, serverEnding(4103, 'broker'))
      return
    }
    if (session.state === 'closed') return
  }
  session.onAccept = () => { commit(hub, session, room, request) }
  try {
    if (request.onJoin !== undefined && await request.onJoin(session) === false) throw new FST_ROOMS_FORBIDDEN('join')
    hub.accept(session)
  } catch (thrown) {
    // A plain throw refuses; of a member that is in already it ends the membership as a failure of ours.
    hub.end(session, endingFor(hub, session, thrown, session.state === 'joining' ? 4003 : 1011))
  } finally {
    session.onAccept = undefined
  }
}

function commit (hub: HubContext, session: MemberSession, room: Room, { since, presence }: JoinRequest): void {
  if (hub.expiry.check(session)) return
  if (hub.state !== 'open') {
    hub.end(session, serverEnding(1001, 'draining'))
    return
  }
  const { connection } = session
  const known = since === undefined ? null : parsePosition(since)
  // Without history nothing can be replayed: a join resumes where nothing was published since.
  const { position } = room.feed
  const recovered = known !== null && position !== undefined && formatPosition(position) === since
  if (connection.mode === 'rooms.raw' && known !== null && !recovered) {
    hub.end(session, serverEnding(4202, 'position')) // raw mode has no other word for it
    return
  }
  session.state = 'open'
  room.joining--
  room.add(session)
  room.feed.receiverCame()
  if (connection.mode === 'rooms.v1') {
    const { heartbeat } = hub.settings
    session.deliver(frames.hello({
      id: position === undefined ? undefined : formatPosition(position),
      v: 1,
      session: session.id,
      topic: session.topic,
      heartbeat: heartbeat === false ? 0 : heartbeat.interval,
      maxPayload: session.definition.maxPayload,
      recovered: known === null ? undefined : recovered,
      replayed: since === undefined ? undefined : 0
    }))
  }
  hub.expiry.opened(session)
  session.release()
  if (presence && connection.mode === 'rooms.v1' && room.presence !== undefined) session.deliver(room.presence.snapshot())
  if (session.state as string === 'closed') return // all of that was too much for a peer that does not read
  hub.presenceChanged(session)
  hub.counters.joined++
  hub.log.info({ session: session.id, topic: session.topic, user: session.user, address: connection.address }, 'member joined')
  events.joined(session)
  receiveHeld(hub, session)
}
