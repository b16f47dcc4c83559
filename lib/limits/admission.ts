import type { Refusal } from '../../types/index.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { HubContext } from '../hub/context.ts'
import type { MemberSession } from '../session/session.ts'
import { Addresses } from './addresses.ts'

/**
 * A close code can be read by every client, a status of HTTP by none in a browser: so who is too many gets its WebSocket, only to be
 * told. So many sockets are held for that, each for 5 s at most where the peer does not let go; more would themselves be the flood.
 */
export const maxDeclined = 1_000

/** What may stand in the way of a join, and the close that says so. */
export const closeCodeOf = { draining: 1001, connections: 4104, perAddress: 4104, topics: 4100, members: 4102 } as const satisfies Partial<Record<Refusal, number>>

export type Bound = keyof typeof closeCodeOf

/** Who may come in. Those who are told that they may not count for none of the bounds: they would keep others out. */
export class Admission {
  readonly #hub: HubContext
  readonly #addresses: Addresses
  readonly #declined = new Set<MemberSession>()
  #hinted = false

  constructor (hub: HubContext) {
    this.#hub = hub
    this.#addresses = new Addresses(hub.settings.address)
  }

  /** As many are being told that there is no room as may be: who would be the next is to be refused before the upgrade. */
  get isBusy (): boolean { return this.#declined.size >= maxDeclined }

  /** Addresses that are remembered. */
  get addresses (): number { return this.#addresses.size }

  /** Why nobody more can join there, from there; `undefined` where somebody can. */
  bound (definition: TopicDefinition, topic: string, address: string): Bound | undefined {
    const { state, links, roomByTopic, settings: { limits } } = this.#hub
    if (state !== 'open') return 'draining'
    if (links.size - this.#declined.size >= limits.connections) return 'connections'
    if (this.#addresses.isFull(address)) return 'perAddress'
    const room = roomByTopic.get(topic)
    if (room === undefined) return roomByTopic.size >= limits.topics ? 'topics' : undefined
    return room.size + room.joining >= definition.maxMembers ? 'members' : undefined
  }

  admit (session: MemberSession, address: string): void {
    session.source = this.#addresses.enter(address, performance.now())
  }

  /** It may not come in, and is told so; where too many are being told, it is cut. */
  decline (session: MemberSession): void {
    if (this.isBusy) session.connection.terminate()
    else this.#declined.add(session)
  }

  /** Once is enough: who wants to fill a log only has to send the header. */
  hint (address: string): void {
    if (this.#hinted) return
    this.#hinted = true
    this.#hub.log.warn({ address }, 'an address is over limits.perAddress, and its request says that it was forwarded: behind a proxy, set the trustProxy of Fastify, or all clients count as one')
  }

  /** Its connection has closed. */
  forget (session: MemberSession): void {
    this.#declined.delete(session)
    if (session.source !== undefined) this.#addresses.leave(session.source, performance.now())
  }

  /** Forgets what needs not be remembered any more. */
  sweep (now: number): void {
    this.#addresses.sweep(now)
  }
}
