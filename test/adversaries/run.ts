import { fuzz } from './fuzz.ts'
import { startPairs, startTarget } from './target.ts'

/**
 * The long run of the fuzzer, `npm run fuzz`. FUZZ_SEED is its seed, by default the clock. FUZZ_FRAMES is the number of frames, 100,000 by default.
 * FUZZ_BATCH runs only that batch, as a fault names it. With FUZZ_MULTIPLEXED=1 the connections have several topics.
 */
const { FUZZ_SEED, FUZZ_FRAMES, FUZZ_BATCH, FUZZ_MULTIPLEXED } = process.env
const seed = Number(FUZZ_SEED ?? Date.now() % 1_000_000)
const frames = Number(FUZZ_FRAMES ?? 100_000)
const most = 10

const cleanings: (() => unknown)[] = []
const t = { teardown: (clean: () => unknown): void => { cleanings.push(clean) } }
const target = await startTarget(t)
const pairs = startPairs(t)
await pairs.start(['calm', 'attacked'].map(topic => `127.0.0.1:${target.port}/lobby/${topic}`))

console.log(`FUZZ_SEED=${seed} FUZZ_FRAMES=${frames}`)
const faults: string[] = []
const began = performance.now()
target.begin()
const verdicts = await fuzz(target, fault => {
  faults.push(fault)
  console.log(fault)
  if (faults.length === most) process.exit(1)
}, { seed, frames, only: FUZZ_BATCH === undefined ? undefined : Number(FUZZ_BATCH), multiplexed: FUZZ_MULTIPLEXED === '1' })
const took = Math.round(performance.now() - began)
const { stray, errors, logged, stall, megabytes } = await target.settles(({ lobby }) => lobby.connections === 4 && lobby.topics === 2, 'rid of the fuzzer')
const reports = await pairs.stop()
faults.push(...stray, ...errors, ...logged, ...reports.flatMap(report => report.faults))

console.log(verdicts)
console.log(`${frames} frames in ${took} ms; the loop stood still for ${stall} ms at most; ${megabytes} MB`)
for (const { topic, sent, p50, p99, max } of reports) console.log(`${topic}: ${sent} messages, p50 ${p50} ms, p99 ${p99} ms, at most ${max} ms`)
const how = await target.close()
if (how !== 0) faults.push(`the server ended with ${how}`)
for (const clean of cleanings) await clean()
console.log(faults.length === 0 ? 'no faults' : faults.join('\n'))
process.exitCode = faults.length === 0 ? 0 : 1
