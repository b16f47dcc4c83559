import { cpSync, rmSync } from 'node:fs'
import t, { type Test } from 'tap'
import fastifyRedis from '@fastify/redis'
import fastifyRooms from '../../lib/index.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import { startProxy } from '../client/proxy.ts'
import { createApp, join, listen } from '../helpers/app.ts'
import { range, startNode, until } from '../helpers/redis-node.ts'
import { noRedis, startRedis, type RedisServer } from '../helpers/redis-server.ts'

const log = { size: 100, bytes: 1_000_000, ttl: 60_000, latest: false }
const options = { skip: noRedis }

/** A server that writes each command to disk. */
const startDurable = (t: Test): Promise<RedisServer> => startRedis(t, ['--appendonly', 'yes', '--appendfsync', 'always'])

/** Runs `between`, and starts the server again with the data that it had before, as after the crash of a machine. */
async function goBack (server: RedisServer, between: () => Promise<void>): Promise<void> {
  const copy = `${server.folder}.copy`
  cpSync(server.folder, copy, { recursive: true })
  await between()
  await server.kill()
  rmSync(server.folder, { recursive: true })
  cpSync(copy, server.folder, { recursive: true })
  rmSync(copy, { recursive: true })
  await server.restart()
}

t.test('a position that the server has forgotten is not that of a later publication, though no node remembers it', options, async t => {
  const server = await startDurable(t)
  const first = await startNode(t, server.port)
  for (let n = 1; n <= 3; n++) await first.publish('a', n)
  const [kept] = await first.publish('a', 4)
  let [forgotten] = [kept]
  await goBack(server, async () => {
    for (let n = 5; n <= 7; n++) [forgotten] = await first.publish('a', n)
    await first.broker.close()
  })
  // This node has never seen the topic.
  const second = await startNode(t, server.port)
  const later = (await Promise.all([8, 9, 10, 11].map(n => second.publish('a', n)))).map(([outcome]) => outcome!.position!)
  t.equal(later[0]!.epoch, kept!.position!.epoch, 'nothing of the data that are there is lost')
  t.notOk(later.some(({ offset }) => offset <= forgotten!.position!.offset))

  const page = await second.broker.history!('a', { after: kept!.position!.offset, limit: 10, bytes: 1_000, retention: log })
  t.same(page.messages.map(({ offset }) => offset), later.map(({ offset }) => offset))
  t.equal(page.from, 0)
  t.match(page.skips, [{ after: 4, to: later[0]!.offset - 1 }])
  // If the first message behind the skipped offsets is the oldest one that is kept, everything is kept behind the last one before them.
  const short = { ...log, size: 4 }
  await second.publish('b', 1, { retention: short })
  await server.restart()
  for (let n = 2; n <= 5; n++) await second.publish('b', n, { retention: short })
  t.equal((await second.broker.history!('b', { limit: 10, bytes: 1_000, retention: short })).from, 1)
})

t.test('a server that starts again without a loss loses nobody a message, and tells none', options, async t => {
  const server = await startDurable(t)
  const nodes = [await startNode(t, server.port), await startNode(t, server.port)] as const
  const third = await startNode(t, server.port)
  for (const node of nodes) await node.broker.attach(['a'], log)
  await nodes[0].publish('a', 1)
  for (let run = 1; run <= 2; run++) {
    await server.restart()
    // A node that has delivered all that the server has knows that nothing is lost.
    for (const [i, node] of [...run === 1 ? nodes : [third, nodes[1]]].entries()) await node.publish('a', 2 * run + i)
  }
  for (const { entries } of nodes) await until(() => entries.length === 5)
  for (const { entries, lost, positions } of nodes) {
    t.same(entries, range(1, 5))
    t.same(lost, [])
    t.same(positions.slice(0, 3).map(position => position!.offset), [1, 2, 3])
    t.match(positions[3], { after: 3 }, 'the entry names the one before it')
    t.ok(positions[3]!.offset > 1_000)
    t.equal(new Set(positions.map(position => position!.epoch)).size, 1)
  }
})

t.test('a node that was cut off when the server went back begins a new epoch, though others have published since', options, async t => {
  const server = await startDurable(t)
  const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
  const node = await startNode(t, Number(proxy.host.split(':')[1]))
  await node.broker.attach(['a'], log)
  await node.publish('a', 1)
  await goBack(server, async () => {
    await node.publish('a', 2)
    proxy.isDown = true
    proxy.cut()
  })
  const other = await startNode(t, server.port)
  // Node "node" has delivered up to 2; the server is past that.
  for (let n = 3; n <= 5; n++) t.equal((await other.publish('a', n))[0]!.position!.epoch, node.positions[0]!.epoch)
  proxy.isDown = false
  await until(() => node.states.at(-1) === 'up' && node.lost.length > 0)
  t.same(node.lost, [['a']])
  const [outcome] = await other.publish('a', 6)
  await until(() => node.entries.includes('a 6'))
  t.same(node.entries, ['a 1', 'a 2', 'a 6'])
  t.not(outcome!.position!.epoch, node.positions[0]!.epoch)
})

t.test('after many starts all positions before the oldest that is remembered count as lost', options, async t => {
  const server = await startDurable(t)
  const node = await startNode(t, server.port)
  await node.publish('a', 0)
  for (let run = 1; run <= 18; run++) {
    // As a copy of another run.
    const meta = (await server.command('KEYS', 'rooms:64:*:m:a')).split('\r\n')[2]!
    await server.command('HSET', meta, 'g', `${run}`)
    await node.publish('a', run)
  }
  const { skips, messages } = await node.broker.history!('a', { limit: 100, bytes: 10_000, retention: log })
  t.equal(messages.length, 19)
  t.equal(skips!.length, 16)
  t.same(skips![0], { after: 0, to: messages[3]!.offset - 1 })
  t.same(skips!.slice(1).map(({ to }) => to), messages.slice(4).map(({ offset }) => offset - 1))
})

t.test('members that resume from a forgotten position are told', options, async t => {
  const server = await startDurable(t)
  const startApp = async () => {
    const app = createApp(t)
    await app.register(fastifyRedis, { host: '127.0.0.1', port: server.port })
    app.redis.on('error', () => {}) // ioredis would write it to the console
    await app.register(fastifyRooms as any, { prefix: '/rooms', topics: { 'chat:*': { history: true }, 'values:*': { history: { latest: true } } }, broker: redisBroker({ client: app.redis, heartbeat: 500 }) })
    return { app, host: await listen(app) }
  }
  const first = await startApp()
  const send = async ({ app }: typeof first, topic: string, data: unknown, key: string): Promise<string> => (await app.rooms.broadcast(topic as never, data as never, { key } as never)).id!
  const topics = ['chat:1', 'values:1']
  const kept: string[] = []
  for (const topic of topics) kept.push(await send(first, topic, 1, 'one'))
  const forgotten: string[] = []
  await goBack(server, async () => {
    for (const topic of topics) forgotten.push(await send(first, topic, 2, 'one'))
    await first.app.close()
  })
  const second = await startApp()
  for (const topic of topics) for (let n = 3; n <= 6; n++) await send(second, topic, n, `key ${n}`)
  for (const [i, topic] of topics.entries()) {
    const url = `${second.host}/rooms/${topic}`
    const lost = await join(t, `${url}?since=${forgotten[i]}`)
    t.equal(lost.hello.recovered, false, topic)
    const found = await join(t, `${url}?since=${kept[i]}`)
    t.equal(found.hello.recovered, true, topic)
    const messages = []
    while (messages.length < 4) messages.push(await found.next('message'))
    t.same(messages.map(message => message.data), [3, 4, 5, 6])
    // Messages that follow do not make the older ones count as dropped.
    await send(second, topic, 7, 'key 7')
    t.equal((await join(t, `${url}?since=${kept[i]}`)).hello.recovered, true)
    t.match(await second.app.rooms.history(topic as never, { since: forgotten[i]! } as never), { recovered: false })
    t.match(await second.app.rooms.history(topic as never, { since: kept[i]! } as never), { recovered: true })
  }
})
