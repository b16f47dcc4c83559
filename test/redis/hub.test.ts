import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import fastifyRedis from '@fastify/redis'
import fastifyRooms from '../../lib/index.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import { Redis } from 'ioredis'
import { startProxy } from '../client/proxy.ts'
import { createApp, join, listen, until } from '../helpers/app.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

const topics = { 'chat:*': { publish: true, history: true }, 'plain:*': { publish: true } } as const

async function startApp (t: Test, port: number): Promise<{ app: FastifyInstance, host: string }> {
  const app = createApp(t)
  await app.register(fastifyRedis, { host: '127.0.0.1', port })
  await app.register(fastifyRooms as any, { prefix: '/rooms', topics, broker: redisBroker({ client: app.redis }) })
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
  t.same(await publish(far, 2), { topic: 'chat', local: 1, published: false })
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
