/** Proxies of a test, on free ports of the loopback, with the configuration in docs/operations.md. */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect as netConnect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import { until } from '../helpers/app.ts'
import { freePort } from '../helpers/process.ts'

/** Milliseconds for a proxy to start or stop: many times its duration on a busy machine. */
const patience = 30_000

/** The host in the pages. */
export const name = 'rooms.example.com'

const binaries = { nginx: '/usr/sbin/nginx', caddy: '/usr/bin/caddy', openssl: '/usr/bin/openssl' }

/** The missing requirements of a proxy, or `false`. */
export function missing (proxy: 'nginx' | 'caddy'): string | false {
  const absent = [proxy, 'openssl' as const].filter(binary => {
    try {
      accessSync(binaries[binary], constants.X_OK)
      return false
    } catch {
      return true
    }
  })
  return absent.length > 0 && `no ${absent.map(binary => binaries[binary]).join(', no ')}`
}

/** Replaces texts of a configuration, each of which must be present. */
export type Edits = Record<string, string>
function edit (text: string, edits: Edits): string {
  for (const [from, to] of Object.entries(edits)) {
    if (!text.includes(from)) throw new Error(`the configuration of docs/operations.md has no ${from}`)
    text = text.replaceAll(from, to)
  }
  return text
}

/** The block of the page whose first line names this file. */
async function fromDocs (file: string): Promise<string> {
  const blocks = [...(await readFile('docs/operations.md', 'utf8')).matchAll(/```(?:nginx|caddy)\n([\s\S]*?)```/g)].map(([, code]) => code!)
  const found = blocks.find(code => code.startsWith(`# ${file}`))
  if (found === undefined) throw new Error(`docs/operations.md has no ${file}`)
  return found
}

function answers (port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = netConnect(port, '127.0.0.1')
    socket.on('connect', () => { resolve(true) }).on('error', () => { resolve(false) })
    socket.on('connect', () => { socket.destroy() })
  })
}

export interface Proxy {
  port: number
  /** The directory of its files. */
  directory: string
  /** Its self-signed certificate. */
  ca: string
  signal (signal: NodeJS.Signals): void
  /** Ends the proxy at once, as a package upgrade would. */
  stop (): Promise<void>
  /** Starts the proxy again, on the same port. */
  start (): Promise<void>
}

async function start (t: Test, [binary, ...args]: [string, ...string[]], directory: string, port: number): Promise<Proxy> {
  let child: ChildProcess | undefined
  let said = ''
  const stop = async (): Promise<void> => {
    const stopped = child
    child = undefined
    if (stopped === undefined || stopped.exitCode !== null || stopped.signalCode !== null) return
    stopped.kill('SIGTERM')
    await once(stopped, 'exit')
  }
  const begin = async (): Promise<void> => {
    child = spawn(binary, args, { cwd: directory, env: { PATH: process.env.PATH, HOME: directory }, stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout!.on('data', chunk => { said += chunk })
    child.stderr!.on('data', chunk => { said += chunk })
    const { exitCode } = child
    await until(() => answers(port), patience).catch(() => { throw new Error(`${binary} does not answer (${exitCode}): ${said}`) })
  }
  const kill = (): void => { child?.kill('SIGTERM') }
  process.on('exit', kill)
  t.teardown(async () => {
    process.off('exit', kill)
    await stop()
    await rm(directory, { recursive: true })
  })
  await begin()
  return { port, directory, ca: await readFile(join(directory, 'rooms.pem'), 'utf8'), signal: signal => { child!.kill(signal) }, stop, start: begin }
}

async function createDirectory (): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'rooms-proxy-'))
  await promisify(execFile)(binaries.openssl, [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${name}`,
    '-addext', `subjectAltName=DNS:${name}`, '-keyout', join(directory, 'rooms.key'), '-out', join(directory, 'rooms.pem')
  ])
  return directory
}

/** The upstream of several nodes. */
async function upstreamOf (nodes: string[]): Promise<string> {
  const block = await fromDocs('upstream of three nodes')
  return edit(block, Object.fromEntries(nodes.map((node, index) => [`10.0.0.${index + 1}:3000`, node])))
}

/** nginx in front of an app, or of three nodes. `edits` change lines of `conf.d/rooms.conf`. */
export async function startNginx (t: Test, upstream: string | string[], edits: Edits = {}): Promise<Proxy> {
  const directory = await createDirectory()
  const port = await freePort()
  const main = edit(await fromDocs('/etc/nginx/nginx.conf'), {
    'worker_rlimit_nofile 65536': 'worker_rlimit_nofile 4096',
    'worker_connections 32768': 'worker_connections 1024',
    'worker_processes auto': 'worker_processes 1',
    'worker_shutdown_timeout 60s': 'worker_shutdown_timeout 1s'
  })
  const rooms = edit(await fromDocs('/etc/nginx/conf.d/rooms.conf'), {
    'listen 443 ssl': `listen 127.0.0.1:${port} ssl`,
    ...(typeof upstream === 'string' ? { 'server 127.0.0.1:3000': `server ${upstream}` } : { 'upstream rooms {\n  server 127.0.0.1:3000;\n  keepalive 32;\n}\n': await upstreamOf(upstream) }),
    '/etc/ssl/certs/rooms.pem': 'rooms.pem',
    '/etc/ssl/private/rooms.key': 'rooms.key',
    '/var/log/nginx/rooms.log': 'rooms.log',
    ...edits
  })
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path temp-${kind};`).join('\n')
  // Workers of a root process would run as another user without access to this directory.
  const user = process.getuid!() === 0 ? 'user root;\n' : ''
  await writeFile(join(directory, 'nginx.conf'), `${user}${main}\nhttp {\naccess_log off;\n${temporary}\n${rooms}\n}\n`)
  return start(t, [binaries.nginx, '-p', directory, '-e', 'stderr', '-c', join(directory, 'nginx.conf'), '-g', 'daemon off; pid nginx.pid;'], directory, port)
}

/** Caddy in front of an app. */
export async function startCaddy (t: Test, upstream: string, edits: Edits = {}): Promise<Proxy> {
  const directory = await createDirectory()
  const port = await freePort()
  const file = edit(await fromDocs('/etc/caddy/Caddyfile'), {
    '{\n\tservers {': '{\n\tadmin off\n\tauto_https off\n\tservers {',
    [`${name} {`]: `https://${name}:${port} {\n\tbind 127.0.0.1\n\ttls rooms.pem rooms.key`,
    '127.0.0.1:3000': upstream,
    ...edits
  })
  await writeFile(join(directory, 'Caddyfile'), file)
  return start(t, [binaries.caddy, 'run', '--config', 'Caddyfile', '--adapter', 'caddyfile'], directory, port)
}
