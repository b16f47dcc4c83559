import { Pair } from './pair.ts'

/** The report of a pair. */
export interface Report { topic: string, sent: number, p50: number, p99: number, max: number, faults: string[] }

/**
 * Pairs in a process of their own, so that neither an attacker nor a test delays their measurements. Protocol with the parent process: an array of
 * URLs starts a pair in each topic; `stop` ends them and is answered with their reports.
 */
let pairs: Pair[] = []
process.on('message', async (message: string[] | 'stop') => {
  if (message !== 'stop') {
    pairs = await Promise.all(message.map(url => Pair.start(url)))
    process.send!('started')
    return
  }
  const reports: Report[] = await Promise.all(pairs.map(async pair => ({ topic: pair.url, ...await pair.stop(), faults: pair.faults })))
  process.send!(reports)
})
process.on('disconnect', () => { process.exit() })
