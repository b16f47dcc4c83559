import t from 'tap'
import { random } from '../helpers/random.ts'
import { featuresOf, runSchedule } from './model.ts'

const schedules = Number(process.env.SCHEDULES ?? 20)
const histories = [{ size: 5 }, { size: 1_000 }, { size: 1_000, bytes: 60_000 }, { size: 1_000, replay: 30_000 }, { size: 1_000, bytes: 50_000_000, replay: 50_000_000 }]

for (const isSlow of [false, true]) {
  t.test(`clients that are cut and come back get every message once, in order, or are told: ${isSlow ? 'a broker that answers later' : 'the memory broker'}`, async t => {
    for (let n = 0; n < schedules; n++) {
      const seed = Number(process.env.SEED ?? 1_000 * Number(isSlow) + n)
      const keepsAll = seed % histories.length === histories.length - 1
      const faults = await runSchedule({ seed, random: random(seed), history: histories[seed % histories.length]!, keepsAll, isSlow, ...featuresOf(seed) }, 200)
      t.same(faults, [], `seed ${seed}`)
    }
  })
}
