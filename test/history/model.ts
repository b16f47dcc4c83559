import type { Socket } from 'node:net'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import Fastify from 'fastify'
import fastifyRooms, { memoryBroker } from '../../lib/index.ts'
import type { Broker, Session, SlowPolicy } from '../../types/index.ts'
import { random as numbersFrom } from '../helpers/random.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'
import { openLink, type Link, type Transport } from './links.ts'

/** One client for each. */
export const transports: Transport[] = ['rooms.v1', 'rooms.v1', 'event-stream', 'event-stream', 'rooms.raw', 'long-poll', 'pages']

/** Milliseconds after which the messages of a schedule expire, if they do. */
const expiry = 10

/** Milliseconds for the end of a schedule. */
export const patience = 15_000

/** Faults that a client may have, for twins of the model. */
export interface ClientFaults {
  /** It takes the top, not `hello.id`, as its position after a resume. */
  takesTop?: boolean
  /** It ignores `gap` frames. */
  ignoresGaps?: boolean
  /** It takes the top, not the `id` of a page that is not complete, as its position. */
  takesTopOfPages?: boolean
}

/** One schedule of the model: its seed, its topic, and its broker. */
export interface Schedule {
  seed: number
  random: () => number
  history: object
  /** `history` keeps and replays all messages of the schedule. */
  keepsAll: boolean
  /** Entries and readings take turns of the event loop. */
  isSlow: boolean
  /** The server is closed and started again, now and then: the topic then begins a new epoch. Members publish nothing, because a `mid` ends with its server. */
  restarts: boolean
  /** Few bytes are buffered for a member, and a member that reads slowly is sent a `gap`. */
  isTight: boolean
  /** The messages expire: now and then, nothing is published for longer than their time. */
  expires?: boolean
  /** Members are excepted from messages. */
  excepts?: boolean
  /** The host's `onJoin` takes turns of the event loop. */
  hasOnJoin: boolean
  /** The policy for slow members of a tight schedule: by default they are sent a `gap`. */
  policy?: SlowPolicy
  /** A fault of all clients. */
  faults?: ClientFaults
  /** Replaces the broker. */
  wrap?: (broker: Broker) => Broker
  /** Adds the host's own to an app. */
  prepare?: (app: FastifyInstance) => void
}

/** A message as a client got it: its id, or in raw mode its number alone. Without a number: a position that the next message continues, as a hello or a page has it. */
interface Got { id: string | undefined, n: number | undefined }

/** A client that comes back with the id of its last message until the schedule ends. */
class ResumingClient {
  readonly #origin: string
  readonly #name: string
  readonly transport: Transport
  readonly #faults: ClientFaults
  readonly #random: () => number
  /** The topic keeps all messages, and the broker answers at once, so that no position may be lost. */
  readonly #keepsAll: boolean
  #link: Link | undefined
  /** All messages that it was sent. */
  readonly got: Got[] = []
  /** The places in `got` before which messages may be missing. */
  readonly holes = new Set<number>()
  /** The ids of all its sessions, the last of which may go on. */
  readonly sessions: string[] = []
  /** Messages from which its session was excepted while it had all messages before them, so that no replay may bring them before it comes back. */
  readonly #unwanted = new Set<number>()
  /** Messages that it has published and that no ack has come for, by `mid`. */
  readonly unanswered = new Map<string, string>()
  /** Its messages for which an ack has come. */
  readonly accepted: Got[] = []
  id: string | undefined
  readonly errors: string[] = []
  /** Hello has come over this connection. */
  isJoined = false
  #isReading = false
  /** It was told once where the topic is. */
  #hasBegun = false
  /** A fault: it takes nothing of the next page but its position. */
  #skips = false

  constructor (origin: string, name: string, transport: Transport, faults: ClientFaults, keepsAll: boolean, random: () => number) {
    this.#random = random
    this.#origin = origin
    this.#name = name
    this.transport = transport
    this.#faults = faults
    this.#keepsAll = keepsAll
  }

  get isRaw (): boolean { return this.transport === 'rooms.raw' }
  get isPaged (): boolean { return this.transport === 'long-poll' || this.transport === 'pages' }
  /** The number of its newest message. */
  get newest (): number | undefined { return this.got.findLast(({ n }) => n !== undefined)?.n }
  get isAway (): boolean { return !this.#isReading && this.#link?.isClosed !== false }

  /**
   * @param frames - it cuts the connection after so many frames or pages
   * @param bytes - and after so many bytes
   */
  connect (frames = Infinity, bytes = Infinity): void {
    // A raw client is sent no position: it begins with the one of a snapshot and its newest message, and counts.
    if (this.isRaw && this.id === undefined) this.#reload(frames, bytes).catch(() => {})
    else this.#open(frames, bytes)
  }

  async #reload (frames: number, bytes: number): Promise<void> {
    this.#isReading = true
    try {
      const { id, messages: [newest] } = await (await fetch(`http://${this.#origin}/news?limit=1`)).json() as { id: string, messages: { id: string, data: string }[] }
      this.id = id
      this.holes.add(this.got.length)
      if (newest !== undefined && numberOf(newest.data) !== this.newest) this.got.push({ id: newest.id, n: numberOf(newest.data) })
      this.holes.add(this.got.length)
      this.#continue(id)
      this.#open(frames, bytes)
    } finally {
      this.#isReading = false
    }
  }

  #open (frames: number, bytes: number): void {
    const since = this.id
    this.isJoined = false
    if (since === undefined && !this.#hasBegun) this.holes.add(this.got.length)
    const link: Link = this.#link = openLink({ url: `${this.#origin}/news`, position: () => this.id, bytes, random: this.#random }, this.transport, {
      closed: code => {
        if (this.isPaged && code !== undefined && code !== 503) this.errors.push(`a page was answered with ${code}`)
        if (code !== 4202 || this.#link !== link) return
        // The position is lost: the client reloads.
        this.id = undefined
        this.holes.add(this.got.length)
      },
      received: (text, id) => {
        if (this.#link !== link) return // the client has given this connection up
        if (this.isPaged) this.#read(JSON.parse(text))
        else this.#receive(text, since, id)
        if (--frames === 0) this.cut()
      }
    })
  }

  /** Takes a page. */
  #read ({ id, messages, recovered, complete }: { id: string, messages: { id: string, data: string }[], recovered?: boolean, complete: boolean }): void {
    this.isJoined = true
    if (this.#skips) {
      this.#skips = false
      this.id = id
      return
    }
    if (this.id === undefined ? recovered !== undefined : typeof recovered !== 'boolean') this.errors.push(`recovered: ${recovered} in the page behind ${this.id}`)
    if (recovered !== true) this.#lost(this.id, id)
    else if (!complete && messages.length === 0) this.errors.push(`nothing in the page behind ${this.id}, which is not complete`)
    for (const { id, data } of messages) this.got.push({ id, n: numberOf(data) })
    this.#continue(id)
    this.id = id
    if (this.#faults.takesTopOfPages !== true || recovered !== true || complete) return
    this.#skips = true
    this.id = undefined
  }

  /** Notes the position that the next message continues. */
  #continue (id: string): void {
    if (this.got.at(-1)?.id !== id || this.holes.has(this.got.length)) this.got.push({ id, n: undefined })
  }

  /** Notes that messages may be missing here, unless they must not be. */
  #lost (since: string | undefined, id: string): void {
    this.holes.add(this.got.length)
    if (this.#keepsAll && since !== undefined && positionOf(since).epoch === positionOf(id).epoch) this.errors.push(`messages behind ${since} are missing, but all are kept`)
  }

  #receive (text: string, since: string | undefined, eventId: string | undefined): void {
    if (this.isRaw) {
      this.got.push({ id: undefined, n: numberOf(text) })
      const { epoch, offset } = positionOf(this.id!)
      this.id = `${epoch}-${offset + 1}`
      return
    }
    const frame = JSON.parse(text)
    if (frame.type === 'hello') this.#greeted(frame, since, eventId)
    else if (frame.type === 'gap' && this.#faults.ignoresGaps !== true) this.holes.add(this.got.length)
    else if (frame.type === 'ack') {
      if (frame.ok) {
        const text = this.unanswered.get(frame.ref)
        if (text !== undefined) this.accepted.push({ id: frame.id, n: numberOf(text) })
        this.unanswered.delete(frame.ref)
      } else this.errors.push(`its message was refused: ${frame.error.code}`)
    } else if (frame.type === 'message') {
      if (this.#unwanted.has(numberOf(frame.data))) this.errors.push(`it got message ${numberOf(frame.data)}, from which it was excepted`)
      this.got.push({ id: frame.id, n: numberOf(frame.data) })
      this.id = this.#positionFrom(frame.id, eventId)
    }
  }

  /** An EventSource knows no other position than the `id:` of the last event that had one. */
  #positionFrom (id: string, eventId: string | undefined): string | undefined {
    return this.transport === 'event-stream' ? eventId ?? this.id : id
  }

  #greeted ({ id, session, recovered, replayed }: { id: string, session: string, recovered?: boolean, replayed?: number }, since: string | undefined, eventId: string | undefined): void {
    this.isJoined = this.#hasBegun = true
    this.sessions.push(session)
    this.#unwanted.clear()
    if (recovered === false) this.#lost(since, id)
    if (recovered === true && id !== since) this.errors.push(`hello of ${since} continues ${id}`)
    this.#continue(id)
    this.id = this.#positionFrom(id, eventId)
    if (this.#faults.takesTop === true && replayed !== undefined) {
      const { epoch, offset } = positionOf(id)
      this.id = `${epoch}-${offset + replayed}`
    }
    for (const mid of this.unanswered.keys()) this.#send(mid)
  }

  /** Publishes a message, and again on each later connection until it is answered. */
  publish (text: string): void {
    const mid = `${this.#name}-${numberOf(text)}`.padEnd(16, '.')
    this.unanswered.set(mid, text)
    if (this.isJoined) this.#send(mid)
  }

  #send (mid: string): void {
    if (this.#link?.isOpen === true) this.#link.send(JSON.stringify({ type: 'message', data: this.unanswered.get(mid), mid, ref: mid }))
  }

  /** Whether it has had every message up to a position, or was told that the last ones are missing. */
  hasAll (id: string): boolean { return this.id === id || this.got.at(-1)?.id === id }

  /** Notes that its session was excepted from a message. */
  excepted (n: number): void {
    this.#unwanted.add(n)
  }

  /** Cuts the connection, at any byte. */
  cut (): void {
    this.#link?.cut()
    this.#link = undefined
    this.isJoined = false
  }

  /** The port of its open connection. */
  get port (): number | undefined { return this.#link?.port }
}

/** The features of the schedule with a seed, apart from its broker. */
export function featuresOf (seed: number): Pick<Schedule, 'restarts' | 'isTight' | 'hasOnJoin' | 'expires' | 'excepts'> {
  return { restarts: seed % 4 === 1, isTight: seed % 4 === 3, hasOnJoin: seed % 3 === 0, expires: seed % 7 === 2, excepts: seed % 2 === 0 }
}

/**
 * Runs one schedule: publications of the host and of members, joins, cuts, resumes, stalled connections, restarts. Returns the faults: a client that did not get
 * exactly the topic's sequence between two places at which it was told that messages may be missing, or a message that is in the sequence twice.
 */
export async function runSchedule (schedule: Schedule, steps: number): Promise<string[]> {
  const { seed, random, keepsAll, isSlow, restarts, expires = false, excepts = false, faults: clientFaults = {} } = schedule
  const below = (count: number): number => Math.floor(random() * count)
  const wait = async (): Promise<void> => { for (let turns = below(3); turns > 0; turns--) await turn() }
  let server = await Server.start(schedule, 0, wait)
  const { origin } = server
  const clients = transports.map((transport, index) => new ResumingClient(origin, `client${index}`, transport, clientFaults, keepsAll && !isSlow && !expires, numbersFrom(1_000 * seed + index)))
  let count = 0
  const makeText = (): string => `${++count} ${'x'.repeat(Math.floor(random() ** 4 * 20_000))}`
  const epochs: string[] = []
  const ids = new Map<number, string>()
  const faults: string[] = []
  let last: string | undefined
  let pending: Promise<void>[] = []
  /** The session that was excepted from a message. */
  const exceptions = new Map<number, string>()
  const publish = async (text: string, except?: string): Promise<void> => {
    if (except !== undefined) exceptions.set(numberOf(text), except)
    const { id } = await server.app.rooms.broadcast('news', text, except === undefined ? {} : { except })
    if (id === undefined) faults.push('a message without a position')
    else ids.set(numberOf(text), last = id)
  }
  const noteEpoch = async (): Promise<void> => {
    await publish(makeText())
    epochs.push(positionOf(last!).epoch)
  }
  try {
    await noteEpoch()
    for (let step = 0; step < steps; step++) {
      const client = clients[below(clients.length)]!
      const dice = random()
      if (excepts && dice < 0.1) {
        // A session, which may have ended.
        const except = client.sessions.at(-1)
        if (random() < 0.3) await Promise.all(pending)
        const text = makeText()
        if (client.isJoined && client.hasAll(last!)) client.excepted(numberOf(text))
        pending.push(publish(text, except))
      } else if (dice < 0.4) pending.push(publish(makeText()))
      else if (dice < 0.5) {
        const text = makeText()
        if (restarts || client.transport !== 'rooms.v1') pending.push(publish(text))
        else client.publish(text.slice(0, 10_000))
      } else if (dice < 0.7) {
        const frames = random() < 0.4 ? 1 + below(15) : Infinity
        const bytes = random() < 0.3 ? Math.floor(100 * 3_000 ** random()) : Infinity
        if (client.isAway) client.connect(frames, bytes)
      } else if (dice < 0.8) client.cut()
      else if (dice < 0.85) server.stall(client.port)
      else if (dice < 0.9) server.flow(client.port)
      else for (let turns = below(6); turns > 0; turns--) await turn()
      if (random() < 0.05) await sleep(2)
      if (expires && random() < 0.03) await sleep(2 * expiry)
      if (restarts && step > 0 && step % Math.floor(steps / 3) === 0) {
        await Promise.all(pending)
        pending = []
        await server.close()
        server = await Server.start(schedule, Number(origin.split(':')[1]), wait)
        await noteEpoch()
      }
    }
    await Promise.all(pending)
    for (const client of clients) {
      if (random() < 0.3) server.flow(client.port)
      else client.cut()
      if (client.isAway) client.connect()
    }
    const deadline = Date.now() + patience
    const until = async (isDone: () => boolean): Promise<void> => {
      while (!isDone() && Date.now() < deadline) {
        for (const client of clients) if (client.isAway) client.connect()
        await sleep(2)
      }
    }
    await until(() => clients.every(({ isRaw, isJoined, id, unanswered }) => isRaw ? id !== undefined : isJoined && unanswered.size === 0))
    // Each topic keeps and replays a small message.
    await publish(`${++count} the end`)
    await until(() => clients.every(client => client.newest === count || client.hasAll(last!)))
    for (const { n, id } of clients.flatMap(({ accepted, got }) => [...accepted, ...got])) {
      if (id === undefined || n === undefined) continue
      const known = ids.get(n)
      if (known === undefined) ids.set(n, id)
      else if (known !== id) faults.push(`message ${n} stands at ${known} and at ${id}`)
    }
    clients.forEach((client, index) => { faults.push(...client.errors, ...faultsOf(client, { epochs, ids, exceptions, last: count }).map(fault => `client ${index}: ${fault}`)) })
  } finally {
    for (const client of clients) client.cut()
    await server.close()
  }
  return [...new Set(faults)].map(fault => `seed ${seed}: ${fault}`)
}

/** A server with the topic of a schedule. */
export class Server {
  readonly app: FastifyInstance & { rooms: any }
  /** By the port of the peer. */
  readonly #sockets = new Map<number, Socket>()
  readonly #stalled = new Set<Socket>()

  static async start ({ history, expires = false, isSlow, isTight, policy = 'drop', hasOnJoin, wrap = broker => broker, prepare = () => {} }: Schedule, port: number, wait: () => Promise<void>): Promise<Server> {
    const app: FastifyInstance = Fastify({ forceCloseConnections: true })
    prepare(app)
    await app.register(fastifyRooms as any, {
      broker: wrap(isSlow ? new SlowBroker(wait) : memoryBroker()),
      topics: { news: { history: expires ? { ...history, ttl: expiry } : history, publish: true } },
      identify: ({ headers }: FastifyRequest) => headers['sec-websocket-protocol'] === 'rooms.raw' ? { user: 'raw' } : null,
      // No frame tells a raw member of a gap.
      slow: isTight ? { bytes: 20_000, policy: ({ user }: Session) => user === 'raw' && policy === 'drop' ? 'close' : policy } : { bytes: 200_000 },
      ...(hasOnJoin ? { onJoin: async () => { await wait() } } : {})
    })
    await app.listen({ host: '127.0.0.1', port })
    return new Server(app as FastifyInstance & { rooms: any })
  }

  constructor (app: FastifyInstance & { rooms: any }) {
    this.app = app
    app.server.on('connection', socket => { this.#sockets.set(socket.remotePort!, socket) })
  }

  get origin (): string { return this.app.listeningOrigin.slice('http://'.length) }

  /** Lets nothing leave to a client, as if its peer did not read. */
  stall (port: number | undefined): void {
    const socket = this.#sockets.get(port!)
    if (socket === undefined || this.#stalled.has(socket)) return
    this.#stalled.add(socket)
    socket.cork()
  }

  flow (port: number | undefined): void {
    const socket = this.#sockets.get(port!)
    if (socket !== undefined && this.#stalled.delete(socket)) socket.uncork()
  }

  async close (): Promise<void> {
    for (const socket of this.#stalled) socket.uncork()
    this.#stalled.clear()
    await this.app.close()
  }
}

export function numberOf (text: string): number {
  return Number(text.slice(0, text.indexOf(' ')))
}

export function positionOf (id: string): { epoch: string, offset: number } {
  const dash = id.lastIndexOf('-')
  return { epoch: id.slice(0, dash), offset: Number(id.slice(dash + 1)) }
}

/** The truth of a schedule. */
interface Sequence {
  /** In their order. */
  epochs: string[]
  /** The positions of all messages. */
  ids: Map<number, string>
  /** The sessions that were excepted from a message. */
  exceptions: Map<number, string>
  /** The last message. */
  last: number
}

function faultsOf ({ got, newest, holes, sessions }: ResumingClient, { epochs, ids, exceptions, last }: Sequence): string[] {
  const faults: string[] = []
  // A position alone: the message has expired before the client came.
  if (newest !== last && got.at(-1)?.id !== ids.get(last)) faults.push(`the last message did not come; it got ${got.length}`)
  const excepted = new Set([...exceptions].filter(([, session]) => sessions.includes(session)).map(([n]) => ids.get(n)))
  let before: { epoch: string, offset: number } | undefined
  got.forEach(({ n, id = ids.get(n!) }, index) => {
    if (id === undefined) {
      faults.push(`message ${n}, which has no position`)
      return
    }
    const position = positionOf(id)
    const eras = before === undefined ? 1 : epochs.indexOf(position.epoch) - epochs.indexOf(before.epoch)
    let step = position.offset - (before?.offset ?? 0)
    // Its sessions need not be sent the messages from which they were excepted.
    if (eras === 0) for (let offset = before!.offset + 1; offset < position.offset; offset++) if (excepted.has(`${position.epoch}-${offset}`)) step--
    // A position that messages continue is the one of the message before.
    const usual = n === undefined ? 0 : 1
    if (eras < 0 || (eras === 0 && step < usual)) faults.push(`${id} after ${before!.offset}`)
    else if ((eras > 0 || step > usual) && !holes.has(index)) faults.push(`${n === undefined ? 'continuing ' : ''}${id} right after ${before === undefined ? 'nothing' : `${before.epoch}-${before.offset}`}`)
    before = position
  })
  return faults
}
