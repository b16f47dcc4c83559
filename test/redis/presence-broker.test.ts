import t from 'tap'
import { Redis } from 'ioredis'
import { redisBroker } from '../../lib/redis/broker.ts'
import type { Broker, GoneUser, PresenceDelta } from '../../types/index.ts'
import { startProxy } from '../client/proxy.ts'
import { until } from '../helpers/app.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'
import { leave, set } from './presence-nodes.ts'

t.test('brokers note the members of their nodes, through a cut and the end of a node', { skip: noRedis }, async t => {
  const server = await startRedis(t)
  const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
  const start = async (name: string, port: number) => {
    const node = { broker: redisBroker({ client: new Redis(port, '127.0.0.1', { lazyConnect: true }), heartbeat: 500 }, { every: 60, ttl: 10_000 }), deltas: [] as PresenceDelta[], gone: [] as GoneUser[], states: [] as string[], controls: [] as string[] }
    await node.broker.start(name, {
      entry: () => {},
      control: (from, bytes) => { node.controls.push(`${from} ${bytes}`) },
      state: state => { node.states.push(state) },
      lost: () => {},
      presence: (_, delta) => { node.deltas.push(delta!) },
      gone: users => { node.gone.push(...users) }
    })
    t.teardown(() => node.broker.close())
    return node
  }
  const idle = redisBroker({ client: new Redis(server.port, '127.0.0.1', { lazyConnect: true }) })
  t.equal(idle.capabilities.presence, true)
  const calls: (() => Promise<unknown>)[] = [() => idle.presence!.change([]), () => idle.presence!.read('a', 1), () => idle.presence!.report(new Map()), () => idle.presence!.counts([]), () => idle.presence!.topics(1)]
  for (const call of calls) await t.rejects(call())
  idle.hold!(['u'], [])
  await idle.close()
  idle.hold!(['u'], [])

  const [a, b] = [await start('a', server.port), await start('b', Number(proxy.host.split(':')[1]))]
  await a.broker.attach(['a'])
  const change = async ({ broker }: { broker: Broker }, ...changes: ReturnType<typeof set>[]) => (await broker.presence!.change(changes)).map(({ user }) => user)
  t.same(await change(b, set('a', 's1', 'ann'), set('unattached', 's1', 'ann')), ['first', 'first'])
  await b.broker.presence!.report(new Map([['a', 1]]))
  await until(() => a.deltas.length === 1)
  t.same([await a.broker.presence!.counts(['a']), await a.broker.presence!.topics(5)], [[1], ['a']])
  b.broker.hold!(['ann'], [])
  await until(async () => await a.broker.control('user:ann', Buffer.from('hi')) === 'sent')

  proxy.isDown = true
  proxy.cut()
  await until(() => b.states.at(-1) === 'down')
  await t.rejects(change(b, leave('a', 's1', 'ann'), set('a', 's2', 'ben')))
  proxy.isDown = false
  await until(async () => (await a.broker.presence!.read('a', 5)).members.map(({ session }) => session).join() === 's2')
  t.same(await change(b, leave('a', 's1', 'ann'), set('a', 's2', 'ben')), ['last', 'first'], 'what was not answered is answered when it is sent again')
  await until(async () => await a.broker.control('user:ann', Buffer.from('again')) === 'sent')

  await b.broker.close()
  await until(() => a.gone.length === 2, 5_000)
  t.same(a.gone.map(({ topic, user }) => `${topic} ${user}`).sort(), ['a ben', 'unattached ann'])
  t.match(await a.broker.presence!.read('a', 5), { count: 0, members: [] })
  t.equal(await a.broker.control('user:ann', Buffer.from('x')), 'gone')
  const versions = a.deltas.map(({ version }) => version)
  t.same(versions, versions.map((_, index) => index + 1))
})
