import type { Rooms } from '../../types/index.ts'
import type { MetricsHub } from '../hub/hub-api.ts'
import type { Meter } from '../hub/meter.ts'
import type { Reading } from './catalogue.ts'
import { Histogram } from './histogram.ts'

/** Upper bounds of buckets, in seconds. A room of 10 takes less than the first; one of 10,000 falls into the middle ones. */
const fanOutBounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]

/** Collects the values of the metrics: the counters of the hub, and fan-out times and topic counts, which are measured for metrics only. */
export class Collector implements Meter {
  readonly #rooms: Rooms<any>
  readonly #hub: MetricsHub
  readonly #fanOuts = new Histogram(fanOutBounds)
  /** Broadcasts by key of the topic map, for the topics in the options. */
  readonly #broadcasts: Map<string, number>
  #reading: Reading | undefined

  constructor (rooms: Rooms<any>, hub: MetricsHub, topics: readonly string[]) {
    this.#rooms = rooms
    this.#hub = hub
    this.#broadcasts = new Map(topics.map(key => [key, 0]))
  }

  fannedOut (milliseconds: number): void {
    this.#fanOuts.observe(milliseconds / 1_000)
  }

  published (topicKey: string): void {
    const count = this.#broadcasts.get(topicKey)
    if (count !== undefined) this.#broadcasts.set(topicKey, count + 1)
  }

  /** Returns the values of one scrape. They are read once for all metrics, which a registry collects in one turn, so that they are consistent. */
  read (): Reading {
    if (this.#reading === undefined) {
      this.#reading = {
        ...this.#rooms.stats(),
        health: this.#rooms.health(),
        fanOuts: this.#fanOuts,
        topicMembers: this.#members(),
        topicBroadcasts: this.#broadcasts
      }
      queueMicrotask(() => { this.#reading = undefined })
    }
    return this.#reading
  }

  #members (): Map<string, number> {
    const counts = new Map([...this.#broadcasts.keys()].map(key => [key, 0]))
    if (counts.size === 0) return counts
    for (const { definition: { key }, size } of this.#hub.allRooms()) {
      const count = counts.get(key)
      if (count !== undefined) counts.set(key, count + size)
    }
    return counts
  }
}
