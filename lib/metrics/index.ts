import type { MetricsOptions } from '../../types/metrics.ts'
import type { Rooms } from '../../types/rooms.ts'
import { FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_METRICS_REGISTERED } from '../errors.ts'
import type { HubRooms } from '../api/rooms.ts'
import { kInside } from '../symbols.ts'
import { catalogue } from './catalogue.ts'
import { Metric } from './metric.ts'
import { checkOptions } from './options.ts'
import { Source } from './source.ts'

export type { MetricsOptions, MetricsRegistry } from '../../types/metrics.ts'

/**
 * Puts the numbers of one registration of the plugin into a Prometheus registry of the host. They are read when somebody scrapes; fan-outs are
 * timed, and topics counted, from here on.
 *
 * ```ts
 * const remove = roomsMetrics(app.rooms, { registry })
 * app.addHook('onClose', async () => { remove() })
 * ```
 *
 * @returns a function that takes them out of the registry again.
 * @throws FST_ROOMS_INVALID_ARGUMENT; FST_ROOMS_METRICS_REGISTERED where the registry has a metric of the same name, and then none is added.
 */
export function roomsMetrics<T> (rooms: Rooms<T>, options: MetricsOptions<T>): () => void {
  const inside = (rooms as Partial<HubRooms> | undefined)?.[kInside]
  if (inside === undefined) throw new FST_ROOMS_INVALID_ARGUMENT('rooms', 'app.rooms, of the same copy of fastify-rooms')
  const { hub, registry: { definitions } } = inside
  const { registry, prefix, labels, topics } = checkOptions(options, definitions.map(({ key }) => key))

  const source = new Source(rooms, hub, topics)
  const metrics = new Map<string, Metric>()
  for (const [suffix, entry] of Object.entries(catalogue)) {
    if (entry.perTopic === true && topics.length === 0) continue
    const name = prefix + suffix
    if (registry.getSingleMetric(name) !== undefined) throw new FST_ROOMS_METRICS_REGISTERED(name)
    const labelNames = [...Object.keys(labels), ...entry.labelNames]
    metrics.set(name, new Metric(name, { ...entry, labelNames }, () => entry.read(source.read(), name).map(sample => ({ ...sample, labels: { ...labels, ...sample.labels } }))))
  }
  for (const metric of metrics.values()) registry.registerMetric(metric)
  hub.meters.add(source)

  return () => {
    hub.meters.delete(source)
    for (const [name, metric] of metrics) {
      // The registry may have been cleared meanwhile, and somebody else's be there by that name.
      if (registry.getSingleMetric(name) === metric) registry.removeSingleMetric(name)
    }
  }
}
