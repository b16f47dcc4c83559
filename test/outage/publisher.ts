import { setTimeout as sleep } from 'node:timers/promises'
import type { FleetNode } from './fleet.ts'
import type { Member, World } from './members.ts'

/** Milliseconds for the answer to a publication: `limits.publish`, and some for a busy machine. */
const answerWithin = 7_000
/** Milliseconds after which a request is given up, because its node is suspended. */
const giveUp = 20_000
/** Attempts of a publication that fails, each on another node. */
const attempts = 3
/** Milliseconds for which a publication of a topic with history waits for the server at least: `limits.publish`, without the last look for its deadline. */
const heldFor = 4_000
/** Bytes of a large message. */
const padding = 20_000

/** A publication that was acknowledged. */
export interface Acknowledged {
  readonly n: number
  readonly topic: string
  /** The position, if the answer names one. */
  readonly id: string | undefined
  /** When its first attempt began: it may have been published since, though no attempt before the last one was acknowledged. */
  readonly begunAt: number
}

/** A publication of one attempt that was acknowledged. */
export interface Answered {
  /** The index of the node that published it. */
  readonly node: number
  readonly begunAt: number
  readonly answeredAt: number
}

/** A publication and its answer. Times are on the clock of `Date`. */
export interface Sent {
  readonly n: number
  readonly topic: string
  /** The node that has published it; `undefined` if a member had to send it again, maybe to another one. */
  readonly node: FleetNode | undefined
  readonly begunAt: number
  readonly settledAt: number
  /** `undefined`: an error, or no answer. */
  readonly published: boolean | undefined
}

/** Publishes all the time, over all nodes, and notes the answers. */
export class Publisher {
  readonly acknowledged: Acknowledged[] = []
  readonly sent: Sent[] = []
  /** By number: all of which it is known which node published them, and when. */
  readonly answered = new Map<number, Answered>()
  refused = 0
  /** The last message of each topic. */
  readonly last = new Map<string, { readonly n: number, readonly id: string | undefined }>()
  /** The topic of each number. */
  readonly topics = new Map<number, string>()
  readonly #world: World
  readonly #topics: readonly string[]
  readonly #members: readonly Member[]
  readonly #running = new Set<Promise<void>>()
  #count = 0
  #isStopped = false

  constructor (world: World, topics: readonly string[], members: readonly Member[]) {
    this.#world = world
    this.#topics = topics
    this.#members = members
  }

  /** @param rate - publications per second */
  start (rate: number): void {
    const { random } = this.#world
    const loop = async (): Promise<void> => {
      while (!this.#isStopped) {
        const topic = this.#topics[Math.floor(random() * this.#topics.length)]!
        this.#track(random() < 0.2 ? this.#publish(topic) : this.#post(topic))
        await sleep(2_000 / rate * random())
      }
    }
    this.#track(loop())
  }

  #track (promise: Promise<void>): void {
    const running = promise.catch((error: unknown) => { this.#world.faults.push(`publisher: ${(error as Error).stack}`) }).finally(() => { this.#running.delete(running) })
    this.#running.add(running)
  }

  /** Settles when no publication is under way. */
  async stop (): Promise<void> {
    this.#isStopped = true
    while (this.#running.size > 0) await Promise.all(this.#running)
  }

  /** Publishes the last messages of all topics. */
  async finish (): Promise<void> {
    for (const topic of this.#topics) {
      const n = this.#next(topic)
      const id = await this.#send(topic, n, `last-message-${n}`, { n })
      if (id === undefined && this.acknowledged.at(-1)?.n !== n) this.#world.faults.push(`the last message of ${topic} is not accepted, though all is well`)
      this.last.set(topic, { n, id })
    }
  }

  #next (topic: string): number {
    const n = ++this.#count
    this.topics.set(n, topic)
    return n
  }

  /** A member publishes. Its client sends the message again if the connection breaks. */
  async #publish (topic: string): Promise<void> {
    const { random } = this.#world
    const open = this.#members[Math.floor(random() * this.#members.length)]!.rooms.find(room => room.topic === topic)
    if (open === undefined) return
    const n = this.#next(topic)
    const begunAt = Date.now()
    const [stay, joins] = [open.stays.at(-1), open.stays.length]
    let published: boolean | undefined
    try {
      await open.room.publish({ n })
      this.acknowledged.push({ n, topic, id: undefined, begunAt })
      published = true
    } catch {
      this.refused++
    }
    const isOfOneStay = stay?.to === Infinity && open.stays.length === joins
    this.sent.push({ n, topic, node: isOfOneStay ? stay.node : undefined, begunAt, settledAt: Date.now(), published })
  }

  async #post (topic: string): Promise<void> {
    const { random } = this.#world
    const n = this.#next(topic)
    const data = random() < 0.05 ? { n, pad: 'x'.repeat(padding) } : { n }
    // Without a name only the fence protects it, and in a topic that keeps nothing it takes another way.
    await this.#send(topic, n, random() < 0.4 ? undefined : `message-of-schedule-${n}`, data)
  }

  /** Publishes, and sends it again to another node if that fails. Returns the position. */
  async #send (topic: string, n: number, mid: string | undefined, data: object): Promise<string | undefined> {
    const { fleet, random, faults, isOncePerNode } = this.#world
    const firstAt = Date.now()
    for (let attempt = 0; attempt < attempts; attempt++) {
      const node = fleet.pick(random)
      if (node === undefined) return undefined
      const begunAt = Date.now()
      const wasDisturbed = (): boolean => !node.isHealthy || begunAt < node.disturbedAt
      let published: boolean | undefined
      try {
        const response = await fetch(`http://${node.host}/rooms/${topic}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', ...mid === undefined ? {} : { 'idempotency-key': `"${mid}-${topic}"` } },
          body: JSON.stringify(data),
          signal: AbortSignal.timeout(giveUp)
        })
        const result = await response.json() as { published?: boolean, id?: string }
        published = result.published
        if (response.ok && result.published === true) {
          this.acknowledged.push({ n, topic, id: result.id, begunAt: firstAt })
          if (attempt === 0) this.answered.set(n, { node: node.index, begunAt, answeredAt: Date.now() })
          return result.id
        }
        if (response.status !== 200 && response.status !== 503) faults.push(`a publication is answered with ${response.status} ${JSON.stringify(result)}`)
      } catch (error) {
        published = undefined
        if (!wasDisturbed()) faults.push(`a publication has no answer: ${(error as Error).cause ?? error}`)
      } finally {
        this.sent.push({ n, topic, node, begunAt, settledAt: Date.now(), published })
      }
      const took = Date.now() - begunAt
      if (took < heldFor && !topic.startsWith('plain:') && !this.#world.refuses && !wasDisturbed()) faults.push(`a publication of ${topic} was refused after ${took} ms, in place of being held`)
      if (took > answerWithin && !wasDisturbed()) faults.push(`a publication took ${took} ms`)
      this.refused++
      if (mid === undefined || isOncePerNode === true || random() < 0.4) return undefined
      await sleep(100 + random() * 300)
    }
    return undefined
  }
}
