import type { ClientFrame, Ref, Refusal } from '../../types/index.ts'
import { FST_ROOMS_BAD_FRAME, FST_ROOMS_FRAME_TOO_LARGE, FST_ROOMS_NOT_JOINED } from '../errors.ts'
import { authenticateConnection } from '../frames/auth.ts'
import { closeFor, invalid, refuse } from '../frames/reply.ts'
import * as events from '../hub/events.ts'
import { countRefusal } from '../limits/refusals.ts'
import { draw } from '../limits/token-bucket.ts'
import { minSharedMidLength, type FrameFault, type TopicFrame } from '../protocol/client-frames.ts'
import { ackOk } from '../protocol/server-frames.ts'
import { closeCodeFor, serverEnding } from '../session/ending.ts'
import type { Membership } from '../session/membership.ts'
import { drawFor, isPersistent, overRate, rateLimited } from './frame-rate.ts'
import type { MultiplexedConnection } from './multiplexed.ts'

// Bytes in, on a connection of several topics: rate, size and form, then the session of the frame's topic. Faults that name no topic are told to the connection.

type Peer = MultiplexedConnection<Membership>
/** The members of a frame that its answer repeats. */
interface Named { ref?: Ref | undefined, topic?: string | undefined }

/** Ends a connection for an error. */
function closeConnection (connection: Peer, error: Error): void {
  connection.close(serverEnding(closeCodeFor(error)))
}

/** Answers a frame that concerns no session, as the host's `onInvalid` says. A function is not asked, because it needs a session. */
function invalidFrame (connection: Peer, error: Error, reason: Refusal, { ref, topic }: Named = {}, isLast = false): void {
  const { hub: { counters, hooks: { onInvalid } } } = connection
  counters.invalid++
  connection.countRefusal(reason, topic)
  if (isLast || onInvalid !== 'ignore') connection.refuse(error, ref, topic)
  if (isLast || onInvalid === 'close') closeConnection(connection, error)
}

/** Answers a malformed frame, and closes the connection after `limits.badFrames` in a row. */
function badFrame (connection: Peer, fault: FrameFault): void {
  const error = new FST_ROOMS_BAD_FRAME(fault.fault)
  const isLast = ++connection.badFrames >= connection.hub.settings.limits.badFrames
  const session = fault.topic === undefined ? undefined : connection.find(fault.topic)
  if (session !== undefined && !isLast) invalid(session, error, fault.ref)
  else invalidFrame(connection, error, 'badFrames', fault, isLast)
}

/** The ref of a frame that is over the rate, and its topic. */
function answerOf ({ transport: { envelope }, maxPayload }: Peer, data: Buffer, isBinary: boolean): Named {
  if (isBinary || data.length > maxPayload) return {}
  const frame: TopicFrame | FrameFault = envelope.read(data.toString(), false)
  if ('fault' in frame) return frame
  const { type, ref } = frame
  if (type === 'ack') return {}
  return type === 'ping' || type === 'auth' ? { ref } : frame
}

/** Takes the bytes of one WebSocket message. */
export function receiveMultiplexed (connection: Peer, data: Buffer, isBinary: boolean): void {
  const { hub, maxPayload } = connection
  if (connection.isEnded) return
  hub.counters.received++
  hub.counters.receivedBytes += data.length
  const over = drawFor(connection)
  if (over !== undefined) {
    const { ref, topic } = answerOf(connection, data, isBinary)
    connection.countRefusal(over, topic)
    const error = rateLimited(connection, over)
    if (isPersistent(connection)) closeConnection(connection, error)
    else connection.refuse(error, ref, topic)
    return
  }
  if (data.length > maxPayload) {
    invalidFrame(connection, new FST_ROOMS_FRAME_TOO_LARGE(data.length, maxPayload), 'payload')
    return
  }
  if (isBinary) {
    badFrame(connection, { fault: 'binary frames are not taken here' })
    return
  }
  const frame = connection.transport.envelope.read(data.toString(), false)
  if ('fault' in frame) {
    badFrame(connection, frame)
    return
  }
  if (frame.type === 'message' && frame.mid !== undefined && connection.user === undefined && frame.mid.length < minSharedMidLength) {
    badFrame(connection, { ...frame, fault: `"mid" of an anonymous member is a string of at least ${minSharedMidLength} characters` })
    return
  }
  connection.badFrames = 0
  switch (frame.type) {
    case 'join': connection.join(frame); break
    case 'leave': connection.leave(frame); break
    case 'ping':
      if (frame.ref !== undefined) connection.say(ackOk(frame.ref))
      break
    case 'auth': authenticateConnection(connection, frame); break
    default: take(connection, frame as ClientFrame & { topic: string }, data.length)
  }
}

/** Takes a frame that names its topic. */
function take (connection: Peer, frame: ClientFrame & { topic: string }, bytes: number): void {
  const { topic, ref } = frame
  const session = connection.find(topic)
  if (session !== undefined) deliver(connection, session, frame, bytes)
  else if (!connection.hold(topic, frame, bytes)) {
    connection.countRefusal('notFound', topic)
    // The ref of an ack is one of the server's, so it is not answered.
    if (frame.type !== 'ack') connection.refuse(new FST_ROOMS_NOT_JOINED(topic), ref, topic)
  }
}

/** Hands a frame to its session, if the size and the rate are those of the topic. */
function deliver (connection: Peer, session: Membership, frame: ClientFrame, bytes: number): void {
  if (session.state === 'closed') return
  events.received(session, bytes)
  const { rate, maxPayload } = session.definition
  const ref = frame.type === 'ack' ? undefined : frame.ref
  const bucket = connection.bucketOf(session)
  if (bucket !== undefined && draw(bucket, rate, performance.now()) < 0) {
    countRefusal(session, 'frame', 'messages')
    const error = overRate(rate, ' in this topic')
    if (bucket.tokens < -rate.capacity) closeFor(session, error, 'messages')
    else refuse(session, error, ref)
  } else if (bytes > maxPayload) invalid(session, new FST_ROOMS_FRAME_TOO_LARGE(bytes, maxPayload), ref)
  else session.take(frame)
}

/** Call this when a session was sent hello. Takes the frames that have waited for it, in order. */
export function receiveOpened (connection: Peer, session: Membership): void {
  for (const { frame, bytes } of connection.opened(session)) deliver(connection, session, frame, bytes)
}
