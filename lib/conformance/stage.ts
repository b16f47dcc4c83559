import { setTimeout as wait } from 'node:timers/promises'
import { inspect } from 'node:util'
import type { BrokerCapabilities } from '../../types/index.ts'
import type { ConformanceFleet } from '../../types/conformance.ts'
import type { Stage } from './case.ts'
import { Node } from './node.ts'

export interface StageOptions {
  readonly most: number
  readonly timeout: number
  readonly quiet: number
  readonly gone: number
  readonly noticed: number
}

/** Milliseconds that a hub waits for the close of its broker. */
const closeTimeout = 2_000

/** One case on one fleet. */
export class FleetStage implements Stage {
  readonly fleet: ConformanceFleet
  readonly capabilities: BrokerCapabilities
  readonly most: number
  readonly gone: number
  readonly noticed: number
  readonly closed: number
  readonly #options: StageOptions
  readonly #nodes: Node[] = []

  constructor (fleet: ConformanceFleet, capabilities: BrokerCapabilities, options: StageOptions) {
    this.fleet = fleet
    this.capabilities = capabilities
    this.most = options.most
    this.gone = options.gone
    this.noticed = options.noticed
    this.closed = Math.min(closeTimeout, options.timeout)
    this.#options = options
  }

  readonly nodes = async (count: number): Promise<Node[]> => {
    const nodes: Node[] = []
    for (let n = 0; n < Math.min(count, this.most); n++) nodes.push(await this.fresh())
    await Promise.all(nodes.map(async node => node.broker.start(node.name, node.handlers)))
    await this.until('each node is up', () => nodes.every(({ state }) => state === 'up'))
    return nodes
  }

  readonly fresh = async (): Promise<Node> => {
    const node = new Node(await this.fleet.broker())
    this.#nodes.push(node)
    return node
  }

  readonly until = async (what: string, holds: () => boolean | Promise<boolean>, timeout = this.#options.timeout): Promise<void> => {
    const deadline = performance.now() + Math.max(timeout, this.#options.timeout)
    while (!await holds()) {
      if (performance.now() > deadline) throw new Error(`not within ${timeout} ms: ${what}\n${this.#seen()}`)
      await wait(2)
    }
  }

  readonly quiet = async (): Promise<void> => wait(this.#options.quiet)

  /** Closes the brokers, and then the fleet. */
  async close (): Promise<void> {
    await Promise.allSettled(this.#nodes.map(async ({ broker }) => broker.close()))
    await this.fleet.close?.()
  }

  /** The events that the nodes have seen, for the message of an error. */
  #seen (): string {
    return this.#nodes.map(({ name, states, lost, entries, controls, deltas }) => inspect({ name, states, lost, entries: entries.slice(-5), controls: controls.length, deltas: deltas.slice(-3) }, { depth: 4 })).join('\n')
  }
}
