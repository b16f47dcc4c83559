import t from 'tap'
import { natsBroker } from '../../lib/nats/index.ts'
import { startProxy } from '../client/proxy.ts'
import { createRooms, join, listen, until } from '../helpers/app.ts'
import { connectNats, startNats, withoutNats } from '../helpers/nats-server.ts'
import { NetworkProxy } from '../outage/proxy.ts'
import { startNode } from './nodes.ts'

const options = { skip: withoutNats }

t.test('a cut is told when the connection is back, and messages arrive again', options, async t => {
  const { host } = await startNats(t)
  const proxy = await startProxy(t, host)
  const a = await startNode(t, 'a', { connection: await connectNats(t, host) })
  const b = await startNode(t, 'b', { connection: await connectNats(t, proxy.host) })
  await Promise.all([a, b].map(({ broker }) => broker.attach(['chat'])))
  for (const { broker } of [a, b]) broker.hold!(['ann'], [])

  proxy.isDown = true
  const underWay = b.publish('chat', 'under way')
  proxy.cut()
  t.match(await underWay, /ok|unknown/)
  await until(() => b.states.at(-1) === 'down')
  t.equal(await a.publish('chat', 'lost'), 'ok')
  t.equal(await b.publish('chat', 'here'), 'failed')
  t.same(b.payloads(), ['under way', 'here'], 'members of the node that is cut off get its own messages')
  t.equal(await b.broker.control('*', Buffer.alloc(0)), 'unknown')
  t.same(b.lost, [])
  const attached = b.broker.attach(['later'])

  proxy.isDown = false
  await until(() => b.states.at(-1) === 'up')
  t.same(b.lost, ['all'])
  t.same(await attached, [null])
  t.equal(await a.publish('chat', 'again'), 'ok')
  t.equal(await a.publish('later', 'too'), 'ok')
  await until(() => b.entries.length === 4)
  t.same(b.payloads(), ['under way', 'here', 'again', 'too'])
  t.same(b.states, ['up', 'down', 'up'])
  t.same([a.states, a.lost], [['up'], []])
  t.match(b.broker.stats!(), { reconnects: 1, topics: 2 })
  t.ok(b.broker.stats!().resubscribed >= 5)
  await until(async () => await b.broker.control('user:ann', Buffer.from('hi')) === 'sent')
})

t.test('an app starts though the server is down, and a server that was killed is found again', options, async t => {
  const server = await startNats(t, { isDown: true })
  const b = await startNode(t, 'b', { connection: connectNats(t, server.host, { waitOnFirstConnect: true }) }, { patience: 50 })
  t.same(b.states, ['down'])
  const attached = b.broker.attach(['chat'])
  t.equal(await b.publish('chat', 'early'), 'failed')
  t.same(b.payloads(), ['early'])
  b.broker.hold!(['ann'], [])
  await server.start()
  await attached
  await until(() => b.states.at(-1) === 'up')
  t.same(b.lost, [], 'nothing was there to be lost')
  const a = await startNode(t, 'a', { connection: await connectNats(t, server.host) })
  t.equal(await a.broker.control('user:ann', Buffer.from('x')), 'sent')
  for (let kills = 1; kills <= 2; kills++) {
    await server.kill('SIGKILL')
    await until(() => a.states.at(-1) === 'down' && b.states.at(-1) === 'down')
    await server.start()
    await until(() => a.states.at(-1) === 'up' && b.states.at(-1) === 'up')
    t.same(b.lost, Array(kills).fill('all'))
    t.equal(await a.publish('chat', kills), 'ok')
    await until(() => b.payloads().at(-1) === kills)
  }
})

t.test('silence is noticed by probes: of a server that is stopped, and of a link that swallows all bytes', options, async t => {
  const server = await startNats(t)
  const proxy = await startProxy(t, server.host)
  const node = await startNode(t, 'a', { connection: await connectNats(t, server.host) })
  // By default one attempt of the client without an answer takes 20 s.
  const behind = await startNode(t, 'b', { connection: await connectNats(t, proxy.host, { timeout: 1_000 }) })
  await behind.broker.attach(['chat'])

  proxy.isBlackhole = true
  await until(() => behind.states.includes('degraded'), 5_000)
  t.equal(behind.causes[0]!.code, 'FST_ROOMS_BROKER_SILENT')
  proxy.isBlackhole = false
  await until(() => behind.states.at(-1) === 'up')
  t.same(behind.lost, ['all'], 'the client was made to connect again')
  await node.publish('chat', 'healed')
  await until(() => behind.payloads().at(-1) === 'healed')

  await server.kill('SIGSTOP')
  await until(() => node.states.includes('degraded'), 5_000)
  await server.kill('SIGCONT')
  await until(() => node.states.at(-1) === 'up')
  t.match(node.states.slice(0, 2), ['up', 'degraded'])
})

t.test('a silent connection is ended though its buffers are full, and what waits in them is not sent later', options, async t => {
  const { host } = await startNats(t)
  const proxy = new NetworkProxy(Number(host.split(':')[1]))
  t.teardown(() => { proxy.close() })
  await proxy.start()
  const a = await startNode(t, 'a', { connection: await connectNats(t, host) })
  const connection = await connectNats(t, `127.0.0.1:${proxy.port}`, { timeout: 500 })
  const b = await startNode(t, 'b', { connection })
  await a.broker.attach(['chat'])
  proxy.hold('up', 'down')
  const large = 'x'.repeat(1_000_000)
  const outcomes = Promise.all(Array.from({ length: 16 }, () => b.publish('chat', large)))
  await until(() => b.states.at(-1) === 'down', 5_000)
  t.same(b.states, ['up', 'degraded', 'down'])
  t.same(new Set(await outcomes), new Set(['unknown']))
  proxy.release()
  await until(() => b.states.at(-1) === 'up', 5_000)
  t.equal(await b.publish('chat', 'healed'), 'ok')
  await until(() => a.payloads().at(-1) === 'healed')
  t.ok(a.entries.length < 17, `${a.entries.length - 1} of 16 had left before`)
})

t.test('members of two apps: fan-out, except, gap after a cut', options, async t => {
  const server = await startNats(t)
  const proxy = await startProxy(t, server.host)
  const topics = { chat: { publish: true } } as const
  const start = async (host: string) => {
    const app = await createRooms(t, { topics, authorize: () => true, broker: natsBroker({ connection: await connectNats(t, host), probe: 50 }) })
    return { app, url: await listen(app) }
  }
  const [here, there] = [await start(server.host), await start(proxy.host)]
  const [one, two, far] = [await join(t, `${here.url}/rooms/chat`), await join(t, `${here.url}/rooms/chat`), await join(t, `${there.url}/rooms/chat`)]
  t.match(await one.ask({ type: 'message', data: 'hi' }), { ok: true })
  t.match([await two.next('message'), await far.next('message')], [{ data: 'hi' }, { data: 'hi' }])
  t.match(await here.app.rooms.broadcast('chat', 'not for two', { except: two.hello.session }), { local: 1, published: true })
  t.match([await one.next('message'), await far.next('message')].map(({ data }) => data).at(-1), 'not for two')
  proxy.cut()
  await far.next('gap')
  await here.app.rooms.broadcast('chat', 'after')
  t.match([await two.next('message'), await far.next('message')], [{ data: 'after' }, { data: 'after' }])
  t.equal(there.app.rooms.health().broker, 'up')
})
