import type { ClientFrame } from '../../types/index.ts'
import { FST_ROOMS_FORBIDDEN, FST_ROOMS_NO_AUTH, FST_ROOMS_RATE_LIMITED } from '../errors.ts'
import { checkIdentity, withInfo } from '../identity/identity.ts'
import type { Membership } from '../session/membership.ts'
import { acknowledge } from './reply.ts'

/** Handles an `auth` frame: new credentials for the same user, in place of those of the upgrade. The token goes to the host alone. */
export async function authenticate (session: Membership, { token, ref }: ClientFrame & { type: 'auth' }): Promise<void> {
  const { hub, connection } = session
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
  if (session.state === 'closed' || hub.expiry.check(connection)) return

  const identity = checkIdentity(answer, 'onAuth')
  if (identity === null || identity.user !== session.user) throw new FST_ROOMS_FORBIDDEN('these credentials are not those of the same user')
  const { info, expires } = withInfo(session.definition, identity, hub.settings.limits.info, 'onAuth')
  if (info !== undefined) {
    session.setInfo(info)
    hub.presenceChanged(session)
  }
  hub.expiry.renew(connection, expires?.getTime())
  acknowledge(session, ref, undefined, expires === undefined ? undefined : { in: expires.getTime() - Date.now() })
}
