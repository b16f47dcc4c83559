import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { freePort } from './process.ts'
import { answers, command, startRedis, type RedisServer } from './redis-server.ts'

/** A primary with one replica, which one Sentinel watches. */
export interface SentinelGroup {
  readonly primary: RedisServer
  readonly replica: RedisServer
  /** The port of the Sentinel. */
  readonly port: number
  /** The name of the primary. */
  readonly name: string
  /** Runs a command of the Sentinel. */
  command (...args: string[]): Promise<string>
  /** The port of the primary, as the Sentinel names it. */
  current (): Promise<number>
}

const name = 'rooms'

/** Starts a group, whose Sentinel notices a dead primary within a third of a second. It stops with its test. */
export async function startSentinel (t: Test): Promise<SentinelGroup> {
  const options = ['--repl-diskless-sync-delay', '0']
  const primary = await startRedis(t, options)
  const replica = await startRedis(t, [...options, '--replicaof', '127.0.0.1', String(primary.port)])
  await settled(async () => (await replica.command('INFO', 'replication')).includes('master_link_status:up'))

  const folder = mkdtempSync(join(tmpdir(), 'rooms-sentinel-'))
  const port = await freePort()
  const file = join(folder, 'sentinel.conf')
  writeFileSync(file, `port ${port}
bind 127.0.0.1
dir ${folder}
sentinel monitor ${name} 127.0.0.1 ${primary.port} 1
sentinel down-after-milliseconds ${name} 300
sentinel failover-timeout ${name} 1000
`)
  const process = spawn('redis-server', [file, '--sentinel'], { stdio: 'ignore' })
  t.teardown(async () => {
    if (process.exitCode === null && process.signalCode === null) {
      const exit = once(process, 'exit')
      process.kill('SIGKILL')
      await exit
    }
    rmSync(folder, { recursive: true, force: true })
  })
  await answers(port)
  const run = (...args: string[]): Promise<string> => command(port, args)
  // Its usual pace is that of a network: it asks its servers every 10 s, and puts a wrong one right after 8 s.
  await run('SENTINEL', 'DEBUG', 'INFO-PERIOD', '100', 'PING-PERIOD', '100', 'PUBLISH-PERIOD', '100')
  await settled(async () => (await run('SENTINEL', 'REPLICAS', name)).includes('master-link-status\r\n$2\r\nok'))
  return { primary, replica, port, name, command: run, current: async () => Number(/(\d+)\r\n$/.exec(await run('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', name))![1]) }
}

/** Waits until a condition holds. One that rejects does not hold. @throws if it does not within 30 s */
export async function settled (holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000
  for (;;) {
    const answer = await holds().catch((error: unknown) => error)
    if (answer === true) return
    if (performance.now() > deadline) throw new Error('the servers have not settled within 30 s', { cause: answer })
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Waits until the only replica of a primary has all that was written. */
export async function replicated (primary: RedisServer): Promise<void> {
  await settled(async () => {
    const info = await primary.command('INFO', 'replication')
    return /slave0:.*,offset=(\d+)/.exec(info)?.[1] === /master_repl_offset:(\d+)/.exec(info)![1]
  })
}
