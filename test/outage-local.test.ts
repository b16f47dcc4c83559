import t from 'tap'
import type { Outcome, Publication } from '../types/index.ts'
import { createRooms, until } from './helpers/app.ts'
import { createFleet, type FleetNode } from './helpers/fleet-broker.ts'

const topics = { chat: { publish: true, history: true, outage: 'local' }, held: { history: true }, prices: { history: { latest: true }, outage: 'local' } } as const

/** Lets the broker of a node refuse publications, as one without a connection does. Returns what it was given. */
function refuse ({ broker }: FleetNode, state: Outcome['state'] = 'failed'): Publication[] {
  const given: Publication[] = []
  broker.publish = async batch => {
    given.push(...batch)
    return batch.map(() => ({ state }))
  }
  return given
}

t.test('the members of the publishing node get messages that the broker does not accept, and are told when it is back', async t => {
  const { nodes } = await createFleet(t, 2, { topics })
  const [a, b] = nodes as [FleetNode, FleetNode]
  const [near, far] = [await a.join('chat'), await b.join('chat')]
  await a.rooms.broadcast('chat', 1)
  const { id } = await near.next('message')
  await far.next('message')

  const publish = a.broker.publish
  const given = refuse(a)
  t.same(await a.rooms.broadcast('chat', 2), { topic: 'chat', local: 1, published: false, outcome: 'none' })
  t.same(await a.rooms.broadcast('chat', 3, { except: near.session }), { topic: 'chat', local: 0, published: false, outcome: 'none' })
  t.equal(given[0]!.whenDown, 'fail')
  const message = await near.next('message')
  t.match(message, { data: 2 })
  t.notOk('id' in message)
  near.send({ type: 'message', data: 4, ref: 'r' })
  t.match(await near.next('message'), { data: 4 })
  t.match(await near.next('ack'), { ok: false, error: { code: 'FST_ROOMS_BROKER_DOWN' } })

  a.broker.publish = publish
  await b.rooms.broadcast('chat', 5)
  t.match(await near.next(), { type: 'gap', reason: 'lost', from: id })
  t.match(await near.next(), { type: 'message', data: 5 })
  t.match(await far.next('message'), { data: 5 })
  await a.rooms.broadcast('chat', 6)
  t.match(await near.next(), { type: 'message', data: 6 }, 'it is told once')
  t.same((await a.rooms.history('chat')).messages.map(({ data }) => data), [1, 5, 6])
})

t.test('without another message they are told as soon as the broker is up, and positions stay known', async t => {
  const { nodes } = await createFleet(t, 1, { topics })
  const [node] = nodes as [FleetNode]
  const member = await node.join('chat')
  const quiet = await node.join('prices')
  const { id } = await node.rooms.broadcast('chat', 1)
  await member.next('message')
  refuse(node)
  await node.rooms.broadcast('chat', 2)
  node.broker.handlers.state('down')
  node.broker.handlers.state('up')
  t.match(await member.next('message'), { data: 2 })
  t.match(await member.next(), { type: 'gap', reason: 'lost', from: id })
  const later = await node.rooms.inject('/rooms/chat')
  t.equal((await later.next('hello')).id, id)
  await node.rooms.broadcast('chat', 3)
  node.broker.handlers.lost(['chat'])
  node.broker.handlers.state('down')
  node.broker.handlers.state('up')
  t.match(await member.next('message'), { data: 3 })
  t.match(await member.next(), { type: 'gap', reason: 'lost' })
  t.match(await Promise.race([member.next(), until(() => false, 50).catch(() => 'nothing')]), 'nothing', 'a loss tells it, too')
  await quiet.close()
})

t.test('without "local", and if it may have been accepted, no member gets it', async t => {
  const { nodes } = await createFleet(t, 1, { topics })
  const [node] = nodes as [FleetNode]
  const held = await node.join('held')
  const given = refuse(node)
  t.same(await node.rooms.broadcast('held', 1), { topic: 'held', local: 0, published: false, outcome: 'none' })
  t.notOk('whenDown' in given[0]!)
  const chat = await node.join('chat')
  refuse(node, 'unknown')
  t.same(await node.rooms.broadcast('chat', 1), { topic: 'chat', local: 0, published: false, outcome: 'unknown' })
  refuse(node)
  t.same(await node.rooms.broadcast('chat', 2), { topic: 'chat', local: 1, published: false, outcome: 'none' })
  t.match(await chat.next('message'), { data: 2 })
  await chat.close()
  await until(async () => await node.rooms.count('chat', { local: true }) === 0)
  t.same(await node.rooms.broadcast('chat', 3), { topic: 'chat', local: 0, published: false, outcome: 'none' })
  await held.close()
})

t.test('it is refused for streams, and with other values', async t => {
  await t.rejects(createRooms(t, { topics: { run: { stream: true, outage: 'local' } } as never }), { code: 'FST_ROOMS_INVALID_TOPIC_OPTION', message: /outage: 'local'/ })
  await t.rejects(createRooms(t, { topics: { run: { history: true, outage: 'drop' } } as never }), { code: 'FST_ROOMS_INVALID_OPTION', message: /"topics.run.outage" takes "wait" or "local"/ })
  await createRooms(t, { topics: { run: { stream: true, outage: 'wait' }, plain: { outage: 'local' } } })
})
