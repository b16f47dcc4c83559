import { kSession } from '../../symbols.ts'
import type { WebSocketLike } from './connection.ts'
import type { HubContext } from '../context.ts'
import { receive, receiveControl } from '../inbound/incoming.ts'
import { inflateWhileReading, stopAtViolation, type Receiver } from './receiver.ts'
import { countRefusal } from '../limits/refusals.ts'
import type { MemberSession } from '../session.ts'
import { violationCode } from './violations.ts'

/** A WebSocket, and whose it is. Where it has no receiver, it is none of ws. */
export type MemberSocket = WebSocketLike & { [kSession]?: MemberSession, readonly _receiver?: Receiver }

/** ws answers a close frame, and a violation, by itself and at once; what the member was to get in this turn goes before that. */
function closeAfterBatch (this: MemberSocket, code: number, reason: string): void {
  const session = this[kSession]!
  if (session.state === 'open') session.room!.flushMember(session)
  session.connection.closeSocket(code, reason)
}

/** What a socket tells, to a session and its hub. @param closed - it is no more */
export function listenTo (socket: MemberSocket, hub: HubContext, session: MemberSession, closed: (code: number, reason: string) => void): void {
  const { connection } = session
  socket[kSession] = session
  socket.close = closeAfterBatch
  const receiver = socket._receiver
  if (receiver !== undefined) {
    stopAtViolation(receiver)
    if (socket.extensions !== '') inflateWhileReading(receiver, connection)
    // By now ws has answered. Its connection may stand for some time yet, and it is no member meanwhile.
    receiver.on('conclude', (code, reason) => {
      if (session.state === 'closed') return
      connection.closes()
      hub.end(session, { code, reason: reason.toString(), by: 'peer' })
    })
  }
  socket.on('message', (data, isBinary) => { receive(hub, session, data, isBinary) })
  socket.on('ping', () => { receiveControl(hub, session) })
  // One for each ping of ours; the others nobody has asked for.
  socket.on('pong', () => {
    if (connection.awaitsPong) connection.awaitsPong = false
    else receiveControl(hub, session)
  })
  socket.on('close', (code, reason) => { closed(code, reason.toString()) })
  socket.on('error', (error: Error) => {
    // Neither is our error: a violation of RFC 6455 is answered by ws itself, and a connection that broke closes.
    hub.log.debug({ err: error, session: session.id }, 'connection error')
    const code = violationCode(error)
    if (code === undefined) return
    hub.counters.invalid++
    countRefusal(hub, session, 'frame', 'protocol')
    connection.closes()
    hub.end(session, { code, reason: '', by: 'peer' })
  })
}
