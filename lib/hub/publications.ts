import type { BroadcastResult, Outcome, Rooms } from '../../types/index.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_STALE, FST_ROOMS_STREAM_ENDED } from '../errors.ts'
import type { BrokerLink } from '../feed/broker-link.ts'
import type { Feed } from '../feed/feed.ts'
import { sharedMid } from '../feed/mids.ts'
import { Outgoing } from '../feed/outgoing.ts'
import { formatPosition } from '../protocol/position.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import type { Counters } from './counters.ts'
import * as events from './events.ts'
import type { Meter } from './meter.ts'
import type { HubState, PublishOptions } from './ports.ts'

/** The members of the hub that publications use. */
export interface PublicationsHub {
  readonly state: HubState
  readonly rooms: Rooms<any>
  readonly counters: Pick<Counters, 'broadcasts' | 'duplicates'>
  readonly meters: ReadonlySet<Meter>
  /** The feed of a topic that has a room here. */
  feed (topic: string): Feed | undefined
}

/** All that this node publishes: from the payload to the broker, and from its outcome to the result. */
export class Publications {
  readonly #hub: PublicationsHub
  readonly #node: string
  readonly #broker: Pick<BrokerLink, 'publish' | 'sharesMids'>
  readonly #timeout: number
  #count = 0

  /**
   * @param node - the id of this node
   * @param timeout - milliseconds for the broker's outcome
   */
  constructor (hub: PublicationsHub, node: string, broker: Pick<BrokerLink, 'publish' | 'sharesMids'>, timeout: number) {
    this.#hub = hub
    this.#node = node
    this.#broker = broker
    this.#timeout = timeout
  }

  /**
   * Publishes to a topic. Returns a result, and not a promise, if the broker answers at once.
   * @throws FST_ROOMS_CLOSED, FST_ROOMS_STALE, FST_ROOMS_STREAM_ENDED, and the failure of the delivery on this node
   */
  publish (definition: TopicDefinition, topic: string, json: string, { senderFields, from, except, key, version, end, onceKey }: PublishOptions): BroadcastResult | Promise<BroadcastResult> {
    const { state, counters, meters } = this.#hub
    if (state === 'closed') throw new FST_ROOMS_CLOSED()
    const publication = new Outgoing({
      uid: `${this.#node}-${++this.#count}`,
      node: this.#node,
      topic,
      deadline: Date.now() + this.#timeout,
      except,
      key,
      retention: definition.history ?? undefined,
      version,
      end,
      whenDown: definition.outage === 'local' ? 'fail' : undefined,
      mid: onceKey !== undefined && this.#broker.sharesMids ? sharedMid(topic, onceKey) : undefined
    }, json, senderFields)
    if (end === undefined) counters.broadcasts++
    if (meters.size > 0) for (const meter of meters) meter.published(definition.key)
    const outcome = this.#broker.publish(publication, this.#hub.feed(topic))
    return outcome instanceof Promise ? outcome.then(outcome => this.#result(publication, outcome, definition, from)) : this.#result(publication, outcome, definition, from)
  }

  #result (publication: Outgoing, { state, position }: Outcome, { key, outage }: TopicDefinition, from: string | undefined): BroadcastResult {
    if (state === 'failed' && outage === 'local' && !publication.isDelivered) this.#hub.feed(publication.topic)?.receiveAlone(publication)
    const { topic, local, failure, version } = publication
    if (failure !== undefined) throw failure
    if (state === 'ended') throw new FST_ROOMS_STREAM_ENDED(topic)
    if (state === 'stale' && version !== undefined) throw new FST_ROOMS_STALE(version)
    const published = state === 'ok' || state === 'duplicate'
    const result: BroadcastResult = position === undefined ? { topic, local, published } : { topic, id: formatPosition(position), local, published }
    if (!published) result.outcome = state === 'unknown' ? 'unknown' : 'none'
    if (state === 'duplicate') {
      result.duplicate = true
      this.#hub.counters.duplicates++
    }
    events.published(this.#hub.rooms, key, publication, result, from)
    return result
  }
}
