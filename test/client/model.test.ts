import t from 'tap'
import { runClients, type Counts } from './model.ts'

const schedules = Number(process.env.SCHEDULES ?? 6)

t.test('clients that are cut off, sleep, move, and come back get every message once, in order, or are told', async t => {
  const sums: Partial<Counts> = {}
  for (let n = 1; n <= schedules; n++) {
    const seed = Number(process.env.SEED ?? n)
    const { faults, counts } = await runClients({ seed, clients: 40, steps: 320 })
    t.same(faults, [], `seed ${seed}`)
    for (const [name, count] of Object.entries(counts) as [keyof Counts, number][]) sums[name] = (sums[name] ?? 0) + count
  }
  for (const [name, count] of Object.entries(sums)) t.ok(count > 0 || process.env.SEED !== undefined, `the schedules had ${name}`)
})
