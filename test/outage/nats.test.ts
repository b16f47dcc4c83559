import t from 'tap'
import { NatsBroker } from '../../lib/nats/broker.ts'
import { NatsLink } from '../../lib/nats/link.ts'
import type { BrokerHandlers } from '../../types/index.ts'
import { withoutNats } from '../helpers/nats-server.ts'
import { withoutSignals } from '../helpers/process.ts'
import { runOverNats, startNatsFleet } from './nats.ts'
import type { ScheduleOptions } from './model.ts'
import { runAll } from './run.ts'

const options = { skip: withoutNats || withoutSignals }
const isLong = process.env.SCHEDULES !== undefined

t.test('three nodes over NATS: whatever fails, members lose only what their own node could not get, and are told', options, async t => {
  await runAll(t, 2, { start: startNatsFleet, run: runOverNats, file: 'nats.test.ts', short: { members: 40, faults: 2, length: 1_000 } })
})

/** A schedule while one protection is off. It must show what the protection is for: otherwise the model does not see it. */
interface Twin {
  readonly name: string
  readonly fault: string
  readonly shows: RegExp
  /** Only in long runs. */
  readonly isLong?: boolean
  readonly probe?: number
  readonly schedule?: Partial<ScheduleOptions>
  /** Turns the protection off for the nodes that start from now on. Returns a function that turns it on again. */
  turnOff? (): () => void
}

const mostSchedules = 5

/** Changes the handlers of each broker that is started. */
function withHandlers (change: (handlers: BrokerHandlers, node: string) => Partial<BrokerHandlers>): () => void {
  const { start } = NatsBroker.prototype
  NatsBroker.prototype.start = function (this: NatsBroker, node, handlers) {
    const { entry, control, state, lost } = handlers
    return start.call(this, node, { entry, control, state, lost, ...change(handlers, node) })
  }
  return () => { NatsBroker.prototype.start = start }
}

const twins: Twin[] = [
  {
    name: 'without probes, silence is not noticed',
    fault: 'nothing comes from the server',
    shows: /has not noticed \d+ ms of silence/,
    probe: 1_000_000,
    schedule: { length: 3_600, isExact: true }
  },
  {
    name: 'without the report of a loss, members miss messages silently',
    fault: 'connections of a node are refused',
    shows: /has not got \d+, acknowledged, and was not told/,
    turnOff: () => withHandlers(() => ({ lost () {} }))
  },
  {
    name: 'without the confirmation of the server, messages are acknowledged that nobody gets',
    fault: 'a node is in a black hole',
    shows: /has not got \d+, acknowledged, though its node \d was not cut off/,
    isLong: true,
    schedule: { length: 3_600, isExact: true },
    turnOff () {
      const { flushed } = NatsLink.prototype
      NatsLink.prototype.flushed = async () => {}
      return () => { NatsLink.prototype.flushed = flushed }
    }
  },
  {
    name: 'if members of the own node had to wait for the server, they would get messages late',
    fault: 'a slow link',
    shows: /of its own node only after \d+ ms/,
    isLong: true,
    turnOff: () => withHandlers(({ entry }, node) => ({
      entry (topic, publication, position) {
        if (publication.node === node) setTimeout(entry, 2_000, topic, publication, position)
        else entry(topic, publication, position)
      }
    }))
  },
  {
    name: 'if entries overtook each other, members would differ in the order',
    fault: 'a slow link',
    shows: /of node \d after \d+, others got it before/,
    isLong: true,
    turnOff: () => withHandlers(({ entry }, node) => ({
      entry (topic, publication, position) {
        if (publication.node === node) entry(topic, publication, position)
        else setTimeout(entry, Number(publication.uid.at(-1)) * 20, topic, publication, position)
      }
    }))
  },
  {
    name: 'if an entry came twice, members would get it twice',
    fault: 'a slow link',
    shows: /got \d+ twice, though it was sent once/,
    isLong: true,
    turnOff: () => withHandlers(({ entry }) => ({
      entry (topic, publication, position) {
        entry(topic, publication, position)
        entry(topic, { ...publication, uid: `${publication.uid}-again` }, position)
      }
    }))
  }
]

t.test('twins over NATS', options, async t => {
  for (const { name, fault, shows, isLong: needsLong = false, probe, schedule, turnOff } of twins) {
    if (needsLong && !isLong) continue
    t.test(name, async t => {
      const turnOn = turnOff?.()
      t.teardown(() => turnOn?.())
      const fleet = await startNatsFleet(t, { isInside: true, heartbeat: 500, times: { every: 1_000, ttl: 3_000 }, ...probe === undefined ? {} : { probe } })
      let found: string[] = []
      for (let seed = 1; seed <= mostSchedules && !found.some(text => shows.test(text)); seed++) {
        const { faults } = await runOverNats(fleet, { seed, members: 18, faults: 1, length: 1_000, rate: 100, only: ({ name }) => name === fault, patience: 6_000, ...schedule as object })
        found = faults
      }
      t.match(found.find(text => shows.test(text)), shows, `the model sees it: ${found.slice(0, 3).join('\n')}`)
      await fleet.close()
    })
  }
})
