import type { Topics } from './topics.ts'

/**
 * The methods of a registry that are called: of `prom-client`, `@platformatic/prom-client`, or an object of the same shape. The host provides it;
 * neither package is a dependency.
 */
export interface MetricsRegistry {
  registerMetric (metric: any): void
  getSingleMetric (name: string): unknown
  removeSingleMetric (name: string): void
}

export interface MetricsOptions<T = Topics> {
  /** The registry for the metrics: `new Registry()`, or the `register` of the process. */
  registry: MetricsRegistry
  /** The prefix of every metric name. Default `fastify_rooms_`. Two registrations of the plugin that share a registry need different ones. */
  prefix?: string
  /** Labels of every sample. Default: none. */
  labels?: Readonly<Record<string, string>>
  /**
   * Keys of the topic map with metrics of their own, `topic_members` and `topic_broadcasts_total`; the key is the value of the label `topic`, and a
   * family is one value. Default: none, because each value is a time series.
   */
  topics?: readonly (keyof T & string)[]
}
