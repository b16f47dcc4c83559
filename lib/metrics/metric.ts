export type Labels = Record<string, string | number>

/** One value. `metricName` is set if it differs from the metric's name, in the parts of a histogram. */
export interface Sample { value: number, labels: Labels, metricName?: string }

export interface MetricDescription {
  type: 'gauge' | 'counter' | 'histogram'
  help: string
  /** How prom-client combines the values of the workers of a cluster. */
  aggregator: 'sum' | 'min' | 'max'
  /** Names of the labels of its samples. */
  labelNames: readonly string[]
}

/** A metric in the form that registries of prom-client take. Its values are read at each scrape. */
export class Metric {
  /** Not readonly, because for OpenMetrics a registry removes `_total` from the name of a counter and adds it to each sample. */
  name: string
  readonly type: MetricDescription['type']
  readonly help: string
  readonly aggregator: MetricDescription['aggregator']
  readonly labelNames: readonly string[]
  readonly #read: () => Sample[]

  constructor (name: string, { type, help, aggregator, labelNames }: MetricDescription, read: () => Sample[]) {
    this.name = name
    this.type = type
    this.help = help
    this.aggregator = aggregator
    this.labelNames = labelNames
    this.#read = read
  }

  get (): MetricDescription & { name: string, values: Sample[] } {
    const { name, type, help, aggregator, labelNames } = this
    return { name, type, help, aggregator, labelNames, values: this.#read() }
  }

  /** Called by `registry.resetMetrics()`. Does nothing, because the counters belong to the hub. */
  reset (): void {}
}
