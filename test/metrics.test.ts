import * as platformatic from '@platformatic/prom-client'
import * as original from 'prom-client'
import t, { type Test } from 'tap'
import { roomsMetrics } from '../lib/metrics/index.ts'
import { catalogue } from '../lib/metrics/catalogue.ts'
import { Histogram } from '../lib/metrics/histogram.ts'
import { Collector } from '../lib/metrics/collector.ts'
import { kInside } from '../lib/symbols.ts'
import { connect, createRooms, join, listen, until, type AnyOptions } from './helpers/app.ts'
import { parseMetrics, type Scrape } from './helpers/prometheus.ts'

const clients = { 'prom-client': original, '@platformatic/prom-client': platformatic as unknown as typeof original }

async function create (t: Test, options: AnyOptions = {}) {
  const app = await createRooms(t, {
    identify: request => typeof request.headers['x-user'] === 'string' ? { user: request.headers['x-user'] } : null,
    topics: { news: {}, 'chat:*': { publish: true } },
    ...options
  })
  const url = await listen(app)
  const as = (user: string, topic = 'news') => join(t, `${url}/rooms/${topic}`, { headers: { 'x-user': user } })
  return { app, rooms: app.rooms as any, url, as }
}

const prefixed = (name: string): string => `fastify_rooms_${name}`
const total = (scrape: Scrape, name: string, labels = ''): number | undefined => scrape.samples.get(prefixed(name) + labels)

for (const [name, client] of Object.entries(clients)) {
  t.test(`${name}: a scrape has the values of stats, with type and help`, async t => {
    const { rooms, as, url } = await create(t)
    const registry = new client.Registry()
    roomsMetrics(rooms, { registry })
    const [anna, ben] = [await as('anna'), await as('ben', 'chat:1')]
    await as('cleo', 'chat:2')
    await rooms.broadcast('news', 1)
    await rooms.sendToUser('anna', 2)
    await ben.ask({ type: 'message', data: 'hello' })
    ben.send('no JSON')
    await ben.next('error')
    await anna.next('direct')
    const gone = await connect(t, `${url}/rooms/chat:2`)
    await gone.close()
    await until(() => rooms.stats().connections === 3 && rooms.stats().queuedBytes === 0)

    const scrape = parseMetrics(await registry.metrics())
    const stats = rooms.stats()
    t.match(stats, { connections: 3, topics: 3, members: 3, joined: 4, broadcasts: 2, deliveries: 2, directs: 1, received: 2, invalid: 1 })
    t.same(Object.fromEntries([...scrape.samples].filter(([name]) => !/fan_out|refusals|broker_state|broker_outcomes/.test(name))), Object.fromEntries(Object.entries({
      connections: 3,
      members: 3,
      topics: 3,
      queued_bytes: 0,
      working: 0,
      lagging: 0,
      publishing: 0,
      waiting: 0,
      streams: 0,
      history_topics: 0,
      history_messages: 0,
      history_bytes: 0,
      ready: 1,
      broker_up: 1,
      broker_lag_seconds: 0,
      broker_queued_publications: 0,
      broker_queued_bytes: 0,
      broker_topics: 0,
      joins_total: 4,
      recovered_joins_total: 0,
      unrecovered_joins_total: 0,
      replayed_messages_total: 0,
      history_evictions_total: 0,
      broadcasts_total: 2,
      duplicates_total: 0,
      deliveries_total: 2,
      directs_total: 1,
      received_frames_total: 2,
      received_bytes_total: stats.receivedBytes,
      pauses_total: 0,
      sent_bytes_total: stats.sentBytes,
      invalid_frames_total: 1,
      refused_joins_total: 0,
      slow_closes_total: 0,
      dropped_messages_total: 0,
      conflated_messages_total: 0,
      silent_closes_total: 0,
      expired_closes_total: 0,
      errors_total: 0,
      unanswered_publications_total: 0,
      repeated_entries_total: 0,
      losses_total: 0,
      broker_faults_total: 0,
      unreadable_node_messages_total: 0,
      broker_outages_total: 0,
      broker_entries_total: 2,
      broker_reconnects_total: 0,
      broker_resubscribed_topics_total: 0,
      broker_missed_probes_total: 0,
      broker_mended_holes_total: 0,
      broker_lost_holes_total: 0,
      broker_resets_total: 0,
      broker_fenced_calls_total: 0,
      broker_dropped_entries_total: 0,
      broker_unreadable_entries_total: 0
    }).map(([name, value]) => [prefixed(name), value])))
    t.same([...scrape.samples.keys()].filter(name => name.includes('refusals')), Object.keys(stats.refusals).map(reason => `fastify_rooms_refusals_total{reason="${reason}"}`), 'each reason exists from the start')
    const labelled = (name: string): [string, number][] => [...scrape.samples].filter(([sample]) => sample.startsWith(prefixed(`${name}{`))).map(([sample, value]) => [sample.split('"')[1]!, value])
    t.same(labelled('broker_state'), [['up', 1], ['degraded', 0], ['down', 0]])
    t.same(labelled('broker_outcomes_total'), [['ok', 2], ['duplicate', 0], ['stale', 0], ['ended', 0], ['failed', 0], ['unknown', 0]])
    t.ok(total(scrape, 'broker_state_seconds')! > 0)
    t.equal(total(scrape, 'refusals_total', '{reason="badFrames"}'), 1)
    t.equal(total(scrape, 'refusals_total', '{reason="origin"}'), 0)
    for (const [name, { type, perTopic }] of Object.entries(catalogue)) {
      if (perTopic === true) continue
      t.equal(scrape.types.get(prefixed(name)), type, name)
      t.ok(scrape.help.get(prefixed(name)), name)
    }
  })

  t.test(`${name}: gauges go down again, and flags show that the app is draining`, async t => {
    const { rooms, as } = await create(t)
    const registry = new client.Registry()
    roomsMetrics(rooms, { registry })
    await as('anna')
    await rooms.drain()
    const scrape = parseMetrics(await registry.metrics())
    for (const [name, value] of Object.entries({ connections: 0, members: 0, topics: 0, ready: 0, broker_up: 1, joins_total: 1 })) t.equal(total(scrape, name), value, name)
  })

  t.test(`${name}: in OpenMetrics only counters end in _total, in every scrape`, async t => {
    const { rooms } = await create(t)
    const registry = new client.Registry<original.OpenMetricsContentType>()
    registry.setContentType(client.Registry.OPENMETRICS_CONTENT_TYPE)
    const remove = roomsMetrics(rooms, { registry })
    for (let i = 0; i < 2; i++) {
      const text = await registry.metrics()
      t.match(text, /\n# EOF\n$/)
      const { types, samples } = parseMetrics(text.replace('# EOF\n', ''))
      t.equal(types.get('fastify_rooms_broadcasts'), 'counter')
      t.equal(samples.get('fastify_rooms_broadcasts_total'), 0)
      t.equal(samples.get('fastify_rooms_connections'), 0)
      t.equal(samples.get('fastify_rooms_fan_out_seconds_count'), 0)
      t.notMatch(text, '_total_total')
    }
    remove()
    t.equal(await registry.metrics(), '\n# EOF\n', 'all metrics are unregistered by the names with which they were registered')
  })

  t.test(`${name}: metrics work as JSON, aggregated by a cluster, and merged`, async t => {
    const { rooms, as } = await create(t)
    const workers = [new client.Registry(), new client.Registry()]
    for (const registry of workers) roomsMetrics(rooms, { registry, topics: ['news'], labels: { app: 'shop' } })
    await as('anna')
    await rooms.broadcast('news', 1)
    await new Promise(resolve => setImmediate(resolve))
    const json = await Promise.all(workers.map(registry => registry.getMetricsAsJSON()))
    t.match(json[0]!.find(({ name }) => name === 'fastify_rooms_connections'), { type: 'gauge', aggregator: 'sum', values: [{ value: 1, labels: { app: 'shop' } }] })

    // JSON crosses the process boundary as text.
    const sum = parseMetrics(await client.AggregatorRegistry.aggregate(JSON.parse(JSON.stringify(json))).metrics())
    const read = (name: string, labels = '{app="shop"}'): number | undefined => total(sum, name, labels)
    t.equal(read('members'), 2)
    t.equal(read('broadcasts_total'), 2)
    t.equal(read('ready'), 1, 'a flag is 1 if it is 1 in all workers')
    t.equal(read('topic_members', '{app="shop",topic="news"}'), 2)
    t.equal(read('fan_out_seconds_count'), 2)
    t.equal(read('fan_out_seconds_bucket', '{app="shop",le="+Inf"}'), 2)

    const other = new client.Registry()
    const gauge = new client.Gauge({ name: 'other', help: 'of the host', registers: [other] })
    gauge.set(7)
    const merged = parseMetrics(await client.Registry.merge([workers[0]!, other]).metrics())
    t.equal(merged.samples.get('other'), 7)
    t.equal(total(merged, 'connections', '{app="shop"}'), 1)
  })

  t.test(`${name}: default labels of the registry are added, and a reset changes nothing`, async t => {
    const { rooms, as } = await create(t)
    const registry = new client.Registry()
    registry.setDefaultLabels({ region: 'north' })
    roomsMetrics(rooms, { registry })
    await as('anna')
    await rooms.broadcast('news', 1)
    await new Promise(resolve => setImmediate(resolve))
    // One of them is a time that goes on.
    const read = async (): Promise<string> => (await registry.metrics()).replace(/^fastify_rooms_broker_state_seconds.*$/m, '')
    const before = await read()
    registry.resetMetrics()
    t.equal(await read(), before)
    t.match(before, 'fastify_rooms_broadcasts_total{region="north"} 1')
    t.match(await registry.getMetricsAsJSON(), [{ name: 'fastify_rooms_connections', values: [{ labels: { region: 'north' }, value: 1 }] }])
  })

  t.test(`${name}: registering twice is refused and adds nothing; after removal the metrics can be registered again`, async t => {
    const { rooms } = await create(t)
    const registry = new client.Registry()
    const remove = roomsMetrics(rooms, { registry })
    const names = registry.getMetricsAsArray().length
    t.throws(() => roomsMetrics(rooms, { registry }), { code: 'FST_ROOMS_METRICS_REGISTERED', message: /fastify_rooms_connections/ })
    t.equal(registry.getMetricsAsArray().length, names)
    const removeOther = roomsMetrics(rooms, { registry, prefix: 'other_' })
    t.equal(registry.getMetricsAsArray().length, 2 * names)
    remove()
    remove()
    t.equal(registry.getSingleMetric('fastify_rooms_connections'), undefined)
    t.match(await registry.getSingleMetricAsString('other_connections'), 'other_connections 0')
    roomsMetrics(rooms, { registry })
    removeOther()
    t.equal(registry.getMetricsAsArray().length, names)
  })

  t.test(`${name}: after registry.clear(), removal keeps a metric of the host with the same name`, async t => {
    const { rooms } = await create(t)
    const registry = new client.Registry()
    const remove = roomsMetrics(rooms, { registry })
    registry.clear()
    t.equal((await registry.metrics()).trim(), '')
    const own = new client.Gauge({ name: 'fastify_rooms_connections', help: 'of the host', registers: [registry] })
    remove()
    t.equal(registry.getSingleMetric('fastify_rooms_connections'), own)
  })
}

t.test('every number of stats is a metric', async t => {
  const read = new Set<PropertyKey>()
  const { rooms } = await create(t)
  const watch = <T extends object>(target: T, path = ''): T => new Proxy(target, {
    get (target, name) {
      read.add(path + String(name))
      const value = target[name as keyof typeof target]
      return name === 'broker' ? watch(value as object, 'broker.') : value
    }
  })
  const watched = watch(new Collector(rooms, rooms[kInside].hub, []).read())
  for (const [name, entry] of Object.entries(catalogue)) entry.read(watched, name)
  const { broker } = rooms.stats()
  t.same([...Object.keys(rooms.stats()), ...Object.keys(broker).map(name => `broker.${name}`)].filter(name => !read.has(name)), [])
})

t.test('labels contain no topic unless the host names topic keys', async t => {
  const { rooms, as } = await create(t)
  const [none, named] = [new original.Registry(), new original.Registry()]
  roomsMetrics(rooms, { registry: none })
  roomsMetrics(rooms, { registry: named, topics: ['chat:*'] })
  await as('anna', 'chat:1')
  await as('ben', 'chat:2')
  await as('cleo', 'news')
  await rooms.broadcast('chat:1', 1)
  await rooms.broadcast('chat:3', 1)
  await rooms.broadcast('news', 1)
  t.notMatch(await none.metrics(), /topic=|topic_/)
  const text = await named.metrics()
  t.match(text, 'fastify_rooms_topic_members{topic="chat:*"} 2')
  t.match(text, 'fastify_rooms_topic_broadcasts_total{topic="chat:*"} 2')
  t.notMatch(text, /news|chat:\d/)
})

t.test('metrics of an empty topic are zero', async t => {
  const { rooms } = await create(t)
  const registry = new original.Registry()
  roomsMetrics(rooms, { registry, topics: ['news', 'chat:*'] })
  const { samples } = parseMetrics(await registry.metrics())
  for (const topic of ['news', 'chat:*']) {
    t.equal(samples.get(`fastify_rooms_topic_members{topic="${topic}"}`), 0)
    t.equal(samples.get(`fastify_rooms_topic_broadcasts_total{topic="${topic}"}`), 0)
  }
})

t.test('the open lobby has one key', async t => {
  const { rooms, as } = await create(t, { topics: undefined as never })
  const registry = new original.Registry()
  roomsMetrics(rooms, { registry, topics: ['*'] })
  await as('anna', 'anything')
  t.match(await registry.metrics(), 'fastify_rooms_topic_members{topic="*"} 1')
})

t.test('fan-outs are timed, once for each room and turn of the event loop', async t => {
  const { rooms, as } = await create(t)
  const registry = new original.Registry()
  const remove = roomsMetrics(rooms, { registry })
  await as('anna')
  await as('ben')
  await as('cleo', 'chat:1')
  const turn = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) rooms.broadcast('news', i)
    rooms.broadcast('chat:1', 1)
    await new Promise(resolve => setImmediate(resolve))
  }
  await turn()
  await turn()
  await rooms.kick({ topic: 'news' })
  const { samples } = parseMetrics(await registry.metrics())
  t.equal(samples.get('fastify_rooms_fan_out_seconds_count'), 4, 'a room without frames is not timed')
  t.equal(samples.get('fastify_rooms_fan_out_seconds_bucket{le="+Inf"}'), 4)
  const sum = samples.get('fastify_rooms_fan_out_seconds_sum')!
  t.ok(sum > 0 && sum < 60, `${sum} s`)
  const metric = registry.getSingleMetric('fastify_rooms_fan_out_seconds')!
  remove()
  await turn()
  t.match((await metric.get()).values.at(-1), { metricName: 'fastify_rooms_fan_out_seconds_count', value: 4 }, 'nothing is timed after removal')
})

t.test('one scrape reads stats once', async t => {
  const { rooms } = await create(t)
  const registry = new original.Registry()
  const { stats } = rooms
  let reads = 0
  rooms.stats = () => {
    reads++
    return stats.call(rooms)
  }
  roomsMetrics(rooms, { registry })
  await registry.metrics()
  t.equal(reads, 1)
  await registry.getMetricsAsJSON()
  t.equal(reads, 2)
})

t.test('an invalid argument is refused by name', async t => {
  const { rooms } = await create(t)
  const registry = new original.Registry()
  const loose = roomsMetrics as (rooms?: unknown, options?: unknown) => unknown
  const refused = (args: unknown[], name: string): void => {
    t.throws(() => loose(...args), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: new RegExp(`^"${name}" takes`) }, JSON.stringify(args[1]) ?? name)
  }
  refused([], 'rooms')
  refused([{}, { registry }], 'rooms')
  refused([rooms], 'registry')
  for (const wrong of [null, {}, { registerMetric () {} }, { registerMetric () {}, getSingleMetric () {} }, 'registry']) refused([rooms, { registry: wrong }], 'registry')
  for (const prefix of ['', '1st_', 'with space', null, 5]) refused([rooms, { registry, prefix }], 'prefix')
  for (const labels of [{ le: 'x' }, { topic: 'x' }, { __name__: 'x' }, { 'a-b': 'x' }, { app: 5 }]) refused([rooms, { registry, labels }], 'labels')
  for (const topics of ['news', ['weather'], ['chat:1'], {}, [5]]) refused([rooms, { registry, topics }], 'topics')
  t.throws(() => loose(rooms, { registry, topics: ['weather'] }), { message: '"topics" takes an array of keys of the topic map: news, chat:*' })
  t.same(registry.getMetricsAsArray(), [])
})

t.test('a histogram counts a value in each bucket that includes it', async t => {
  const histogram = new Histogram([1, 2, 5])
  for (const value of [0, 1, 1.5, 2, 5, 5.1, 100]) histogram.observe(value)
  t.same(histogram.samples('x'), [
    { metricName: 'x_bucket', labels: { le: 1 }, value: 2 },
    { metricName: 'x_bucket', labels: { le: 2 }, value: 4 },
    { metricName: 'x_bucket', labels: { le: 5 }, value: 5 },
    { metricName: 'x_bucket', labels: { le: '+Inf' }, value: 7 },
    { metricName: 'x_sum', labels: {}, value: 114.6 },
    { metricName: 'x_count', labels: {}, value: 7 }
  ])
})

t.test('the plugin\'s histogram is written like one of the registry', async t => {
  for (const client of Object.values(clients)) {
    const registry = new client.Registry()
    const theirs = new client.Histogram({ name: 'x', help: 'h', buckets: [0.1, 1], registers: [registry] })
    const text = async (): Promise<string> => (await registry.metrics()).trim()
    const ours = new Histogram([0.1, 1])
    for (const value of [0.05, 0.5, 0.25, 5]) {
      theirs.observe(value)
      ours.observe(value)
    }
    const expected = await text()
    registry.clear()
    registry.registerMetric({ name: 'x', help: 'h', type: 'histogram', get: () => ({ name: 'x', help: 'h', type: 'histogram', values: ours.samples('x') }), reset () {} } as never)
    t.equal(await text(), expected)
  }
})
