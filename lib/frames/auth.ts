import type { ClientFrame } from '../../types/index.ts'
import { FST_ROOMS_FORBIDDEN, FST_ROOMS_NO_AUTH, FST_ROOMS_RATE_LIMITED } from '../errors.ts'
import type { HubContext } from '../hub/context.ts'
import { acknowledge } from './reply.ts'
import type { MemberSession } from '../session/session.ts'
import { checkIdentity, withInfo } from '../identity/identity.ts'

/** A member's auth frame: new credentials for the same user, in place of those that it came with. The token goes to the host, and nowhere else. */
export async function authenticate (hub: HubContext, session: MemberSession, { token, ref }: ClientFrame & { type: 'auth' }): Promise<void> {
  const { onAuth } = hub.hooks
  if (onAuth === undefined) throw new FST_ROOMS_NO_AUTH()
  // Of two at a time nobody could say which was the later.
  if (session.authenticating) throw new FST_ROOMS_RATE_LIMITED('one auth frame at a time')
  session.authenticating = true
  let answer: unknown
  try {
    answer = await onAuth(session, token)
  } finally {
    session.authenticating = false
  }
  if (session.state === 'closed' || hub.expiry.check(session)) return

  const identity = checkIdentity(answer, 'onAuth')
  if (identity === null || identity.user !== session.user) throw new FST_ROOMS_FORBIDDEN('these credentials are not those of the same user')
  const { info, expires } = withInfo(session.definition, identity, hub.settings.limits.info, 'onAuth')
  if (info !== undefined) {
    session.info = info
    hub.presenceChanged(session)
  }
  hub.expiry.renew(session, expires?.getTime())
  acknowledge(session, ref, undefined, expires === undefined ? undefined : { in: expires.getTime() - Date.now() })
}
