import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Test } from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Milliseconds for an example to print its URL: many times its duration on a busy machine. */
const startTimeout = 60_000

/** Why tests that stop a process by a signal are skipped: a process on Windows ends at once. */
export const withoutSignals = process.platform === 'win32' && 'Windows has no signals'

/** A running example. */
export interface Example {
  /** The printed URL, without a slash at the end. */
  url: string
  /** Host and port of `url`. */
  host: string
  /** All lines of standard output, as they arrive. */
  lines: string[]
  /** Sends a signal and waits for the exit. */
  stop (signal?: NodeJS.Signals): Promise<{ code: number | null, signal: NodeJS.Signals | null }>
}

/**
 * The environment of a user's terminal, without loaders and coverage of the test runner. Coverage of a child would record lib as another compiler
 * transformed it, which cannot be merged with the rest.
 */
export function environment (env: Record<string, string> = {}): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(?:NODE_|TAP|_TAPJS|HOST$|PORT$|LOG_LEVEL$)/.test(name))
  return { ...Object.fromEntries(inherited), _TAPJS_PROCESSINFO_COVERAGE_: '0', ...env }
}

/** Starts an example on a free port, or on the port in `env`, and waits for its URL. Stopped with its test. */
export async function startExample (t: Test, path: string, env: Record<string, string> = {}): Promise<Example> {
  // `npm test` has built dist already; a single test file may be the first to need it.
  if (!existsSync(new URL('../../dist/lib/index.js', import.meta.url))) await promisify(execFile)('npm', ['run', 'build'], { cwd: root })

  const child = spawn(process.execPath, ['--import', 'tsx', path], { cwd: root, env: environment({ PORT: '0', ...env }), stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<{ code: number | null, signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => { resolve({ code, signal }) })
  })
  let errors = ''
  child.stderr.on('data', chunk => { errors += chunk })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })

  const lines: string[] = []
  const url = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => { reject(new Error(`${path} printed no URL: ${lines.join('\n')}${errors}`)) }, startTimeout)
    createInterface(child.stdout).on('line', line => {
      lines.push(line)
      if (!/^https?:\/\/\S+$/.test(line)) return
      clearTimeout(timer)
      resolve(line)
    })
    ended.then(({ code }) => {
      clearTimeout(timer)
      reject(new Error(`${path} ended with ${code}: ${errors}`))
    }, reject)
  })
  return {
    url,
    host: new URL(url).host,
    lines,
    async stop (signal = 'SIGTERM') {
      child.kill(signal)
      return ended
    }
  }
}

/** A port that was free a moment ago. */
export async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
