import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import { createClient, type Client, type ClientRoom, type RoomOptions, type TopicSnapshot } from '../../lib/client/index.ts'
import fastifyRooms, { memoryBroker } from '../../lib/index.ts'
import type { Broker, BrokerHandlers, HistoryPage, HistoryQuery, Outcome, Position, Publication, Retention } from '../../types/index.ts'
import { isUpTo } from '../../lib/client/position.ts'
import { random as numbersFrom } from '../helpers/random.ts'
import { Clock } from './clock.ts'
import { Access, Network } from './network.ts'

/** Topics of a schedule: two that keep all, two that keep little, one of values, and streams. */
const topicNames = ['chat:1', 'chat:2', 'short:1', 'short:2', 'values']
const topics = {
  'chat:*': { history: { size: 1_000, replay: 10_000_000 }, publish: true, post: true },
  'short:*': { history: { size: 3 }, publish: true, post: true },
  values: { history: { latest: true }, publish: true, post: true },
  'run:*': { stream: true }
}
const keys = ['a', 'b', 'c', 'd']

interface Data { n: number, pad: string }

/** The place of a message in its topic. */
interface Place { epoch: string, offset: number }

/** The messages that a broker has accepted, in all of its epochs. */
class Truth {
  /** The number of the message at each position, by topic and id; `end`: the end of a stream. */
  readonly messages = new Map<string, number | 'end'>()
  /** How often each message was accepted. */
  readonly counts = new Map<number, number>()
  /** The epochs of each topic, in their order. */
  readonly epochs = new Map<string, string[]>()
  /** The last position of each topic. */
  readonly tops = new Map<string, string>()

  add ({ topic, tail, end }: Publication, { epoch, offset }: Position): void {
    const id = `${epoch}-${offset}`
    const n = end === undefined ? (JSON.parse(`{${String(tail)}`) as { data: Data }).data.n : 'end'
    this.messages.set(`${topic} ${id}`, n)
    if (n !== 'end') this.counts.set(n, (this.counts.get(n) ?? 0) + 1)
    this.begin(topic, epoch)
    this.tops.set(topic, id)
  }

  begin (topic: string, epoch: string): void {
    const known = this.epochs.get(topic) ?? []
    if (!known.includes(epoch)) known.push(epoch)
    this.epochs.set(topic, known)
  }
}

/** A broker that outlives the servers that use it, one after the other. It answers later, and what it has accepted is noted. */
class LastingBroker implements Broker {
  readonly capabilities = { order: 'total', history: true, presence: false, once: 'node' } as const
  readonly #truth: Truth
  readonly #attached = new Map<string, Retention | undefined>()
  readonly #memory = memoryBroker()
  #handlers: BrokerHandlers | undefined

  constructor (truth: Truth) {
    this.#truth = truth
    this.#memory.start('memory', {
      entry: (topic, publication, position) => {
        this.#handlers?.entry(topic, { ...publication, tail: Buffer.from(publication.tail) }, position)
      },
      control () {},
      state () {},
      lost () {}
    }).catch(() => {})
  }

  async start (_node: string, handlers: BrokerHandlers): Promise<void> {
    this.#handlers = handlers
    handlers.state('up')
  }

  async #attach (topic: string, retention: Retention | undefined): Promise<Position | null> {
    const [position = null] = await this.#memory.attach([topic], retention)
    if (position !== null) this.#truth.begin(topic, position.epoch)
    return position
  }

  async attach (names: string[], retention?: Retention): Promise<(Position | null)[]> {
    for (const topic of names) this.#attached.set(topic, retention)
    return Promise.all(names.map(topic => this.#attach(topic, retention)))
  }

  async detach (names: string[]): Promise<void> {
    for (const topic of names) this.#attached.delete(topic)
    await this.#memory.detach(names)
  }

  async publish (batch: Publication[]): Promise<Outcome[]> {
    await turn()
    const outcomes = await this.#memory.publish(batch)
    outcomes.forEach(({ state, position }, index) => { if (state === 'ok' && position !== undefined) this.#truth.add(batch[index]!, position) })
    return outcomes
  }

  async history (topic: string, query: HistoryQuery): Promise<HistoryPage> {
    await turn()
    const page = await this.#memory.history!(topic, query)
    this.#truth.begin(topic, page.position.epoch)
    return page
  }

  async control (): Promise<'gone'> { return 'gone' }

  async close (): Promise<void> {
    this.#handlers = undefined
    await this.#memory.detach([...this.#attached.keys()])
    this.#attached.clear()
  }
}

/** Milliseconds for the end of a schedule. */
const patience = 15_000

/** One schedule: its seed, its clients, and how much happens. */
export interface ModelOptions {
  seed: number
  clients: number
  steps: number
}

/** Counts of events, by which a test can tell that a schedule reaches the states that it is for. */
export interface Counts {
  messages: number
  reloads: number
  losses: number
  resumes: number
  restarts: number
  eventStreams: number
  ends: number
  resolved: number
  unsent: number
  unknown: number
  refused: number
}

const placeOf = (id: string): Place => {
  const [epoch, offset] = id.split('-') as [string, string]
  return { epoch, offset: Number(offset) }
}

/** One room of a client, and what an application makes of it. */
class Watched {
  readonly room: ClientRoom<string, Data, Data>
  readonly topic: string
  readonly name: string
  readonly reloads: boolean
  readonly #world: World
  readonly #isLatest: boolean
  readonly #isStream: boolean
  /** The position that the next message continues; `undefined` before the first join. */
  cursor: string | undefined
  /** The state of the application: the numbers of the messages by their keys, or by their places in the order. */
  view = new Map<string, number>()
  /** The view has everything that the topic keeps. */
  isWhole: boolean
  hasLeft = false
  hasEnded = false
  #joins = 0

  constructor (world: World, client: Client, name: string, topic: string, since: string | undefined, reloads: boolean) {
    this.#world = world
    this.topic = topic
    this.name = `${name} in ${topic}`
    this.reloads = reloads
    this.#isLatest = topic === 'values'
    this.#isStream = topic.startsWith('run:')
    this.cursor = since !== undefined && since.length > 10 ? since : undefined
    this.isWhole = since === 'latest'
    const options: RoomOptions<string, Data> = { since, ...reloads ? { reload: snapshot => { this.#reload(snapshot) } } : {} }
    this.room = client.room(topic, options as never) as never
    this.room.on('message', message => { this.#receive(message.id, message.data.n, message.key) })
    this.room.on('end', ({ id }) => {
      this.hasEnded = true
      world.counts.ends++
      this.#receive(id, 'end')
    })
    this.room.on('status', ({ status, id, recovered, transport }) => {
      if (status !== 'open') return
      if (this.#joins++ > 0) world.counts.resumes++
      if (!recovered) {
        this.isWhole = false
        world.counts.losses++
      }
      if (transport === 'event-stream') world.counts.eventStreams++
      if (this.cursor === undefined || this.isTold) this.cursor = id ?? undefined
      else if (!this.#isLatest && !isUpTo(id!, this.cursor)) this.#fault(`continues ${id}, but has ${this.cursor}`)
    })
    this.room.on('gap', () => { this.isWhole = false })
  }

  get isTold (): boolean {
    const { recovered, gap } = this.room.getSnapshot()
    return !recovered || gap !== null
  }

  #fault (text: string): void { this.#world.faults.push(`${this.name}: ${text}`) }

  #receive (id: string | undefined, n: number | 'end', key?: string): void {
    this.#world.counts.messages++
    if (this.hasLeft) this.#fault(`got ${n} after it has left`)
    if (id === undefined || this.#joins === 0) {
      this.#fault(`got ${n} without a position, or before it has joined`)
      return
    }
    const { truth } = this.#world
    // A message may come before its outcome is known, so its number is compared at the end.
    this.#world.seen.push([this.topic, id, n])
    // After a loss the server names no position until the next message. Behind `0` comes the first message, behind `latest` any value.
    const before = this.cursor === '0' ? { epoch: placeOf(id).epoch, offset: 0 } : placeOf(this.cursor === undefined || this.cursor === 'latest' ? `${placeOf(id).epoch}-${placeOf(id).offset - 1}` : this.cursor)
    const now = placeOf(id)
    if (now.epoch === before.epoch) {
      // A room that is told may get messages again that a snapshot had: the next one repairs that.
      if (now.offset <= before.offset && !this.isTold) this.#fault(`got ${id} after ${this.cursor}`)
      else if (now.offset > before.offset + 1 && !this.#isLatest && !this.isTold) this.#fault(`got ${id} right after ${this.cursor}, and is not told`)
    } else {
      const epochs = truth.epochs.get(this.topic) ?? []
      if (epochs.includes(now.epoch) && epochs.indexOf(now.epoch) < epochs.indexOf(before.epoch)) this.#fault(`got ${id} of an older epoch than ${this.cursor}`)
      if (!this.isTold) this.#fault(`got ${id} right after ${this.cursor} of another epoch, and is not told`)
    }
    this.cursor = id
    if (n !== 'end') this.view.set(this.#isLatest ? String(key) : id, n)
  }

  #reload ({ id, messages }: TopicSnapshot<string, Data>): void {
    this.#world.counts.reloads++
    this.view = new Map(messages.map(({ id, key, data }) => [this.#isLatest ? String(key) : id!, data.n]))
    this.cursor = id
    this.isWhole = true
  }

  leave (): void {
    this.hasLeft = true
    this.room.leave()
  }

  /** Whether it has had the last message, and says so. */
  get isDone (): boolean {
    if (this.hasLeft || this.hasEnded) return true
    const { status, recovered, gap, error, id } = this.room.getSnapshot()
    const top = this.#world.truth.tops.get(this.topic)
    // A room whose position is at the end of a stream, or behind it, is closed without a frame.
    if (this.#isStream && status === 'closed' && error === null) return true
    return status === 'open' && (!this.reloads || (recovered && gap === null)) && this.cursor === top && id === top
  }

  /** Checks the room at rest. */
  async check (): Promise<void> {
    if (this.hasLeft) return
    const { status, error, recovered, gap, id } = this.room.getSnapshot()
    const top = this.#world.truth.tops.get(this.topic)
    if (this.hasEnded) {
      if (status !== 'closed' || error !== null) this.#fault(`is ${status} after the end: ${error}`)
    } else if (!this.isDone) {
      this.#fault(`is ${status} at ${this.cursor} of ${top}, says that it is at ${id}, recovered: ${recovered}, gap: ${JSON.stringify(gap)}, error: ${error?.code} ${error}`)
    }
    if (this.#isStream || this.hasEnded || !this.isDone || (this.#isLatest ? !this.isWhole : this.isTold)) return
    const { messages } = await this.#world.app!.rooms.history(this.topic, this.#isLatest ? { since: 'latest' } : { limit: 1_000 }) as { messages: { id: string, key?: string, data: Data }[] }
    const kept = messages.map(({ id, key, data }) => [this.#isLatest ? String(key) : id, data.n] as const)
    // The view of an application that has reloaded has what was kept then, so that a later page may have more.
    const known = this.isWhole && !this.#isLatest ? kept.slice(-this.view.size) : kept.filter(([place]) => this.#isLatest || this.view.has(place))
    for (const [place, n] of known) if (this.view.get(place) !== n) this.#fault(`has ${this.view.get(place)} at ${place} in place of ${n}`)
    if (this.#isLatest && this.view.size !== kept.length) this.#fault(`has ${this.view.size} values of ${kept.length}`)
  }
}

/** A message of a client. */
interface Sent { n: number, client: string, mid: boolean, restarts: number, outcome: string | undefined }

/** One client, and what a person does with it. */
class Person {
  readonly access: Access
  readonly client: Client
  readonly name: string
  readonly queue: number
  readonly rooms = new Map<string, Watched>()
  readonly all: Watched[] = []
  /** The listeners for events of the page. */
  readonly listeners: [string, () => void][] = []
  readonly #world: World

  constructor (world: World, index: number) {
    const { random, network } = world
    this.#world = world
    const isTcp = random() < 0.15
    this.queue = [0, 0, 3, 100][Math.floor(random() * 4)]!
    const isAlone = random() < 0.3
    this.name = `client ${index} (${isTcp ? 'TCP, ' : ''}queue ${this.queue}${isAlone ? ', a connection for each room' : ''})`
    this.access = new Access(network, isTcp)
    world.current = this
    this.client = createClient({ url: 'http://127.0.0.1/rooms', WebSocket: this.access.WebSocket, fetch: this.access.fetch, queue: this.queue, ...isAlone ? { multiplex: false } : {}, onerror: error => { world.report(this.name, error) } })
    world.current = undefined
  }

  /** Joins a topic, or leaves it. */
  toggle (topic: string): void {
    const { random } = this.#world
    const known = this.rooms.get(topic)
    if (known?.hasLeft === false && !known.hasEnded) {
      known.leave()
      return
    }
    // It comes back where it was, with what it had, or begins anew.
    const isBack = known !== undefined && random() < 0.5 && known.cursor !== undefined && !known.isTold && !known.hasEnded
    const since = isBack ? known.cursor : topic === 'values' ? 'latest' : topic.startsWith('run:') || random() < 0.3 ? '0' : undefined
    const watched = new Watched(this.#world, this.client, this.name, topic, since, topic === 'values' || random() < 0.7)
    if (isBack) {
      watched.view = new Map(known.view)
      watched.isWhole = known.isWhole
    }
    this.rooms.set(topic, watched)
    this.all.push(watched)
  }

  publish (): void {
    const open = [...this.rooms.values()].filter(({ hasLeft, topic }) => !hasLeft && !topic.startsWith('run:'))
    const watched = open[this.#world.below(open.length)]
    if (watched === undefined) return
    const { counts } = this.#world
    const data = this.#world.data()
    const sent: Sent = { n: data.n, client: watched.name, mid: this.queue > 0, restarts: this.#world.counts.restarts, outcome: undefined }
    this.#world.sent.push(sent)
    watched.room.publish(data, watched.topic === 'values' ? { key: this.#world.key() } : {}).then(() => {
      sent.outcome = 'resolved'
      counts.resolved++
    }, error => {
      sent.outcome = error.code
      if (error.code === 'unsent') counts.unsent++
      else if (error.code === 'unknown') counts.unknown++
      else counts.refused++
    }).finally(() => { sent.restarts = this.#world.counts.restarts - sent.restarts })
  }

  /** The page is shown, frozen, or comes online. */
  dispatch (type: string): void { for (const [name, listener] of [...this.listeners]) if (name === type) listener() }
}

/** All of a schedule. */
class World {
  readonly random: () => number
  readonly network: Network
  readonly truth = new Truth()
  readonly counts: Counts = { messages: 0, reloads: 0, losses: 0, resumes: 0, restarts: 0, eventStreams: 0, ends: 0, resolved: 0, unsent: 0, unknown: 0, refused: 0 }
  readonly faults: string[] = []
  readonly sent: Sent[] = []
  /** Messages that rooms got: topic, id and number. */
  readonly seen: [string, string, number | 'end'][] = []
  readonly streams = new Map<string, any>()
  /** The client that is being made. */
  current: Person | undefined
  app: FastifyInstance & { rooms: any } | undefined
  broker = new LastingBroker(this.truth)
  #count = 0

  constructor (seed: number) {
    this.random = numbersFrom(seed)
    this.network = new Network(numbersFrom(seed + 0.25))
  }

  below (count: number): number { return Math.floor(this.random() * count) }
  key (): string { return keys[this.below(keys.length)]! }
  data (): Data { return { n: ++this.#count, pad: 'x'.repeat(Math.floor(this.random() ** 4 * 2_000)) } }

  report (name: string, error: any): void {
    // Answers of the server, and reloads that have failed, which are tried again.
    if (error?.name !== 'RoomsError') this.faults.push(`${name} reports ${error?.stack ?? error}`)
  }

  async start (): Promise<void> {
    const app = Fastify({ forceCloseConnections: true })
    await app.register(fastifyRooms as any, {
      prefix: '/rooms',
      broker: this.broker,
      topics,
      authorize: () => true,
      onError: () => {},
      drain: { timeout: 20, interval: 1 },
      limits: { perAddress: 100_000, addressMessages: 1_000_000, messages: 100_000 }
    })
    await app.listen({ host: '127.0.0.1', port: 0 })
    this.app = app as never
    this.network.server = app.server
  }

  async stop (): Promise<void> {
    this.network.server = undefined
    await this.app!.close()
    this.network.cut()
    this.app = undefined
    this.streams.clear()
  }

  async restart (): Promise<void> {
    this.counts.restarts++
    await this.stop()
    if (this.random() < 0.4) this.broker = new LastingBroker(this.truth)
    await this.start()
  }

  broadcast (topic: string): void {
    this.app!.rooms.broadcast(topic, this.data(), topic === 'values' ? { key: this.key() } : {}).catch(() => {})
  }

  /** Claims a stream, writes to it, or ends it. */
  async stream (topic: string): Promise<void> {
    const run = this.streams.get(topic)
    if (run === undefined) {
      const claimed = await this.app!.rooms.stream(topic).catch(() => {})
      if (claimed !== undefined) this.streams.set(topic, claimed)
    } else if (this.random() < 0.9) run.write(this.data()).catch(() => {})
    else run.end().catch(() => {})
  }
}

/**
 * Runs one schedule: clients that join and leave topics, publish, are cut off at any byte, sleep, lose WebSockets, while the host publishes and its server restarts. Returns the faults: a message that a client has missed without being told, or got twice or late, a publication whose outcome is
 * not what the client was told, a room that is not open at rest or does not have what the server keeps.
 */
export async function runClients ({ seed, clients: size, steps }: ModelOptions): Promise<{ faults: string[], counts: Counts }> {
  const world = new World(seed)
  const { random, network, faults, counts, truth } = world
  const clock = new Clock(numbersFrom(seed + 0.5))
  const unhandled = (error: any): void => { faults.push(`unhandled: ${error?.stack ?? error}`) }
  process.on('unhandledRejection', unhandled)
  const platform = globalThis as { addEventListener?: unknown }
  platform.addEventListener = (type: string, listener: () => void, { signal }: { signal: AbortSignal }): void => {
    const { listeners } = world.current!
    const entry: [string, () => void] = [type, listener]
    listeners.push(entry)
    signal.addEventListener('abort', () => { listeners.splice(listeners.indexOf(entry), 1) })
  }
  const people: Person[] = []
  const names = [...topicNames, ...Array.from({ length: 4 }, (_, n) => `run:${n}`)]
  try {
    await world.start()
    for (let index = 0; index < size; index++) people.push(new Person(world, index))
    for (let step = 0; step < steps; step++) {
      const person = people[world.below(size)]!
      const dice = random()
      if (dice < 0.25) world.broadcast(topicNames[world.below(topicNames.length)]!)
      else if (dice < 0.45) person.publish()
      else if (dice < 0.65) person.toggle(names[world.below(names.length)]!)
      else if (dice < 0.73) person.access.cut()
      else if (dice < 0.76) person.dispatch(['pagehide', 'freeze', 'pageshow', 'online'][world.below(4)]!)
      else if (dice < 0.78) person.access.isBlocked = !person.access.isBlocked
      else if (dice < 0.84) await world.stream(`run:${world.below(4)}`)
      else clock.advance(random() ** 4 * 5_000)
      if (step % 150 === 149) await world.restart()
      clock.advance(random() * 30)
      for (let turns = world.below(4); turns > 0; turns--) await turn()
    }

    // The network is well from now on.
    network.isStormy = false
    for (const person of people) {
      person.access.isBlocked = false
      person.dispatch('pageshow')
    }
    const rooms = people.flatMap(({ all }) => all)
    const settle = async (isDone: () => boolean): Promise<void> => {
      const deadline = Date.now() + patience
      for (let round = 0; !isDone() && Date.now() < deadline; round++) {
        clock.advance(200)
        for (let turns = 6; turns > 0; turns--) await turn()
        if (round > 20) await sleep(1)
      }
    }
    await settle(() => rooms.every(({ hasLeft, hasEnded, room }) => hasLeft || hasEnded || room.getSnapshot().status === 'open'))
    for (const topic of names) {
      if (!topic.startsWith('run:')) await world.app!.rooms.broadcast(topic, world.data(), topic === 'values' ? { key: world.key() } : {})
      else await (world.streams.get(topic) ?? await world.app!.rooms.stream(topic).catch(() => {}))?.end().catch(() => {})
    }
    await settle(() => rooms.every(({ isDone }) => isDone) && world.sent.every(({ outcome }) => outcome !== undefined))
    for (const room of rooms) await room.check()
    for (const [topic, id, n] of world.seen) if (truth.messages.get(`${topic} ${id}`) !== n) faults.push(`a room got ${n} at ${id} of ${topic} in place of ${truth.messages.get(`${topic} ${id}`)}`)
    for (const { n, client, mid, restarts, outcome } of world.sent) {
      const count = truth.counts.get(n) ?? 0
      // The answers that a server remembers end with it.
      const most = outcome === 'unsent' ? 0 : 1 + (mid ? restarts : 0)
      if (outcome === undefined) faults.push(`message ${n} of ${client} has no outcome`)
      else if (count > most || (outcome === 'resolved' && count === 0)) faults.push(`message ${n} of ${client} is ${outcome}, and was accepted ${count} times`)
    }
    for (const { client } of people) client.close()
    for (let turns = 20; turns > 0; turns--) await turn()
    if (clock.size > 0) faults.push(`${clock.size} timers are left`)
  } finally {
    for (const { client } of people) client.close()
    if (world.app !== undefined) await world.stop()
    clock.restore()
    delete platform.addEventListener
    process.off('unhandledRejection', unhandled)
  }
  return { faults: [...new Set(faults)].map(fault => `seed ${seed}: ${fault}`), counts }
}
