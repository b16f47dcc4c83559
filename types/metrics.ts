import type { Topics } from './topics.ts'

/**
 * What is used of a registry: that of `prom-client`, of `@platformatic/prom-client`, or anything of their shape. The host brings it;
 * neither is a dependency.
 */
export interface MetricsRegistry {
  registerMetric (metric: any): void
  getSingleMetric (name: string): unknown
  removeSingleMetric (name: string): void
}

export interface MetricsOptions<T = Topics> {
  /** Where the metrics go: `new Registry()`, or the `register` of the whole process. */
  registry: MetricsRegistry
  /** What every name begins with. Default `fastify_rooms_`. Two registrations of the plugin that share a registry need two. */
  prefix?: string
  /** Labels that every sample carries. Default: none. */
  labels?: Readonly<Record<string, string>>
  /**
   * Keys of the topic map that get metrics of their own, `topic_members` and `topic_broadcasts_total`, with the key as the value of the label
   * `topic`; a family is one value. Default: none, since topics that users make up would be values without end.
   */
  topics?: readonly (keyof T & string)[]
}
