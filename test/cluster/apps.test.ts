import t, { type Test } from 'tap'
import { createRooms, join, listen, until, type AnyOptions } from '../helpers/app.ts'
import { ClusterFleet } from './fleet.ts'

const topics: NonNullable<AnyOptions['topics']> = { chat: { publish: true, history: true }, live: { publish: true, post: true }, 'answer:*': { stream: true } }

/** Two apps whose brokers share an exchange, each with its address. */
async function twoApps (t: Test, fleet = new ClusterFleet()) {
  const start = async () => {
    const app = await createRooms(t, { topics, authorize: () => true, broker: fleet.broker() })
    return { app, rooms: app.rooms, host: await listen(app) }
  }
  const apps = [await start(), await start()] as const
  await until(() => apps.every(({ rooms }) => rooms.health().ok))
  return { fleet, apps, start }
}

t.test('a broadcast reaches the members of both apps once, at one position, and an except is left out on the other app', async t => {
  const { apps: [a, b] } = await twoApps(t)
  const [ann, ben] = [await join(t, `${a.host}/rooms/chat`), await join(t, `${b.host}/rooms/chat`)]
  t.equal(ben.hello.id, ann.hello.id)
  const result = await a.rooms.broadcast('chat', 'one')
  t.match(result, { published: true, local: 1 })
  const [one, other] = [await ann.next('message'), await ben.next('message')]
  t.same(one, other)
  await a.rooms.broadcast('chat', 'not for ben', { except: ben.hello.session })
  await b.rooms.broadcast('chat', 'not for ann', { except: ann.hello.session })
  await a.rooms.broadcast('chat', 'two')
  t.same([(await ann.next('message')).data, (await ann.next('message')).data], ['not for ben', 'two'])
  t.same([(await ben.next('message')).data, (await ben.next('message')).data], ['not for ann', 'two'])
  t.same([a.rooms.stats().brokerFaults, b.rooms.stats().brokerFaults, a.rooms.stats().losses], [0, 0, 0])
})

t.test('messages of members of both apps, at the same time, come in one order everywhere, and an ack follows its echo', async t => {
  const { apps: [a, b] } = await twoApps(t)
  const clients = await Promise.all([a, b].flatMap(({ host }) => [1, 2].map(async () => join(t, `${host}/rooms/live`))))
  for (const [index, client] of clients.entries()) for (let n = 0; n < 20; n++) client.send({ type: 'message', data: [index, n], ref: n })
  const orders = await Promise.all(clients.map(async (client, index) => {
    const order: string[] = []
    let acks = 0
    while (order.length < 80 || acks < 20) {
      const frame = await client.next()
      if (frame.type === 'message') order.push(JSON.stringify(frame.data))
      else if (frame.type === 'ack') {
        t.ok(frame.ok)
        if (!order.includes(`[${index},${acks++}]`)) t.fail('an ack came before its echo')
      }
    }
    return order
  }))
  for (const order of orders) t.same(order, orders[0])
  t.equal(new Set(orders[0]).size, 80)
})

t.test('a member that comes back to the other app gets what it has missed, also after its own app has died', async t => {
  const { fleet, apps: [a, b], start } = await twoApps(t)
  const ann = await join(t, `${a.host}/rooms/chat`)
  await b.rooms.broadcast('chat', 0)
  const { id } = await ann.next('message')
  ann.socket.terminate()
  for (let n = 1; n <= 5; n++) await (n % 2 === 0 ? a : b).rooms.broadcast('chat', n)
  const read = async (host: string, recovered: number): Promise<unknown[]> => {
    const back = await join(t, `${host}/rooms/chat?since=${id}`)
    t.equal(back.hello.recovered, true)
    const data: unknown[] = []
    while (data.length < recovered) data.push((await back.next('message')).data)
    return data
  }
  t.same(await read(b.host, 5), [1, 2, 3, 4, 5])
  fleet.kill(fleet.brokers[0])
  const c = await start()
  await until(() => c.rooms.health().ok)
  await b.rooms.broadcast('chat', 6)
  t.same(await read(c.host, 6), [1, 2, 3, 4, 5, 6])
  await c.rooms.broadcast('chat', 7)
  t.same(await read(b.host, 7), [1, 2, 3, 4, 5, 6, 7])
})

t.test('a stream of one app is read in the other one, and has ended for both', async t => {
  const { apps: [a, b] } = await twoApps(t)
  const reader = await join(t, `${b.host}/rooms/answer:1`)
  const run = await a.rooms.stream('answer:1')
  await run.write('Hel')
  await run.write('lo')
  t.same([(await reader.next('message')).data, (await reader.next('message')).data], ['Hel', 'lo'])
  await run.end({ data: { tokens: 2 } } as never)
  t.match(await reader.next('end'), { reason: 'done' })
  t.match(await b.rooms.history('answer:1'), { ended: { reason: 'done' } })
  await t.rejects(b.rooms.stream('answer:1'), { code: 'FST_ROOMS_STREAM_ENDED' })
})

t.test('after a restart of the primary members are told of a loss, and go on in a new epoch', async t => {
  const { fleet, apps: [a, b] } = await twoApps(t)
  const [ann, ben] = [await join(t, `${a.host}/rooms/chat`), await join(t, `${b.host}/rooms/chat`)]
  await a.rooms.broadcast('chat', 1)
  const { id } = await ann.next('message')
  await ben.next('message')
  fleet.restart()
  await until(() => [a, b].every(({ rooms }) => rooms.health().ok && rooms.stats().losses > 0))
  t.equal((await a.rooms.broadcast('chat', 2)).published, true)
  for (const client of [ann, ben]) {
    t.equal((await client.next('gap')).reason, 'lost')
    t.equal((await client.next('message')).data, 2)
  }
  const back = await join(t, `${b.host}/rooms/chat?since=${id}`)
  t.equal(back.hello.recovered, false)
})
