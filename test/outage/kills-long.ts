import { cpus, loadavg } from 'node:os'
import t from 'tap'
import { Fleet } from './fleet.ts'
import { runKills } from './kills.ts'

/** Kills that a fleet goes through. */
const perFleet = 20

/** Kills `KILLS` nodes, beginning with `SEED`, for at most `MINUTES`. A run with faults prints how to run it again. */
t.test('nodes are killed, terminated and suspended: nodes and clients name the members that are there, and each user joins and leaves once', async t => {
  const { KILLS = 100, SEED = 1, MINUTES = 60 } = process.env
  const end = Date.now() + Number(MINUTES) * 60_000
  for (let left = Number(KILLS), seed = Number(SEED); left > 0 && Date.now() < end; left -= perFleet, seed++) {
    // One fleet of four has the times that users have by default.
    const isDefault = seed % 4 === 0
    const kills = Math.min(perFleet, left)
    const fleet = await Fleet.start(t, isDefault ? { heartbeat: 4_000, times: { every: 5_000, ttl: 15_000 } } : { heartbeat: 2_000, times: { every: 1_000, ttl: 3_000 } })
    const { faults, events, counts } = await runKills(fleet, { seed, kills, users: 60, suspension: isDefault ? [20_000, 40_000] : [10_000, 20_000], end })
    t.comment(`seed ${seed}: ${JSON.stringify(counts)}`)
    t.same(faults.slice(0, 20), [], `seed ${seed}: run it again with KILLS=${kills} SEED=${seed} npm run kills`)
    if (faults.length > 0) t.comment(`load ${loadavg()[0]!.toFixed(1)} of ${cpus().length}\n${events.join('\n')}`)
    t.ok(counts.kills > 0 && counts.joins > 0, `seed ${seed}: users joined and left`)
    await fleet.close()
  }
})
