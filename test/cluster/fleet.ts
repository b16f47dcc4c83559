import { ClusterBroker } from '../../lib/cluster/broker.ts'
import { ExchangeHost, type Peer } from '../../lib/cluster/host.ts'
import type { Link, LinkHandlers } from '../../lib/cluster/links.ts'
import type { NodeMessage } from '../../lib/cluster/messages.ts'
import type { ConformanceFleet } from '../../types/conformance.ts'

/** A channel within this process: messages are cloned, and arrive some turns later, in order. */
class ClonedLink implements Link {
  readonly #fleet: ClusterFleet
  #handlers: LinkHandlers | undefined
  #peer: Peer | undefined
  #isCut = false
  /** Messages of the broker that the host has not got, and how to hold them. */
  isHeld = false
  readonly #held: unknown[] = []

  constructor (fleet: ClusterFleet) {
    this.#fleet = fleet
  }

  open (handlers: LinkHandlers): void {
    this.#handlers = handlers
    if (this.#isCut) handlers.closed()
    else this.#connect()
  }

  send (message: NodeMessage): void {
    const peer = this.#peer
    const copy = structuredClone(message)
    setImmediate(() => { peer?.receive(copy) })
  }

  close (): void {
    this.#handlers = undefined
  }

  #connect (): void {
    const peer: Peer = this.#fleet.host.peer(message => {
      const copy = structuredClone(message)
      if (this.isHeld) this.#held.push(copy)
      else setImmediate(() => { if (this.#peer === peer) this.#handlers?.message(copy) })
    })
    this.#peer = peer
  }

  /** Delivers the messages that were held. */
  release (): void {
    this.isHeld = false
    for (const message of this.#held.splice(0)) this.#handlers?.message(message)
  }

  cut (): void {
    this.#isCut = true
    this.kill()
    this.#handlers?.closed()
  }

  heal (): void {
    this.#isCut = false
    if (this.#handlers === undefined) return
    this.#connect()
    this.#peer!.invite()
  }

  kill (): void {
    this.#peer?.ended()
    this.#peer = undefined
  }
}

/** Several nodes of one exchange in this process. */
export class ClusterFleet implements ConformanceFleet {
  host: ExchangeHost
  readonly #links = new Map<unknown, ClonedLink>()

  /** @param mostUnread - most bytes that a node may have to read */
  constructor (mostUnread?: number) {
    this.host = new ExchangeHost(mostUnread)
  }

  broker (name = 'rooms'): ClusterBroker {
    const link = new ClonedLink(this)
    const broker = new ClusterBroker(name, link)
    this.#links.set(broker, link)
    return broker
  }

  /** All brokers, in the order in which they were made. */
  get brokers (): unknown[] { return [...this.#links.keys()] }

  link (broker: unknown): ClonedLink { return this.#links.get(broker)! }

  cut (broker: unknown): void { this.link(broker).cut() }
  heal (broker: unknown): void { this.link(broker).heal() }
  kill (broker: unknown): void { this.link(broker).kill() }
  close (): void { this.host.close() }

  /** Replaces the primary's state by an empty one, as a restart does. */
  restart (): void {
    this.host.close()
    this.host = new ExchangeHost()
    for (const link of this.#links.values()) link.heal()
  }
}

/** Waits for turns of the event loop. */
export async function turns (count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(resolve => { setImmediate(resolve) })
}
