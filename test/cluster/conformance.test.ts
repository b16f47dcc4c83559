import t from 'tap'
import { brokerConformance } from '../../lib/conformance/index.ts'
import { ClusterFleet } from './fleet.ts'

const report = await brokerConformance({ test: (name, run) => t.test(name, async () => run()) }, () => new ClusterFleet(), { gone: 5_000 })

t.test('of the suite, the broker of a cluster runs every case', async t => {
  t.same(report.omitted, [])
  t.ok(report.cases.length > 40)
})
