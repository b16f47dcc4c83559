import { mock } from 'node:test'
import { MessageChannel } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { ClusterBroker } from '../../lib/cluster/broker.ts'
import { Calls } from '../../lib/cluster/calls.ts'
import type { Link, LinkHandlers } from '../../lib/cluster/links.ts'
import type { ExchangeEvent, NodeMessage } from '../../lib/cluster/messages.ts'
import { Node, roomy } from '../../lib/conformance/node.ts'
import { until } from '../helpers/app.ts'
import { ClusterFleet, turns } from './fleet.ts'

/** A channel whose other end is the test. */
class OpenLink implements Link {
  readonly sent: NodeMessage[] = []
  handlers!: LinkHandlers

  open (handlers: LinkHandlers): void { this.handlers = handlers }
  send (message: NodeMessage): void { this.sent.push(message) }
  close (): void {}

  take (events: ExchangeEvent[], more: object = {}): void {
    this.handlers.message({ 'fastify-rooms': 1, name: 'rooms', state: 's', events, size: 0, ...more })
  }

  /** The calls that the broker has sent. */
  get calls (): unknown[] { return this.sent.flatMap(({ calls = [] }) => calls.map(({ name, args }) => [name, ...args])) }
}

async function startWith (t: Test) {
  const link = new OpenLink()
  const node = new Node(new ClusterBroker('rooms', link))
  t.teardown(async () => node.broker.close())
  await node.broker.start(node.name, node.handlers)
  return { link, node, broker: node.broker as ClusterBroker }
}

async function startNode (t: Test, fleet: ClusterFleet, name?: string): Promise<Node> {
  const node = new Node(fleet.broker(name))
  t.teardown(async () => node.broker.close())
  await node.broker.start(node.name, node.handlers)
  await until(() => node.state === 'up')
  return node
}

t.test('calls wait for the welcome, and those of one turn leave as one message', async t => {
  const { link, node, broker } = await startWith(t)
  broker.attach(['a']).catch(() => {})
  await turns(3)
  t.same(link.sent.map(({ hello, calls }) => [hello?.topics, calls]), [[[], undefined]])
  link.take([{ type: 'welcome', back: [] }])
  t.equal(node.state, 'up')
  broker.detach(['a']).catch(() => {})
  broker.attach(['b']).catch(() => {})
  await turns(3)
  t.equal(link.sent.length, 2)
  t.same(link.calls, [['attach', ['a'], undefined], ['detach', ['a']], ['attach', ['b'], undefined]])
  link.take([{ type: 'welcome', back: [] }])
  t.same([node.states, node.lost], [['up'], []], 'a second welcome of the same state is no restart')
})

t.test('calls of a turn in which the channel closes are not sent, and settle', async t => {
  const { link, node, broker } = await startWith(t)
  link.take([{ type: 'welcome', back: [] }])
  const published = node.publish('a', 1, { deadline: Date.now() + 50 })
  link.handlers.closed()
  await broker.detach(['a'])
  t.same(await published, { state: 'failed' })
  t.same(link.calls, [])
  t.same(node.states, ['up', 'down'])
})

t.test('a message that is not of this node, or cannot be read, changes nothing; the first that cannot be read is told', async t => {
  const { link, node, broker } = await startWith(t)
  const told: unknown[] = []
  const { state } = node.handlers
  node.handlers.state = (now, cause) => {
    told.push([now, (cause as { code?: string } | undefined)?.code])
    state(now, cause)
  }
  link.take([{ type: 'welcome', back: [] }], { name: 'other' })
  link.take([{ type: 'welcome', back: [] }], { node: 'other' })
  for (const message of [null, 'text', { hello: 1 }, { 'fastify-rooms': 2, events: [{ type: 'welcome' }] }]) link.handlers.message(message)
  link.take([{ type: 'unheard' } as never, { type: 'answer', id: 99, value: 1 }, { type: 'failed', id: 99, reason: 'x' }])
  t.same([told, broker.stats().unreadable], [[['down', 'FST_ROOMS_BROKER_UNREADABLE']], 2])
  link.take([{ type: 'welcome', back: [] }])
  t.equal(node.state, 'up')
})

t.test('a worker that has joined stays up if it cannot read a message of the primary', async t => {
  const { link, node, broker } = await startWith(t)
  link.take([{ type: 'welcome', back: [] }])
  for (let n = 0; n < 3; n++) link.handlers.message({ 'fastify-rooms': { toString: null } })
  t.same([node.states, broker.stats().unreadable], [['up', 'up'], 3])
})

t.test('a broker whose primary does not answer is down after 5 s, with the reason', async t => {
  mock.timers.enable({ apis: ['setTimeout'] })
  t.teardown(() => { mock.timers.reset() })
  const causes: unknown[] = []
  const broker = new ClusterBroker('rooms', new OpenLink())
  t.teardown(async () => broker.close())
  await broker.start('n', { entry () {}, control () {}, lost () {}, state: (state, cause) => { causes.push([state, cause]) } })
  mock.timers.tick(4_999)
  t.same(causes, [])
  mock.timers.tick(1)
  t.match(causes, [['down', { code: 'FST_ROOMS_NO_CLUSTER', message: /must call clusterPrimary/ }]])
})

t.test('a publication that was not sent by its deadline has failed, and one that was not answered is unknown', async t => {
  const { link, node } = await startWith(t)
  const deadline = (): { deadline: number } => ({ deadline: Date.now() + 30 })
  t.equal((await node.publish('a', 1, deadline())).state, 'failed')
  link.take([{ type: 'welcome', back: [] }])
  await turns(3)
  t.same(link.calls, [], 'nothing is sent late')
  t.equal((await node.publish('a', 1, deadline())).state, 'unknown')
})

t.test('publications that the exchange does not answer are bounded in bytes and number', async t => {
  const { node, broker } = await startWith(t)
  const big = { tail: Buffer.alloc(6_000_000), payloadLength: 1 }
  const outcomes = [1, 2, 3].map(async () => node.publish('a', null, big))
  t.equal((await outcomes[2]!).state, 'failed')
  t.equal(broker.stats().queued, 2)
  t.same(await broker.publish(new Array(100_001).fill(node.publication('a'))).then(all => [all.length, all[0]]), [100_001, { state: 'failed' }])
  await broker.close()
  t.same(await Promise.all(outcomes.slice(0, 2)), [{ state: 'failed' }, { state: 'failed' }], 'a close settles them')
  t.equal((await node.publish('a')).state, 'failed')
})

t.test('what a primary that does not read has not answered is bounded, also after its time', async t => {
  const { link, node, broker } = await startWith(t)
  link.take([{ type: 'welcome', back: [] }])
  const ids = (name: string): number[] => link.sent.flatMap(({ calls = [] }) => calls.filter(call => call.name === name).map(({ id }) => id))
  const big = (more = {}) => node.publish('a', null, { tail: Buffer.alloc(9_000_000), payloadLength: 1, deadline: Date.now() + 20, ...more })
  t.equal((await big()).state, 'unknown')
  t.equal((await big()).state, 'failed')
  t.match(broker.stats(), { queued: 1, queuedBytes: 9_000_000 })
  link.take([{ type: 'answer', id: ids('publish')[0]!, value: [] }])
  const again = big({ deadline: Date.now() + 5_000 })
  await turns(3)
  t.match(broker.stats(), { queued: 1, queuedBytes: 9_000_000 })
  link.handlers.closed()
  t.equal((await again).state, 'unknown')
  t.equal(broker.stats().queued, 0)

  link.take([])
  link.take([{ type: 'welcome', back: [] }])
  const bytes = Buffer.alloc(40_000_000)
  const first = broker.control('*', bytes)
  t.equal(await broker.control('*', bytes), 'unknown')
  await turns(3)
  link.take([{ type: 'answer', id: ids('control')[0]!, value: 'sent' }])
  t.equal(await first, 'sent')
  const second = broker.control('*', bytes)
  await turns(3)
  link.take([{ type: 'answer', id: ids('control')[1]!, value: 'gone' }])
  t.equal(await second, 'gone')

  t.equal((await big()).state, 'unknown')
  link.handlers.closed()
  t.equal(broker.stats().queued, 0, 'no answer comes any more')
})

t.test('a primary that does not answer for 5 s is told, and so is its next answer', async t => {
  mock.timers.enable({ apis: ['setInterval'] })
  let ahead = 0
  const { performance } = globalThis
  const now = performance.now.bind(performance)
  performance.now = () => now() + ahead
  t.teardown(() => {
    performance.now = now
    mock.timers.reset()
  })
  const { link, node, broker } = await startWith(t)
  const pass = async (milliseconds: number): Promise<void> => {
    ahead += milliseconds
    mock.timers.tick(100)
    await turns(2)
  }
  link.take([{ type: 'welcome', back: [] }])
  const published = node.publish('a', 1, { deadline: Date.now() + 1_000 })
  await turns(3)
  await pass(2_000)
  t.equal((await published).state, 'unknown')
  const count = broker.presence.counts(['a'])
  await turns(3)
  await pass(2_900)
  t.same(node.states, ['up'])
  await pass(200)
  await pass(100)
  t.same(node.states, ['up', 'degraded'])
  t.ok(broker.stats().lag > 5_000)
  link.take([{ type: 'answer', id: 1, value: [] }, { type: 'failed', id: 2, reason: 'x' }])
  await t.rejects(count)
  t.same(node.states, ['up', 'degraded', 'up'])
})

t.test('an own entry whose publication is not known any more is a loss of its topic', async t => {
  const { link, node } = await startWith(t)
  link.take([{ type: 'welcome', back: [] }, { type: 'own', topic: 'a', uid: 'x', position: { epoch: 'epoch00000001', offset: 1 } }])
  t.same(node.lost, [['a']])
})

t.test('users that come or go while a hello is not answered are noted after it, however long that takes', async t => {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  t.teardown(() => { mock.timers.reset() })
  const { link, broker } = await startWith(t)
  broker.hold(['ann', 'ben'], [])
  broker.hold([], ['ben'])
  mock.timers.tick(60_000)
  link.take([{ type: 'welcome', back: [] }])
  await turns(3)
  t.same(link.calls, [['hold', ['ann'], ['ben']]])
  broker.hold(['eve'], [])
  await turns(3)
  t.same(link.calls.at(-1), ['hold', ['eve'], []])
  link.handlers.closed()
  broker.hold(['ian'], ['ann'])
  await turns(3)
  t.equal(link.calls.length, 2)
  link.take([], { state: 'next' })
  t.same(link.sent.at(-1)?.hello?.users, ['eve', 'ian'])
  link.take([{ type: 'welcome', back: [] }], { state: 'next' })
  await broker.close()
  broker.hold(['uma'], [])
  await turns(3)
  t.equal(link.calls.length, 2)
})

t.test('a call that the exchange cannot run rejects with its reason, and what is answered by a value does not', async t => {
  const { link, node, broker } = await startWith(t)
  link.take([{ type: 'welcome', back: [] }])
  const calls: Promise<unknown>[] = [broker.history('a', { limit: 1, bytes: 1, retention: roomy }), broker.presence.read('a', 1)]
  const failures = calls.map(async call => t.rejects(call, { code: 'FST_ROOMS_BROKER_FAULT', message: /broken/ }))
  const control = broker.control('*', Buffer.from('x'))
  broker.hold(['ann'], [])
  await turns(3)
  for (const id of [1, 2, 3, 4]) link.take([{ type: 'failed', id, reason: 'broken' }])
  await Promise.all(failures)
  t.equal(await control, 'unknown')
  t.equal(node.state, 'up')
})

t.test('calls that are not answered in time reject once, and late answers are ignored', async t => {
  const calls = new Calls(name => new Error(`${name} is silent`))
  const told: unknown[] = []
  const add = (timeout: number): void => { calls.add('read', [], timeout, value => { told.push(value) }, (error, isSent) => { told.push([error.message, isSent]) }) }
  add(1)
  await until(() => told.length === 1)
  t.same(calls.take(), [])
  add(1)
  add(60_000)
  t.same(calls.take().map(({ id }) => id), [2, 3])
  await until(() => told.length === 2)
  calls.answer(2, 'late')
  t.ok(calls.lag > 0, 'a call that waits counts')
  calls.answer(3, 'in time')
  t.same(told, [['read is silent', false], ['read is silent', true], 'in time'])
  t.ok(calls.lag > 0)
})

t.test('an answer that has arrived while the event loop stood is taken', async t => {
  const calls = new Calls(name => new Error(`${name} is silent`))
  const { port1, port2 } = new MessageChannel()
  t.teardown(() => { port1.close() })
  port1.on('message', (id: number) => { calls.answer(id, 'here') })
  const told = new Promise((resolve, reject) => { calls.add('read', [], 10, resolve, reject) })
  await turns(2) // timers come next
  const end = performance.now() + 300
  while (performance.now() < end);
  port2.postMessage(calls.take()[0]!.id)
  t.equal(await told, 'here')
})

t.test('a broker that was not started closes, and cannot be started after that', async t => {
  const broker = new ClusterBroker('rooms', new OpenLink())
  await broker.close()
  await t.rejects(broker.start('n', { entry () {}, control () {}, lost () {}, state () {} }), { code: 'FST_ROOMS_INVALID_OPTION' })
})

t.test('a broker that closes before its welcome has left', async t => {
  const fleet = new ClusterFleet()
  const node = new Node(fleet.broker())
  await node.broker.start(node.name, node.handlers)
  await node.broker.close()
  await turns(5)
  t.equal(fleet.host.stats().nodes, 0)
  t.same(node.states, [])
})

t.test('a channel that carries JSON is refused with the way out', async t => {
  const fleet = new ClusterFleet()
  const replies: unknown[] = []
  const peer = fleet.host.peer(message => { replies.push(message) })
  const hello = { historyBytes: 1, topics: [], users: [], members: [], probe: Buffer.alloc(1) }
  peer.receive(JSON.parse(JSON.stringify({ 'fastify-rooms': 1, name: 'rooms', node: 'n', hello })))
  t.match(replies, [{ node: 'n', events: [{ type: 'refused', reason: /serialization: "advanced"/ }] }])
  const { link, node } = await startWith(t)
  const causes: unknown[] = []
  node.handlers.state = (state, cause) => { causes.push([state, cause]) }
  link.take([{ type: 'refused', reason: 'JSON' }])
  t.match(causes, [['down', { code: 'FST_ROOMS_NO_CLUSTER' }]])
})

t.test('nodes of another name have other topics', async t => {
  const fleet = new ClusterFleet()
  const nodes = [await startNode(t, fleet), await startNode(t, fleet, 'others')] as [Node, Node]
  for (const { broker } of nodes) await broker.attach(['a'])
  for (const [index, node] of nodes.entries()) await node.publish('a', index)
  t.same(nodes.map(node => node.received('a')), [[0], [1]])
  t.equal(await nodes[0].broker.control('*', Buffer.from('x')), 'gone')
  t.equal(fleet.host.stats().nodes, 2)
})

t.test('a primary that was late, or has started again, gets everything that its nodes have', async t => {
  const fleet = new ClusterFleet()
  const [node, other] = [await startNode(t, fleet), await startNode(t, fleet)]
  for (const { broker } of [node, other]) await broker.attach(['a'], roomy)
  await node.broker.presence!.change([{ type: 'set', topic: 'a', session: 's1', user: 'ann' }, { type: 'set', topic: 'b', session: 's1', user: 'ann' }, { type: 'set', topic: 'a', session: 's2' }])
  await node.broker.presence!.change([{ type: 'leave', topic: 'a', session: 's2' }, { type: 'leave', topic: 'b', session: 's1', user: 'ann' }])
  node.broker.hold!(['ann', 'ben'], [])
  node.broker.hold!([], ['ben'])
  const { position: before } = await node.publish('a', 1, { retention: roomy })
  const calls = other.broker.presence!.counts(['a'])
  await turns(2)
  fleet.restart()
  await t.rejects(calls, { code: 'FST_ROOMS_BROKER_DOWN' })
  await until(() => other.lost.length > 0 && node.states.length >= 2)
  t.same([node.hasLost('a'), other.hasLost('a')], [true, true])
  const { position } = await other.publish('a', 2, { retention: roomy })
  await until(() => node.received('a').includes(2))
  t.not(position!.epoch, before!.epoch, 'a state that was lost is a new epoch')
  t.same((await other.broker.presence!.read('a', 10)).members, [{ session: 's1', node: node.name, user: 'ann' }])
  t.equal((await other.broker.presence!.read('b', 10)).count, 0)
  t.equal(await other.broker.control('user:ann', Buffer.from('x')), 'sent')
  t.equal(await other.broker.control('user:ben', Buffer.from('x')), 'gone')
  t.match(node.broker.stats!(), { reconnects: 1, resubscribed: 1, resets: 1 })
})

t.test('users of a node that comes back are told, if they had been reported as gone', async t => {
  const fleet = new ClusterFleet()
  const [node, other] = [await startNode(t, fleet), await startNode(t, fleet)]
  const back: unknown[] = []
  node.handlers.back = users => { back.push(...users) }
  await node.broker.presence!.change([{ type: 'set', topic: 'a', session: 's1', user: 'ann', info: '1' }, { type: 'set', topic: 'a', session: 's2' }, { type: 'set', topic: 'a', session: 's3', user: 'ben' }])
  await other.broker.presence!.change([{ type: 'set', topic: 'a', session: 's4', user: 'ben' }])
  fleet.cut(node.broker)
  await until(() => other.gone.length > 0)
  t.same(other.gone, [{ topic: 'a', user: 'ann', info: '1' }])
  fleet.heal(node.broker)
  await until(() => back.length > 0)
  t.same(back, [{ topic: 'a', user: 'ann', info: '1' }])
  t.equal((await other.broker.presence!.read('a', 0)).count, 4)
})

t.test('users whose last node has died are told to the next node', async t => {
  const fleet = new ClusterFleet()
  const node = await startNode(t, fleet)
  await node.broker.presence!.change([{ type: 'set', topic: 'a', session: 's1', user: 'ann' }])
  fleet.kill(node.broker)
  const next = await startNode(t, fleet)
  await until(() => next.gone.length > 0)
  t.same(next.gone, [{ topic: 'a', user: 'ann' }])
})

t.test('users that were told to a node which died with them, or closed, are told to another one', async t => {
  const fleet = new ClusterFleet()
  const nodes = [await startNode(t, fleet), await startNode(t, fleet), await startNode(t, fleet)] as [Node, Node, Node]
  const [told, dead, other] = nodes
  for (const user of ['ann', 'ben']) await dead.broker.presence!.change([{ type: 'set', topic: 'a', session: user, user }])
  fleet.link(told.broker).isHeld = true
  fleet.kill(dead.broker)
  await turns(3)
  await other.broker.presence!.change([{ type: 'set', topic: 'a', session: 's1', user: 'ben' }])
  fleet.kill(told.broker)
  await until(() => other.gone.length > 0)
  t.same(other.gone, [{ topic: 'a', user: 'ann' }], 'ben is back')
  await other.broker.close()
  const next = await startNode(t, fleet)
  await until(() => next.gone.length > 0)
  t.same(next.gone, [{ topic: 'a', user: 'ben' }], 'a report that was taken goes to no other node')
})

t.test('a report of users that are gone is taken once, also by a node that says hello twice', async t => {
  const { link, node } = await startWith(t)
  const gone = (user: string, report: number): ExchangeEvent => ({ type: 'gone', report, users: [{ topic: 'a', user }] })
  link.take([{ type: 'welcome', back: [] }, gone('ann', 1), gone('ben', 2)])
  link.take([{ type: 'welcome', back: [] }, gone('ann', 1), gone('ben', 2), gone('eve', 3)])
  t.same(node.gone.map(({ user }) => user), ['ann', 'ben', 'eve'])
  t.same(link.sent.map(({ gone }) => gone), [undefined, 1, 2, 1, 2, 3])
  link.take([{ type: 'welcome', back: [] }, gone('ian', 1)], { state: 'next' })
  t.equal(node.gone.at(-1)?.user, 'ian', 'another primary numbers anew')
})

t.test('the end of streams whose node has died is tried again until it is accepted, or the broker has closed', async t => {
  const fleet = new ClusterFleet()
  const [dead, node] = [new Node(fleet.broker()), new Node(fleet.broker())]
  let asked = 0
  let refusals = 1
  node.orphaned = async () => { if (++asked <= refusals) throw new Error('not accepted') }
  for (const one of [dead, node]) {
    await one.broker.start(one.name, one.handlers)
    await until(() => one.state === 'up')
  }
  const again = new Node(fleet.broker())
  await dead.broker.streams!.claim('a')
  fleet.kill(dead.broker)
  await until(() => node.orphans.length > 0)
  t.same([asked, node.orphans], [2, ['a']])

  await again.broker.start(again.name, again.handlers)
  await until(() => again.state === 'up')
  await again.broker.streams!.claim('b')
  refusals = Infinity
  fleet.kill(again.broker)
  await until(() => asked === 3)
  await node.broker.close()
  await new Promise(resolve => setTimeout(resolve, 600))
  t.same([asked, node.orphans], [3, ['a']])
})
