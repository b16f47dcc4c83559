import cluster from 'node:cluster'
import { EventEmitter } from 'node:events'
import { MessageChannel } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { clusterBroker, clusterPrimary } from '../../lib/cluster/index.ts'
import { processLink, type ChannelProcess } from '../../lib/cluster/links.ts'
import { openPrimary, type ClusterModule } from '../../lib/cluster/primary.ts'
import { Node, payloadsOf, roomy } from '../../lib/conformance/node.ts'
import { until } from '../helpers/app.ts'

async function start (t: Test, broker: Node['broker']): Promise<Node> {
  const node = new Node(broker)
  t.teardown(async () => broker.close())
  await broker.start(node.name, node.handlers)
  await until(() => node.state === 'up')
  return node
}

t.test('worker threads share the state of a primary through ports', async t => {
  const primary = clusterPrimary()
  t.teardown(() => { primary.close() })
  t.equal(cluster.settings.serialization, 'advanced')
  t.throws(() => clusterPrimary(), { code: 'FST_ROOMS_NO_CLUSTER', message: /called before/ })
  const ports = [new MessageChannel(), new MessageChannel()] as const
  for (const { port1 } of ports) primary.connect(port1)
  const [one, two] = [await start(t, clusterBroker({ port: ports[0].port2 })), await start(t, clusterBroker({ port: ports[1].port2 }))]
  for (const { broker } of [one, two]) await broker.attach(['a'], roomy)
  await one.publish('a', 'hello', { retention: roomy })
  await until(() => two.received('a').length === 1)
  t.ok(Buffer.isBuffer(two.entries[0]!.publication.tail))
  const page = await two.history('a')
  t.same(payloadsOf(page), ['hello'])
  t.ok(Buffer.isBuffer(page.messages[0]!.tail))
  await two.broker.control('*', Buffer.from('x'))
  await until(() => one.controls.length === 1)
  t.match(primary.stats(), { nodes: 2, topics: 1, published: 1, history: { messages: 1 } })

  ports[0].port2.close()
  await until(() => primary.stats().nodes === 1)
  await until(() => one.state === 'down')
  primary.close()
  await until(() => two.state === 'down')
  await two.broker.close()
  for (const { port1, port2 } of ports) {
    port1.close()
    port2.close()
  }
  clusterPrimary().close() // a second state after the end of the first
})

t.test('wrong uses are refused', async t => {
  t.throws(() => clusterBroker(), { code: 'FST_ROOMS_NO_CLUSTER', message: /for workers of node:cluster/ })
  t.throws(() => clusterBroker({ name: '' }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  t.throws(() => clusterBroker({ name: 7 as never }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  t.throws(() => clusterBroker({ name: 'x'.repeat(101) }), { code: 'FST_ROOMS_INVALID_ARGUMENT' })
  for (const port of [null, 3_000, { postMessage () {} }]) t.throws(() => clusterBroker({ port: port as never }), { code: 'FST_ROOMS_INVALID_ARGUMENT', message: /MessagePort/ })
  t.throws(() => openPrimary(new FakeCluster([], false) as never), { code: 'FST_ROOMS_NO_CLUSTER', message: /for the primary/ })
  t.throws(() => openPrimary(new FakeCluster([new FakeWorker()], true, 'json') as never), { code: 'FST_ROOMS_NO_CLUSTER', message: /before the first cluster.fork/ })
  openPrimary(new FakeCluster([]) as never).close()
  const { send } = process
  t.teardown(() => {
    Object.assign(cluster, { isWorker: false })
    if (send === undefined) delete process.send
    else process.send = send
  })
  Object.assign(cluster, { isWorker: true })
  process.send = () => true
  t.equal(clusterBroker().capabilities.history, true)
})

/** A worker, as the primary sees it, and its process. */
class FakeWorker {
  readonly process = new EventEmitter() as unknown as ChannelProcess & EventEmitter & { connected: boolean }
  isDead = false
  readonly cluster: FakeCluster | undefined

  constructor () {
    Object.assign(this.process, { connected: true, send: (message: unknown) => { this.toPrimary(structuredClone(message)) } })
  }

  toPrimary: (message: unknown) => void = () => {}
  isConnected (): boolean { return this.process.connected }
  send (message: unknown): void {
    const copy = structuredClone(message)
    setImmediate(() => { this.process.emit('message', copy) })
  }
}

class FakeCluster extends EventEmitter {
  readonly isPrimary: boolean
  readonly settings: { serialization?: string }
  workers: Record<string, FakeWorker> | undefined

  constructor (workers: FakeWorker[], isPrimary = true, serialization?: string) {
    super()
    this.isPrimary = isPrimary
    this.settings = serialization === undefined ? {} : { serialization }
    if (workers.length > 0) this.workers = Object.fromEntries(workers.entries())
    for (const worker of workers) this.add(worker)
  }

  setupPrimary (settings: object): void { Object.assign(this.settings, settings) }
  add (worker: FakeWorker): void { worker.toPrimary = message => { setImmediate(() => { this.emit('message', worker, message) }) } }
}

t.test('a node of a worker that runs already, and of one that starts later, join the primary, and leave with their worker', async t => {
  const { ClusterBroker } = await import('../../lib/cluster/broker.ts')
  const [running, later, dead] = [new FakeWorker(), new FakeWorker(), new FakeWorker()]
  dead.process.connected = false
  const fake = new FakeCluster([running], true, 'advanced')
  const early = new Node(new ClusterBroker('rooms', processLink(running.process)))
  t.teardown(async () => early.broker.close())
  await early.broker.start(early.name, early.handlers)
  const primary = openPrimary(fake as unknown as ClusterModule)
  await until(() => early.state === 'up')
  fake.add(later)
  const two = await start(t, new ClusterBroker('rooms', processLink(later.process)))
  const both = await start(t, new ClusterBroker('rooms', processLink(later.process)))
  for (const { broker } of [early, two, both]) await broker.attach(['a'])
  await both.publish('a', 1)
  await until(() => [early, two, both].every(node => node.received('a').length === 1))
  t.equal(primary.stats().nodes, 3)

  later.process.connected = false
  fake.emit('disconnect', later)
  fake.emit('exit', later)
  t.equal(primary.stats().nodes, 1, 'both nodes of the worker have left')
  later.process.emit('disconnect')
  t.equal(two.state, 'down')
  await early.publish('a', 2)
  await two.broker.close()
  t.equal(later.process.listenerCount('message'), 1, 'the other broker listens')
  await both.broker.close()
  t.equal(later.process.listenerCount('message'), 0)

  const node = new Node(new ClusterBroker('rooms', processLink(dead.process)))
  await node.broker.start(node.name, node.handlers)
  t.equal(node.state, 'down', 'a process without a channel')
  await node.broker.close()
  primary.close()
  await until(() => early.state === 'down')
  t.same(fake.eventNames(), [])
})

t.test('a port that has closed is forgotten', async t => {
  const primary = openPrimary(new FakeCluster([]) as never)
  const port = Object.assign(new EventEmitter(), { postMessage () {}, unref () {} })
  primary.connect(port as never)
  port.emit('close')
  t.same(port.eventNames(), [])
  port.off = () => {
    t.fail('the primary still knows the port')
    return port
  }
  primary.close()
})
