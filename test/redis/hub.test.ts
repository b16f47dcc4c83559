import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import fastifyRedis from '@fastify/redis'
import fastifyRooms from '../../lib/index.ts'
import { redisBroker } from '../../lib/redis/index.ts'
import { createApp, join, listen } from '../helpers/app.ts'
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
