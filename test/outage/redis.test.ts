import t, { type Test } from 'tap'
import { noRedis } from '../helpers/redis-server.ts'
import { withoutSignals } from '../helpers/process.ts'
import { Fleet } from './fleet.ts'
import { runKills } from './kills.ts'
import { runSchedule } from './model.ts'
import { overRedis, runAll } from './run.ts'

const skip = noRedis || withoutSignals
const isLong = process.env.SCHEDULES !== undefined

/** A short run of kills, on a fleet that is there. */
async function after (t: Test, fleet: Fleet): Promise<void> {
  const { faults, events, counts } = await runKills(fleet, { seed: 1, kills: 2, users: 24, suspension: [4_500, 5_500], first: ['kill', 'suspend'] })
  t.same(faults, [], 'a node is killed, and one is suspended: nodes and clients name the members that are there, and each user joins and leaves once')
  if (faults.length > 0) t.comment(events.join('\n'))
  t.ok(counts.joins > 0 && counts.leaves > 0, 'users joined and left')
}

t.test('three nodes over Redis: whatever fails, members get every message that was acknowledged, once and in order, or are told', { skip }, async t => {
  await runAll(t, 2, { ...overRedis, after })
})

if (isLong) {
  t.test('nodes grow by at most 64 MiB while the server is away for half a minute, at 200 messages a second', { skip }, async t => {
    const fleet = await Fleet.start(t, { heartbeat: 4_000, times: { every: 5_000, ttl: 15_000 } })
    const { faults, counts } = await runSchedule(fleet, { seed: 1, members: 240, faults: 1, length: 5_000, rate: 200, warmUp: 3_000, only: ({ isLong }) => isLong === true })
    t.comment(JSON.stringify(counts))
    t.same(faults, [])
    t.ok(counts.refused > 1_000, 'messages were published all the time')
    await fleet.close()
  })
}
