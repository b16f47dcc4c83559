import { cpus, loadavg } from 'node:os'
import type { Test } from 'tap'
import { Fleet, type FleetOptions, type FleetServer } from './fleet.ts'
import type { RedisServer } from '../helpers/redis-server.ts'
import { runSchedule, type ScheduleOptions, type ScheduleResult } from './model.ts'

/** Starts fleets, and runs schedules on them. */
export interface Runner<S extends FleetServer> {
  start (t: Test, options: FleetOptions): Promise<Fleet<S>>
  run (fleet: Fleet<S>, options: ScheduleOptions<any>): Promise<ScheduleResult>
  /** The test file, and what changes of the options. */
  readonly file: string
  readonly short?: Partial<ScheduleOptions>
  /** Runs behind short schedules, on their fleet. */
  after? (t: Test, fleet: Fleet<S>): Promise<void>
}

export const overRedis: Runner<RedisServer> = { start: Fleet.start, run: runSchedule, file: 'redis.test.ts' }

/** Schedules of a long run that share a fleet. */
const perFleet = 10

/**
 * Runs schedules: a few short ones, or with `SCHEDULES` so many long ones, beginning with `SEED`, for at most `MINUTES`. A schedule with faults prints how to
 * run it again.
 */
export async function runAll<S extends FleetServer> (t: Test, short: number, runner: Runner<S>): Promise<void> {
  const isLong = process.env.SCHEDULES !== undefined
  const count = Number(process.env.SCHEDULES ?? short)
  const first = Number(process.env.SEED ?? 1)
  const end = Date.now() + Number(process.env.MINUTES ?? 60) * 60_000
  const options = isLong ? { members: 240, faults: 4, length: 5_000, rate: 60 } : { members: 120, faults: 3, length: 1_200, rate: 50, ...runner.short }
  let fleet: Fleet<S> | undefined
  for (let seed = first; seed < first + count && Date.now() < end; seed++) {
    if ((seed - first) % perFleet === 0) {
      await fleet?.close()
      // One fleet of three has the times that users have by default.
      const isDefault = isLong && seed % 30 >= 20
      fleet = await runner.start(t, { heartbeat: isDefault ? 4_000 : 2_000, times: isDefault ? { every: 5_000, ttl: 15_000 } : { every: 1_000, ttl: 3_000 } })
    }
    const { faults, events, counts } = await runner.run(fleet!, { seed, ...options })
    if (isLong) t.comment(`seed ${seed}: ${JSON.stringify(counts)}${faults.length > 0 ? ` ${faults.length} FAULTS` : ''}`)
    t.same(faults.slice(0, 20), [], `seed ${seed}: run it again with ${isLong ? 'SCHEDULES=1 ' : ''}SEED=${seed} node --import tsx test/outage/${runner.file}`)
    if (faults.length > 0) t.comment(`load ${loadavg()[0]!.toFixed(1)} of ${cpus().length}\n${events.join('\n')}`)
    t.ok(counts.messages > 0 && counts.acknowledged > 0, `seed ${seed}: messages were acknowledged and delivered`)
  }
  if (!isLong && fleet !== undefined) await runner.after?.(t, fleet)
  await fleet?.close()
  t.same(fleet?.faults ?? [], [], 'no node has faults at its end')
}
