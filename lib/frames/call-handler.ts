import { FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { HubContext } from '../hub/context.ts'
import type { MemberSession } from '../session/session.ts'

/**
 * Calls `onMessage` or `onDirect`. A call that returns a promise counts for `limits.work` until the promise has settled.
 * @throws FST_ROOMS_OVERLOADED at `limits.work`; what the handler throws
 */
export function callHandler<D> (hub: HubContext, handler: (session: MemberSession, payload: unknown, details: D) => unknown, session: MemberSession, payload: unknown, details: D): unknown {
  if (hub.working >= hub.settings.limits.work) throw new FST_ROOMS_OVERLOADED('too much is being worked on')
  const result = handler(session, payload, details)
  if (typeof (result as PromiseLike<unknown> | undefined)?.then !== 'function') return result
  hub.working++
  const done = (): void => { hub.working-- }
  const pending = Promise.resolve(result)
  pending.then(done, done)
  return pending
}
