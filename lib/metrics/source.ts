import type { Rooms } from '../../types/index.ts'
import type { MetricsHub } from '../hub/hub-api.ts'
import type { Meter } from '../hub/meter.ts'
import type { Reading } from './catalogue.ts'
import { Histogram } from './histogram.ts'

/** Seconds: a room of ten is written to in less than the first, one of ten thousand in some of the middle ones. */
const fanOutBounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1]

/** Where the numbers come from: what the hub counts anyway, and what is measured for metrics alone. */
export class Source implements Meter {
  readonly #rooms: Rooms<any>
  readonly #hub: MetricsHub
  readonly #fanOuts = new Histogram(fanOutBounds)
  /** By key of the topic map, those that were asked for. */
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

  /** A registry asks all metrics in one go: they are read once for all of them, and so they fit together. */
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
