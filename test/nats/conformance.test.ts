import t from 'tap'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { brokerConformance } from '../../lib/conformance/index.ts'
import { natsBroker } from '../../lib/nats/index.ts'
import type { Broker } from '../../types/index.ts'
import { startProxy, type Proxy } from '../client/proxy.ts'
import { startNats, withoutNats } from '../helpers/nats-server.ts'

let prefixes = 0

t.test('the suite of brokers, over NATS', { skip: withoutNats }, async t => {
  const server = await startNats(t)
  const report = await brokerConformance({ test: (name, run) => t.test(name, async () => run()) }, () => {
    const prefix = `t${++prefixes}`
    const proxies = new Map<Broker, Proxy>()
    const connections: NatsConnection[] = []
    return {
      async broker () {
        const proxy = await startProxy(t, server.host)
        const connection = await connect({ servers: proxy.host, maxReconnectAttempts: -1, reconnectTimeWait: 50 })
        connections.push(connection)
        const broker = natsBroker({ connection, prefix, probe: 50 })
        proxies.set(broker, proxy)
        return broker
      },
      cut (broker: Broker) {
        const proxy = proxies.get(broker)!
        proxy.isDown = true
        proxy.cut()
      },
      kill (broker: Broker) { proxies.get(broker)!.isDown = true; proxies.get(broker)!.cut() },
      heal (broker: Broker) { proxies.get(broker)!.isDown = false },
      async close () { await Promise.all(connections.map(connection => connection.close())) }
    }
  }, { gone: 5_000 })
  t.ok(report.cases.length > 15, `${report.cases.length} cases`)
  for (const { name, reason } of report.omitted) t.match(reason, /history|presence|streams|total|once|kill/, name)
})
