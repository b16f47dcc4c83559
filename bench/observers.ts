// Members whose latency is measured while the load generator does something else, in a process of their own: the load generator may be busy with reading its
// sockets, and would notice their messages late. The system lets this process run soon, because it rarely does.
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Job } from './job.ts'
import { joinAll, Tally } from './receiver.ts'
import { Control, Member, now } from './wire.ts'

const path = fileURLToPath(import.meta.url)
/** A process whose load generator has gone ends by itself. */
const most = 300_000

interface Settings extends Pick<Job, 'protocol' | 'port' | 'control'> { count: number, room: string, rate: number }

/** Members of a room that gets messages at a steady rate. */
export class Observers {
  readonly #child: ChildProcess

  private constructor (child: ChildProcess) {
    this.#child = child
  }

  /** Settles when all of them have joined. */
  static async join (settings: Settings): Promise<Observers> {
    const observers = new Observers(fork(path, [JSON.stringify(settings)]))
    await observers.#answer()
    return observers
  }

  async #answer (): Promise<number[]> {
    const [answer] = await once(this.#child, 'message') as [number[] | string]
    if (typeof answer === 'string') throw new Error(answer)
    return answer
  }

  /** Returns the latencies in microseconds since the last call, or since the members joined. */
  async latencies (): Promise<number[]> {
    this.#child.send('latencies')
    return this.#answer()
  }

  end (): void { this.#child.kill() }
}

async function observe ({ count, room, rate, protocol, port, control: controlPort }: Settings): Promise<void> {
  const tally = new Tally()
  tally.latencies = new Float64Array(count * rate * most / 1_000)
  tally.failed = error => { process.send!(error.message) }
  await joinAll(count, () => new Member({ protocol, port, room, tally }))
  const control = new Control(controlPort)
  setInterval(() => { control.send(`t ${now()} 1`) }, 1_000 / rate)
  let first = 0
  process.on('message', () => {
    process.send!(Array.from(tally.latencies!.subarray(first, tally.timed)))
    first = tally.timed
  })
  process.send!([])
}

if (process.argv[1] === path) {
  process.once('disconnect', () => { process.exit(0) })
  setTimeout(() => { process.exit(1) }, most)
  observe(JSON.parse(process.argv[2]!) as Settings).catch((error: Error) => { process.send!(error.message) })
}
