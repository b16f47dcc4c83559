import type { Connection } from '../../connection/connection.ts'
import type { MultiplexedConnection } from '../../connection/multiplexed.ts'
import { receive, receiveControl } from '../../connection/receive.ts'
import { receiveMultiplexed } from '../../connection/receive-multiplexed.ts'
import { lowerMaxPayload, onConclude, receiverOf, type Receiver } from '../../internals.ts'
import type { Mode } from '../../../types/index.ts'
import type { Membership } from '../../session/membership.ts'
import { kConnection } from '../../symbols.ts'
import type { Transport } from '../transport.ts'
import type { ByteStream, WebSocketFrames, WebSocketLike } from '../websocket-frames.ts'
import type { GatheredWrites } from '../gathered.ts'
import { multiplexedTransport } from '../multiplexed.ts'
import { webSocketTransport } from '../websocket.ts'
import { violationCode } from './errors.ts'
import { inflateWhileReading, takeOver } from './receiver.ts'

// All sockets share these functions: a closure for each event would cost half a kilobyte more per connection.

type Peer = Connection<Membership>

/** A WebSocket and its connection, which is `null` before there is one. */
export type MemberSocket = WebSocketLike & { [kConnection]?: Peer | null }
type MemberReceiver = Receiver & { [kConnection]?: Peer }

/** Replaces the socket's close: ws answers a close frame, and a violation, by itself and at once, and this turn's frames go before that. */
function closeAfterBatch (this: MemberSocket, code: number, reason: string): void {
  const connection = this[kConnection]!
  for (const session of connection.sessions) session.flush()
  connection.transport.close(code, reason)
}

function message (this: MemberSocket, data: Buffer, isBinary: boolean): void {
  const connection = this[kConnection]!
  connection.unfinishedAt = 0
  if (connection.isMultiplexed) receiveMultiplexed(connection as MultiplexedConnection<Membership>, data, isBinary)
  else receive(connection, data, isBinary)
}

/** Notes that a control frame has ended. Amid the fragments of a message it does not end the message. */
function controlEnded (connection: Peer): void {
  if (!connection.transport.isFragmented) connection.unfinishedAt = 0
}

function ping (this: MemberSocket): void {
  const connection = this[kConnection]!
  controlEnded(connection)
  receiveControl(connection)
}

/** The first pong after a ping of the server is free; unsolicited pongs count against the frame rate. */
function pong (this: MemberSocket): void {
  const connection = this[kConnection]!
  controlEnded(connection)
  if (connection.awaitsPong) connection.awaitsPong = false
  else receiveControl(connection)
}

/** Handles the peer's close frame. By now ws has answered it. The connection may stand for some time yet, but its sessions have ended. */
function peerCloses (this: MemberReceiver, code: number, reason: Buffer): void {
  const connection = this[kConnection]!
  if (connection.isEnded) return
  connection.closes()
  connection.close({ code, reason: reason.toString(), by: 'peer' })
}

function close (this: MemberSocket, code: number, reason: Buffer): void {
  const connection = this[kConnection]!
  connection.hub.disconnected(connection, code, reason.toString())
}

/** Handles an error of the socket. It is not an error of the host: ws answers a violation of RFC 6455 by itself, and a broken connection closes. */
function error (this: MemberSocket, err: Error): void {
  const connection = this[kConnection]!
  // A socket that is terminated before it has a connection is counted by the code that terminates it.
  if (connection === null) return
  const { hub } = connection
  connection.failed(err)
  const code = violationCode(err)
  if (code === undefined) return
  hub.counters.invalid++
  connection.countRefusal('protocol')
  connection.closes()
  connection.close({ code, reason: '', by: 'peer' })
}

/**
 * Adds the listener for errors, once. It stands from the moment that there is a WebSocket, and is never removed: ws parses the bytes
 * behind an upgrade even after the connection was destroyed, and an `error` event without a listener ends the process.
 */
export function hearErrors (socket: MemberSocket): void {
  if (socket[kConnection] !== undefined) return
  socket[kConnection] = null
  socket.on('error', error)
}

/** Removes all other listeners for errors. */
export function hearErrorsAlone (socket: MemberSocket & { listeners (event: 'error'): unknown[], removeListener (event: 'error', listener: any): unknown }): void {
  hearErrors(socket)
  for (const listener of socket.listeners('error')) if (listener !== error) socket.removeListener('error', listener)
}

/** The transport of a peer, and the way of its events. */
export interface PeerStream {
  transport: Transport
  /** Leads the events of the stream to the peer's connection. */
  listen (connection: Peer): void
}

/**
 * Makes the transport of a WebSocket with one topic.
 * @param stream - `undefined` if ws does not tell: then frames go one by one, and silence is not watched
 */
export function webSocketPeer (socket: MemberSocket, stream: ByteStream | undefined, mode: Mode): PeerStream {
  return peerOf(socket, webSocketTransport(socket, stream, mode))
}

/**
 * Makes the transport of a WebSocket with several topics.
 * @param stream - as above
 */
export function multiplexedPeer (socket: MemberSocket, stream: ByteStream | undefined, writes: GatheredWrites): PeerStream {
  return peerOf(socket, multiplexedTransport(socket, stream, writes))
}

function peerOf (socket: MemberSocket, transport: WebSocketFrames): PeerStream {
  return { transport, listen: connection => { listenTo(socket, connection, transport) } }
}

/** Leads the events of a socket to its connection. */
function listenTo (socket: MemberSocket, connection: Peer, transport: Pick<WebSocketFrames, 'holder'>): void {
  hearErrors(socket)
  socket[kConnection] = connection
  socket.close = closeAfterBatch
  const receiver = receiverOf(socket) as MemberReceiver | undefined
  if (receiver !== undefined) {
    receiver[kConnection] = connection
    transport.holder = takeOver(receiver)
    if (transport.holder === undefined) connection.hub.warnOfReceiver()
    lowerMaxPayload(receiver, connection.hub.settings.maxPayload)
    if (socket.extensions !== '') inflateWhileReading(receiver, connection.transport)
    onConclude(receiver, peerCloses)
  }
  socket.on('message', message)
  socket.on('ping', ping)
  socket.on('pong', pong)
  socket.on('close', close)
}
