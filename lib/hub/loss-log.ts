import type { Gap } from '../feed/feed.ts'
import type { Log } from './ports.ts'

/** Milliseconds within which losses share a line. */
const windowMilliseconds = 1_000

/** The first loss of a line, and the number of all of them. */
interface Line { losses: number, readonly topic: string, readonly gap: Gap }

/** Writes losses to the log: at most one line a second for each reason, because a broker may lose messages of all topics at once. */
export class LossLog {
  readonly #log: Log
  readonly #lines = new Map<Gap['reason'], Line>()
  #timer: NodeJS.Timeout | undefined

  constructor (log: Log) {
    this.#log = log
  }

  note (topic: string, gap: Gap): void {
    const line = this.#lines.get(gap.reason)
    if (line !== undefined) line.losses++
    else this.#lines.set(gap.reason, { losses: 1, topic, gap })
    this.#timer ??= setTimeout(this.#write, windowMilliseconds).unref()
  }

  /** Writes what waits. */
  close (): void {
    clearTimeout(this.#timer)
    this.#write()
  }

  readonly #write = (): void => {
    this.#timer = undefined
    for (const [reason, { losses, topic, gap: { count, from, to } }] of this.#lines) {
      if (reason === 'lost') this.#log.warn({ losses, topic, count, from, to }, 'messages may be missing: the members of topics were told by a gap')
      else this.#log.warn({ losses, topic, to }, 'the broker has lost data: topics begin anew, and their members were told by a reset')
    }
    this.#lines.clear()
  }
}
