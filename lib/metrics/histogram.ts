import type { Sample } from './metric.ts'

/** A histogram of observed values. */
export class Histogram {
  readonly #bounds: readonly number[]
  /** Values by bucket, each counted in the first bound that it does not exceed; the last count is for values above all bounds. */
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

  /** Returns the samples in the form of Prometheus: cumulative buckets, the sum, the count. */
  samples (name: string): Sample[] {
    let count = 0
    const buckets = this.#counts.map((own, index) => {
      count += own
      return { metricName: `${name}_bucket`, labels: { le: this.#bounds[index] ?? '+Inf' }, value: count }
    })
    return [...buckets, { metricName: `${name}_sum`, labels: {}, value: this.#sum }, { metricName: `${name}_count`, labels: {}, value: count }]
  }
}
