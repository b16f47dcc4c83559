import { FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { AnySession } from '../hub/ports.ts'
import type { Membership } from '../session/membership.ts'

/**
 * Calls `onMessage` or `onDirect`. A call that returns a promise counts for `limits.work` until the promise has settled.
 * @throws FST_ROOMS_OVERLOADED at `limits.work`; an error of the handler
 */
export function callHandler<D> (session: Membership, handler: (session: AnySession, payload: unknown, details: D) => unknown, payload: unknown, details: D): unknown {
  const { hub } = session
  if (hub.working >= hub.settings.limits.work) throw new FST_ROOMS_OVERLOADED('too much is being worked on')
  const result = handler(session, payload, details)
  if (typeof (result as PromiseLike<unknown> | undefined)?.then !== 'function') return result
  hub.working++
  const done = (): void => { hub.working-- }
  const pending = Promise.resolve(result)
  pending.then(done, done)
  return pending
}
