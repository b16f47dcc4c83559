import type { Refusal } from '../../types/index.ts'
import type { HubState, Log, Settings } from '../hub/ports.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { Addresses, type AddressBucket } from './addresses.ts'

/**
 * Browsers hide the status of a refused upgrade, so a join over a limit is accepted and closed with a code. At most this many such sockets are open at once, each
 * for 5 s at most; further joins get HTTP 503.
 */
export const maxDeclined = 1_000

/** The bounds that a join can be over, and their close codes. */
export const closeCodeOf = { draining: 1001, connections: 4104, perAddress: 4104, topics: 4100, members: 4102 } as const satisfies Partial<Record<Refusal, number>>

export type Bound = keyof typeof closeCodeOf

/** A connection as the admission sees it. */
interface Admitted {
  addressBucket: AddressBucket | undefined
  readonly transport: { terminate (): void }
}

/** The members of the hub that the admission uses. */
export interface AdmissionHub {
  state (): HubState
  readonly settings: Settings
  readonly log: Log
  readonly connections: { readonly size: number }
  readonly rooms: { readonly size: number, get (topic: string): { readonly size: number, readonly joining: number } | undefined }
}

/** Decides which connections may join. Connections that are being refused count for none of the bounds, because they would keep others out. */
export class Admission<C extends Admitted> {
  readonly #hub: AdmissionHub
  readonly #addresses: Addresses
  readonly #declined = new Set<C>()
  #isHinted = false

  constructor (hub: AdmissionHub) {
    this.#hub = hub
    this.#addresses = new Addresses(hub.settings.address)
  }

  /** As many connections are being refused as may be. The next one is to be refused before the upgrade. */
  get isBusy (): boolean { return this.#declined.size >= maxDeclined }

  /** Addresses that are remembered. */
  get addresses (): number { return this.#addresses.size }

  /** The bound that a further connection that joins this topic would be over; `undefined` if there is none. */
  bound (definition: TopicDefinition, topic: string, address: string): Bound | undefined {
    return this.connectionBound(address) ?? this.topicBound(definition, topic)
  }

  /** The bound that a further connection would be over; `undefined` if there is none. */
  connectionBound (address: string): Bound | undefined {
    const { connections, settings: { limits } } = this.#hub
    if (this.#hub.state() !== 'open') return 'draining'
    if (connections.size - this.#declined.size >= limits.connections) return 'connections'
    return this.#addresses.isFull(address) ? 'perAddress' : undefined
  }

  /** The bound that a further join of this topic would be over; `undefined` if there is none. */
  topicBound (definition: TopicDefinition, topic: string): Bound | undefined {
    const { rooms, settings: { limits } } = this.#hub
    if (this.#hub.state() !== 'open') return 'draining'
    const room = rooms.get(topic)
    if (room === undefined) return rooms.size >= limits.topics ? 'topics' : undefined
    return room.size + room.joining >= definition.maxMembers ? 'members' : undefined
  }

  admit (connection: C, address: string): void {
    connection.addressBucket = this.#addresses.enter(address, performance.now())
  }

  /** Keeps a connection that is being refused, or terminates it if too many are. */
  decline (connection: C): void {
    if (this.isBusy) connection.transport.terminate()
    else this.#declined.add(connection)
  }

  /** Warns that `trustProxy` may be missing, once, because a peer could fill the log with the header. */
  hint (address: string): void {
    if (this.#isHinted) return
    this.#isHinted = true
    this.#hub.log.warn({ address }, 'an address is over limits.perAddress, and its request says that it was forwarded: behind a proxy, set the trustProxy of Fastify, or all clients count as one')
  }

  /** Call this when a connection has closed. */
  remove (connection: C): void {
    this.#declined.delete(connection)
    if (connection.addressBucket !== undefined) this.#addresses.leave(connection.addressBucket, performance.now())
  }

  /** Forgets addresses without connections whose buckets are full again. */
  sweep (now: number): void {
    this.#addresses.sweep(now)
  }
}
