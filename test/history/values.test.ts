import t from 'tap'
import { random } from '../helpers/random.ts'
import { runValues } from './values.ts'

const schedules = Number(process.env.SCHEDULES ?? 20)

for (const isSlow of [false, true]) {
  t.test(`clients of values that are cut and come back have the newest of each key: ${isSlow ? 'a broker that answers later' : 'the memory broker'}`, async t => {
    for (let n = 0; n < schedules; n++) {
      const seed = Number(process.env.SEED ?? 1_000_000 + 1_000 * Number(isSlow) + n)
      const faults = await runValues({
        seed,
        random: random(seed),
        history: { latest: true },
        keepsAll: false,
        isSlow,
        restarts: seed % 4 === 1,
        isTight: seed % 4 >= 2,
        policy: seed % 4 === 2 ? 'drop' : 'latest',
        hasOnJoin: seed % 3 === 0
      }, 150)
      t.same(faults, [], `seed ${seed}`)
    }
  })
}
