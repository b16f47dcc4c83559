import { loopback } from './address-key.ts'

/** Connections of one address, unless the option says otherwise: an office behind one address, and no botnet's share. */
const defaultConnections = 100

/** What is known of one address while somebody is connected from it. */
export interface Source {
  readonly key: string
  connections: number
}

/**
 * Who is connected from where. Unless the host says how many may be, the machine's own addresses are not bounded: a proxy on it
 * brings all clients, and without `trustProxy` nobody can tell.
 */
export class Addresses {
  readonly #sources = new Map<string, Source>()
  readonly #connections: number
  readonly #localConnections: number

  /** @param connections - most connections of one address; `undefined`: the default */
  constructor (connections: number | undefined) {
    this.#connections = connections ?? defaultConnections
    this.#localConnections = connections ?? Infinity
  }

  /** Addresses that somebody is connected from. */
  get size (): number { return this.#sources.size }

  isFull (key: string): boolean {
    const source = this.#sources.get(key)
    return source !== undefined && source.connections >= (key === loopback ? this.#localConnections : this.#connections)
  }

  enter (key: string): Source {
    let source = this.#sources.get(key)
    if (source === undefined) {
      source = { key, connections: 0 }
      this.#sources.set(key, source)
    }
    source.connections++
    return source
  }

  leave (source: Source): void {
    if (--source.connections === 0) this.#sources.delete(source.key)
  }
}
