import { kSession } from '../../symbols.ts'
import { receive, receiveControl } from '../../connection/receive.ts'
import { countRefusal } from '../../limits/refusals.ts'
import type { MemberSession } from '../../session/session.ts'
import type { WebSocketLike } from '../../connection/connection.ts'
import { isWithinMessage, lowerMaxPayload, onConclude, receiverOf, type Receiver } from '../../internals.ts'
import { inflateWhileReading, takeOver } from './receiver.ts'
import { violationCode } from './errors.ts'

// All sockets share these functions, because a closure for each event would cost half a kilobyte more for each connection.

/** A WebSocket and its session, which is `null` before there is one. */
export type MemberSocket = WebSocketLike & { [kSession]?: MemberSession | null }
type MemberReceiver = Receiver & { [kSession]?: MemberSession }

/** Sends the frames that are queued for the member in this turn, and then the close frame. ws calls it as soon as it answers a close frame or a violation. */
function closeAfterBatch (this: MemberSocket, code: number, reason: string): void {
  const session = this[kSession]!
  if (session.state === 'open') session.room!.flushMember(session)
  session.connection.closeSocket(code, reason)
}

function message (this: MemberSocket, data: Buffer, isBinary: boolean): void {
  const session = this[kSession]!
  session.connection.unfinishedAt = 0
  receive(session.hub, session, data, isBinary)
}

/** Call when a control frame has ended. A message that the control frame interrupts goes on, and keeps its clock. */
function controlEnded ({ connection }: MemberSession): void {
  if (connection.holder !== undefined && !isWithinMessage(connection.holder)) connection.unfinishedAt = 0
}

function ping (this: MemberSocket): void {
  const session = this[kSession]!
  controlEnded(session)
  receiveControl(session.hub, session)
}

/** The first pong after a ping of the server is free. Unsolicited pongs count against the frame rate. */
function pong (this: MemberSocket): void {
  const session = this[kSession]!
  controlEnded(session)
  if (session.connection.awaitsPong) session.connection.awaitsPong = false
  else receiveControl(session.hub, session)
}

/** Ends the session when the peer's close frame comes. ws has answered it; the connection may stay open for some time, without the member. */
function peerCloses (this: MemberReceiver, code: number, reason: Buffer): void {
  const session = this[kSession]!
  if (session.state === 'closed') return
  session.connection.closes()
  session.hub.end(session, { code, reason: reason.toString(), by: 'peer' })
}

function close (this: MemberSocket, code: number, reason: Buffer): void {
  const session = this[kSession]!
  session.hub.closed(session, code, reason.toString())
}

/** Ends the session on a violation of RFC 6455, which ws answers by itself. No error of a connection is an error of the host. */
function error (this: MemberSocket, err: Error): void {
  const session = this[kSession]!
  // A connection that is cut before it has a session is counted by the code that cuts it.
  if (session === null) return
  const { hub, connection } = session
  hub.log.debug({ err, session: session.id }, 'connection error')
  const code = violationCode(err)
  if (code === undefined) return
  hub.counters.invalid++
  countRefusal(hub, session, 'frame', 'protocol')
  connection.closes()
  hub.end(session, { code, reason: '', by: 'peer' })
}

/**
 * Adds the listener for errors, once. It is added as soon as there is a WebSocket, and never removed, because ws parses the bytes that the
 * peer sent behind its upgrade even after the connection was destroyed, and an `error` event without a listener ends the process.
 */
export function hearErrors (socket: MemberSocket): void {
  if (socket[kSession] !== undefined) return
  socket[kSession] = null
  socket.on('error', error)
}

/** Removes all other listeners for errors. */
export function hearErrorsAlone (socket: MemberSocket & { listeners (event: 'error'): unknown[], removeListener (event: 'error', listener: any): unknown }): void {
  hearErrors(socket)
  for (const listener of socket.listeners('error')) if (listener !== error) socket.removeListener('error', listener)
}

/** Tells a session and its hub of the events of a socket. */
export function listenTo (socket: MemberSocket, session: MemberSession): void {
  hearErrors(socket)
  socket[kSession] = session
  socket.close = closeAfterBatch
  const receiver = receiverOf(socket) as MemberReceiver | undefined
  if (receiver !== undefined) {
    receiver[kSession] = session
    session.connection.holder = takeOver(receiver)
    if (session.connection.holder === undefined) session.hub.warnOfReceiver()
    lowerMaxPayload(receiver, session.hub.settings.maxPayload)
    if (socket.extensions !== '') inflateWhileReading(receiver, session.connection)
    onConclude(receiver, peerCloses)
  }
  socket.on('message', message)
  socket.on('ping', ping)
  socket.on('pong', pong)
  socket.on('close', close)
}
