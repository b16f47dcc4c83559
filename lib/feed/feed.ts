import type { AttachedPosition, EndReason, GapFrame, Position, Publication, Retention } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_FAULT } from '../errors.ts'
import type { Aftermath } from '../hub/aftermath.ts'
import type { Counters } from '../hub/counters.ts'
import { formatPosition } from '../protocol/position.ts'
import { AwaitedPositions } from './awaited-positions.ts'
import { Outgoing } from './outgoing.ts'

/** A loss, as a `gap` frame tells it. */
export type Gap = Omit<GapFrame, 'type' | 'reason'> & { reason: 'lost' | 'reset' }

/** The place of an entry in the order of its topic: the next one, one that was delivered before (`'old'`), or one behind a hole. */
export type Step = 'next' | 'old' | Gap

/** The room that a feed fills. */
export interface FeedReceiver {
  /** Queues a message to all receivers. Returns to how many members. */
  receive (publication: Publication, position: Position | undefined): number
  /** Takes the position from which the topic is delivered; `undefined` if it is not known. */
  attached (position: Position | undefined): void
  /** Tells all receivers that messages are missing. */
  tellLoss (gap: Gap): void
}

/** The broker as a feed sees it. */
export interface FeedBroker {
  /** Asks the broker to deliver the topic here. */
  attach (topic: string, retention: Retention | undefined): Promise<AttachedPosition | undefined>
  /** An entry of a publication of this node was delivered. */
  delivered (publication: Outgoing): void
  /** An entry of the feed has come, or will never come: publications of this node need not wait for it. */
  review (feed: Feed): void
}

/** The parts that all feeds of a hub share. */
export interface FeedPorts {
  readonly broker: FeedBroker
  readonly aftermath: Aftermath
  readonly counters: Pick<Counters, 'losses' | 'repeated'>
  /** The broker has broken its contract. */
  fault (error: Error): void
}

/** The messages of one topic on this node: in order, each once, and each loss told. */
export class Feed {
  /** Settles when the broker delivers the topic here; rejects if it does not. */
  ready: Promise<void> = Promise.resolve()
  isReady = false
  /**
   * Everything up to this position has been delivered, or was published before the topic was attached. `undefined` if the broker has no positions, and
   * from a loss to the next entry: until then no position can be promised.
   */
  position: Position | undefined
  /** Why the topic has ended: nothing follows `position`. `undefined` if it has not. */
  ended: EndReason | undefined
  /** The position of the newest entry. Unlike `position` it is kept through a loss, to recognise entries that come late or twice. */
  #newest: Position | undefined
  /** All receivers have been told of a loss, and nothing has arrived since. */
  #isLost = false
  /** Messages of this node were delivered without the broker, and the receivers have not been told. */
  #isApart = false
  /** Losses so far, jumps and resets included. */
  losses = 0
  /** The room has gone: no entry is delivered any more. */
  isGone = false
  /** Publications of this node that the broker has answered, and whose entries are to come. */
  answered = 0
  /** Made when the first join waits. */
  #awaited: AwaitedPositions | undefined
  readonly #topic: string
  readonly #receiver: FeedReceiver
  readonly #ports: FeedPorts
  readonly #retention: Retention | undefined

  /** @param retention - the messages that the topic keeps; `undefined`: none */
  constructor (topic: string, receiver: FeedReceiver, ports: FeedPorts, retention?: Retention) {
    this.#topic = topic
    this.#receiver = receiver
    this.#ports = ports
    this.#retention = retention
  }

  /** Attaches the topic; `ready` tells the outcome. */
  attach (): void {
    this.ready = this.#ports.broker.attach(this.#topic, this.#retention).then(position => {
      this.attachedAt(position)
      this.#receiver.attached(this.position)
    })
  }

  /** Notes that the broker delivers the topic from now on, beginning after this position. */
  attachedAt (position: AttachedPosition | undefined): void {
    const newest = this.#newest
    this.isReady = true
    this.#isLost = false
    if (position === undefined) return
    if (newest === undefined || (newest.epoch === position.epoch && newest.offset < position.offset)) {
      this.position = this.#newest = { epoch: position.epoch, offset: position.offset }
      this.ended = position.ended
    // Which of two epochs is the newer one is not known. An entry of the same epoch that arrived before attach settled is newer.
    } else if (newest.epoch !== position.epoch) this.position = undefined
  }

  /** Notes a new receiver, which has not been told of a loss before: the next entry is no proof that nothing is missing. */
  receiverCame (): void {
    this.#isLost = false
  }

  /** Whether an entry at this position, or a later one of the same epoch, has arrived. */
  hasReached ({ epoch, offset }: Position): boolean {
    const newest = this.#newest
    return newest !== undefined && newest.epoch === epoch && newest.offset >= offset
  }

  /**
   * Calls back once, when a position that has not arrived yet is reached, or the topic has begun another epoch and may never reach it. Returns a function that ends
   * the wait.
   */
  onReached (position: Position, done: () => void): () => void {
    this.#awaited ??= new AwaitedPositions()
    return this.#awaited.add(position, done)
  }

  /**
   * Delivers an entry of the broker, if it is the next one, and tells the receivers of a hole before it.
   * @param isRepeated - its uid has been here before: it is counted and not delivered
   * @param after - the offset of the publication before it. Default: the offset before its own
   * @throws if its frames cannot be made
   */
  receive (publication: Publication, position: Position | undefined, isRepeated: boolean, after?: number): void {
    const { aftermath, counters, fault } = this.#ports
    const step = this.advance(position, after)
    if (typeof step === 'object') {
      // The host's code may run for receivers that are told, and publish: its messages come after this one.
      aftermath.run(() => {
        this.#tell(step)
        try {
          this.#pass(publication, position, isRepeated)
        } catch (error) {
          fault(asError(error))
          this.lost()
        }
      })
    } else if (step === 'old' && !isRepeated) {
      fault(new FST_ROOMS_BROKER_FAULT(`an entry of topic "${this.#topic}" came behind a later one`))
      counters.repeated++
      this.lost()
    } else this.#pass(publication, position, isRepeated || step === 'old')
  }

  /**
   * Delivers a publication of this node that the broker has not accepted, to the receivers of this node alone and without a position. They are told with the next entry, or
   * by `rejoin`.
   * @throws if its frames cannot be made
   */
  receiveAlone (publication: Outgoing): void {
    if (this.isGone) return
    this.#isApart = true
    this.#isLost = false
    publication.isDelivered = true
    publication.local = this.#receiver.receive(publication, undefined)
  }

  /** Tells the receivers that messages were delivered on this node alone, if they were. Call it when the broker takes publications again. */
  rejoin (): void {
    if (!this.#isApart) return
    this.#isApart = false
    this.#tell(this.#apart(this.position))
  }

  /** Tells the receivers that entries may have been missed, unless they know. No position is promised until the next entry. */
  lost (): void {
    const gap = this.lose()
    if (gap !== undefined) this.#tell(gap)
    this.#ports.broker.review(this)
  }

  /** Ends the feed, because its room has gone. */
  end (): void {
    this.isGone = true
    this.#ports.broker.review(this)
  }

  /** Moves on to the position of an entry. Never moves back: an `'old'` entry must not be delivered. */
  advance (position: Position | undefined, after?: number): Step {
    const newest = this.#newest
    if (position !== undefined && newest !== undefined && newest.epoch === position.epoch && newest.offset >= position.offset) return 'old'
    const last = this.position
    const isLost = this.#isLost
    const isApart = this.#isApart
    this.#isApart = false
    this.position = position // `undefined` if a message without a position follows messages that had one
    this.#isLost = false
    if (position === undefined) return isApart ? this.#apart(last) : 'next'
    this.#newest = position
    this.#awaited?.reached(position, newest !== undefined && newest.epoch !== position.epoch)
    if (newest === undefined) return isApart ? this.#apart(last) : 'next'
    const { epoch, offset } = position
    if (newest.epoch !== epoch) {
      this.losses++
      return { reason: 'reset', to: formatPosition({ epoch, offset: Math.max(0, offset - 1) }) }
    }
    const before = after ?? offset - 1
    const count = before - newest.offset
    // A jump right after a loss is that loss.
    if (count === 0 || isLost) return isApart ? this.#apart(last) : 'next'
    this.losses++
    return { ...(count > 0 ? { count } : {}), reason: 'lost', ...(last === undefined ? {} : { from: formatPosition(last) }), to: formatPosition({ epoch, offset: before }) }
  }

  /** Notes a loss. Returns what receivers are to be told; `undefined` if they know: nothing has arrived since the last loss. */
  lose (): Gap | undefined {
    this.losses++
    this.#isApart = false
    if (this.#isLost) return undefined
    const last = this.position
    this.position = undefined
    this.#isLost = true
    return { reason: 'lost', ...(last === undefined ? {} : { from: formatPosition(last) }) }
  }

  #pass (publication: Publication, position: Position | undefined, isRepeated: boolean): void {
    if (isRepeated) {
      this.#ports.counters.repeated++
      return
    }
    const own = publication instanceof Outgoing ? publication : undefined
    if (own !== undefined) own.isDelivered = true
    this.ended = publication.end
    const count = this.#receiver.receive(publication, position)
    if (own === undefined) return
    own.local = count
    this.#ports.broker.delivered(own)
  }

  /** The gap that tells of messages which were delivered on this node alone. */
  #apart (last: Position | undefined): Gap {
    return { reason: 'lost', ...(last === undefined ? {} : { from: formatPosition(last) }) }
  }

  #tell (gap: Gap): void {
    this.#ports.counters.losses++
    this.#receiver.tellLoss(gap)
  }
}
