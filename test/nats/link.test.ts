import t from 'tap'
import { Flushes } from '../../lib/nats/flushes.ts'
import { natsBroker } from '../../lib/nats/index.ts'
import type { NatsClient, NatsMessage } from '../../types/nats.ts'
import { until } from '../helpers/app.ts'
import { startNode } from './nodes.ts'

type Status = { type: string, error?: Error }

/** A client whose server answers as the test says. */
class FakeClient implements NatsClient {
  options: object = {}
  info: { max_payload: number } | undefined = { max_payload: 100_000_000 }
  /** Whether the server hands messages back. */
  echoes = true
  /** Thrown by each call. */
  fault: Error | undefined
  reconnects = 0
  end!: (error?: Error) => void
  readonly published: string[] = []
  /** How often the subject of an answer was read. */
  reads = 0
  readonly #end = new Promise<void | Error>(resolve => { this.end = resolve })
  readonly #callbacks = new Map<string, (error: Error | null, message: NatsMessage) => void>()
  readonly #statuses: Status[] = []
  #wake = (): void => {}

  publish (subject: string, data: Uint8Array, { reply }: { reply?: string } = {}): void {
    if (this.fault !== undefined) throw this.fault
    this.published.push(subject)
    if (this.echoes) setImmediate(() => { this.#deliver(subject, { subject, data }) })
    if (reply === undefined) return
    const read = (): void => { this.reads++ }
    const answer = {
      data,
      headers: { code: 503 },
      get subject () {
        read()
        return reply
      }
    }
    setImmediate(() => { this.#deliver(reply, answer) })
  }

  #deliver (subject: string, message: NatsMessage): void {
    for (const [pattern, callback] of this.#callbacks) if (subject.startsWith(pattern.replace('*', ''))) callback(null, message)
  }

  subscribe (subject: string, { callback }: { callback: (error: Error | null, message: NatsMessage) => void }): { unsubscribe (): void } {
    if (this.fault !== undefined) throw this.fault
    this.#callbacks.set(subject, callback)
    return { unsubscribe: () => { this.#callbacks.delete(subject) } }
  }

  async flush (): Promise<void> {
    if (!this.echoes) await new Promise(() => {})
  }

  tell (...statuses: Status[]): void {
    this.#statuses.push(...statuses)
    this.#wake()
  }

  status (): AsyncIterable<Status> {
    return this.#iterate()
  }

  async * #iterate (): AsyncGenerator<Status> {
    for (;;) {
      for (const status of this.#statuses.splice(0)) {
        if (status.type === 'throw') throw status.error
        yield status
      }
      await new Promise<void>(resolve => { this.#wake = resolve })
    }
  }

  isClosed (): boolean { return false }
  closed (): Promise<void | Error> { return this.#end }
  async reconnect (): Promise<void> {
    this.reconnects++
    throw new Error('cannot')
  }
}

t.test('options that are wrong are refused with what they take', async t => {
  const connection = new FakeClient()
  const refused = (options: unknown, message: RegExp): void => { t.throws(() => natsBroker(options as never), { code: 'FST_ROOMS_INVALID_OPTION', message }) }
  refused(undefined, /"connection" takes a connection of @nats-io\/transport-node 3, or a promise of one; got an object without "publish"/)
  refused({ connection: { publish () {} } }, /without "subscribe"/)
  refused({ connection: Object.assign(new FakeClient(), { isClosed: () => true }) }, /one that is closed/)
  refused({ connection: Object.assign(new FakeClient(), { options: { noEcho: true } }) }, /without "noEcho"/)
  for (const prefix of ['', 'a b', 'a..b', '.a', 'a.', '*', 'x'.repeat(65), 7]) refused({ connection, prefix }, /"prefix" takes/)
  for (const probe of [49, 2_501, 100.5, '100']) refused({ connection, probe }, /"probe" takes/)
  t.match(natsBroker({ connection: Object.assign(new FakeClient(), { options: undefined }) }).stats!(), { lag: 0, topics: 0 })
  t.equal(natsBroker({ connection, prefix: 'my-app.rooms', probe: 100 }).capabilities.order, 'node')
  t.equal(natsBroker({ connection: Promise.resolve(connection) }).capabilities.history, false)
})

t.test('a promise that rejects, or brings something else, is told by the state', async t => {
  const node = await startNode(t, 'a', { connection: Promise.reject(new Error('no server')) }, { patience: 1_000 })
  t.same(node.states, ['down', 'down'])
  t.match(node.causes[0], { code: 'FST_ROOMS_BROKER_DOWN', cause: { message: 'no server' } })
  const other = await startNode(t, 'a', { connection: Promise.resolve({} as never) })
  t.match(other.causes[0], { cause: { code: 'FST_ROOMS_INVALID_OPTION' } })
})

t.test('a connection that comes after the close is not used', async t => {
  const client = new FakeClient()
  const { promise, resolve } = deferred<NatsClient>()
  const node = await startNode(t, 'a', { connection: promise }, { patience: 1 })
  await node.broker.close()
  resolve(client)
  await promise
  await new Promise(resolve => setImmediate(resolve))
  t.same(client.published, [])
})

function deferred<T> (): { promise: Promise<T>, resolve: (value: T) => void } {
  let resolve!: (value: T) => void
  return { promise: new Promise<T>(_resolve => { resolve = _resolve }), resolve }
}

t.test('a client that reports a cut several times is down once, and up once', async t => {
  const client = new FakeClient()
  client.info = undefined
  const node = await startNode(t, 'a', { connection: client }, { patience: 1 })
  t.same(node.states, ['down'])
  client.info = { max_payload: 1_000 }
  client.tell({ type: 'reconnect' })
  await until(() => node.states.length === 2)
  client.tell({ type: 'error', error: new Error('stale') }, { type: 'error' }, { type: 'disconnect' }, { type: 'disconnect' }, { type: 'update' }, { type: 'reconnect' }, { type: 'reconnect' })
  await until(() => node.lost.length === 1)
  await new Promise(resolve => setTimeout(resolve, 120))
  t.same(node.states, ['down', 'up', 'down', 'up'])
  t.match(node.causes, [{ message: 'stale' }])
  t.same(node.lost, ['all'])
  client.tell({ type: 'throw', error: new Error('broken') })
  await until(() => node.states.at(-1) === 'down')
  t.match(node.causes.at(-1), { cause: { message: 'broken' } })
  await node.broker.close()
  client.end(new Error('late'))
})

t.test('what the client tells after the close is ignored', async t => {
  const client = new FakeClient()
  const node = await startNode(t, 'a', { connection: client })
  client.echoes = false
  const asked = node.broker.control('*', Buffer.from('x'))
  await node.broker.close()
  t.equal(await asked, 'unknown')
  const { length } = client.published
  client.tell({ type: 'disconnect' }, { type: 'reconnect' })
  await new Promise(resolve => setTimeout(resolve, 5))
  t.equal(client.published.length, length)
  t.same(node.states, ['up'])
})

t.test('a silent connection is asked to connect again, unless that would close it', async t => {
  const [client, last] = [new FakeClient(), new FakeClient()]
  last.options = { reconnect: false }
  const [node, other] = [await startNode(t, 'a', { connection: client }), await startNode(t, 'b', { connection: last })]
  for (const one of [client, last]) one.echoes = false
  await until(() => client.reconnects > 1 && other.states.includes('degraded'))
  t.same(node.states, ['up', 'degraded'])
  t.equal(last.reconnects, 0)
  const { missedProbes, lag } = node.broker.stats!()
  t.ok(missedProbes >= 6 && lag > 0, `${missedProbes} probes, ${lag} ms`)
  for (const one of [client, last]) one.echoes = true
  await until(() => node.states.at(-1) === 'up' && other.states.at(-1) === 'up')
  t.same([node.lost, other.lost], [[], []], 'nothing was cut')
})

t.test('a connection whose calls throw fails what was asked, and is found to be silent', async t => {
  const client = new FakeClient()
  const node = await startNode(t, 'a', { connection: client })
  client.fault = new Error('draining')
  await t.rejects(node.broker.attach(['chat']), { code: 'FST_ROOMS_BROKER_DOWN', cause: { message: 'draining' } })
  t.equal(await node.publish('chat', 1), 'failed')
  t.match(node.broker.stats!(), { queued: 0, queuedBytes: 0 })
  await until(() => node.states.includes('degraded'))
  client.fault = undefined
  t.same(await node.broker.attach(['chat']), [null])
})

t.test('what a silent connection has not confirmed is bounded', async t => {
  const client = new FakeClient()
  const node = await startNode(t, 'a', { connection: client, probe: 2_500 })
  client.echoes = false
  const large = 'x'.repeat(1_000_000)
  const outcomes = Array.from({ length: 20 }, () => node.publish('chat', large))
  const { queued, queuedBytes } = node.broker.stats!()
  t.equal(queued, 17)
  t.ok(queuedBytes > 17_000_000 && queuedBytes < 17_100_000)
  await node.broker.close()
  const states = await Promise.all(outcomes)
  t.same([states.filter(state => state === 'unknown').length, states.filter(state => state === 'failed').length], [17, 3])
})

t.test('an answer of the server costs the same, however many messages wait for one', async t => {
  const client = new FakeClient()
  const { broker } = await startNode(t, 'a', { connection: client })
  const outcomes = await Promise.all(Array.from({ length: 200 }, async (_, n) => broker.control(`user:u${n}`, Buffer.from('x'))))
  t.same(new Set(outcomes), new Set(['gone']))
  t.ok(client.reads <= 1_000, `${client.reads} comparisons`)
})

t.test('refused subjects are bounded in number', async t => {
  const client = new FakeClient()
  const node = await startNode(t, 'a', { connection: client })
  for (let i = 0; i <= 1_000; i++) client.tell({ type: 'error', error: Object.assign(new Error('refused'), { operation: 'publish', subject: `s${i}` }) })
  client.tell({ type: 'error', error: Object.assign(new Error('refused'), { operation: 'publish', subject: 's0' }) })
  await until(() => node.causes.length === 1_002)
})

t.test('a server that does not answer a flush is not waited for without an end', async t => {
  const flushes = new Flushes(() => new Promise(() => {}), 20)
  flushes.sent(10)
  await t.rejects(flushes.next(), { code: 'FST_ROOMS_BROKER_SILENT' })
  t.equal(flushes.unconfirmed, 10)
  flushes.cut(new Error('cut'))
  t.equal(flushes.unconfirmed, 0)
})
