import type { HistoryPage, Position } from '../../types/index.ts'
import type { Encoding } from '../transport/encoding.ts'

/** Milliseconds until a reading that the broker has not answered is tried again. */
const retryAfter = 100
/** Milliseconds, from its beginning, for which a reading serves further joins. What expires or is dropped meanwhile is still sent to them. */
const freshFor = 500
/** Epochs of a topic that are known to be over. Clients that come back after a loss of the broker's data name few others. */
const mostPast = 16

/** A moment in the order of readings, noted when a join begins. */
export interface ReadingsMark {
  /** The last reading that had begun. A later one knows all that the member knows. */
  readonly begun: number
  /** The last reading that had been answered. */
  readonly answered: number
}

/** The side of a room that uses what is read. */
export interface ReadingsPorts {
  /** The broker cannot be asked. */
  readonly isDown: boolean
  /** Reads kept messages for frames of these encodings. `undefined` if the broker does not answer. */
  read (encodings: ReadonlySet<Encoding>): HistoryPage | undefined | Promise<HistoryPage | undefined>
  /**
   * Takes an answer.
   * @param encodings - of all joins that wait for it
   */
  take (page: HistoryPage, encodings: ReadonlySet<Encoding>): void
}

/**
 * Readings of one topic from a broker of other processes. One is under way at a time, and its answer serves all joins that wait, those included that have come
 * while it was under way. One that fails is tried again as long as a join waits.
 */
export class Readings {
  readonly #ports: ReadingsPorts
  /** The callbacks of joins that wait, and the plain encodings of their frames. */
  readonly #waiting = new Map<() => void, Encoding>()
  readonly #past = new Set<string>()
  #begun = 0
  #answered = 0
  /** When the reading that was answered last began, on the clock of `performance`. */
  #answeredFrom = -Infinity
  /** The topic's position, as the last answer has told it. */
  #top: Position | undefined
  #roomEpoch: string | undefined
  /** The last reading that had begun when the room's epoch changed: its answer may be older. */
  #outdated = 0
  #retry: NodeJS.Timeout | undefined
  isUnderWay = false

  constructor (ports: ReadingsPorts) {
    this.#ports = ports
  }

  mark (): ReadingsMark {
    return { begun: this.#begun, answered: this.#answered }
  }

  /** Calls back once, with the next answer. Returns a function that ends the wait. */
  onAnswer (encoding: Encoding, done: () => void): () => void {
    this.#waiting.set(done, encoding)
    this.#begin()
    return () => { this.#waiting.delete(done) }
  }

  /** Whether an answer has come since a join began. */
  hasAnswered ({ answered }: ReadingsMark): boolean {
    return this.#answered > answered
  }

  /** Whether what was read last may be sent to a join. */
  isFresh (mark: ReadingsMark): boolean {
    return this.hasAnswered(mark) || (!this.#ports.isDown && performance.now() - this.#answeredFrom < freshFor)
  }

  /** Whether the broker was in this epoch when it answered last. */
  isIn (epoch: string): boolean {
    return this.#top?.epoch === epoch
  }

  /** Whether the broker has just told of this position, or of a later one. It may have lost its data since an older answer. */
  knows ({ epoch, offset }: Position, mark: ReadingsMark): boolean {
    return this.#top?.epoch === epoch && this.#top.offset >= offset && this.isFresh(mark)
  }

  /** Whether a position that the broker has not told of is none of this topic, or none any more. Only a reading that began after the join can say this. */
  isLost ({ epoch }: Position, { begun }: ReadingsMark): boolean {
    if (this.#past.has(epoch)) return true
    if (this.#answered <= begun) return false
    if (!this.isIn(epoch)) this.#end(epoch)
    return true
  }

  /** Takes the epoch of the room. What was read before it changed, of another one, is no longer of use. */
  entered (epoch: string): void {
    if (epoch === this.#roomEpoch) return
    if (this.#roomEpoch !== undefined) this.#end(this.#roomEpoch)
    this.#roomEpoch = epoch
    this.#past.delete(epoch)
    this.#outdated = this.#begun
    if (!this.isIn(epoch)) this.#top = undefined
  }

  #end (epoch: string): void {
    if (this.#past.size === mostPast) this.#past.delete(this.#past.values().next().value!)
    this.#past.add(epoch)
  }

  #begin (): void {
    if (this.isUnderWay || this.#retry !== undefined || this.#waiting.size === 0) return
    if (this.#ports.isDown) {
      this.#tryAgain()
      return
    }
    const number = ++this.#begun
    const begunAt = performance.now()
    this.isUnderWay = true
    Promise.resolve(this.#ports.read(new Set(this.#waiting.values()))).then(page => {
      this.isUnderWay = false
      if (page === undefined) {
        this.#tryAgain()
        return
      }
      if (number <= this.#outdated && page.position.epoch !== this.#roomEpoch) {
        this.#begin()
        return
      }
      this.#answered = number
      this.#answeredFrom = begunAt
      this.#top = page.position
      this.#past.delete(page.position.epoch)
      this.#ports.take(page, new Set(this.#waiting.values()))
      const calls = [...this.#waiting.keys()]
      this.#waiting.clear()
      for (const call of calls) call()
    })
  }

  #tryAgain (): void {
    this.#retry = setTimeout(() => {
      this.#retry = undefined
      this.#begin()
    }, retryAfter).unref()
  }
}
