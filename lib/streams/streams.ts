import type { HubState } from '../hub/ports.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_DRAINING, FST_ROOMS_STREAM_ENDED, FST_ROOMS_STREAM_TAKEN } from '../errors.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { Run, type RunPorts } from './run.ts'

/** Milliseconds that a drain waits for the broker to take the ends of all streams. */
const endTimeout = 1_000

/** The hub as the claims of streams see it. */
export interface StreamsPorts extends Omit<RunPorts, 'release'> {
  readonly state: () => HubState
  /** Whether a topic has ended. @throws if the broker does not answer */
  isEnded (definition: TopicDefinition, topic: string): Promise<boolean>
}

/** The producers of this process, one for each topic. */
export class Streams {
  readonly #runs = new Map<string, Run>()
  readonly #ports: StreamsPorts
  readonly #runPorts: RunPorts

  constructor (ports: StreamsPorts) {
    this.#ports = ports
    this.#runPorts = {
      publish: ports.publish,
      fail: ports.fail,
      release: run => { if (this.#runs.get(run.topic) === run) this.#runs.delete(run.topic) }
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
      if (await this.#ports.isEnded(definition, topic)) throw new FST_ROOMS_STREAM_ENDED(topic)
    } catch (error) {
      this.#runPorts.release(run)
      throw error
    }
    return run
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
}
