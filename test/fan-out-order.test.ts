import t from 'tap'
import { Run, steps } from './fan-out/run.ts'

/**
 * Rule 7 of docs/protocol.md against a model. A seeded run mixes all kinds of frames that a member can get, many of them in one turn of
 * the event loop. The host's hooks and calls and the log note the events on the server in their order. The exact sequence of frames of
 * each connection follows from these notes.
 * FAN_OUT_SEEDS is the number of seeds, or one seed as `=7`. A failure names the seed and the way of writing.
 */
const wanted = process.env['FAN_OUT_SEEDS'] ?? '6'
const seeds = wanted.startsWith('=') ? [Number(wanted.slice(1))] : Array.from({ length: Number(wanted) }, (_, index) => index + 1)

for (const way of ['direct', 'deflate', 'injected'] as const) {
  t.test(`each connection gets its frames in the order of the calls, without duplicates or losses (${way})`, { timeout: 120_000 }, async t => {
    for (const seed of seeds) {
      await t.test(`seed ${seed}`, async t => {
        const run = await Run.start(t, way, seed)
        await run.play()
        t.same(run.faults.slice(0, 10), [], `FAN_OUT_SEEDS==${seed}, ${way}`)
        t.ok([...run.model.entries.values()].reduce((sum, { expected }) => sum + expected.length, 0) > steps)
      })
    }
  })
}
