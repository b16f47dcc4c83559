import { WebSocket } from 'ws'
import { createClient, type Client, type ClientRoom, type TopicSnapshot } from '../../lib/client/index.ts'
import { isUpTo } from '../../lib/client/position.ts'
import type { WebSocketClass } from '../../types/client.ts'
import { nodeOf } from '../../lib/fleet/node-id.ts'
import { hasPresence } from './brokers.ts'
import type { Fleet, FleetNode } from './fleet.ts'

/** The payload of all messages. */
export interface Data { readonly n: number, readonly pad?: string }

/** A schedule as its members see it. */
export interface World {
  readonly fleet: Fleet<any>
  readonly faults: string[]
  readonly random: () => number
  /** The number of the message at each place that a member has seen: topic and id. */
  readonly seen: Map<string, number>
  /** Whether the schedule takes data away from the server. */
  readonly losesData: boolean
  /** Whether the server may refuse publications in the schedule. */
  readonly refuses: boolean
  /** Nodes know the `mid`s of their own publications alone: one that is sent again to another node is there twice. */
  readonly isOncePerNode?: boolean
}

/** A membership on one node. Times are on the clock of `Date`. */
export interface Stay {
  readonly node: FleetNode | undefined
  readonly from: number
  /** `Infinity` while it lasts. */
  to: number
}

const placeOf = (id: string): { epoch: string, offset: number } => {
  const [epoch, offset] = id.split('-') as [string, string]
  return { epoch, offset: Number(offset) }
}

/** One room of a member, and the messages that it got. */
export class Watched {
  readonly topic: string
  readonly room: ClientRoom<string, Data, Data>
  readonly #name: string
  readonly #world: World
  /** The position that the next message continues; `undefined` before the first join. */
  cursor: string | undefined
  /** The numbers of all messages, with the time at which each came. */
  readonly got = new Map<number, number>()
  /** The times at which it was told that messages may be missing. */
  readonly told: number[] = []
  /** The numbers in the order in which they came, by session. */
  readonly order = new Map<string, number[]>()
  /** When it has joined. */
  joinedAt: number | undefined
  readonly stays: Stay[] = []
  /** Numbers that came again while it stayed on a node. Noted only if nodes know their own `mid`s alone. */
  readonly repeated: number[] = []
  readonly reasons: string[] = []
  /** The latest events, for the words of a fault. */
  readonly #latest: string[] = []

  constructor (world: World, client: Client, name: string, topic: string) {
    this.#world = world
    this.topic = topic
    this.#name = `${name} in ${topic}`
    const keeps = topic.startsWith('log:') || topic.startsWith('short:')
    const options = { presence: hasPresence(topic), ...keeps ? { reload: (snapshot: TopicSnapshot<string, Data>) => { this.#reload(snapshot) } } : {} }
    this.room = client.room(topic, options as never) as never
    this.room.on('message', ({ id, data }) => { this.#receive(id, data.n) })
    this.room.on('gap', gap => { this.#tell(JSON.stringify(gap)) })
    this.room.on('status', ({ status, id, recovered, session }) => {
      const now = Date.now()
      this.#note(`${status} ${id} ${recovered}`)
      for (const stay of this.stays) stay.to = Math.min(stay.to, now)
      if (status !== 'open') return
      const node = nodeOf(session)
      this.stays.push({ node: world.fleet.nodes.find(({ ids }) => ids.includes(node ?? '')), from: now, to: Infinity })
      if (this.joinedAt === undefined) this.joinedAt = Date.now()
      else if (!recovered) this.#tell(`recovered: false at ${id} after ${this.cursor}`)
      if (id === null || id === undefined) return
      if (this.cursor === undefined || this.isTold) this.cursor = id
      else if (!isUpTo(id, this.cursor)) this.#fault(`continues ${id}, but has ${this.cursor}`)
    })
  }

  /** Whether messages may be missing now. */
  get isTold (): boolean {
    const { recovered, gap } = this.room.getSnapshot()
    return !recovered || gap !== null
  }

  get isOpen (): boolean { return this.room.getSnapshot().status === 'open' }

  #note (text: string): void {
    this.#latest.push(`${new Date().toISOString().slice(17, 23)} ${text}`)
    if (this.#latest.length > 12) this.#latest.shift()
  }

  #fault (text: string): void { this.#world.faults.push(`${this.#name}: ${text} (${this.#latest.join(', ')})`) }

  #tell (text: string): void {
    this.told.push(Date.now())
    this.reasons.push(text)
    this.#note(text)
    if (this.topic.startsWith('log:') && !this.#world.losesData) this.#fault(`is told of a loss, though all is kept: ${text}`)
  }

  #receive (id: string | undefined, n: number): void {
    const { losesData, seen } = this.#world
    this.#note(`${n} at ${id}`)
    const cameAt = this.got.get(n)
    if (cameAt !== undefined) {
      const isAgain = cameAt >= this.stays.at(-1)!.from
      // A node may get late what a member has got on the node before. Messages of a topic that keeps none have no position.
      if (this.topic.startsWith('plain:') && !isAgain) return
      if (this.#world.isOncePerNode === true) {
        this.repeated.push(n)
        return
      }
      if (!losesData) this.#fault(`got ${n} twice: ${id}`)
    }
    this.got.set(n, Date.now())
    const session = this.room.getSnapshot().session!
    const order = this.order.get(session)
    if (order === undefined) this.order.set(session, [n])
    else order.push(n)
    if (this.topic.startsWith('plain:')) return
    if (id === undefined || this.joinedAt === undefined) {
      this.#fault(`got ${n} without a position, or before it has joined`)
      return
    }
    const key = `${this.topic} ${id}`
    if ((seen.get(key) ?? n) !== n) this.#fault(`got ${n} at ${id}, another member got ${seen.get(key)}`)
    seen.set(key, n)
    const now = placeOf(id)
    const before = this.cursor === undefined ? { epoch: now.epoch, offset: now.offset - 1 } : placeOf(this.cursor)
    if (!this.isTold) {
      if (now.epoch !== before.epoch) this.#fault(`got ${id} right after ${this.cursor} of another epoch, and is not told`)
      else if (now.offset <= before.offset) this.#fault(`got ${id} after ${this.cursor}`)
      // A server that was started again skips offsets.
      else if (now.offset > before.offset + 1 && now.offset < before.offset + 1_000_000) this.#fault(`got ${id} right after ${this.cursor}, and is not told`)
    }
    this.cursor = id
  }

  /** Goes on behind the id of a snapshot: earlier messages are in it, or no longer kept. */
  #reload ({ id }: TopicSnapshot<string, Data>): void {
    this.cursor = id
    this.told.push(Date.now())
    this.reasons.push(`reloaded at ${id}`)
    this.#note(`reloaded at ${id}`)
  }

  describe (): string {
    const { status, recovered, gap, error } = this.room.getSnapshot()
    return `${this.#name} is ${status} at ${this.cursor}, recovered: ${recovered}, gap: ${JSON.stringify(gap)}, error: ${error?.code} ${error?.message}, log: ${this.room.log().slice(-5).map(({ at, status, error }) => `${at.toISOString().slice(17, 23)} ${status} ${error?.code ?? ''}`).join(', ')}`
  }
}

/** A person with a client, who comes back to any node. */
export class Member {
  readonly name: string
  readonly client: Client
  readonly rooms: Watched[]
  readonly #sockets = new Set<WebSocket>()

  /** @param user - a person may have several clients */
  constructor (world: World, index: number, topics: readonly string[], user = `u${index}`) {
    const { fleet, random } = world
    this.name = `member ${index}`
    const size = fleet.nodes.length
    const sockets = this.#sockets
    let attempts = 0
    const rewritten = (url: string): string => {
      // Half of the attempts go to the node that a member was on.
      const node = fleet.pick(random, attempts++ === 0 || random() < 0.5 ? index % size : undefined)
      const made = new URL(url)
      made.host = node?.host ?? '127.0.0.1:9'
      return made.href
    }
    class Balanced extends WebSocket {
      constructor (url: string, protocols: string[]) {
        super(rewritten(url), protocols)
        sockets.add(this)
        this.on('close', () => { sockets.delete(this) })
      }
    }
    this.client = createClient({
      url: `http://fleet/rooms?user=${user}`,
      WebSocket: Balanced as unknown as WebSocketClass,
      fetch: (url, init) => fetch(rewritten(url), init as RequestInit) as never,
      queue: 1_000,
      onerror: error => { if ((error as Error | undefined)?.name !== 'RoomsError') world.faults.push(`${this.name} reports ${(error as Error)?.stack ?? error}`) }
    })
    this.rooms = topics.map(topic => new Watched(world, this.client, this.name, topic))
  }

  /** Cuts its connection. */
  cut (): void { for (const socket of this.#sockets) socket.terminate() }
}
