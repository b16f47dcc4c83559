import { asError } from '../error-utils.ts'
import type { Log } from './ports.ts'

/** A member as text that no serializer reads: an error is its message. */
function plain (value: unknown): unknown {
  return typeof value === 'object' && value !== null ? asError(value).message : value
}

/**
 * The host's logger, made safe: no call throws. A serializer, a formatter or the logger itself may throw, and neither a join nor a leave
 * nor a warning depends on them.
 *
 * A line that cannot be written is written again without what may have failed: without its error, then with its members under one name,
 * which no serializer of theirs reads. If that fails, too, the process is warned once.
 */
export class GuardedLog implements Log {
  readonly #log: Log
  #isReported = false

  constructor (log: Log) {
    this.#log = log
  }

  debug (object: object, message: string): void { this.#write('debug', object, message) }
  info (object: object, message: string): void { this.#write('info', object, message) }
  warn (object: object, message: string): void { this.#write('warn', object, message) }
  error (object: object, message: string): void { this.#write('error', object, message) }

  #write (level: keyof Log, object: object, message: string): void {
    try {
      this.#log[level](object, message)
    } catch (thrown) {
      this.#writeAgain(level, object, message, asError(thrown).message)
    }
  }

  #writeAgain (level: keyof Log, object: object, message: string, fault: string): void {
    const members = Object.fromEntries(Object.entries(object).map(([name, value]) => [name, plain(value)]))
    const attempts: object[] = [{ members, fault }]
    if ('err' in object) attempts.unshift({ ...object, err: new Error(`an error that cannot be logged: ${fault}`) })
    for (const attempt of attempts) {
      try {
        this.#log[level](attempt, message)
        return
      } catch {} // the next attempt asks less of the logger
    }
    if (this.#isReported) return
    this.#isReported = true
    process.emitWarning(`fastify-rooms cannot log: ${fault}`)
  }
}
