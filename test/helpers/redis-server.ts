import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { freePort } from './process.ts'

/** Why tests that need a server of Redis are skipped; `false` if they are not. */
export const noRedis = spawnSync('redis-server', ['--version']).error === undefined ? false : 'redis-server is not installed'

/** A server of Redis that belongs to one test. */
export interface RedisServer {
  readonly port: number
  /** The folder of its data. */
  readonly folder: string
  readonly process: ChildProcess
  /** Runs a command over a connection of its own. Returns the bytes of the answer. */
  command (...args: string[]): Promise<string>
  /** Ends the process as `kill -9` does. */
  kill (): Promise<void>
  /** Starts it again, on the same port. @param isEmpty - without the data that it had. @param more - further options */
  restart (isEmpty?: boolean, more?: readonly string[]): Promise<void>
  suspend (): void
  resume (): void
}

/** Starts a server without persistence, which stops with its test. @param options - further options: `['--appendonly', 'yes']` */
export async function startRedis (t: Test, options: string[] = []): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'rooms-redis-'))
  const port = await freePort()
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no', '--loglevel', 'warning', ...options]
  let process = spawn('redis-server', args, { stdio: 'ignore' })
  const server: RedisServer = {
    port,
    folder,
    get process () { return process },
    command: (...args) => command(port, args),
    async kill () {
      if (process.exitCode !== null || process.signalCode !== null) return
      const exit = once(process, 'exit')
      process.kill('SIGKILL')
      await exit
    },
    async restart (isEmpty = false, more = []) {
      await server.kill()
      if (isEmpty) for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true })
      process = spawn('redis-server', [...args, ...more], { stdio: 'ignore' })
      await answers(port)
    },
    suspend () { process.kill('SIGSTOP') },
    resume () { process.kill('SIGCONT') }
  }
  t.teardown(async () => {
    await server.kill()
    rmSync(folder, { recursive: true, force: true })
  })
  await answers(port)
  return server
}

/** Waits until a server answers. */
export async function answers (port: number): Promise<void> {
  for (let i = 0; i < 500; i++) {
    try {
      if ((await command(port, ['PING'])).startsWith('+PONG')) return
    } catch {}
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  throw new Error('redis-server does not answer')
}

/** Runs a command over a connection of its own. Returns the bytes of the answer. */
export async function command (port: number, args: string[]): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  // A Sentinel ends the connections of a server whose role it changes.
  const ended = once(socket, 'close').then(() => { throw new Error('the server has closed the connection without an answer') })
  ended.catch(() => {})
  try {
    const text = `*${args.length}\r\n${args.map(arg => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join('')}`
    socket.write(text)
    const [chunk] = await Promise.race([once(socket, 'data') as Promise<[Buffer]>, ended])
    return chunk.toString()
  } finally {
    socket.destroy()
  }
}
