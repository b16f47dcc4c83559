import type { Broker, Outcome, Publication } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { readPosition } from '../protocol/position.ts'
import type { Feed } from './feed.ts'
import type { Outgoing } from './outgoing.ts'

const unknown: Outcome = { state: 'unknown' }
const states: readonly unknown[] = ['ok', 'duplicate', 'stale', 'ended', 'failed', 'unknown'] satisfies Outcome['state'][]

/** A publication that was given to the broker and is not settled. */
interface Pending {
  readonly publication: Outgoing
  /** The topic's feed, if the broker delivered the topic here when the publication began: then its entry is expected. */
  readonly feed: Feed | undefined
  /** The feed's losses when the publication began: after another one its entry may never come. */
  readonly losses: number
  /** On the clock of `performance`, in milliseconds. */
  readonly expiresAt: number
  outcome: Outcome | undefined
  settle: ((outcome: Outcome) => void) | undefined
}

/** Called for each promise that the broker breaks. */
export interface PublisherPorts {
  /** The broker threw or rejected, gave an answer that is not an outcome, or accepted a publication and has not brought its entry. */
  fault (message: string, cause?: Error): void
  /** A publication was not answered in time. */
  unanswered (): void
  /** Whether the broker has been up since then, on the clock of `performance`. A node that was cut off meanwhile may get an entry after its deadline, or be told of a loss. */
  isUpSince (time: number): boolean
}

/**
 * Publications from the call of the broker to their result. Each settles once: when the broker has answered, and its entry has been delivered here if one is expected,
 * so that an ack never precedes its echo; at the latest at its deadline, then with `unknown` if there was no answer.
 */
export class Publisher {
  readonly #broker: Broker
  readonly #isInProcess: boolean
  readonly #timeout: number
  readonly #ports: PublisherPorts
  /** By uid, in the order of their deadlines. */
  readonly #pending = new Map<string, Pending>()
  /** Publications that have been settled, by outcome. */
  readonly outcomes: Record<Outcome['state'], number> = { ok: 0, duplicate: 0, stale: 0, ended: 0, failed: 0, unknown: 0 }
  #timer: NodeJS.Timeout | undefined

  /** @param timeout - milliseconds from the call of the broker to the deadline */
  constructor (broker: Broker, timeout: number, ports: PublisherPorts) {
    this.#broker = broker
    this.#isInProcess = broker.inProcess === true
    this.#timeout = timeout
    this.#ports = ports
  }

  /** Publications that are not settled. */
  get size (): number { return this.#pending.size }

  /** The publication of this node with that uid, unless it is settled. */
  find (uid: string): Outgoing | undefined {
    return this.#pending.get(uid)?.publication
  }

  /** Hands a publication to the broker: an outcome at once if the broker answers at once. If it throws or rejects, that is `unknown`. */
  publish (publication: Outgoing, feed: Feed | undefined): Outcome | Promise<Outcome> {
    if (this.#isInProcess) {
      const outcomes = this.#call(publication)
      return Array.isArray(outcomes) ? this.#counted(outcomes[0] ?? unknown) : this.#wait(this.#begin(publication, undefined), outcomes)
    }
    const pending = this.#begin(publication, feed?.isReady === true ? feed : undefined)
    const answer = this.#call(publication.toPublication())
    if (Array.isArray(answer)) {
      const outcome = this.#read(answer)
      if (isDone(pending, outcome)) {
        this.#end(pending)
        return this.#counted(outcome)
      }
      this.#keep(pending, outcome)
    }
    return this.#wait(pending, answer)
  }

  /** The entry of a publication of this node was delivered here. */
  delivered ({ uid }: Outgoing): void {
    const pending = this.#pending.get(uid)
    if (pending?.outcome !== undefined) this.#settle(pending, pending.outcome)
  }

  /** Settles the publications of a feed that have been answered and have no entry to wait for. Call it when an entry has come, or never will. */
  review (feed: Feed): void {
    if (feed.answered === 0) return
    for (const pending of this.#pending.values()) {
      const { outcome } = pending
      if (pending.feed === feed && outcome !== undefined && (feed.losses !== pending.losses || isDone(pending, outcome))) this.#settle(pending, outcome)
    }
  }

  /** Settles all remaining publications: with the broker's answer, or with `unknown`. */
  close (): void {
    for (const pending of this.#pending.values()) this.#settle(pending, pending.outcome ?? unknown)
  }

  #begin (publication: Outgoing, feed: Feed | undefined): Pending {
    const pending: Pending = { publication, feed, losses: feed?.losses ?? 0, expiresAt: performance.now() + this.#timeout, outcome: undefined, settle: undefined }
    this.#pending.set(publication.uid, pending)
    this.#timer ??= setTimeout(this.#expire, this.#timeout)
    return pending
  }

  #wait (pending: Pending, answer: Outcome[] | Promise<Outcome[]>): Promise<Outcome> {
    return new Promise(resolve => {
      pending.settle = resolve
      if (pending.outcome !== undefined) return
      Promise.resolve(answer).then(outcomes => this.#read(outcomes), (error: unknown) => this.#failed(error)).then(outcome => {
        if (!this.#pending.has(pending.publication.uid)) return // its deadline has passed
        if (isDone(pending, outcome)) this.#settle(pending, outcome)
        else this.#keep(pending, outcome)
      })
    })
  }

  #call (publication: Publication): Outcome[] | Promise<Outcome[]> {
    try {
      return this.#broker.publish([publication])
    } catch (error) {
      return [this.#failed(error)]
    }
  }

  #failed (error: unknown): Outcome {
    this.#ports.fault('publish threw or rejected, or its outcome cannot be read', asError(error))
    return unknown
  }

  /** Keeps an outcome until the entry has come. */
  #keep (pending: Pending, outcome: Outcome): void {
    pending.outcome = outcome
    pending.feed!.answered++
  }

  /** An outcome as the broker gave it, checked and copied. */
  #read (outcomes: unknown): Outcome {
    try {
      return this.#check(outcomes)
    } catch (error) {
      return this.#failed(error)
    }
  }

  #check (outcomes: unknown): Outcome {
    const outcome = Array.isArray(outcomes) ? outcomes[0] as Partial<Outcome> | undefined : undefined
    if (!states.includes(outcome?.state)) {
      this.#ports.fault('a publication was answered with what is not an outcome')
      return unknown
    }
    const { state } = outcome as Outcome
    const position = readPosition((outcome as Outcome).position)
    if (position === null) this.#ports.fault('the position in an outcome is not a position')
    return position == null ? { state } : { state, position }
  }

  #counted (outcome: Outcome): Outcome {
    const { state } = outcome
    // A broker of this process is not checked: its outcome may be none.
    if (Object.hasOwn(this.outcomes, state)) this.outcomes[state]++
    return outcome
  }

  #settle (pending: Pending, outcome: Outcome): void {
    this.#end(pending)
    this.#counted(outcome)
    pending.settle?.(outcome)
  }

  #end ({ publication, feed, outcome }: Pending): void {
    if (this.#pending.delete(publication.uid) && outcome !== undefined && feed !== undefined) feed.answered--
    if (this.#pending.size > 0) return
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  /** Runs one turn later, because after a stall of the event loop an answer may wait to be read. */
  readonly #expire = (): void => { setImmediate(this.#settleExpired) }

  readonly #settleExpired = (): void => {
    const now = performance.now()
    for (const pending of this.#pending.values()) {
      if (pending.expiresAt > now) break
      const { outcome, feed, losses, publication: { topic } } = pending
      if (outcome === undefined) this.#ports.unanswered()
      else if (feed!.losses === losses && this.#ports.isUpSince(pending.expiresAt - this.#timeout)) this.#ports.fault(`a publication of topic "${topic}" was accepted, and its entry has not come`)
      this.#settle(pending, outcome ?? unknown)
    }
    const [next] = this.#pending.values()
    clearTimeout(this.#timer)
    this.#timer = next === undefined ? undefined : setTimeout(this.#expire, Math.max(1, next.expiresAt - now))
  }
}

/** Whether a publication that was answered has no entry to wait for. */
function isDone ({ publication, feed }: Pending, { state, position }: Outcome): boolean {
  return state !== 'ok' || feed === undefined || feed.isGone || publication.isDelivered || (position !== undefined && feed.hasReached(position))
}
