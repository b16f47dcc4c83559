import t, { type Test } from 'tap'
import { Exchange } from '../../lib/cluster/exchange.ts'
import type { ExchangeNode } from '../../lib/cluster/exchange-node.ts'
import type { Call, ExchangeEvent, Hello } from '../../lib/cluster/messages.ts'
import { Node, roomy } from '../../lib/conformance/node.ts'
import type { Retention } from '../../types/index.ts'
import { until } from '../helpers/app.ts'
import { ClusterFleet, turns } from './fleet.ts'

const hello: Hello = { historyBytes: 1_000_000, topics: [], users: [], members: [], streams: [], probe: Buffer.alloc(1) }

/** A node of an exchange that notes its events. */
function enter (exchange: Exchange, name: string, given: Partial<Hello> = {}): { node: ExchangeNode, events: ExchangeEvent[], call: (name: string, ...args: unknown[]) => Promise<unknown> } {
  const events: ExchangeEvent[] = []
  const node = exchange.join(name, { ...hello, ...given }, sent => { events.push(...sent) })
  let id = 0
  return {
    node,
    events,
    async call (name, ...args) {
      id++
      exchange.run(node, [{ id, name, args } as Call])
      await turns(2)
      const answer = events.find(event => 'id' in event && event.id === id)
      return answer?.type === 'answer' ? answer.value : answer
    }
  }
}

async function nodesOf (t: Test, fleet: ClusterFleet, count: number): Promise<Node[]> {
  const nodes = Array.from({ length: count }, () => new Node(fleet.broker()))
  for (const node of nodes) {
    t.teardown(async () => node.broker.close())
    await node.broker.start(node.name, node.handlers)
  }
  await until(() => nodes.every(({ state }) => state === 'up'))
  return nodes
}

t.test('a node that does not read misses entries over the bound, and is told of it when it reads again', async t => {
  const fleet = new ClusterFleet(1_600_000)
  const [node, slow] = await nodesOf(t, fleet, 2) as [Node, Node]
  for (const { broker } of [node, slow]) await broker.attach(['a'], roomy)
  fleet.link(slow.broker).isHeld = true
  for (let n = 0; n < 20; n++) await node.publish('a', 'x'.repeat(100_000), { retention: roomy })
  t.match(fleet.host.stats(), { nodes: 2, behind: 1, topics: 1, published: 20 })
  const { dropped } = fleet.host.stats()
  t.ok(dropped > 0 && dropped < 10, `${dropped} entries were dropped`)
  t.equal(await node.broker.control(`node:${slow.name}`, Buffer.from('x')), 'unknown')
  t.equal(node.entries.length, 20)
  t.same(slow.lost, [])
  fleet.link(slow.broker).release()
  await until(() => slow.lost.length > 0)
  t.same(slow.lost, ['all'])
  t.equal(slow.entries.length, 20 - dropped)
  t.equal(fleet.host.stats().behind, 0)
  await node.publish('a', 'again', { retention: roomy })
  await until(() => slow.received('a').includes('again'))
  t.equal(await node.broker.control(`node:${slow.name}`, Buffer.from('x')), 'sent')
})

t.test('a node that reads is never behind, however much it is sent', async t => {
  const fleet = new ClusterFleet(1_600_000)
  const [node, other] = await nodesOf(t, fleet, 2) as [Node, Node]
  await other.broker.attach(['a'])
  for (let n = 0; n < 40; n++) await node.publish('a', 'x'.repeat(100_000))
  await until(() => other.entries.length === 40)
  t.same([other.lost, fleet.host.stats().dropped], [[], 0])
})

t.test('a publication that arrives after its deadline is neither kept nor delivered', async t => {
  const exchange = new Exchange()
  const { events, call } = enter(exchange, 'n', { topics: [['a', roomy]] })
  const writer = new Node(undefined as never)
  t.same(await call('publish', [writer.publication('a', 1, { retention: roomy, deadline: Date.now() - 1 })]), [{ state: 'failed' }])
  t.match(await call('history', 'a', { limit: 10, bytes: 1_000, retention: roomy }), { messages: [] })
  t.notOk(events.some(({ type }) => type === 'entry'))
  t.equal(exchange.stats().published, 0)
})

t.test('a call that is not known, or fails, is answered with its error, and the next one runs', async t => {
  const exchange = new Exchange()
  const { events, call } = enter(exchange, 'n')
  t.match(await call('toString'), { type: 'failed', reason: /does not know the call "toString"/ })
  t.match(await call('attach', 7), { type: 'failed' })
  t.match(await call('attach', ['a'], roomy), [{ offset: 0 }])
  t.same(await call('control', 'node:nowhere', Buffer.from('x')), 'gone')
  t.equal(events[0]!.type, 'welcome')
})

t.test('a node that has joined again is one node, and its topics keep their positions', async t => {
  const exchange = new Exchange()
  const first = enter(exchange, 'n', { topics: [['a', undefined]], users: ['ann'] })
  const before = await first.call('attach', ['a'])
  const again = enter(exchange, 'n', { topics: [['a', undefined]], users: ['ann'] })
  t.same(await again.call('attach', ['a']), before)
  exchange.leave(first.node)
  t.equal(exchange.stats().nodes, 1, 'the end of the first channel does not end the second')
  await again.call('detach', ['a', 'a', 'never'])
  t.equal(exchange.stats().topics, 0)
  exchange.leave(again.node)
  t.equal(exchange.stats().nodes, 0)
})

t.test('a node that says hello twice in one turn is told of users that are gone', async t => {
  const exchange = new Exchange()
  t.teardown(() => { exchange.close() })
  const { node: first, call } = enter(exchange, 'one')
  await call('change', [{ type: 'set', topic: 'a', session: 's1', user: 'ann' }])
  exchange.leave(first)
  enter(exchange, 'two')
  const { node, events } = enter(exchange, 'two')
  await turns(2)
  t.match(events, [{ type: 'welcome' }, { type: 'gone', report: 1, users: [{ topic: 'a', user: 'ann' }] }])
  node.tookGone(1)
  exchange.leave(node)
  const { events: later } = enter(exchange, 'three')
  await turns(2)
  t.equal(later.length, 1)
})

t.test('a topic has the bounds of the last worker that has named some, and begins to keep messages while it is attached', async t => {
  const exchange = new Exchange()
  t.teardown(() => { exchange.close() })
  const { call } = enter(exchange, 'one')
  const node = new Node(new ClusterFleet().broker())
  const publish = async (retention: Retention, key?: string): Promise<unknown> => call('publish', [node.publication('a', 'x', { retention: { ...retention }, ...(key === undefined ? {} : { key }) })])
  const kept = (): number => exchange.stats().history.messages
  await call('attach', ['a'])
  await call('publish', [node.publication('a', 'x')])
  await call('attach', ['a'], roomy)
  for (let n = 0; n < 5; n++) await publish(roomy)
  t.equal(kept(), 5)
  const { bytes } = exchange.stats().history
  await publish({ ...roomy, size: 3 })
  t.match(exchange.stats().history, { messages: 3, bytes: bytes / 5 * 3 })
  for (const more of [{ bytes: 1_000 }, { ttl: 1_000 }]) await publish({ ...roomy, ...more })
  t.equal(kept(), 5)
  for (const key of ['p', 'q', 'r']) await publish({ ...roomy, latest: true }, key)
  t.equal(kept(), 3, 'values, and no messages of before')
  await publish({ ...roomy, latest: true, size: 2 }, 's')
  t.equal(kept(), 2)
  t.match(await call('history', 'a', { limit: 10, bytes: 1_000, retention: roomy }), { position: { offset: 13 }, from: 11, messages: [{ key: 'r' }, { key: 's' }] })
})

t.test('the bound of kept messages is that of the node that allows most', async t => {
  const exchange = new Exchange()
  const one = enter(exchange, 'one', { historyBytes: 1 })
  const writer = new Node(undefined as never)
  const publish = async (): Promise<void> => { for (let n = 0; n < 5; n++) await one.call('publish', [writer.publication('a', n, { retention: roomy })]) }
  await publish()
  t.equal(exchange.stats().history.messages, 1)
  enter(exchange, 'two', { historyBytes: 100_000 })
  await publish()
  t.equal(exchange.stats().history.messages, 6)
  exchange.close()
  t.match(exchange.stats(), { nodes: 0, history: { messages: 0 } })
})

t.test('versions of a topic go on while a node has it attached, and begin again after that', async t => {
  const exchange = new Exchange()
  const { call } = enter(exchange, 'n')
  const change = async (type: 'set' | 'leave', session: string): Promise<unknown> => call('change', [{ type, topic: 'a', session }])
  const version = async (): Promise<unknown> => (await call('read', 'a', 0) as { version: number }).version
  await call('attach', ['a'])
  await change('set', 's1')
  await change('leave', 's1')
  t.equal(await version(), 2)
  await call('detach', ['a'])
  t.equal(await version(), 0)
  await change('set', 's1')
  t.equal(await version(), 1)
  await change('leave', 's1')
  t.equal(await version(), 0)
  await call('attach', ['b'])
  await call('detach', ['b'])
})

t.test('a node that joins again without a member that it had is told of as a leave', async t => {
  const exchange = new Exchange()
  const { events } = enter(exchange, 'other', { topics: [['a', undefined]] })
  const members = [{ type: 'set', topic: 'a', session: 's1', user: 'ann' }, { type: 'set', topic: 'a', session: 's2' }] as const
  enter(exchange, 'n', { members })
  enter(exchange, 'n', { members: [members[1]] })
  enter(exchange, 'n', { members: [] })
  await turns(2)
  t.match(events.filter(({ type }) => type === 'presence'), [
    { delta: { version: 1, node: 'n', set: [{ session: 's1' }, { session: 's2' }], leave: [] } },
    { delta: { version: 2, node: 'n', set: [], leave: ['s1'] } },
    { delta: { version: 3, node: 'n', set: [], leave: ['s2'] } }
  ])
})

t.test('messages of other parts of an app, and of nodes that are not known, are no calls', async t => {
  const fleet = new ClusterFleet()
  const sent: any[] = []
  const peer = fleet.host.peer(message => { sent.push(message) })
  for (const message of [null, 'x', 7, { 'fastify-rooms': 1, name: 'rooms' }, { 'fastify-rooms': 1, node: 'n' }]) peer.receive(message)
  t.same(sent, [])
  peer.receive({ 'fastify-rooms': 1, name: 'rooms', node: 'n', calls: [] })
  t.match(sent, [{ name: 'rooms', node: 'n', events: [] }], 'the node is asked to say hello')
  peer.receive({ 'fastify-rooms': 1, name: 'rooms', node: 'n', bye: true })
  t.equal(sent.length, 1)
  fleet.close()
  t.match(sent.at(-1), { events: [{ type: 'closed' }] })
  peer.receive({ 'fastify-rooms': 1, name: 'rooms', node: 'n', hello })
  t.equal(sent.length, 2, 'a host that has closed lets no node join')
})
