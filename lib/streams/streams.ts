import type { HubState } from '../hub/ports.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_CLOSED, FST_ROOMS_DRAINING, FST_ROOMS_STREAM_ENDED, FST_ROOMS_STREAM_TAKEN } from '../errors.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { Run, type RunPorts } from './run.ts'

/** Milliseconds that a drain waits for the broker to take the ends of all streams. */
const endTimeout = 1_000

/** The hub as the claims of streams see it. */
export interface StreamsPorts extends Omit<RunPorts, 'release'> {
  readonly state: () => HubState
  /** Whether a topic has ended. @throws if the broker does not answer */
  isEnded (definition: TopicDefinition, topic: string): Promise<boolean>
  /** The claims of all nodes; `undefined` if there are no other nodes, or the broker does not know of claims. */
  readonly claims: StreamClaims | undefined
}

/** Which node writes to a stream. */
export interface StreamClaims {
  /** Claims a topic. Resolves with `false` if another node has it. @throws FST_ROOMS_BROKER_SILENT */
  claim (topic: string): Promise<boolean>
  /** Gives a topic back. */
  release (topic: string): void
}

/** The producers of this process, one for each topic. */
export class Streams {
  readonly #runs = new Map<string, Run>()
  /** Topics whose claim is this node's, or was not answered. */
  readonly #claimed = new Set<string>()
  readonly #ports: StreamsPorts
  readonly #runPorts: RunPorts

  constructor (ports: StreamsPorts) {
    this.#ports = ports
    this.#runPorts = {
      publish: ports.publish,
      fail: ports.fail,
      release: run => { this.#release(run) }
    }
  }

  get size (): number { return this.#runs.size }

  /** Whether the producer of a topic is in this process, also if its end is not published yet. */
  isHere (topic: string): boolean {
    return this.#runs.has(topic)
  }

  /** Whether a topic has a producer that has not ended. */
  has (topic: string): boolean {
    return this.#runs.get(topic)?.isOver === false
  }

  /**
   * Claims a topic for a producer.
   * @throws FST_ROOMS_STREAM_TAKEN, FST_ROOMS_STREAM_ENDED, FST_ROOMS_DRAINING, FST_ROOMS_CLOSED, the error of `isEnded`
   */
  async claim (definition: TopicDefinition, topic: string): Promise<Run> {
    const state = this.#ports.state()
    if (state !== 'open') throw state === 'draining' ? new FST_ROOMS_DRAINING() : new FST_ROOMS_CLOSED()
    const other = this.#runs.get(topic)
    if (other !== undefined) throw other.isOver ? new FST_ROOMS_STREAM_ENDED(topic) : new FST_ROOMS_STREAM_TAKEN(topic)
    const run = new Run(definition, topic, this.#runPorts)
    this.#runs.set(topic, run) // before the broker is asked, so that a second producer is refused meanwhile
    try {
      await this.#claimOverNodes(run)
      if (await this.#ports.isEnded(definition, topic)) throw new FST_ROOMS_STREAM_ENDED(topic)
    } catch (error) {
      this.#runPorts.release(run)
      throw error
    }
    return run
  }

  /**
   * Ends a topic whose producer has died with its node, or was on this one while it counted as dead.
   * @throws FST_ROOMS_BROKER_DOWN
   */
  async lost (definition: TopicDefinition, topic: string): Promise<void> {
    const run = this.#runs.get(topic)
    if (run !== undefined) {
      await run.stop('lost')
      return
    }
    try {
      const { published } = await this.#ports.publish(definition, topic, '', { end: 'lost' })
      if (!published) throw new FST_ROOMS_BROKER_DOWN()
    } catch (error) {
      // Its producer, or another node, has ended it.
      if (!(error instanceof FST_ROOMS_STREAM_ENDED)) throw error
    }
  }

  /** Stops the producer of a topic. Resolves with whether there was one. @throws FST_ROOMS_BROKER_DOWN */
  async stop (topic: string): Promise<boolean> {
    return await this.#runs.get(topic)?.stop('stopped') ?? false
  }

  /** Ends all streams, because this process lets its members go and will not go on with them. Settles when the broker has taken their ends, or after some time. */
  async lose (): Promise<void> {
    const ends = Promise.allSettled([...this.#runs.values()].map(run => run.stop('lost')))
    let timer: NodeJS.Timeout | undefined
    await Promise.race([ends, new Promise(resolve => { timer = setTimeout(resolve, endTimeout) })])
    clearTimeout(timer)
  }

  /** @throws FST_ROOMS_STREAM_TAKEN, FST_ROOMS_BROKER_SILENT */
  async #claimOverNodes ({ topic }: Run): Promise<void> {
    const { claims } = this.#ports
    if (claims === undefined) return
    this.#claimed.add(topic)
    if (await claims.claim(topic)) return
    this.#claimed.delete(topic)
    throw new FST_ROOMS_STREAM_TAKEN(topic)
  }

  #release (run: Run): void {
    const { topic } = run
    if (this.#runs.get(topic) !== run) return
    this.#runs.delete(topic)
    if (this.#claimed.delete(topic)) this.#ports.claims!.release(topic)
  }
}
