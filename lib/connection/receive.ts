import type { ClientFrame, Ref } from '../../types/index.ts'
import { FST_ROOMS_BAD_FRAME, FST_ROOMS_FRAME_TOO_LARGE } from '../errors.ts'
import { closeFor, invalid, refuse } from '../frames/reply.ts'
import * as events from '../hub/events.ts'
import { countRefusal } from '../limits/refusals.ts'
import { minSharedMidLength, type FrameFault } from '../protocol/client-frames.ts'
import { closeCodeFor, serverEnding } from '../session/ending.ts'
import type { Membership } from '../session/membership.ts'
import type { Connection } from './connection.ts'
import { drawFor, isPersistent, rateLimited } from './frame-rate.ts'

// A fault that names no topic is told through the session of the topic in the connection's URL.

type Peer = Connection<Membership>

/** The ref that the refusal of a frame answers. The ref of an ack is one of the server's, so it is not answered. */
function refOf ({ transport: { envelope }, session: { definition } }: Peer, data: Buffer, isBinary: boolean): Ref | undefined {
  if (isBinary || !envelope.canBeAnswered || data.length > definition.maxPayload) return undefined
  const frame = envelope.read(data.toString(), false)
  return 'type' in frame && frame.type === 'ack' ? undefined : frame.ref
}

/** Answers a malformed frame, and closes the connection after `limits.badFrames` in a row. */
function badFrame (connection: Peer, fault: string, ref?: Ref): void {
  const { session, hub } = connection
  const error = new FST_ROOMS_BAD_FRAME(fault)
  if (++connection.badFrames < hub.settings.limits.badFrames) {
    invalid(session, error, ref)
    return
  }
  hub.counters.invalid++
  countRefusal(session, 'frame', 'badFrames')
  refuse(session, error, ref)
  closeFor(session, error)
}

/** Keeps a frame that arrived before hello. Reading pauses at `limits.pending` of them. */
function hold (connection: Peer, data: Buffer, isBinary: boolean): void {
  const { session, hub } = connection
  const { maxPayload } = session.definition
  if (data.length > maxPayload) {
    closeFor(session, new FST_ROOMS_FRAME_TOO_LARGE(data.length, maxPayload))
    return
  }
  const held = connection.held ??= []
  held.push({ data, isBinary })
  if (held.length === hub.settings.limits.pending) {
    connection.holdReading(held)
    hub.counters.paused++
  }
}

/** Takes the bytes of one WebSocket message: checks rate, size and form, and hands the frame to its session. */
export function receive (connection: Peer, data: Buffer, isBinary: boolean): void {
  const { session, hub } = connection
  if (session.state === 'closed') return
  if (!connection.isJoined) {
    hold(connection, data, isBinary)
    return
  }
  hub.counters.received++
  hub.counters.receivedBytes += data.length
  events.received(session, data.length)
  const over = drawFor(connection)
  if (over !== undefined) {
    countRefusal(session, 'frame', over)
    const error = rateLimited(connection, over)
    if (isPersistent(connection)) closeFor(session, error)
    else refuse(session, error, refOf(connection, data, isBinary))
    return
  }
  const { maxPayload, publish } = session.definition
  if (data.length > maxPayload) {
    invalid(session, new FST_ROOMS_FRAME_TOO_LARGE(data.length, maxPayload))
    return
  }
  if (isBinary) {
    badFrame(connection, 'binary frames are not taken here')
    return
  }
  const frame = connection.transport.envelope.read(data.toString(), publish?.schema === null) as ClientFrame | FrameFault
  if ('fault' in frame) badFrame(connection, frame.fault, frame.ref)
  else if (frame.type === 'message' && frame.mid !== undefined && session.user === undefined && frame.mid.length < minSharedMidLength) {
    badFrame(connection, `"mid" of an anonymous member is a string of at least ${minSharedMidLength} characters`, frame.ref)
  } else {
    connection.badFrames = 0
    session.take(frame)
  }
}

/** Takes a ping or an unsolicited pong. It counts as any frame does; over the rate it is dropped, because it cannot be answered. */
export function receiveControl (connection: Peer): void {
  if (connection.isEnded) return
  const over = drawFor(connection)
  if (over === undefined || !isPersistent(connection)) return
  if (connection.isMultiplexed || connection.session.state === 'open') connection.countRefusal(over)
  connection.close(serverEnding(closeCodeFor(rateLimited(connection, over)), over))
}

/** Takes the frames that arrived before hello, in order. */
export function receiveHeld (connection: Peer): void {
  const { held } = connection
  connection.isJoined = true
  if (held === undefined) return
  connection.held = undefined
  connection.releaseReading(held)
  connection.keptWaiting(connection.openedAt, performance.now())
  for (const { data, isBinary } of held) receive(connection, data, isBinary)
}
