import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import { environment } from '../helpers/process.ts'
import type { Report } from './pairs.ts'
import type { Condition } from './server.ts'

/** Registers clean-up after a test or a script. */
export interface Teardown { teardown (clean: () => unknown): unknown }

/** A server in a process of its own, to be attacked. */
export interface Target {
  port: number
  /** Starts the measurement of stalls. */
  begin (): void
  condition (): Promise<Condition>
  /** Stalls its event loop for 3 s. */
  stall (): Promise<void>
  /** Waits until its report meets a condition; fails with the last report if that takes too long. */
  settles (holds: (condition: Condition) => boolean, what: string): Promise<Condition>
  /** Closes the app. Returns the exit code: 0 if nothing held the process. */
  close (): Promise<number | NodeJS.Signals | null>
}

/** Starts a program of this folder in a process of its own, and reads its messages. */
function start (t: Teardown, name: string): { child: ChildProcess, ended: Promise<number | NodeJS.Signals | null>, answer (): Promise<any> } {
  const child = fork(fileURLToPath(new URL(name, import.meta.url)), { execArgv: ['--import', 'tsx'], env: environment() })
  const ended = once(child, 'exit').then(([code, signal]) => code ?? signal)
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const answer = async (): Promise<any> => {
    const [message] = await Promise.race([once(child, 'message'), ended.then(how => { throw new Error(`${name} ended with ${how}`) })])
    return message
  }
  return { child, ended, answer }
}

export async function startTarget (t: Teardown): Promise<Target> {
  const { child, ended, answer } = start(t, 'server.ts')
  const { port } = await answer()
  const condition = (): Promise<Condition> => {
    child.send('condition')
    return answer()
  }
  return {
    port,
    begin () { child.send('begin') },
    condition,
    async stall () {
      child.send('stall')
      await answer()
    },
    async settles (holds, what) {
      const deadline = Date.now() + 30_000
      for (;;) {
        const now = await condition()
        if (holds(now)) return now
        if (Date.now() > deadline) throw new Error(`never ${what}: ${JSON.stringify(now).slice(0, 2_000)}`)
        await sleep(20)
      }
    },
    async close () {
      child.send('close')
      return ended
    }
  }
}

/** Starts pairs of well-behaved members. */
export interface Pairs {
  start (urls: string[]): Promise<void>
  stop (): Promise<Report[]>
}

export function startPairs (t: Teardown): Pairs {
  const { child, answer } = start(t, 'pairs.ts')
  return {
    async start (urls) {
      child.send(urls)
      await answer()
    },
    async stop () {
      child.send('stop')
      return answer()
    }
  }
}
