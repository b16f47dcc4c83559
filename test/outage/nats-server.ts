import type { Test } from 'tap'
import { startNats } from '../helpers/nats-server.ts'
import { freePort } from '../helpers/process.ts'
import type { FleetServer } from './fleet.ts'

/** A server of NATS that says what it keeps. */
export interface NatsFleetServer extends FleetServer {
  /** The subjects of all subscriptions. */
  subjects (): Promise<string[]>
}

export async function startNatsServer (t: Test): Promise<NatsFleetServer> {
  const monitor = await freePort()
  const server = await startNats(t, { options: ['-m', String(monitor)] })
  let isRunning = true
  const kill = async (): Promise<void> => {
    if (isRunning) await server.kill('SIGKILL')
    isRunning = false
  }
  const signal = (name: NodeJS.Signals): void => { server.kill(name).catch(() => {}) }
  return {
    port: Number(server.host.split(':')[1]),
    kill,
    async restart () {
      await kill()
      await server.start()
      isRunning = true
    },
    suspend: () => { signal('SIGSTOP') },
    resume: () => { signal('SIGCONT') },
    async subjects () {
      const response = await fetch(`http://127.0.0.1:${monitor}/subsz?subs=1&limit=10000`)
      const { subscriptions_list: list = [] } = await response.json() as { subscriptions_list?: { subject: string }[] }
      return list.map(({ subject }) => subject)
    }
  }
}
