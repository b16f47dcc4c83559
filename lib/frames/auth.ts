import type { ClientFrame, Refusal } from '../../types/index.ts'
import type { MultiplexedConnection } from '../connection/multiplexed.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_FORBIDDEN, FST_ROOMS_NO_AUTH, FST_ROOMS_NOT_JOINED, FST_ROOMS_RATE_LIMITED } from '../errors.ts'
import { checkIdentity, withInfo, type KnownIdentity } from '../identity/identity.ts'
import { refusalOf } from '../limits/refusals.ts'
import { ackOk } from '../protocol/server-frames.ts'
import type { Membership } from '../session/membership.ts'
import { acknowledge, answerTo } from './reply.ts'

type Auth = ClientFrame & { type: 'auth' }

/**
 * Asks the host about new credentials for the same user, in place of those that the connection began with. The token goes to the host alone.
 * @param session - the session that `onAuth` gets
 * @returns the identity; `undefined` if the connection has ended meanwhile
 * @throws FST_ROOMS_NO_AUTH, FST_ROOMS_RATE_LIMITED, FST_ROOMS_FORBIDDEN, the errors of the hook
 */
async function newIdentity (session: Membership, token: string): Promise<KnownIdentity | undefined> {
  const { hub, connection, user } = session
  const { onAuth } = hub.hooks
  if (onAuth === undefined) throw new FST_ROOMS_NO_AUTH()
  // Two answers of the host could come in the other order.
  if (connection.isAuthenticating) throw new FST_ROOMS_RATE_LIMITED('one auth frame at a time')
  connection.isAuthenticating = true
  let answer: unknown
  try {
    answer = await onAuth(session, token)
  } finally {
    connection.isAuthenticating = false
  }
  if (connection.isEnded || hub.expiry.check(connection)) return undefined
  const identity = checkIdentity(answer, 'onAuth')
  if (identity === null || identity.user !== user) throw new FST_ROOMS_FORBIDDEN('these credentials are not those of the same user')
  return identity
}

/** Sets the presence info of a new identity. */
function setInfo (session: Membership, info: unknown): void {
  if (info === undefined) return
  session.setInfo(info)
  session.hub.presenceChanged(session)
}

/** Returns the data of the ack of new credentials: milliseconds until their end. */
function untilEnd (expires: Date | undefined): { in: number } | undefined {
  return expires === undefined ? undefined : { in: expires.getTime() - Date.now() }
}

/** Handles an `auth` frame of a connection whose URL names a topic. */
export async function authenticate (session: Membership, { token, ref }: Auth): Promise<void> {
  const identity = await newIdentity(session, token)
  if (identity === undefined) return
  const { hub, connection, definition } = session
  const { info, expires } = withInfo(definition, identity, hub.settings.limits.info, 'onAuth')
  setInfo(session, info)
  hub.expiry.renew(connection, expires?.getTime())
  acknowledge(session, ref, undefined, untilEnd(expires))
}

/** Handles an `auth` frame of a connection of several topics. The host is asked once, about the session that has been a member longest. Never rejects. */
export async function authenticateConnection (connection: MultiplexedConnection<Membership>, { token, ref }: Auth): Promise<void> {
  const { hub } = connection
  if (hub.state !== 'open') return
  const [session] = connection.sessions
  const count = (reason: Refusal): void => { connection.countRefusal(reason) }
  if (session?.state !== 'open') {
    const error = new FST_ROOMS_NOT_JOINED('any topic')
    count(refusalOf(error))
    connection.refuse(error, ref)
    return
  }
  try {
    const identity = await newIdentity(session, token)
    if (identity === undefined) return
    // Checks the info of all topics before any of them is changed.
    const infos = Array.from(connection.sessions, session => ({ session, info: withInfo(session.definition, identity, hub.settings.limits.info, 'onAuth')?.info }))
    for (const { session, info } of infos) if (session.state === 'open') setInfo(session, info)
    connection.identity = identity
    session.hub.expiry.renew(connection, identity.expires?.getTime())
    if (ref !== undefined) connection.say(ackOk(ref, undefined, untilEnd(identity.expires)))
  } catch (thrown) {
    connection.refuse(answerTo(session, asError(thrown), count), ref)
  }
}
