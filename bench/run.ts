import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { arch, cpus, platform, release, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import type { Answer, Figures, Job, Node } from './job.ts'
import { disturbance, report, type Results } from './report.ts'
import { ours, peers as others, scenarios, type Peer, type Scenario } from './scenarios.ts'

const here = dirname(fileURLToPath(import.meta.url))
const root = dirname(here)
/** A server, or a worker beside others on its core, that has not started by then will not start. A run of any scenario takes far less than this, besides the measured time. */
const startTimeout = 15_000
const runTimeout = 60_000
/** A storm connects tens of thousands of members, one batch after the other. */
const stormTimeout = 180_000

const usage = `npm run bench -- [options]

  --only ID,…     scenarios with one of these ids, or parts of ids; default: all
  --peers NAME,…  default: all
  --runs N        of each scenario and peer, interleaved; default 3
  --retry N       repeats a run that other processes disturbed, N times at most; default 0
  --dist PATH     a built fastify-rooms, default ./dist; may be given several times, to compare versions in one run
  --wall S        seconds of measurement at most, default 3; --cpu S: seconds of server CPU that are enough, default 1.5
  --write         save the tables in bench/results
  --storm N       members of resume-storm instead of 10000, and of fleet-storm instead of 2000
  --list          scenarios and peers
`

const { values: args } = parseArgs({
  options: {
    only: { type: 'string' },
    peers: { type: 'string' },
    runs: { type: 'string', default: '3' },
    retry: { type: 'string', default: '0' },
    dist: { type: 'string', multiple: true, default: [join(root, 'dist')] },
    wall: { type: 'string', default: '3' },
    cpu: { type: 'string', default: '1.5' },
    write: { type: 'boolean', default: false },
    storm: { type: 'string' },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false }
  }
})

const children = new Set<ChildProcess>()
const snapshots: string[] = []

function cleanUp (): void {
  for (const child of children) child.kill('SIGKILL')
  for (const path of snapshots) rmSync(path, { recursive: true, force: true })
}
process.on('exit', cleanUp)
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => { process.exit(130) })

function number (name: 'runs' | 'retry' | 'wall' | 'cpu' | 'storm', most: number): number {
  const value = Number(args[name])
  if (!((value > 0 || (value === 0 && name === 'retry')) && value <= most)) fail(`--${name} takes a number above 0, at most ${most}`)
  return value
}

function fail (message: string): never {
  console.error(message)
  process.exit(1)
}

/** Installs the peers beside the benchmark, so that the package's own install stays small. */
function install (): void {
  if (existsSync(join(here, 'node_modules', '.package-lock.json'))) return
  console.error('installing the peers into bench/node_modules')
  const { status } = spawnSync('npm', ['ci'], { cwd: here, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0) fail('npm ci in bench/ has failed')
}

/** Copies a build, so that building during a run changes nothing. The copy finds its dependencies in the package's folder. */
function snapshot (dist: string): string {
  const path = resolve(dist)
  if (!existsSync(join(path, 'lib', 'index.js'))) fail(`${dist} has no lib/index.js: run npm run build, or name a built copy with --dist`)
  const copy = mkdtempSync(join(tmpdir(), 'fastify-rooms-bench-'))
  snapshots.push(copy)
  cpSync(path, join(copy, 'dist'), { recursive: true })
  cpSync(join(root, 'package.json'), join(copy, 'package.json'))
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  return pathToFileURL(join(copy, 'dist', 'lib', 'index.js')).href
}

function versionOf (folder: string, name: string): string {
  try {
    return (JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8')) as { version: string }).version
  } catch {
    return 'not installed'
  }
}

/** Finds the binary of Bun: npm moves it into the package `bun` if its install script may run; otherwise it stays in its own package. */
function bunBinary (): string {
  const candidates = [join('bun', 'bin', 'bun.exe'), ...['', '-baseline'].map(kind => join('@oven', `bun-${platform()}-${arch() === 'arm64' ? 'aarch64' : arch()}${kind}`, 'bin', 'bun'))]
  const found = candidates.map(path => join(here, 'node_modules', path)).find(path => spawnSync(path, ['--version'], { stdio: 'ignore' }).status === 0)
  if (found === undefined) throw new Error('not installed, or does not run here')
  return found
}

const pinned = spawnSync('taskset', ['-c', '0,1', 'true'], { stdio: 'ignore' }).status === 0

/** The cores of the primary and its workers: one for each, if the machine has one more for the load generator. Otherwise they share one. */
function coresFor (workers: number): string {
  const wanted = ['0', ...Array.from({ length: workers }, (_, index) => String(index + 2))].join(',')
  return spawnSync('taskset', ['-c', wanted, 'true'], { stdio: 'ignore' }).status === 0 && cpus().length >= workers + 2 ? wanted : '0'
}

/** Starts a process on a core: one for the server, another for the load generator. */
function start (core: number | string, command: string, commandArgs: string[], stdio: ('pipe' | 'ignore' | 'inherit' | 'ipc')[], env: Record<string, string> = {}): ChildProcess {
  const [file, ...rest] = pinned ? ['taskset', '-c', String(core), command, ...commandArgs] : [command, ...commandArgs]
  // The optional native parts of ws are switched off, because only other peers depend on them.
  const child = spawn(file!, rest, { cwd: here, stdio, env: { ...process.env, NODE_ENV: 'production', WS_NO_BUFFER_UTIL: '1', WS_NO_UTF_8_VALIDATE: '1', ...env } })
  children.add(child)
  child.on('exit', () => { children.delete(child) })
  return child
}

interface Clock { time: number, busy: number[], spent: number[] }

/** Clock ticks that were spent: on each core by all processes, interrupts left out, and by each of the two processes. */
function clock (...processes: number[]): Clock {
  const busy = readFileSync('/proc/stat', 'latin1').split('\n').filter(line => /^cpu\d/.test(line)).map(line => {
    const [user, nice, system, , , , , steal] = line.split(' ').slice(1).map(Number) as [number, number, number, number, number, number, number, number]
    return user + nice + system + steal
  })
  const spent = processes.map(pid => {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return Number(fields[11]) + Number(fields[12])
  })
  return { time: performance.now(), busy, spent }
}

/** Returns the share of a core that other processes had meanwhile: the larger of the two cores, or of one if nothing is pinned to a core of its own. */
function disturbed (before: Clock, after: Clock): number {
  const ticks = (after.time - before.time) / 10
  const of = (from: number[], to: number[]): number[] => to.map((value, index) => value - from[index]!)
  const busy = of(before.busy, after.busy)
  const spent = of(before.spent, after.spent)
  const sum = (values: number[]): number => values.reduce((a, b) => a + b, 0)
  return Math.max(0, ...(pinned && spent.length === 2 ? spent.map((own, core) => busy[core]! - own) : [sum(busy) - sum(spent)])) / ticks
}

function stop (child: ChildProcess): Promise<void> {
  return new Promise(resolve => {
    if (child.exitCode !== null || child.signalCode !== null) {
      resolve()
      return
    }
    child.on('exit', () => { resolve() })
    child.kill('SIGKILL')
  })
}

function within<T> (milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => { timer = setTimeout(() => { reject(new Error(`${what} took too long`)) }, milliseconds) })
  return Promise.race([promise, late]).finally(() => { clearTimeout(timer) })
}

interface Started {
  server: ChildProcess
  /** Where members join, and commands are taken: the server's, or those of its first worker. */
  port: number
  control: number
  /** The workers of a cluster, whose primary is the server. */
  workers?: Node[]
}

/** Milliseconds for the workers of a cluster to end with their standard input. */
const endTimeout = 3_000

/** Ends a server, and waits for its workers. */
async function stopServer ({ server, workers }: Pick<Started, 'server' | 'workers'>): Promise<void> {
  if (workers !== undefined && server.exitCode === null && server.signalCode === null) {
    server.stdin!.end()
    await within(endTimeout, 'the end of a cluster', once(server, 'exit')).catch(() => {})
  }
  await stop(server)
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Starts a Redis server that keeps nothing on disk, on the core of the load generator: its own CPU time is measured. */
async function startRedis (): Promise<{ server: ChildProcess, port: number }> {
  const port = await freePort()
  const server = start(1, 'redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', tmpdir()], ['ignore', 'pipe', 'inherit'])
  await within(startTimeout, 'starting Redis', new Promise<void>((resolve, reject) => {
    createInterface({ input: server.stdout! }).on('line', line => { if (line.includes('Ready to accept connections')) resolve() })
    server.on('error', () => { reject(new Error('redis-server is not installed')) })
    server.on('exit', code => { reject(new Error(`redis-server ended with ${code}`)) })
  }))
  return { server, port }
}

async function startServer (peer: Peer, scenario: Scenario, redis: number | undefined): Promise<Started> {
  const { rooms, deflate, except, setup, workers } = scenario
  const server = start(workers === undefined ? 0 : coresFor(workers), peer.bun === true ? bunBinary() : process.execPath, [...(peer.bun === true ? [] : ['--expose-gc']), join(here, 'peers', peer.file)], ['pipe', 'pipe', 'pipe'], {
    BENCH: JSON.stringify({ rooms, deflate, except, redis, adapter: peer.adapter, workers, ...setup }),
    ...(peer.dist === undefined ? {} : { BENCH_PACKAGE: peer.dist })
  })
  let errors = ''
  server.stderr!.setEncoding('utf8').on('data', (text: string) => { errors = (errors + text).slice(-2_000) })
  try {
    const line = await within(startTimeout * (workers ?? 1), 'starting', new Promise<string>((resolve, reject) => {
      createInterface({ input: server.stdout! }).once('line', resolve)
      server.on('error', reject)
      server.on('exit', () => { reject(new Error(`the server ended: ${errors.split('\n').find(text => /error/i.test(text)) ?? errors.slice(0, 200)}`)) })
    }))
    return { server, ...JSON.parse(line) as Omit<Started, 'server'> }
  } catch (error) {
    await stop(server)
    throw error
  }
}

async function runOnce (peer: Peer, scenario: Scenario, seconds: Job['seconds']): Promise<Figures> {
  const redis = scenario.redis === true ? await startRedis() : undefined
  const started: Started[] = []
  try {
    for (let node = 0; node < (scenario.nodes ?? 1); node++) started.push(await startServer(peer, scenario, redis?.port))
    return await measure(peer, scenario, seconds, started, redis)
  } finally {
    await Promise.all([...started, ...redis === undefined ? [] : [redis]].map(stopServer))
  }
}

async function measure (peer: Peer, scenario: Scenario, seconds: Job['seconds'], started: Started[], redis: { server: ChildProcess, port: number } | undefined): Promise<Figures> {
  const { server, control } = started[0]!
  const [first, ...others] = started.flatMap(({ server, port, workers }): Node[] => workers ?? [{ pid: server.pid!, port }])
  const primary = scenario.workers === undefined ? undefined : server.pid!
  const load = start(1, process.execPath, ['--import', 'tsx', join(here, 'load.ts')], ['ignore', 'inherit', 'inherit', 'ipc'])
  const processes = [first!.pid, load.pid!, ...others.map(({ pid }) => pid), ...primary === undefined ? [] : [primary], ...redis === undefined ? [] : [redis.server.pid!]]
  const before = clock(...processes)
  try {
    const answer = await within((scenario.kind === 'storm' ? stormTimeout : runTimeout) + 4_000 * seconds.wall, 'a run', new Promise<Answer>((resolve, reject) => {
      load.on('message', resolve)
      load.on('error', reject)
      load.on('exit', code => { reject(new Error(`the load generator ended with ${code}`)) })
      server.on('exit', code => { reject(new Error(`the server ended with ${code}`)) })
      const { kind, members, rooms, warm, client, multiplexed, window, publishers, ref, except, joins, deflate, stopped, rate, kept, spread, sse } = scenario
      const job = { kind, members, rooms, warm, client, multiplexed, window, publishers, ref, except, joins, deflate, stopped, rate, kept, spread, protocol: sse === true ? 'sse' : peer.protocol, ...first!, control, seconds, others, primary, redis: redis === undefined ? undefined : { pid: redis.server.pid!, port: redis.port } }
      load.send(JSON.parse(JSON.stringify(job)) as Job)
    }))
    if ('error' in answer) throw new Error(answer.error)
    return { ...answer.figures, others: disturbed(before, clock(...processes)) }
  } finally {
    await stop(load)
  }
}

/** Returns the least disturbed of the runs. */
async function runCalmly (peer: Peer, scenario: Scenario, seconds: Job['seconds'], retries: number): Promise<Figures> {
  let best = await runOnce(peer, scenario, seconds)
  for (let i = 0; i < retries && best.others! > disturbance; i++) {
    const again = await runOnce(peer, scenario, seconds)
    if (again.others! < best.others!) best = again
  }
  return best
}

async function main (): Promise<void> {
  if (args.help) {
    console.log(usage)
    return
  }
  if (args.list) {
    for (const { id, title, only } of scenarios) console.log(`${id.padEnd(26)}${title} [${only.join(', ')}]`)
    return
  }
  const runs = number('runs', 100)
  const retries = number('retry', 10)
  const seconds = { warmUp: Math.min(1, number('wall', 30)), cpu: number('cpu', 30), wall: number('wall', 30) }
  const storm = args.storm === undefined ? undefined : number('storm', 50_000)
  const list = (text: string | undefined): string[] | undefined => text?.split(',').map(part => part.trim()).filter(part => part !== '')
  const only = list(args.only)
  const wanted = list(args.peers)
  install()

  const version = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version
  const under: Peer[] = args.dist.map((path, index) => ({
    name: index === 0 ? ours : `${ours}@${path}`,
    file: 'fastify-rooms.js',
    protocol: 'rooms',
    package: ours,
    dist: snapshot(path)
  }))
  const peers = [...under, ...others].filter(({ name, package: of }) => wanted === undefined || wanted.includes(name) || wanted.includes(of))
  const chosen = scenarios.map(scenario => scenario.kind === 'storm' && storm !== undefined ? { ...scenario, members: storm } : scenario).filter(({ id }) => only === undefined || only.some(part => scenarios.some(scenario => scenario.id === part) ? id === part : id.includes(part)))
  for (const part of only ?? []) if (!chosen.some(({ id }) => id.includes(part))) fail(`no scenario ${part}; --list shows them`)
  for (const name of wanted ?? []) if (!peers.some(peer => peer.name === name || peer.package === name)) fail(`no peer ${name}; --list shows them`)

  const results: Results = new Map(chosen.map(({ id }) => [id, new Map()]))
  const failures: string[] = []
  // Runs are the outer loop, and the order of the peers rotates, so that a drift of the machine affects all alike.
  for (let run = 0; run < runs; run++) {
    for (const scenario of chosen) {
      const taking = peers.filter(peer => scenario.only.includes(peer.package) && (peer.adapter === undefined || scenario.redis === true))
      for (let i = 0; i < taking.length; i++) {
        const peer = taking[(i + run) % taking.length]!
        const label = `run ${run + 1}/${runs} ${scenario.id} ${peer.name}`
        try {
          const figures = await runCalmly(peer, scenario, seconds, retries)
          const of = results.get(scenario.id)!
          of.set(peer.name, [...of.get(peer.name) ?? [], figures])
          console.error(`${label}: ${figures.cpu.toFixed(3)} µs, ${Math.round(figures.perSecond)}/s${figures.p99 === undefined ? '' : `, p99 ${figures.p99.toFixed(2)} ms`}${figures.took === undefined ? '' : `, ${Math.round(figures.took)} ms, stall ${figures.stall!.toFixed(1)} ms`}${figures.bytes === undefined ? '' : `, ${Math.round(figures.bytes)} bytes`}${figures.others! > disturbance ? `, disturbed (${Math.round(100 * figures.others!)} %)` : ''}`)
        } catch (error) {
          failures.push(`${label}: ${(error as Error).message}`)
          console.error(`${label}: failed: ${(error as Error).message}`)
        }
      }
    }
  }

  const versions = [
    `Node.js ${process.version}, ${platform()} ${release()} ${arch()}, ${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown CPU'}${pinned ? ', pinned to a core each' : ', not pinned'}`,
    `fastify-rooms ${version}${args.dist.length > 1 ? `, ${args.dist.length} builds` : ''} (on fastify ${versionOf(here, 'fastify')}, @fastify/websocket ${versionOf(root, '@fastify/websocket')}, ws ${versionOf(root, 'ws')})`,
    ...[...new Set(others.map(({ package: name }) => name)), '@socket.io/redis-adapter', '@socket.io/cluster-adapter', 'ioredis'].map(name => `${name} ${versionOf(here, name)}`),
    `Redis ${/v=([\d.]+)/.exec(String(spawnSync('redis-server', ['--version']).stdout))?.[1] ?? 'not installed'}`,
    `${runs === 1 ? '1 run' : `${runs} runs, medians`}; measured until ${seconds.cpu} s of server CPU or ${seconds.wall} s`
  ]
  const text = report(chosen, peers.map(({ name }) => name), results, versions, failures)
  console.log(text)
  if (args.write) {
    const folder = join(here, 'results')
    mkdirSync(folder, { recursive: true })
    const file = join(folder, `${new Date().toISOString().slice(0, 10)}.md`)
    writeFileSync(file, text)
    console.error(`written to ${file}`)
  }
}

await main()
// The results are printed; handles that are still open must not keep the process alive.
process.exit()
