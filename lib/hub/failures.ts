import { asError } from '../errors.ts'
import type { Hooks, Log } from './context.ts'
import type { Counters } from './counters.ts'
import type { MemberSession } from './session.ts'

/** Where errors of the host's hooks go: never up the stack, and each failure once. */
export class Failures {
  readonly #onError: Hooks['onError']
  readonly #counters: Counters
  readonly #log: Log
  readonly #told = new WeakSet<Error>()

  constructor (onError: Hooks['onError'], counters: Counters, log: Log) {
    this.#onError = onError
    this.#counters = counters
    this.#log = log
  }

  /** Counts an error and tells onError of it; where there is none, or where it fails itself, the log. */
  tell (error: Error, session?: MemberSession): void {
    if (this.#told.has(error)) return
    this.#told.add(error)
    // The same failure may come here twice in a turn; the same object thrown again later is another failure.
    setImmediate(() => { this.#told.delete(error) })
    this.#counters.errors++
    const log = (err: Error): void => { this.#log.error({ err, session: session?.id, topic: session?.topic }, 'a hook of fastify-rooms failed') }
    const onError = this.#onError
    if (onError === undefined) log(error)
    else this.#run(() => onError(error, session), log)
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
