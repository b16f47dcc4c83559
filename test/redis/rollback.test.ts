import { cpSync, rmSync } from 'node:fs'
import t, { type Test } from 'tap'
import fastifyRedis from '@fastify/redis'
import fastifyRooms from '../../lib/index.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import { startProxy } from '../client/proxy.ts'
import type { Position, Skip } from '../../types/index.ts'
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
    for (const [i, node] of [third, nodes[1]].entries()) await node.publish('a', 2 * run + i)
  }
  for (const { entries } of nodes) await until(() => entries.length === 5)
  for (const { entries, lost, positions } of nodes) {
    t.same(entries, range(1, 5))
    t.same(lost, [])
    t.match(positions[1], { after: 1 }, 'the entry names the one before it')
    t.match(positions[3], { after: positions[2]!.offset })
    t.ok(positions[3]!.offset > positions[2]!.offset + 1_000)
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

/** The key of the metadata of topic "a". */
async function metaOf (server: RedisServer): Promise<string> {
  return (await server.command('KEYS', 'rooms:64:*:m:a')).split('\r\n')[2]!
}

t.test('a topic remembers skips as long as messages before their end are kept, and begins a new epoch if they are too many', options, async t => {
  const server = await startDurable(t)
  const node = await startNode(t, server.port)
  const short = { ...log, size: 3 }
  const read = (retention: typeof log) => node.broker.history!('a', { limit: 100, bytes: 10_000, retention })
  const [first] = await node.publish('a', 0)
  const meta = await metaOf(server)
  for (let run = 1; run <= 10; run++) {
    // As a copy of another run.
    await server.command('HSET', meta, 'g', `${run}`)
    await node.publish('a', run, { retention: short })
  }
  const few = await read(short)
  t.equal(few.messages.length, 3)
  t.equal(few.skips!.length, 4, 'with one that ended before the oldest message when the last one came')
  t.equal(few.from, few.skips![1]!.after)
  for (let run = 1; run <= 61; run++) {
    await server.command('HSET', meta, 'g', `${run}`)
    await node.publish('a', run)
  }
  t.equal((await read(log)).skips!.length, 64)
  await server.command('HSET', meta, 'g', 'another')
  const [last] = await node.publish('a', 100)
  t.not(last!.position!.epoch, first!.position!.epoch)
  t.equal((await read(log)).skips, undefined)
})

t.test('a server that goes back to the same state twice skips to another offset', options, async t => {
  const server = await startDurable(t)
  const publish = async (n: number): Promise<Position> => {
    const node = await startNode(t, server.port)
    const [outcome] = await node.publish('a', n)
    await node.broker.close()
    return outcome!.position!
  }
  await publish(1)
  const skips: (readonly Skip[] | undefined)[] = []
  const later: Position[] = []
  for (let n = 2; n <= 4; n++) {
    await goBack(server, async () => { later.push(await publish(n)) })
  }
  const [, second, third] = later
  t.ok(second!.offset > 1_000 && third!.offset > second!.offset + 1_000, JSON.stringify(later))
  const node = await startNode(t, server.port)
  await node.publish('a', 5)
  skips.push((await node.broker.history!('a', { limit: 10, bytes: 1_000, retention: log })).skips)
  t.ok(skips[0]!.some(({ after, to }) => after < third!.offset && third!.offset < to), 'a position that was lost is none of this topic')
})

t.test('a topic that began a new epoch skips offsets in it, too', options, async t => {
  const server = await startDurable(t)
  const node = await startNode(t, server.port)
  await node.broker.attach(['a'], log)
  for (let n = 1; n <= 3; n++) await node.publish('a', n)
  await goBack(server, async () => { await node.publish('a', 4) })
  const [renewed] = await node.publish('a', 5)
  await node.broker.close()
  let [forgotten] = [renewed]
  await goBack(server, async () => {
    const other = await startNode(t, server.port);
    [forgotten] = await other.publish('a', 6)
    await other.broker.close()
  })
  const fresh = await startNode(t, server.port)
  const [later] = await fresh.publish('a', 7)
  t.equal(later!.position!.epoch, renewed!.position!.epoch)
  t.ok(later!.position!.offset > forgotten!.position!.offset + 1_000)
})

t.test('a server that is promoted again counts as another run', options, async t => {
  const server = await startRedis(t)
  const node = await startNode(t, server.port)
  const [before] = await node.publish('a', 1)
  await server.command('REPLICAOF', '127.0.0.1', '1')
  await server.command('REPLICAOF', 'NO', 'ONE')
  const other = await startNode(t, server.port)
  const [after] = await other.publish('a', 2)
  t.ok(after!.position!.offset > before!.position!.offset + 1_000)
})

t.test('messages that a topic no longer keeps when a node would read them are delivered behind a skip', options, async t => {
  for (const retention of [{ ...log, size: 2 }, { ...log, latest: true }]) {
    const server = await startDurable(t)
    const node = await startNode(t, server.port)
    const publisher = await startNode(t, server.port)
    await node.broker.attach(['a'], retention)
    await publisher.publish('a', 1, { retention })
    await server.restart()
    await until(() => node.states.filter(state => state === 'up').length === 2)
    await Promise.all([2, 3, 4, 5].map(n => publisher.publish('a', n, { retention })))
    await until(() => node.entries.length === 5)
    t.same([node.entries, node.lost], [range(1, 5), []])
  }
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
    t.match(await second.app.rooms.history(topic as never), { complete: true }, 'all messages of the topic')
  }
})
