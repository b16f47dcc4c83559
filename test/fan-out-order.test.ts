import t from 'tap'
import { Run, steps } from './fan-out/run.ts'

/**
 * Rule 7 of docs/protocol.md against a model. A seeded run mixes everything that a member can be sent, many things in one turn of
 * the event loop. What happens on the server is noted in the order in which it happens, by the host's own hooks and calls and by
 * the log; from that follows, for every connection, the exact sequence of frames that it must get.
 *
 * FAN_OUT_SEEDS: how many seeds, or one seed alone as `=7`. A failure names the seed and the way of writing.
 */
const wanted = process.env['FAN_OUT_SEEDS'] ?? '10'
const seeds = wanted.startsWith('=') ? [Number(wanted.slice(1))] : Array.from({ length: Number(wanted) }, (_, index) => index + 1)

for (const way of ['direct', 'deflate', 'injected'] as const) {
  t.test(`every connection gets its frames in the order of the calls, none twice and none too few (${way})`, { timeout: 120_000 }, async t => {
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
