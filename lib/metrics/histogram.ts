import type { Sample } from './metric.ts'

/** How often a value was at most each of some bounds. */
export class Histogram {
  readonly #bounds: readonly number[]
  /** By bound, each value in the first that it fits under; the last is for what is above them all. */
  readonly #counts: number[]
  #sum = 0

  /** @param bounds - ascending */
  constructor (bounds: readonly number[]) {
    this.#bounds = bounds
    this.#counts = [...bounds, Infinity].map(() => 0)
  }

  observe (value: number): void {
    const index = this.#bounds.findIndex(bound => value <= bound)
    this.#counts[index === -1 ? this.#bounds.length : index]!++
    this.#sum += value
  }

  /** As Prometheus has it: buckets that include those below them, the sum, the count. */
  samples (name: string): Sample[] {
    let count = 0
    const buckets = this.#counts.map((own, index) => {
      count += own
      return { metricName: `${name}_bucket`, labels: { le: this.#bounds[index] ?? '+Inf' }, value: count }
    })
    return [...buckets, { metricName: `${name}_sum`, labels: {}, value: this.#sum }, { metricName: `${name}_count`, labels: {}, value: count }]
  }
}
