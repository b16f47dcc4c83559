import type { Position } from '../../types/index.ts'
import { receiveHeld } from '../connection/receive.ts'
import type { MultiplexedConnection } from '../connection/multiplexed.ts'
import { receiveOpened } from '../connection/receive-multiplexed.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_FORBIDDEN } from '../errors.ts'
import type { AnySession, HubState, Settings, Host } from '../hub/ports.ts'
import type { Counters } from '../hub/counters.ts'
import * as events from '../hub/events.ts'
import type { Expiry } from '../connection/expiry.ts'
import type { ReadingsMark } from '../history/readings.ts'
import type { Replay, ReplayPlan } from '../history/replay.ts'
import type { Users } from '../presence/users.ts'
import { formatPosition, parsePosition } from '../protocol/position.ts'
import { hello } from '../protocol/server-frames.ts'
import type { SessionRoom } from '../room/member.ts'
import { endingFor, serverEnding } from './ending.ts'
import type { JoinWaits } from './join-waits.ts'
import { callOnJoined, type JoinedHub } from './joined.ts'
import type { Lifecycle, LifecycleState } from './lifecycle.ts'
import type { Membership } from './membership.ts'

/** Most answers of the broker for which one join waits. If none of them leads up to what the room has delivered, the position counts as lost. */
const mostAnswers = 10
/** The part of `limits.handshake` for which a join waits for kept messages, and for the room to get as far as the member's position. */
const waitShare = 0.9

/** The wishes in the URL of a join. */
export interface JoinRequest {
  since: string | undefined
  /** Send a presence snapshot after hello. */
  presence: boolean
  /** Calls the host's onJoin; `undefined` if there is none. */
  onJoin: ((session: AnySession) => unknown) | undefined
}

/** The members of the hub that a join uses. */
export interface JoinHub extends Pick<Host, 'hooks' | 'log'>, JoinedHub {
  readonly state: HubState
  readonly settings: Settings
  readonly counters: Counters
  readonly expiry: Pick<Expiry<any>, 'check' | 'opened'>
  readonly lifecycle: Lifecycle
  readonly joinWaits: JoinWaits
  /** Sends a member the rest of the kept messages that it was promised, and calls back when it has all of them. */
  replayRest (session: Membership, done: (() => void) | undefined): void
  readonly users: Pick<Users<Membership>, 'entered' | 'joined'>
  presenceChanged (session: Membership): void
}

type Session = Membership & LifecycleState

/**
 * Joins a session to its room (rule 1 of the lifecycle): attach, the reading of kept messages, `onJoin`, then in one synchronous step hello, the frames that
 * `onJoin` sent, the kept messages, the presence join, and the call of `onJoined`. A failure before that step closes the session, and no member has seen it.
 */
export async function join (hub: JoinHub, session: Session, room: SessionRoom, given: JoinRequest): Promise<void> {
  // A stream is read from its beginning, unless the member has a part of it.
  const request = session.definition.stream && given.since === undefined ? { ...given, since: '0' } : given
  // If the room is attached and there is no onJoin, nothing is awaited: hello leaves in the same write as the 101 response.
  if (!room.feed.isReady) {
    try {
      await room.feed.ready
    } catch (error) {
      session.fail(asError(error))
      session.end(serverEnding(4103, 'broker'))
      return
    }
    if (session.state === 'closed') return
  }
  // A snapshot names the members of all nodes, unless the broker is slow.
  if (request.presence && room.remote?.ready !== undefined) {
    await room.remote.ready
    if (session.state === 'closed') return
  }
  const reading = readKept(hub, session, room, request, false)
  if (reading !== undefined) await reading
  if (session.state === 'closed') return
  hub.lifecycle.awaitAcceptance(session, () => { commit(hub, session, room, request) })
  try {
    if (request.onJoin !== undefined) {
      if (await request.onJoin(session) === false) throw new FST_ROOMS_FORBIDDEN('join')
      const rest = readKept(hub, session, room, request, true)
      if (rest !== undefined) await rest
    }
    hub.lifecycle.accept(session)
  } catch (thrown) {
    // A throw refuses the join. If a reader has accepted the session before, the throw ends a membership, as a failure of the server.
    session.end(endingFor(session, thrown, session.state === 'joining' ? 4003 : 1011))
  } finally {
    hub.lifecycle.endAcceptance(session)
  }
}

/**
 * Reads the kept messages that a join may begin with. A broker of this process is asked when the join is committed, unless there are many.
 * @param isAgain - they have been read for this join, and may still reach up to the room's position
 */
function readKept (hub: JoinHub, session: Session, room: SessionRoom, { since }: JoinRequest, isAgain: boolean): Promise<void> | undefined {
  const { replay, feed } = room
  if (replay === undefined || (since === undefined && !replay.rule.latest)) return undefined
  const { encoding } = session.transport
  if (replay.isInProcess) return replay.prepare(since, encoding, feed.position)
  if (isAgain && feed.position !== undefined && replay.reaches(encoding, feed.position)) return undefined
  const position = since === undefined ? null : parsePosition(since)
  const mark = replay.mark()
  return replay.needs(position, encoding, feed, mark) === undefined ? undefined : waitForKept(hub, session, room, replay, position, mark)
}

/**
 * Waits until kept messages that a broker of other processes has sent reach up to the room's position. A node that is cut off from its broker, or behind other nodes,
 * knows less than the fleet has told the member: its join waits, and ends with 4103 if it waits too long. It is not told of a loss that there is not.
 */
async function waitForKept (hub: JoinHub, session: Session, { feed }: SessionRoom, replay: Replay, position: Position | null, mark: ReadingsMark): Promise<void> {
  const { encoding } = session.transport
  const deadline = performance.now() + hub.settings.limits.handshake * waitShare
  for (let answers = 0; answers < mostAnswers;) {
    const event = replay.needs(position, encoding, feed, mark)
    if (event === undefined) return
    const hasCome = await hub.joinWaits.until(session, deadline, done => event === 'room' ? feed.onReached(position!, done) : replay.onAnswer(encoding, done))
    if (session.state === 'closed') return
    if (!hasCome) {
      session.end(serverEnding(4103, 'broker'))
      return
    }
    if (event === 'answer') answers++
  }
}

/** Decides what the member is sent before live messages. */
function planOf ({ transport: { encoding } }: Session, { feed: { position }, replay }: SessionRoom, { since }: JoinRequest): ReplayPlan {
  if (replay !== undefined) return replay.plan(since, encoding, position)
  const id = position === undefined ? undefined : formatPosition(position)
  const known = since === undefined ? null : parsePosition(since)
  // A topic that keeps no messages can be resumed if nothing was published since the position.
  return { id, recovered: known === null ? undefined : id === since, replayed: since === undefined ? undefined : 0, frames: undefined, behind: 0 }
}

function commit (hub: JoinHub, session: Session, room: SessionRoom, request: JoinRequest): void {
  const { connection, canBeAnswered } = session
  const { presence } = request
  if (hub.expiry.check(connection)) return
  if (hub.state !== 'open') {
    session.end(serverEnding(1001, 'draining'))
    return
  }
  const plan = planOf(session, room, request)
  if (!canBeAnswered && plan.recovered === false) {
    session.end(serverEnding(4202, 'position')) // no frame can tell a raw member that messages are missing
    return
  }
  const { frames, id, recovered, replayed } = plan
  if (recovered === true) hub.counters.recovered++
  else if (recovered === false) hub.counters.unrecovered++
  hub.lifecycle.open(session)
  room.joining--
  if (frames === undefined) room.add(session)
  else room.addReplaying(session, plan)
  if (canBeAnswered) {
    const { heartbeat } = hub.settings
    session.deliver(hello({
      id,
      v: 1,
      session: session.id,
      topic: connection.isMultiplexed ? undefined : session.topic, // named behind the type, as in all frames
      ref: connection.refOf(session),
      heartbeat: heartbeat === false ? 0 : heartbeat.interval,
      maxPayload: session.definition.maxPayload,
      recovered,
      replayed
    }), false, id)
  }
  if (!connection.isMultiplexed) hub.expiry.opened(connection)
  session.sendEarly()
  hub.users.entered(session) // before the snapshot, so that it does not name a session whose place this one takes
  if (presence && canBeAnswered && room.roster !== undefined) session.deliver(room.roster.snapshot())
  if (room.isEnded && canBeAnswered && frames === undefined && recovered !== true && session.state === 'open') room.sendEnd(session)
  // onJoined begins behind the kept messages that the member was promised.
  const { onJoined } = hub.hooks
  let isCommitted = false
  let hold: (() => void) | undefined
  if (onJoined !== undefined) {
    hold = () => {
      room.hold(session)
      if (isCommitted) callOnJoined(hub, session, onJoined)
    }
  }
  // All of that may have been too much for a slow peer.
  if (session.state === 'open') {
    if (frames === undefined) hold?.()
    else hub.replayRest(session, hold ?? (room.isEnded ? () => { if (isCommitted) finish(session, room) } : undefined))
  }
  if (session.state as string === 'closed') return
  hub.presenceChanged(session)
  hub.counters.joined++
  hub.log.info({ session: session.id, topic: session.topic, user: session.user, address: connection.address }, 'member joined')
  events.joined(session)
  hub.users.joined(session)
  isCommitted = true
  if (onJoined !== undefined && session.lag?.hold !== undefined) callOnJoined(hub, session, onJoined)
  if (connection.isMultiplexed) receiveOpened(connection as MultiplexedConnection<Membership>, session)
  else receiveHeld(connection)
  finish(session, room)
}

/** Ends a member that has everything of a topic that has ended. One that is still being sent messages ends after these. */
function finish (session: Session, room: SessionRoom): void {
  if (room.isEnded && session.state === 'open' && session.lag === undefined) session.end(serverEnding(1000))
}
