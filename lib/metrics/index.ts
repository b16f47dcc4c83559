import type { MetricsOptions } from '../../types/metrics.ts'
import type { Rooms } from '../../types/rooms.ts'
import { FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_METRICS_REGISTERED } from '../errors.ts'
import type { HubRooms } from '../api/rooms.ts'
import { kInside } from '../symbols.ts'
import { catalogue } from './catalogue.ts'
import { Metric } from './metric.ts'
import { checkOptions } from './options.ts'
import { Collector } from './collector.ts'

export type { MetricsOptions, MetricsRegistry } from '../../types/metrics.ts'

/**
 * Adds the metrics of one registration of the plugin to a Prometheus registry of the host. They are read at each scrape. Fan-outs are timed, and
 * topics counted, from this call on.
 *
 * ```ts
 * const remove = roomsMetrics(app.rooms, { registry })
 * app.addHook('onClose', async () => { remove() })
 * ```
 *
 * @returns a function that removes them from the registry.
 * @throws `FST_ROOMS_INVALID_ARGUMENT`; `FST_ROOMS_METRICS_REGISTERED` if the registry has a metric of the same name, in which case none is added.
 */
export function roomsMetrics<T> (rooms: Rooms<T>, options: MetricsOptions<T>): () => void {
  const inside = (rooms as Partial<HubRooms> | undefined)?.[kInside]
  if (inside === undefined) throw new FST_ROOMS_INVALID_ARGUMENT('rooms', 'app.rooms, of the same copy of fastify-rooms')
  const { hub, registry: { definitions } } = inside
  const { registry, prefix, labels, topics } = checkOptions(options, definitions.map(({ key }) => key))

  const collector = new Collector(rooms, hub, topics)
  const metrics = new Map<string, Metric>()
  for (const [suffix, entry] of Object.entries(catalogue)) {
    if (entry.perTopic === true && topics.length === 0) continue
    const name = prefix + suffix
    if (registry.getSingleMetric(name) !== undefined) throw new FST_ROOMS_METRICS_REGISTERED(name)
    const labelNames = [...Object.keys(labels), ...entry.labelNames]
    metrics.set(name, new Metric(name, { ...entry, labelNames }, () => entry.read(collector.read(), name).map(sample => ({ ...sample, labels: { ...labels, ...sample.labels } }))))
  }
  for (const metric of metrics.values()) registry.registerMetric(metric)
  hub.meters.add(collector)

  return () => {
    hub.meters.delete(collector)
    for (const [name, metric] of metrics) {
      // The registry may have been cleared meanwhile, and have another metric of that name.
      if (registry.getSingleMetric(name) === metric) registry.removeSingleMetric(name)
    }
  }
}
