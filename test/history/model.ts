import { setImmediate as turn } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import { WebSocket } from 'ws'
import fastifyRooms, { memoryBroker } from '../../lib/index.ts'
import { SlowBroker } from '../helpers/slow-broker.ts'

/** One schedule of the model: its seed, its topic, and its broker. */
export interface Schedule {
  seed: number
  random: () => number
  history: object
  /** `history` keeps and replays all messages of the schedule. */
  keepsAll: boolean
  /** Entries and readings take turns of the event loop. */
  isSlow: boolean
}

/** A client that comes back with the id of its last message until the schedule ends. */
class ResumingClient {
  readonly #url: string
  readonly isRaw: boolean
  #socket: WebSocket | undefined
  /** The ids of all messages that it was sent; in raw mode the payloads. */
  readonly got: string[] = []
  /** The places in `got` before which messages may be missing. */
  readonly holes = new Set<number>()
  id: string | undefined
  errors: string[] = []
  /** The topic keeps all messages, and the broker answers at once, so that no position may be lost. */
  readonly keepsAll: boolean

  constructor (url: string, isRaw: boolean, keepsAll: boolean) {
    this.#url = url
    this.isRaw = isRaw
    this.keepsAll = keepsAll
  }

  /** Hello has come over this connection. */
  isJoined = false

  get isOpen (): boolean { return this.#socket?.readyState === WebSocket.OPEN }

  connect (): void {
    const query = this.id === undefined ? '' : `?since=${this.id}`
    const socket = new WebSocket(`${this.#url}${query}`, this.isRaw ? ['rooms.raw'] : [])
    this.#socket = socket
    this.isJoined = false
    const since = this.id
    if (since === undefined) this.holes.add(this.got.length)
    socket.on('error', () => {})
    socket.on('close', code => {
      if (code !== 4202) return
      // The position is lost: the client reloads.
      this.id = undefined
      this.holes.add(this.got.length)
    })
    socket.on('message', data => {
      if (this.#socket !== socket) return // the client has given this connection up
      const text = String(data)
      if (this.isRaw) {
        // Payloads are the ids' offsets, so that a raw client can resume, too.
        const { id } = JSON.parse(text) as { id: string }
        this.got.push(id)
        return
      }
      const frame = JSON.parse(text)
      if (frame.type === 'hello') {
        this.isJoined = true
        if (since !== undefined && frame.recovered !== true) {
          this.holes.add(this.got.length)
          if (this.keepsAll) this.errors.push(`hello of ${since} says that messages are missing, but all are kept`)
        }
        if (frame.recovered === true && frame.id !== since) this.errors.push(`hello of ${since} continues ${frame.id}`)
        this.id = frame.id
      } else if (frame.type === 'gap') this.holes.add(this.got.length)
      else if (frame.type === 'message') {
        this.got.push(frame.id)
        this.id = frame.id
      }
    })
  }

  /** Cuts the connection, at any byte. */
  cut (): void {
    this.#socket?.terminate()
    this.#socket = undefined
  }

  pause (): void { this.#socket?.pause() }
  resume (): void { this.#socket?.resume() }
}

/**
 * Runs one schedule: publications, joins, cuts, resumes, pauses. Returns the faults: a client that did not get exactly the topic's sequence between two places at
 * which it was told that messages may be missing.
 */
export async function runSchedule ({ seed, random, history, keepsAll, isSlow }: Schedule, steps: number): Promise<string[]> {
  const wait = async (): Promise<void> => { for (let turns = Math.floor(random() * 3); turns > 0; turns--) await turn() }
  const app: FastifyInstance = Fastify()
  await app.register(fastifyRooms as any, {
    broker: isSlow ? new SlowBroker(wait) : memoryBroker(),
    topics: { news: { history } },
    slow: { bytes: 200_000 },
    ...(random() < 0.3 ? { onJoin: async () => { await wait() } } : {})
  })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const rooms = (app as any).rooms
  const url = `ws://127.0.0.1:${(app.server.address() as { port: number }).port}/news`
  const clients = Array.from({ length: 5 }, () => new ResumingClient(url, false, keepsAll && !isSlow))
  const sequence: string[] = []
  const faults: string[] = []
  const publish = async (): Promise<void> => {
    const { id } = await rooms.broadcast('news', 'x'.repeat(Math.floor(random() ** 4 * 20_000)))
    if (id === undefined) faults.push('a message without a position')
    else sequence.push(id)
  }
  try {
    const pending: Promise<void>[] = []
    for (let step = 0; step < steps; step++) {
      const client = clients[Math.floor(random() * clients.length)]!
      const dice = random()
      if (dice < 0.5) pending.push(publish())
      else if (dice < 0.7) { if (!client.isOpen) client.connect() } else if (dice < 0.8) client.cut()
      else if (dice < 0.85) client.pause()
      else if (dice < 0.9) client.resume()
      else for (let turns = Math.floor(random() * 6); turns > 0; turns--) await turn()
      if (random() < 0.05) await new Promise(resolve => setTimeout(resolve, 2))
    }
    await Promise.all(pending)
    for (const client of clients) {
      client.resume()
      client.cut()
      client.connect()
    }
    const deadline = Date.now() + 15_000
    while (clients.some(client => !client.isJoined) && Date.now() < deadline) await new Promise(resolve => setTimeout(resolve, 2))
    await publish()
    const order = [...sequence].sort((a, b) => offsetOf(a) - offsetOf(b))
    while (clients.some(client => client.got.at(-1) !== order.at(-1)) && Date.now() < deadline) await new Promise(resolve => setTimeout(resolve, 2))
    clients.forEach((client, index) => { faults.push(...client.errors, ...faultsOf(client, order).map(fault => `client ${index}: ${fault}`)) })
  } finally {
    for (const client of clients) client.cut()
    await app.close()
  }
  return faults.map(fault => `seed ${seed}: ${fault}`)
}

function offsetOf (id: string): number {
  return Number(id.slice(id.lastIndexOf('-') + 1))
}

function faultsOf ({ got, holes }: ResumingClient, order: string[]): string[] {
  const faults: string[] = []
  if (got.at(-1) !== order.at(-1)) faults.push(`the last message did not come; it got ${got.length}`)
  for (let index = 1; index < got.length; index++) {
    const step = offsetOf(got[index]!) - offsetOf(got[index - 1]!)
    if (step < 1) faults.push(`${got[index]} after ${got[index - 1]}`)
    else if (step > 1 && !holes.has(index)) faults.push(`${got[index]} right after ${got[index - 1]}`)
  }
  return faults
}
