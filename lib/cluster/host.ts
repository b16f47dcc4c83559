import { randomBytes } from 'node:crypto'
import type { ClusterStats } from '../../types/cluster.ts'
import { Exchange } from './exchange.ts'
import type { ExchangeNode } from './exchange-node.ts'
import { isOurs, version, versionOf, type ExchangeEvent, type ExchangeMessage, type NodeMessage } from './messages.ts'

const jsonRefused = 'the channel to the primary carries JSON, and no bytes: call clusterPrimary() before the first cluster.fork(), or give cluster.setupPrimary({ serialization: "advanced" })'

/** One worker, with all its nodes. */
export interface Peer {
  /** Takes a message of the worker. Messages that are not of a node are ignored. */
  receive (message: unknown): void
  /** Asks the nodes of the worker to say hello. */
  invite (): void
  /** The worker has ended, or its channel is closed. */
  ended (): void
}

/** The exchanges of a primary, by name, and the workers whose nodes have joined them. */
export class ExchangeHost {
  readonly #state = randomBytes(8).toString('hex')
  readonly #exchanges = new Map<string, Exchange>()
  readonly #peers = new Set<(message: ExchangeMessage) => void>()
  readonly #mostUnread: number | undefined
  #isClosed = false

  /** @param mostUnread - most bytes that a node may have to read */
  constructor (mostUnread?: number) {
    this.#mostUnread = mostUnread
  }

  /**
   * Adds a worker.
   * @param send - sends a message to the worker. Must not throw
   */
  peer (send: (message: ExchangeMessage) => void): Peer {
    const nodes = new Map<string, { exchange: Exchange, node: ExchangeNode }>()
    this.#peers.add(send)
    return {
      invite: () => { send(this.#message([])) },
      receive: message => {
        if (this.#isClosed) return
        if (!isOurs(message)) {
          // A worker of another version is told the version of the primary.
          if (versionOf(message) !== undefined) send(this.#message([]))
        } else if (typeof message.node === 'string' && typeof message.name === 'string') this.#receive(message as NodeMessage, nodes, send)
      },
      ended: () => {
        this.#peers.delete(send)
        for (const { exchange, node } of nodes.values()) exchange.leave(node)
        nodes.clear()
      }
    }
  }

  stats (): ClusterStats {
    const sum: ClusterStats = { nodes: 0, behind: 0, topics: 0, published: 0, dropped: 0, history: { topics: 0, messages: 0, bytes: 0, evicted: 0 } }
    for (const exchange of this.#exchanges.values()) {
      const { history, ...numbers } = exchange.stats()
      for (const name of ['nodes', 'behind', 'topics', 'published', 'dropped'] as const) sum[name] += numbers[name]
      for (const name of ['topics', 'messages', 'bytes', 'evicted'] as const) sum.history[name] += history[name]
    }
    return sum
  }

  close (): void {
    this.#isClosed = true
    for (const exchange of this.#exchanges.values()) exchange.close()
    for (const send of this.#peers) send(this.#message([{ type: 'closed' }]))
    this.#exchanges.clear()
    this.#peers.clear()
  }

  #receive ({ name, node: id, hello, calls, read, gone, bye }: NodeMessage, nodes: Map<string, { exchange: Exchange, node: ExchangeNode }>, send: (message: ExchangeMessage) => void): void {
    const key = `${name} ${id}`
    // A literal, because V8 makes a spread object slowly, and this is one for each turn and node.
    const sendTo = (events: ExchangeEvent[], size: number): void => { send({ 'fastify-rooms': version, state: this.#state, name, node: id, events, size }) }
    if (hello !== undefined) {
      if (!(hello.probe instanceof Uint8Array)) {
        sendTo([{ type: 'refused', reason: jsonRefused }], 0)
        return
      }
      const exchange = this.#exchange(name)
      nodes.set(key, { exchange, node: exchange.join(id, hello, sendTo) })
    }
    const known = nodes.get(key)
    if (known === undefined) {
      // Its hello was lost, or was said to another primary.
      if (bye === undefined) send({ ...this.#message([]), name, node: id })
      return
    }
    const { exchange, node } = known
    if (read !== undefined) node.read(read)
    if (gone !== undefined) node.tookGone(gone)
    if (calls !== undefined) exchange.run(node, calls)
    if (bye === undefined) return
    nodes.delete(key)
    exchange.leave(node)
  }

  #exchange (name: string): Exchange {
    let exchange = this.#exchanges.get(name)
    if (exchange === undefined) this.#exchanges.set(name, exchange = new Exchange(this.#mostUnread))
    return exchange
  }

  #message (events: ExchangeEvent[]): ExchangeMessage {
    return { 'fastify-rooms': version, state: this.#state, events, size: 0 }
  }
}
