export type Labels = Record<string, string | number>

/** One number. `metricName` stands where it is not the metric's own: the parts of a histogram. */
export interface Sample { value: number, labels: Labels, metricName?: string }

export interface MetricDescription {
  type: 'gauge' | 'counter' | 'histogram'
  help: string
  /** How prom-client makes one value of those of several workers of a cluster. */
  aggregator: 'sum' | 'min'
  /** Labels of its own. */
  labelNames: readonly string[]
}

/** A metric as a registry of prom-client wants it: it is asked for its numbers when somebody scrapes. */
export class Metric {
  /** Not readonly: for OpenMetrics a registry takes `_total` out of the name of a counter, and adds it to each sample. */
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

  /** `registry.resetMetrics()`: the numbers are the hub's, and not the registry's to set back. */
  reset (): void {}
}
