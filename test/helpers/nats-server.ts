import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectSocket } from 'node:net'
import type { Test } from 'tap'
import { connect, type ConnectionOptions, type NatsConnection } from '@nats-io/transport-node'
import { freePort } from './process.ts'

/** Why tests with a server are skipped; `false` if there is one. */
export const withoutNats = spawnSync('nats-server', ['--version']).status !== 0 && 'nats-server is not installed'

/** A nats-server of one test, on a free port of the loopback. */
export interface NatsServer {
  readonly host: string
  kill (signal: NodeJS.Signals): Promise<void>
  /** Starts the server again, after it was killed. */
  start (): Promise<void>
}

async function isOpen (port: number): Promise<boolean> {
  const socket = connectSocket(port, '127.0.0.1')
  try {
    await once(socket, 'data') // the server speaks first
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Starts a server, unless `isDown`. Stopped with its test. @param options - further options of the command */
export async function startNats (t: Test, { isDown = false, options = [] as string[] } = {}): Promise<NatsServer> {
  const port = await freePort()
  let child: ChildProcess | undefined
  const server: NatsServer = {
    host: `127.0.0.1:${port}`,
    async start () {
      child = spawn('nats-server', ['-a', '127.0.0.1', '-p', String(port), ...options], { stdio: 'ignore' })
      while (!await isOpen(port)) {
        if (child.exitCode !== null) throw new Error(`nats-server ended with ${child.exitCode}`)
        await new Promise(resolve => setTimeout(resolve, 10))
      }
    },
    async kill (signal) {
      child!.kill(signal)
      if (signal === 'SIGKILL' || signal === 'SIGTERM') await once(child!, 'exit')
    }
  }
  t.teardown(async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  })
  if (!isDown) await server.start()
  return server
}

/** Connects. The connection is closed with its test. */
export async function connectNats (t: Test, host: string, options: ConnectionOptions = {}): Promise<NatsConnection> {
  const connection = await connect({ servers: host, maxReconnectAttempts: -1, reconnectTimeWait: 50, reconnectJitter: 10, ...options })
  t.teardown(() => connection.close())
  return connection
}
