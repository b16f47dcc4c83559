import type { AuthorizeContext } from '../../types/index.ts'
import { FST_ROOMS_FORBIDDEN } from '../errors.ts'
import type { Hooks } from '../hub/ports.ts'
import { proceed } from '../proceed.ts'

/**
 * Asks `authorize`, and goes on if it permits. Without `authorize`, everything is permitted that the topic declares.
 * @throws FST_ROOMS_FORBIDDEN, an error of the hook
 */
export function ifPermitted (hooks: Hooks, question: AuthorizeContext<any>, next: () => void | Promise<void>): void | Promise<void> {
  const { authorize } = hooks
  if (authorize === undefined) return next()
  return proceed(authorize(question), allowed => {
    if (allowed !== true) throw new FST_ROOMS_FORBIDDEN(question.action)
    return next()
  })
}
