import type { Broker } from '../../types/index.ts'
import type { ConformanceFleet, ConformanceOptions, ConformanceReport, ConformanceRunner } from '../../types/conformance.ts'
import { FST_ROOMS_INVALID_ARGUMENT } from '../errors.ts'
import { needs, type Case, type Need } from './case.ts'
import { controlCases } from './control.ts'
import { deliveryCases } from './delivery.ts'
import { historyCases } from './history.ts'
import { lifecycleCases } from './lifecycle.ts'
import { onceCases } from './once.ts'
import { outageCases } from './outage.ts'
import { presenceCases } from './presence.ts'
import { streamCases } from './streams.ts'
import { recoveryCases } from './recovery.ts'
import { FleetStage } from './stage.ts'

export type * from '../../types/conformance.ts'

const cases: readonly Case[] = [...lifecycleCases, ...deliveryCases, ...historyCases, ...recoveryCases, ...onceCases, ...presenceCases, ...streamCases, ...controlCases, ...outageCases]

/**
 * Adds the tests of the contract of brokers (`types/broker.ts`) to a test runner. Each case has a fleet of its own. Cases of a capability that the broker does not
 * declare, or of a fault that the fleet does not offer, are not run: the report names them.
 *
 * ```ts
 * await brokerConformance({ test }, () => ({ broker: () => memoryBroker() }), { nodes: 1 })
 * ```
 *
 * @param runner - the runner's `test`
 * @param createFleet - makes the brokers of one case. It is called once more before, to read the capabilities of a broker, which is not started
 * @throws FST_ROOMS_INVALID_ARGUMENT for a name in `except` that no case has; what `createFleet` throws
 */
export async function brokerConformance (runner: ConformanceRunner, createFleet: () => ConformanceFleet | Promise<ConformanceFleet>, options: ConformanceOptions = {}): Promise<ConformanceReport> {
  const { name: prefix, nodes = 3, timeout = 5_000, quiet = 50, gone = 30_000, noticed = 15_000, except = {} } = options
  for (const name of Object.keys(except)) if (!cases.some(one => one.name === name)) throw new FST_ROOMS_INVALID_ARGUMENT('except', `names of cases; there is no case "${name}"`)
  const settings = { most: nodes, timeout, quiet, gone, noticed }
  const sample = await createFleet()
  const broker = await sample.broker()
  const { capabilities } = broker
  const has = abilities(broker, sample, nodes)
  await sample.close?.()
  const report: ConformanceReport = { cases: [], omitted: [] }
  for (const { name, needs: needed, run } of cases) {
    const missing = needed.filter(need => !has[need])
    const reason = missing.length > 0 ? `needs ${missing.map(need => needs[need]).join(', ')}` : except[name]
    const title = prefix === undefined ? name : `${prefix}: ${name}`
    if (reason !== undefined) {
      report.omitted.push({ name, reason })
      runner.skip?.(title, reason)
      continue
    }
    report.cases.push(name)
    runner.test(title, async () => {
      const stage = new FleetStage(await createFleet(), capabilities, settings)
      try {
        await run(stage)
      } finally {
        await stage.close()
      }
    })
  }
  return report
}

function abilities (broker: Broker, fleet: ConformanceFleet, nodes: number): Record<Need, boolean> {
  const { order, history, presence, once } = broker.capabilities
  return {
    nodes: nodes > 1,
    total: order === 'total',
    history,
    presence: presence && broker.presence !== undefined,
    streams: broker.streams !== undefined,
    shared: once === 'shared',
    hold: broker.hold !== undefined,
    stats: broker.stats !== undefined,
    cut: fleet.cut !== undefined && fleet.heal !== undefined,
    kill: fleet.kill !== undefined
  }
}
