import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import fastifyRedis from '@fastify/redis'
import fastifyRooms from '../../lib/index.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import { Redis } from 'ioredis'
import { Registry } from 'prom-client'
import { roomsMetrics } from '../../lib/metrics/index.ts'
import { startProxy } from '../client/proxy.ts'
import { createApp, join, listen, until, type LogLine } from '../helpers/app.ts'
import { parseMetrics } from '../helpers/prometheus.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

const topics = { 'chat:*': { publish: true, history: true }, 'plain:*': { publish: true }, 'values:*': { history: { latest: true } } } as const

async function startApp (t: Test, port: number, more: object = {}, logs: LogLine[] = []): Promise<{ app: FastifyInstance, host: string }> {
  const app = createApp(t, {}, logs)
  await app.register(fastifyRedis, { host: '127.0.0.1', port })
  app.redis.on('error', () => {}) // ioredis would write it to the console
  await app.register(fastifyRooms as any, { prefix: '/rooms', topics, broker: redisBroker({ client: app.redis, heartbeat: 500 }), ...more })
  return { app, host: await listen(app) }
}

t.test('two apps over one Redis', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const apps = [await startApp(t, server.port), await startApp(t, server.port)]
  const [a, b] = apps as [typeof apps[number], typeof apps[number]]

  t.test('members of both get each message once, in one order, and resume on the other one', async t => {
    const members = [await join(t, `${a.host}/rooms/chat:1`), await join(t, `${b.host}/rooms/chat:1`)]
    const [first, second] = members as [typeof members[number], typeof members[number]]
    const results = await Promise.all(Array.from({ length: 40 }, (_, i) => apps[i % 2]!.app.rooms.broadcast('chat:1' as never, i as never)))
    t.ok(results.every(({ published }) => published))
    const read = async (member: typeof first, count: number): Promise<{ id: string, data: unknown }[]> => {
      const frames = []
      while (frames.length < count) frames.push(await member.next('message'))
      return frames as never
    }
    const [seen, others] = [await read(first, 40), await read(second, 40)]
    t.same(seen.map(({ id, data }) => [id, data]), others.map(({ id, data }) => [id, data]))
    t.equal(new Set(seen.map(({ data }) => data)).size, 40)

    first.socket.close()
    await b.app.rooms.broadcast('chat:1' as never, 40 as never)
    const back = await join(t, `${b.host}/rooms/chat:1?since=${seen[29]!.id}`)
    t.equal(back.hello.recovered, true)
    t.same((await read(back, 11)).map(({ data }) => data), [...seen.slice(30).map(({ data }) => data), 40])
  })

  t.test('a topic without history reaches the members of both', async t => {
    const members = [await join(t, `${a.host}/rooms/plain:1`), await join(t, `${b.host}/rooms/plain:1`)]
    const { published, local } = await a.app.rooms.broadcast('plain:1' as never, 'hi' as never)
    t.same([published, local], [true, 1])
    for (const member of members) t.match(await member.next('message'), { data: 'hi' })
  })

  t.test('the client of the host is not closed', async t => {
    await a.app.rooms.broadcast('chat:2' as never, 1 as never)
    t.equal(await a.app.redis.ping(), 'PONG')
    t.equal(a.app.redis.listenerCount('messageBuffer') + a.app.redis.listenerCount('end'), 0)
  })

  t.test('a member that joins gets the newest values, whichever node they came from', async t => {
    const [a, b] = [await startApp(t, server.port), await startApp(t, server.port)]
    for (const [{ app }, data, key] of [[a, 1, 'x'], [b, 2, 'y'], [a, 3, 'x']] as const) await app.rooms.broadcast('values:1' as never, data as never, { key } as never)
    const member = await join(t, `${b.host}/rooms/values:1`)
    t.match([await member.next('message'), await member.next('message')], [{ data: 2 }, { data: 3 }])
  })

  t.test('an operator sees an outage, lost data and a hole: in the log, health, stats, metrics and channels', async t => {
    const logs: LogLine[] = []
    const { app, host } = await startApp(t, server.port, { limits: { publish: 200 } }, logs)
    const rooms = app.rooms as any
    const registry = new Registry()
    roomsMetrics(rooms, { registry })
    const events: any[] = []
    // Other causes of an outage are events, too.
    const note = (event: any): void => { if (event.rooms === rooms && (event.topic !== undefined || event.before !== event.state)) events.push(event.topic === undefined ? [event.before, event.state] : [event.topic, event.reason]) }
    for (const name of ['broker', 'loss']) {
      subscribe(`fastify-rooms:${name}`, note)
      t.teardown(() => { unsubscribe(`fastify-rooms:${name}`, note) })
    }
    const lines = (): string[] => logs.filter(({ msg }) => /broker|may be missing/.test(msg)).map(({ level, msg }) => `${level} ${msg.split(':')[0]}`)
    const chat = await join(t, `${host}/rooms/chat:seen`)
    const plain = await join(t, `${host}/rooms/plain:seen`)
    await rooms.broadcast('chat:seen', 1)
    await rooms.broadcast('plain:seen', 1)
    const { stateFor, lag, ...numbers } = rooms.stats().broker
    t.ok(stateFor >= 0 && lag > 0)
    const outcomes = { ok: 2, duplicate: 0, stale: 0, ended: 0, failed: 0, unknown: 0 }
    const begin = { state: 'up', outages: 0, entries: 2, outcomes, queued: 0, queuedBytes: 0, topics: 2, reconnects: 0, resubscribed: 0, missedProbes: 0, mended: 0, holes: 0, resets: 0, fenced: 0, dropped: 0, unreadable: 0 }
    t.same(numbers, begin)
    t.same(lines(), ['30 the broker is up'])

    await server.kill()
    await until(() => rooms.health().broker === 'down')
    t.match(rooms.health(), { ok: false, state: 'open', broker: 'down', brokerFor: Number, cause: /./, detail: /^The app is open; the broker is down: .* Cause: ./ })
    t.match(await Promise.all([rooms.broadcast('chat:seen', 2), rooms.broadcast('plain:seen', 2)]), [{ published: false, local: 0 }, { published: false, local: 1 }])
    t.match(rooms.stats().broker, { state: 'down', outages: 1, outcomes: { ok: 2 } })
    const { failed, unknown } = rooms.stats().broker.outcomes
    t.equal(failed + unknown, 2)

    // It has lost all data: it keeps none.
    await server.restart()
    await until(() => rooms.health().ok && rooms.stats().losses === 2)
    await rooms.broadcast('chat:seen', 3)
    t.match([await chat.next('gap'), await chat.next('gap'), await plain.next('gap')], [{ reason: 'lost' }, { reason: 'reset' }, { reason: 'lost' }])
    t.match(rooms.stats().broker, { state: 'up', outages: 1, reconnects: 1, resubscribed: 2, resets: 1, holes: 0 })

    await server.command('FLUSHALL')
    await rooms.broadcast('chat:seen', 4)
    t.match(await chat.next('gap'), { reason: 'reset' })
    t.equal(rooms.stats().broker.resets, 2)

    const [key] = (await server.command('KEYS', '*:m:chat:seen')).match(/rooms:\S+/)!
    await server.command('HINCRBY', key!, 'o', '3')
    await rooms.broadcast('chat:seen', 5)
    t.match(await chat.next('gap'), { reason: 'lost' })
    t.match(rooms.stats().broker, { holes: 1, outcomes: { ok: 5 } })

    await until(() => new Set(lines()).size === 5)
    t.same([...new Set(lines())], ['30 the broker is up', '50 the broker is down', '30 the broker is up again', '40 messages may be missing', '40 the broker has lost data'])
    t.match(logs.find(({ msg }) => msg.startsWith('the broker is down')), { err: { message: /./ }, milliseconds: Number })
    t.match(logs.find(({ msg }) => msg === 'the broker is up again'), { milliseconds: Number })
    const eventsOf = (pattern: RegExp): unknown[] => events.filter(([first]) => pattern.test(first)).map(([, second]) => second)
    t.same([eventsOf(/^(?:up|down)$/), eventsOf(/^chat:seen$/), eventsOf(/^plain:seen$/)], [['down', 'up'], ['lost', 'reset', 'reset', 'lost'], ['lost']])
    const { samples } = parseMetrics(await registry.metrics())
    const metrics = { outages_total: 1, reconnects_total: 1, resubscribed_topics_total: 2, resets_total: 2, lost_holes_total: 1, topics: 2, 'state{state="up"}': 1, 'outcomes_total{outcome="ok"}': 5 }
    for (const [name, value] of Object.entries(metrics)) t.equal(samples.get(`fastify_rooms_broker_${name}`), value, name)
  })
})

t.test('a node that is cut off goes on alone in a topic with "outage: local", and comes back to the order of all', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
  const start = async (port: number) => {
    const states: string[] = []
    const app = createApp(t)
    const client = new Redis(port, '127.0.0.1', { lazyConnect: true })
    const broker = redisBroker({ client, heartbeat: 500 })
    const begin = broker.start.bind(broker)
    broker.start = (node, handlers, settings) => begin(node, { ...handlers, state: (state, cause) => { states.push(state); handlers.state(state, cause) } }, settings)
    await app.register(fastifyRooms as any, { prefix: '/rooms', topics: { chat: { publish: true, history: true, outage: 'local' } }, broker })
    return { app, states, member: await join(t, `${await listen(app)}/rooms/chat`) }
  }
  const near = await start(server.port)
  const far = await start(Number(proxy.host.split(':')[1]))
  const publish = ({ app }: typeof near, data: unknown) => app.rooms.broadcast('chat' as never, data as never)
  const { id } = await publish(far, 1)
  for (const { member } of [near, far]) t.match(await member.next('message'), { data: 1, id })

  proxy.isDown = true
  proxy.cut()
  await until(() => far.states.at(-1) === 'down')
  const begin = Date.now()
  t.same(await publish(far, 2), { topic: 'chat', local: 1, published: false, outcome: 'none' })
  t.ok(Date.now() - begin < 1_000, 'it does not wait for limits.publish')
  t.match(await publish(near, 3), { published: true })
  proxy.isDown = false
  await until(() => far.states.at(-1) === 'up')
  t.match(await publish(far, 4), { published: true, local: 1 })

  t.match(await far.member.next(), { type: 'message', data: 2 })
  t.match(await far.member.next(), { type: 'gap', reason: 'lost', from: id })
  t.match([await far.member.next(), await far.member.next()], [{ type: 'message', data: 3 }, { type: 'message', data: 4 }])
  t.match([await near.member.next(), await near.member.next()], [{ type: 'message', data: 3 }, { type: 'message', data: 4 }])
})

t.test('members are told of a failover that lost the newest messages before the first one after it', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const { app, host } = await startApp(t, server.port)
  const member = await join(t, `${host}/rooms/chat:9`)
  for (let n = 1; n <= 2; n++) await app.rooms.broadcast('chat:9' as never, n as never)
  const ids = [(await member.next('message')).id, (await member.next('message')).id]
  const key = (await server.command('KEYS', 'rooms:*:m:chat:9')).match(/rooms:\S+/)![0]
  await server.command('HSET', key, 'o', '1')
  await server.command('XDEL', key.replace(':m:', ':s:'), '2-0')
  await server.command('CLIENT', 'KILL', 'TYPE', 'pubsub')
  const { id } = await app.rooms.broadcast('chat:9' as never, 3 as never)
  t.not(id!.split('-')[0], ids[0]!.split('-')[0])
  t.equal(id!.split('-')[1], '2')
  const frames = [await member.next()]
  while (frames.at(-1)!.type !== 'message') frames.push(await member.next())
  t.match(frames.at(-1), { data: 3, id })
  t.match(frames.at(-2), { type: 'gap', reason: 'reset' })
})
