// Starts a fleet on this machine: a Redis server, two nodes of the example and a small balancer before them. `npm run fleet`
//
// Type `kill 1` or `kill 2` to kill a node without a farewell: its visitors come back on the other one, and miss nothing. After 3 s it is started again.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startBalancer } from './balancer.ts'

const { PORT = '3000', REDIS_URL } = process.env
const nodeCount = 2
/** Time until a node that was killed is started again, in milliseconds. */
const pause = 3_000

if (REDIS_URL === undefined && spawnSync('redis-server', ['--version']).error !== undefined) {
  console.error('redis-server is not installed: install it (Debian: apt-get install redis-server), or name a running one with REDIS_URL')
  process.exit(1)
}

const children = new Set<ChildProcess>()
process.once('exit', () => { for (const child of children) child.kill('SIGKILL') })
let isStopping = false

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

/** Waits until a port of this machine accepts connections; for a minute at most. */
async function accepts (port: number): Promise<void> {
  const deadline = Date.now() + 60_000
  while (Date.now() < deadline) {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      return
    } catch {
      await sleep(50)
    } finally {
      socket.destroy()
    }
  }
  throw new Error(`nothing listens on port ${port}`)
}

function start (command: string, args: string[], env: Record<string, string> = {}): ChildProcess {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, ...env } })
  children.add(child)
  child.once('exit', () => { children.delete(child) })
  return child
}

const folder = await mkdtemp(join(tmpdir(), 'fastify-rooms-fleet-'))
async function startRedis (): Promise<string> {
  const port = await freePort()
  start('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--loglevel', 'warning'])
  await accepts(port)
  return `redis://127.0.0.1:${port}`
}

const redis = REDIS_URL ?? await startRedis()
const ports = await Promise.all(Array.from({ length: nodeCount }, freePort))
const nodes: ChildProcess[] = []

/** Starts a node, and starts it again when it has ended. */
async function startNode (index: number): Promise<void> {
  const server = fileURLToPath(new URL('../server.ts', import.meta.url))
  const node = start(process.execPath, ['--import', 'tsx', server], { PORT: String(ports[index]), HOST: '127.0.0.1', REDIS_URL: redis })
  nodes[index] = node
  node.once('exit', async () => {
    if (isStopping) return
    console.log(`node ${index + 1} has ended; it is started again in ${pause / 1_000} s`)
    await sleep(pause)
    if (!isStopping) await startNode(index)
  })
  await accepts(ports[index]!)
  console.log(`node ${index + 1} is up: process ${node.pid}`)
}

async function stop (): Promise<void> {
  if (isStopping) return
  isStopping = true
  balancer.close()
  const ended = [...children].map(child => once(child, 'exit'))
  for (const child of nodes) child.kill('SIGTERM')
  await Promise.race([Promise.all(nodes.map(node => node.exitCode ?? node.signalCode ?? once(node, 'exit'))), sleep(5_000)])
  for (const child of children) child.kill('SIGKILL')
  await Promise.all(ended)
  await rm(folder, { recursive: true, force: true })
  process.exit()
}

await Promise.all(ports.map(async (_port, index) => startNode(index)))
const balancer = await startBalancer(Number(PORT), ports)
console.log(`http://127.0.0.1:${(balancer.address() as AddressInfo).port}`)

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, stop)
createInterface({ input: process.stdin }).on('line', line => {
  if (isStopping) return
  const [, number] = /^kill ([12])$/.exec(line.trim()) ?? []
  if (number === undefined) console.log('type "kill 1" or "kill 2"')
  else nodes[Number(number) - 1]!.kill('SIGKILL')
})
