import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { BrokerState } from '../../types/index.ts'
import { environment, freePort } from '../helpers/process.ts'
import { startRedis, type RedisServer } from '../helpers/redis-server.ts'
import { startNode, type NodeQuestion, type NodeReport, type NodeSettings, type RunningNode, type TopicView, type UserEvent } from './node.ts'
import { NetworkProxy } from './proxy.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Milliseconds for a node to start, on a busy machine. */
const startTimeout = 30_000
/** Milliseconds for an answer of a node. */
const callTimeout = 20_000

/** The server of a fleet's broker. */
export interface FleetServer {
  readonly port: number
  /** Ends the process as `kill -9` does. */
  kill (): Promise<void>
  /** Starts it again, on the same port. */
  restart (): Promise<void>
  suspend (): void
  resume (): void
}

export interface FleetOptions {
  /** The nodes are apps of this process, which tests may change: they are neither killed nor suspended. */
  readonly isInside?: boolean
  readonly heartbeat: number
  /** Milliseconds between two probes over NATS. Default: a quarter of the heartbeat. */
  readonly probe?: number
  readonly times: NodeSettings['times']
  readonly size?: number
}

/** A node of the fleet, with the network between it and its broker. */
export class FleetNode {
  readonly index: number
  readonly proxy: NetworkProxy
  readonly settings: NodeSettings
  /** Each state of its broker, with its time on the clock of `Date`. */
  readonly states: { readonly state: BrokerState, readonly at: number, readonly cause: string | undefined }[] = []
  /** Errors that no outage may cause. */
  readonly faults: string[] = []
  /** The ids under which its broker was started, the last one at the end. */
  readonly ids: string[] = []
  /** Users that have joined or left, as its hooks were told. */
  readonly users: UserEvent[] = []
  isRunning = false
  isSuspended = false
  /** When it was killed or suspended for the last time: requests from before may have no answer. */
  disturbedAt = 0
  #child: ChildProcess | undefined
  #inside: RunningNode | undefined
  readonly #isInside: boolean
  readonly #answers = new Map<number, (value: any) => void>()
  #calls = 0

  constructor (index: number, proxy: NetworkProxy, settings: NodeSettings, isInside: boolean) {
    this.index = index
    this.proxy = proxy
    this.settings = settings
    this.#isInside = isInside
  }

  get host (): string { return `127.0.0.1:${this.settings.port}` }
  /** Whether a balancer sends requests to it. */
  get isHealthy (): boolean { return this.isRunning && !this.isSuspended }
  /** The id of its process; `undefined` if it is an app of this one. */
  get pid (): number | undefined { return this.#child?.pid }
  get state (): BrokerState | undefined { return this.states.at(-1)?.state }

  async start (): Promise<void> {
    if (this.#isInside) {
      this.#inside = await startNode(this.settings, report => { this.#take(report) })
      this.isRunning = true
      return
    }
    const child = this.#child = spawn(process.execPath, ['--import', 'tsx', 'test/outage/node.ts'], { cwd: root, env: environment({ OUTAGE_NODE: JSON.stringify(this.settings) }), stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
    let errors = ''
    child.stderr!.on('data', chunk => { errors += chunk })
    child.on('exit', (code, signal) => {
      const wasExpected = !this.isRunning || this.#child !== child
      if (!wasExpected) this.faults.push(`the node has ended: ${code ?? signal} ${errors}`)
      if (this.#child === child) this.isRunning = false
    })
    const ready = new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => { reject(new Error(`the node does not start: ${errors}`)) }, startTimeout)
      child.on('message', (report: NodeReport) => {
        this.#take(report)
        if (report.type !== 'ready') return
        clearTimeout(timer)
        resolve()
      })
    })
    await ready
    this.isRunning = true
  }

  #take (report: NodeReport): void {
    if (report.type === 'state') this.states.push(report)
    else if (report.type === 'id') this.ids.push(report.id)
    else if (report.type === 'user') this.users.push(report)
    else if (report.type === 'fault') this.faults.push(report.text)
    else if (report.type === 'answer') this.#answers.get(report.call)?.(report.value)
  }

  async #ask (name: NodeQuestion['name'], topics: readonly string[] = []): Promise<any> {
    const call = ++this.#calls
    this.#child!.send({ call, name, topics } satisfies NodeQuestion)
    let timer: NodeJS.Timeout
    try {
      return await Promise.race([
        new Promise(resolve => { this.#answers.set(call, resolve) }),
        new Promise((_resolve, reject) => { timer = setTimeout(() => { reject(new Error(`node ${this.index} does not answer`)) }, callTimeout) })
      ])
    } finally {
      clearTimeout(timer!)
      this.#answers.delete(call)
    }
  }

  async stats (): Promise<any> { return this.#isInside ? this.#inside!.stats() : await this.#ask('stats') }

  async presence (topics: readonly string[]): Promise<TopicView[]> { return this.#isInside ? this.#inside!.presence(topics) : await this.#ask('presence', topics) }

  /** Ends the process as `kill -9` does. */
  async kill (): Promise<void> { await this.#signal('SIGKILL') }

  /** Ends the process as a deploy does: the app closes. */
  async terminate (): Promise<void> { await this.#signal('SIGTERM') }

  async #signal (signal: NodeJS.Signals): Promise<void> {
    if (!this.isRunning) return
    this.isRunning = false
    this.disturbedAt = Date.now()
    const exit = once(this.#child!, 'exit')
    this.#child!.kill(signal)
    await exit
  }

  suspend (): void {
    this.isSuspended = true
    this.disturbedAt = Date.now()
    this.#child!.kill('SIGSTOP')
  }

  resume (): void {
    this.isSuspended = false
    this.disturbedAt = Date.now()
    this.#child!.kill('SIGCONT')
  }

  /** Closes the app, as a host does. */
  async close (): Promise<void> {
    if (!this.isRunning) return
    this.isRunning = false
    if (this.#isInside) {
      await this.#inside!.close()
      return
    }
    const exit = once(this.#child!, 'exit')
    await this.#ask('close')
    await exit
  }

  end (): void { this.#child?.kill('SIGKILL') }
}

// With `everysec` the server postpones its writes for up to 2 s while the disk is busy, and then a kill loses them.
export const serverOptions = ['--appendonly', 'yes', '--appendfsync', 'no', '--busy-reply-threshold', '100', '--repl-diskless-sync-delay', '0']

/** Three nodes, each behind a network of its own, and the server of their broker. */
export class Fleet<S extends FleetServer = RedisServer> {
  readonly options: FleetOptions
  server: S
  readonly nodes: FleetNode[] = []
  readonly test: Test

  constructor (test: Test, options: FleetOptions, server: S) {
    this.test = test
    this.options = options
    this.server = server
  }

  /** Starts a fleet over Redis that ends with its test. */
  static async start (t: Test, options: FleetOptions): Promise<Fleet> {
    return Fleet.over(t, 'redis', await startRedis(t, serverOptions), options)
  }

  /** Starts a fleet over a server that is there. It ends with its test. */
  static async over<S extends FleetServer> (t: Test, broker: NodeSettings['broker'], server: S, options: FleetOptions): Promise<Fleet<S>> {
    const { heartbeat, probe = heartbeat / 4, times, isInside = false, size = 3 } = options
    const fleet = new Fleet(t, options, server)
    t.teardown(() => { fleet.end() })
    for (let index = 0; index < size; index++) {
      const proxy = new NetworkProxy(fleet.server.port)
      await proxy.start()
      fleet.nodes.push(new FleetNode(index, proxy, { broker, port: await freePort(), brokerPort: proxy.port, heartbeat, probe, times }, isInside))
    }
    await Promise.all(fleet.nodes.map(node => node.start()))
    return fleet
  }

  /** A node to which a balancer sends a request: the preferred one, if it is healthy. */
  pick (random: () => number, preferred?: number): FleetNode | undefined {
    const node = preferred === undefined ? undefined : this.nodes[preferred]
    if (node?.isHealthy === true) return node
    const healthy = this.nodes.filter(({ isHealthy }) => isHealthy)
    return healthy[Math.floor(random() * healthy.length)]
  }

  get faults (): string[] { return this.nodes.flatMap(({ index, faults }) => faults.map(fault => `node ${index}: ${fault}`)) }

  async close (): Promise<void> {
    await Promise.all(this.nodes.map(node => node.close()))
  }

  end (): void {
    for (const node of this.nodes) {
      node.end()
      node.proxy.close()
    }
  }
}
