import type { PresenceLink } from './link.ts'

/** Milliseconds between two reports of this node, and for which an answer of the broker is used. So a number is at most 2 s old. */
const reportEvery = 1_000
const cachedFor = 1_000
/** Topics whose numbers are cached at a time. */
const mostCached = 10_000

interface Batch { readonly topics: string[], readonly answer: Promise<number[]> }

/** The numbers of members of topics over all nodes: those of this node are reported, those of all are read. */
export class SharedCounts {
  readonly #link: Pick<PresenceLink, 'report' | 'counts' | 'read'>
  readonly #sizeOf: (topic: string) => number
  /** Topics whose number has changed since the last report. */
  readonly #changed = new Set<string>()
  #reportedAt = -Infinity
  #report: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #isClosed = false
  readonly #cache = new Map<string, { readonly at: number, readonly count: Promise<number> }>()
  /** The topics that are asked for in this turn of the event loop. */
  #batch: Batch | undefined

  /** @param sizeOf - the members of a topic on this node */
  constructor (link: Pick<PresenceLink, 'report' | 'counts' | 'read'>, sizeOf: (topic: string) => number) {
    this.#link = link
    this.#sizeOf = sizeOf
  }

  /** Notes that the number of members of a topic on this node may have changed. */
  changed (topic: string): void {
    this.#changed.add(topic)
    this.#schedule()
  }

  /**
   * Returns the number of members of a topic on all nodes.
   * @param isNoted - the broker notes the members themselves
   * @throws FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_FAULT
   */
  of (topic: string, isNoted: boolean): Promise<number> {
    const at = performance.now()
    const known = this.#cache.get(topic)
    if (known !== undefined && at - known.at < cachedFor) return known.count
    if (this.#cache.size >= mostCached) this.#cache.clear()
    const count = isNoted ? this.#link.read(topic, 0).then(({ count }) => count) : this.#ask(topic)
    const entry = { at, count }
    this.#cache.set(topic, entry)
    count.catch(() => { if (this.#cache.get(topic) === entry) this.#cache.delete(topic) })
    return count
  }

  /** Reports the remaining changes, and no later ones. */
  async close (): Promise<void> {
    clearTimeout(this.#timer)
    this.#isClosed = true
    await this.#report
    if (this.#changed.size > 0) await this.#work()
  }

  #ask (topic: string): Promise<number> {
    if (this.#batch === undefined) {
      const topics: string[] = []
      const answer = new Promise<void>(resolve => { setImmediate(resolve) }).then(() => {
        this.#batch = undefined
        return this.#link.counts(topics)
      })
      this.#batch = { topics, answer }
    }
    const { topics, answer } = this.#batch
    const index = topics.push(topic) - 1
    return answer.then(counts => counts[index]!)
  }

  #schedule (): void {
    if (this.#isClosed || this.#timer !== undefined || this.#report !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#report = this.#work().finally(() => {
        this.#report = undefined
        this.#reportedAt = performance.now()
        if (this.#changed.size > 0) this.#schedule()
      })
    }, Math.max(0, this.#reportedAt + reportEvery - performance.now())).unref()
  }

  async #work (): Promise<void> {
    const counts = new Map(Array.from(this.#changed, topic => [topic, this.#sizeOf(topic)]))
    this.#changed.clear()
    try {
      await this.#link.report(counts)
    } catch {
      for (const topic of counts.keys()) this.#changed.add(topic) // reported again
    }
  }
}
