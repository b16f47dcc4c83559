import t from 'tap'
import { brokerConformance } from '../../lib/conformance/index.ts'
import { redisBroker } from '../../lib/redis/broker.ts'
import type { Broker } from '../../types/index.ts'
import { startProxy, type Proxy } from '../client/proxy.ts'
import { clients } from '../helpers/redis-clients.ts'
import { noRedis, startRedis } from '../helpers/redis-server.ts'

/** A node that was killed is gone after 2 s, and one that waits for a busy machine is not. */
const times = { every: 300, ttl: 2_000 }
let prefixes = 0
t.jobs = 4 // most of the time is waiting

// All cases with one client; the others are to pass those without faults, which the ports do not differ in.
for (const [index, [name, client]] of Object.entries(clients).entries()) {
  t.test(`the suite of brokers, with ${name}`, { skip: noRedis, buffered: true }, async t => {
    const server = await startRedis(t)
    const report = await brokerConformance({ test: (name, run) => t.test(name, async () => run()) }, () => {
      const prefix = `t${++prefixes}`
      const proxies = new Map<Broker, Proxy>()
      const fleet = {
        async broker () {
          const proxy = await startProxy(t, `127.0.0.1:${server.port}`)
          const broker = redisBroker({ client: client(Number(proxy.host.split(':')[1])), prefix, heartbeat: 2_000 }, times)
          proxies.set(broker, proxy)
          return broker
        },
        cut (broker: Broker) {
          const proxy = proxies.get(broker)!
          proxy.isDown = true
          proxy.cut()
        },
        heal (broker: Broker) { proxies.get(broker)!.isDown = false }
      }
      return index === 0 ? { ...fleet, kill: fleet.cut } : { broker: fleet.broker }
    }, { gone: 10_000 })
    if (index === 0) t.same(report.omitted, [])
    t.ok(report.cases.length > 30, `${report.cases.length} cases`)
  })
}
