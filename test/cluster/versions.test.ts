/** Nodes that write in another version, beside current ones: docs/decisions/0018. */
import t from 'tap'
import { ExchangeHost } from '../../lib/cluster/host.ts'
import { createRooms, join, listen, until, type LogLine } from '../helpers/app.ts'
import { ClusterFleet } from './fleet.ts'

const topics = { chat: { publish: true, history: true } } as const

/** An app of a fleet. A newer one writes its publications, and the text of its messages to other nodes, in version 2. */
async function startNode (t: Parameters<typeof createRooms>[0], fleet: ClusterFleet, isNewer = false) {
  const broker = fleet.broker()
  const logs: LogLine[] = []
  const errors: Error[] = []
  if (isNewer) {
    const { publish, control } = broker
    broker.publish = batch => publish.call(broker, batch.map(publication => ({ ...publication, v: 2 as never, newer: true })))
    broker.control = (to, bytes) => control.call(broker, to, Buffer.from(bytes.toString().replace('"v":1', '"v":2')))
  }
  const app = await createRooms(t, { topics, broker, limits: { publish: 300 }, onError: error => { errors.push(error) } }, logs)
  const host = await listen(app)
  const rooms = app.rooms as any
  await until(() => rooms.health().ok)
  return { rooms, logs, errors, join: () => join(t, `${host}/rooms/chat`) }
}

t.test('the primary takes no publications of another version, and members lose none of those of current workers', async t => {
  const fleet = new ClusterFleet()
  const [a, newer] = [await startNode(t, fleet), await startNode(t, fleet, true)]
  const members = [await a.join(), await newer.join()]
  await a.rooms.broadcast('chat', 1)
  t.match(await newer.rooms.broadcast('chat', 2), { published: false })
  await a.rooms.broadcast('chat', 3)
  for (const member of members) t.same([(await member.next('message')).data, (await member.next('message')).data], [1, 3])
  t.match(await newer.rooms.history('chat'), { messages: [{ data: 1 }, { data: 3 }], complete: true })

  const [here, there] = members.map(({ hello }) => hello.session)
  await t.rejects(newer.rooms.send(here, 'hi'), { code: 'FST_ROOMS_BROKER_DOWN' })
  await t.rejects(newer.rooms.ask(here, 'hi', { timeout: 50 }), { code: 'FST_ROOMS_ASK_TIMEOUT' })
  await t.rejects(a.rooms.send(there, 'hi'), { code: 'FST_ROOMS_BROKER_DOWN' })
  t.match(await members[1]!.next('direct'), { data: 'hi' })
  await until(() => a.rooms.stats().unreadable === 4) // two calls, the end of one of them, and an answer
  t.equal(a.logs.filter(({ msg }) => msg.startsWith('a message of another node cannot be read')).length, 1)
  t.same([a.errors, newer.errors, a.rooms.stats().losses], [[], [], 0])
})

t.test('a worker of another version than the primary is down, and says why', async t => {
  const host = new ExchangeHost()
  const sent: any[] = []
  const peer = host.peer(message => { sent.push(message) })
  peer.receive({ 'fastify-rooms': 2, name: 'rooms', node: 'x', hello: {} })
  peer.receive({ app: 'a message of the host' })
  t.match(sent, [{ 'fastify-rooms': 1, events: [] }], 'the primary names its version')
  t.equal(sent.length, 1)
  host.close()
  peer.receive({ 'fastify-rooms': 2 })
  t.equal(sent.length, 2, 'a primary that has closed answers nothing')
})
