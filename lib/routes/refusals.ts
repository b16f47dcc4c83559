import type { FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import type { Refusal, Refusals } from '../../types/index.ts'
import { refusalOf, refusalOfStatus } from '../hub/refusals.ts'
import { kRefusal } from '../symbols.ts'
import { list } from './add-route.ts'

type Hooks = Pick<RouteShorthandOptions, 'onError' | 'onResponse'>
type Answered = FastifyRequest & { [kRefusal]: Refusal | null }

/** A plain GET that nothing refuses ends with it, and has found out what it asked. */
const upgradeRequired = 426

/** Notes why, while that is known: a host's error handler may answer as it likes. */
function note (request: FastifyRequest, _reply: FastifyReply, error: Error & { code?: string, statusCode?: number, validationContext?: string }, done: () => void): void {
  (request as Answered)[kRefusal] = error.validationContext === 'body' ? 'invalid' : refusalOf(error)
  done()
}

/** The host's hooks of a route, and ours after them, which count what is refused over HTTP: before an upgrade, or of a broadcast. */
export function countRefusals (refusals: Refusals, { onError, onResponse }: Hooks): Required<Hooks> {
  const count = (request: FastifyRequest, { statusCode }: FastifyReply, done: () => void): void => {
    // A hook of the host may refuse without an error.
    if (statusCode >= 400 && statusCode !== upgradeRequired) refusals[(request as Answered)[kRefusal] ?? refusalOfStatus(statusCode)]++
    done()
  }
  return { onError: [...list(onError), note] as never, onResponse: [...list(onResponse), count] as never }
}
