import { asError } from '../errors.ts'
import type { HubContext } from './context.ts'
import * as events from './events.ts'
import type { MemberSession } from './session.ts'

/** Where errors of the host's hooks go: never up the stack, and each failure once. */
export class Failures {
  readonly #context: Pick<HubContext, 'hooks' | 'counters' | 'log' | 'rooms'>
  readonly #told = new WeakSet<Error>()

  constructor (context: Pick<HubContext, 'hooks' | 'counters' | 'log' | 'rooms'>) {
    this.#context = context
  }

  /** Counts an error and tells onError of it; where there is none, or where it fails itself, the log. Never throws, whatever these do. */
  tell (error: Error, session?: MemberSession): void {
    if (this.#told.has(error)) return
    this.#told.add(error)
    // The same failure may come here twice in a turn; the same object thrown again later is another failure.
    setImmediate(() => { this.#told.delete(error) })
    const { hooks: { onError }, counters, rooms } = this.#context
    counters.errors++
    events.failed(rooms, error, session)
    if (onError === undefined) this.#log(error, session)
    else this.#run(() => onError(error, session), failure => { this.#log(failure, session) })
  }

  /** A logger reads more of an error than anybody else, its causes, say, and marks it while it does: neither need be possible. */
  #log (error: Error, session: MemberSession | undefined): void {
    const write = (err: Error): void => { this.#context.log.error({ err, session: session?.id, topic: session?.topic }, 'a hook of fastify-rooms failed') }
    try {
      write(error)
    } catch (fault) {
      try {
        write(new Error(`an error that cannot be logged: ${asError(fault).message}`))
      } catch {} // and there is nobody else to tell
    }
  }

  /** Runs a hook whose answer nobody waits for. */
  guard (hook: () => unknown, session: MemberSession): void {
    this.#run(hook, error => { this.tell(error, session) })
  }

  #run (hook: () => unknown, failed: (error: Error) => void): void {
    try {
      Promise.resolve(hook()).catch((error: unknown) => { failed(asError(error)) })
    } catch (error) {
      failed(asError(error))
    }
  }
}
