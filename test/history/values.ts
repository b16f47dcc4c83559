import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { random as numbersFrom } from '../helpers/random.ts'
import { openLink, type Link, type Transport } from './links.ts'
import { numberOf, patience, positionOf, Server, transports, type Schedule } from './model.ts'

const keys = [undefined, 'a', 'b', 'c', 'd', 'e']
/** More than there are values. */
const allValues = 20

/** A message of the host. */
interface Published { n: number, key: string | undefined, version: number | undefined, id: string | undefined }

/** A client that keeps the newest value of each key, and comes back in any way that there is. */
class ValuesClient {
  readonly #origin: string
  readonly transport: Transport
  readonly #random: () => number
  #link: Link | undefined
  #id: string | undefined
  /** The number of the newest message of each key. */
  state = new Map<string, number>()
  /** The numbers of messages that came one after the other, without a new beginning between them. */
  readonly runs: number[][] = [[]]
  readonly errors: string[] = []

  constructor (origin: string, transport: Transport, random: () => number) {
    this.#origin = origin
    this.transport = transport
    this.#random = random
  }

  get isAway (): boolean { return this.#link?.isClosed !== false }
  get port (): number | undefined { return this.#link?.port }

  cut (): void {
    this.#link?.cut()
    this.#link = undefined
  }

  /** @param bytes - the connection is cut after so many bytes */
  connect (bytes = Infinity): void {
    const isRaw = this.transport === 'rooms.raw'
    const isPaged = this.transport === 'long-poll' || this.transport === 'pages'
    // A raw client is sent no position. It begins anew each time, as others do sometimes.
    if (isRaw || this.#random() < 0.2) this.#id = undefined
    else if (this.#random() < 0.2) this.#id = 'latest'
    if (isRaw) this.#begin()
    const link: Link = this.#link = openLink({ url: `${this.#origin}/news`, position: () => this.#id, bytes, random: this.#random, snapshot: allValues }, this.transport, {
      closed: code => { if (isPaged && code !== undefined && code !== 503) this.errors.push(`a page was answered with ${code}`) },
      received: text => {
        if (this.#link !== link) return
        if (isRaw) this.#take(text)
        else if (isPaged) this.#read(JSON.parse(text))
        else this.#receive(JSON.parse(text))
      }
    })
  }

  /** Forgets all values, because the newest ones follow. */
  #begin (): void {
    this.state.clear()
    this.runs.push([])
  }

  #take (text: string): void {
    this.state.set(text.split(' ', 2)[1]!, numberOf(text))
    this.runs.at(-1)!.push(numberOf(text))
  }

  #read ({ id, messages, recovered }: { id: string, messages: { data: string }[], recovered?: boolean }): void {
    const isLost = recovered === false
    if (recovered === undefined) this.#begin()
    if (!isLost) for (const { data } of messages) this.#take(data)
    this.#id = isLost ? undefined : id
  }

  #receive (frame: any): void {
    if (frame.type === 'hello' || frame.type === 'message') this.#id = frame.id
    if (frame.type === 'message') {
      if (String(frame.key) !== frame.data.split(' ', 2)[1]) this.errors.push(`${frame.data.slice(0, 10)} came with the key ${frame.key}`)
      this.#take(frame.data)
    } else if (frame.type === 'hello' && frame.recovered === undefined) this.#begin()
    else if (frame.type === 'gap' || frame.recovered === false) {
      this.#id = undefined
      this.cut()
    }
  }
}

/**
 * Runs one schedule of a topic that keeps the newest value of each key: publications with keys and versions, joins, cuts, resumes, stalled connections, restarts.
 * Returns the faults: a client, or a page, that does not end with exactly the newest values, a value that came after a newer one, or a version that was wrongly
 * accepted or refused.
 */
export async function runValues (schedule: Schedule, steps: number): Promise<string[]> {
  const { seed, random, isSlow, isTight, restarts } = schedule
  const below = (count: number): number => Math.floor(random() * count)
  const wait = async (): Promise<void> => { for (let turns = below(3); turns > 0; turns--) await turn() }
  let server = await Server.start(schedule, 0, wait)
  const { origin } = server
  const clients = transports.map((transport, index) => new ValuesClient(origin, transport, numbersFrom(1_000 * seed + index)))
  const faults: string[] = []
  const accepted: Published[] = []
  const refused: Published[] = []
  const versions = new Map<string | undefined, number>()
  let pending: Promise<void>[] = []
  let count = 0
  const publish = async (key: string | undefined, version: number | undefined): Promise<void> => {
    const n = ++count
    try {
      const { id } = await server.app.rooms.broadcast('news', `${n} ${key} ${'x'.repeat(Math.floor(random() ** (isTight ? 1 : 4) * 20_000))}`, { ...(key === undefined ? {} : { key }), ...(version === undefined ? {} : { version }) })
      if (id === undefined) faults.push('a message without a position')
      accepted.push({ n, key, version, id })
    } catch (error: any) {
      if (error.code === 'FST_ROOMS_STALE') refused.push({ n, key, version, id: undefined })
      else faults.push(`a message was refused: ${error.code}`)
    }
  }
  const publishAny = (): Promise<void> => {
    const key = keys[below(keys.length)]
    if (random() < 0.3) return publish(key, undefined)
    // Often an older one.
    const version = Math.max(0, (versions.get(key) ?? 0) + below(6) - 3)
    versions.set(key, version)
    return publish(key, version)
  }
  try {
    for (let step = 0; step < steps; step++) {
      const client = clients[below(clients.length)]!
      const dice = random()
      if (dice < 0.5) pending.push(publishAny())
      else if (dice < 0.7) {
        const bytes = random() < 0.5 ? Math.floor(100 * 3_000 ** random()) : Infinity
        if (client.isAway) client.connect(bytes)
      } else if (dice < (isTight ? 0.72 : 0.8)) client.cut()
      else if (dice < 0.85) server.stall(client.port)
      else if (dice < 0.95) server.flow(client.port)
      else for (let turns = below(6); turns > 0; turns--) await turn()
      if (random() < 0.05) await sleep(2)
      if (restarts && step > 0 && step % Math.floor(steps / 2) === 0) {
        await Promise.all(pending)
        pending = []
        faults.push(...versionFaults(accepted.splice(0), refused.splice(0), isSlow))
        await server.close()
        server = await Server.start(schedule, Number(origin.split(':')[1]), wait)
      }
    }
    await Promise.all(pending)
    for (const client of clients) {
      if (random() < 0.5) client.cut()
      else server.flow(client.port)
    }
    await publish('end', undefined)
    // Half of the clients come back before the last message.
    await sleep(1)
    for (const client of clients) if (client.isAway && random() < 0.5) client.connect()
    await publish('end', undefined)
    const deadline = Date.now() + patience
    while (clients.some(({ state }) => state.get('end') !== count) && Date.now() < deadline) {
      for (const client of clients) if (client.isAway) client.connect()
      await sleep(2)
    }
    const newest = newestOf(accepted)
    const expected = JSON.stringify(newest)
    for (const [index, { state, errors, runs }] of clients.entries()) {
      faults.push(...errors)
      const found = JSON.stringify(sorted(state))
      if (found !== expected) faults.push(`client ${index} has ${found} in place of ${expected}`)
      const offsets = new Map(accepted.map(({ n, id }) => [n, positionOf(id!).offset]))
      for (const run of runs) {
        run.forEach((n, at) => {
          if (at > 0 && offsets.get(n)! <= offsets.get(run[at - 1]!)!) faults.push(`client ${index} got ${n} after ${run[at - 1]}`)
        })
      }
    }
    const { messages } = await server.app.rooms.history('news', { since: 'latest' })
    const kept = JSON.stringify(sorted(new Map(messages.map(({ data }: { data: string }) => [data.split(' ', 2)[1]!, numberOf(data)]))))
    if (kept !== expected) faults.push(`kept are ${kept} in place of ${expected}`)
    faults.push(...versionFaults(accepted, refused, isSlow))
  } finally {
    for (const client of clients) client.cut()
    await server.close()
  }
  return [...new Set(faults)].map(fault => `seed ${seed}: ${fault}`)
}

function sorted (values: Map<string, number>): [string, number][] {
  return [...values].sort(([a], [b]) => a < b ? -1 : 1)
}

function inOrder (published: Published[]): Published[] {
  return published.toSorted((a, b) => positionOf(a.id!).offset - positionOf(b.id!).offset)
}

/** The newest message of each key. */
function newestOf (accepted: Published[]): [string, number][] {
  return sorted(new Map(inOrder(accepted).map(({ n, key }) => [String(key), n])))
}

/**
 * A version is refused if, and only if, the value that was kept then had a greater one.
 * @param isSlow - the broker may have taken messages in another order
 */
function versionFaults (accepted: Published[], refused: Published[], isSlow: boolean): string[] {
  const faults: string[] = []
  const before = new Map<string | undefined, number | undefined>()
  for (const { key, version, n } of inOrder(accepted)) {
    if (version !== undefined && version < (before.get(key) ?? 0)) faults.push(`message ${n} of ${key} has version ${version} after ${before.get(key)}`)
    before.set(key, version)
  }
  for (const { key, version, n } of refused) {
    if (version === undefined || !accepted.some(other => other.key === key && (isSlow || other.n < n) && (other.version ?? 0) > version)) faults.push(`message ${n} of ${key} was refused`)
  }
  return faults
}
