import type { MetricsOptions, MetricsRegistry } from '../../types/metrics.ts'
import { FST_ROOMS_INVALID_ARGUMENT } from '../errors.ts'
import { ownLabels } from './catalogue.ts'

const namePattern = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
/** Label names. Those that begin with two underscores are reserved by Prometheus. */
const labelPattern = /^(?!__)[a-zA-Z_][a-zA-Z0-9_]*$/

function isRegistry (registry: Partial<MetricsRegistry> | null | undefined): registry is MetricsRegistry {
  return typeof registry?.registerMetric === 'function' && typeof registry.getSingleMetric === 'function' && typeof registry.removeSingleMetric === 'function'
}

/**
 * Returns the options with their defaults.
 * @param keys - the keys of the topic map
 * @throws FST_ROOMS_INVALID_ARGUMENT, which names the option and what it takes
 */
export function checkOptions (given: Partial<MetricsOptions<any>> | undefined, keys: readonly string[]): Required<MetricsOptions<any>> {
  const { registry, prefix = 'fastify_rooms_', labels = {}, topics = [] } = given ?? {}
  if (!isRegistry(registry)) throw new FST_ROOMS_INVALID_ARGUMENT('registry', 'a registry of prom-client, or one of the same shape')
  if (typeof prefix !== 'string' || !namePattern.test(prefix)) throw new FST_ROOMS_INVALID_ARGUMENT('prefix', 'the start of a metric name: letters, digits (not first), _ and :')
  for (const [name, value] of Object.entries(labels)) {
    if (!labelPattern.test(name) || ownLabels.has(name) || typeof value !== 'string') {
      throw new FST_ROOMS_INVALID_ARGUMENT('labels', `strings by label name; ${[...ownLabels].join(', ')} are reserved`)
    }
  }
  if (!Array.isArray(topics) || !topics.every(key => keys.includes(key))) throw new FST_ROOMS_INVALID_ARGUMENT('topics', `an array of keys of the topic map: ${keys.join(', ')}`)
  return { registry, prefix, labels, topics }
}
