import type { BroadcastResult } from '../../types/index.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { Counters } from '../hub/counters.ts'

/** Milliseconds for which an answer is remembered, and for which a message that is not decided keeps those with its key waiting. */
const window = 300_000
/** Messages that may wait for the one with their key that is not decided. */
const maxWaiting = 100
/** Characters of an answer's data that count as one more answer. */
const charactersPerUnit = 256

/** The answer that the sender of a message got when it was accepted. */
export interface Answer {
  /** Its position; `undefined` if it has none. */
  readonly id: string | undefined
  /** Members of this node that it was queued to; 0 if a handler or a reader of the host took it. */
  readonly local: number
  /** The `data` of its ack. */
  readonly data: unknown
}

/**
 * Remembers the answer to a message, because it was accepted. Call it before the sender is answered.
 * @throws an error if `data` cannot be written as JSON
 */
export type Accept = (id: string | undefined, local: number, data?: unknown) => void

/** Handles each message with a key once. A broker that knows the keys of all nodes can stand behind it. */
export interface Once {
  /**
   * Calls `first` if no message with this key was accepted within 5 minutes, and none is being decided. While one is, it waits for that. A message that `first`
   * does not accept before it settles is forgotten, and the next one that waits is handled.
   * @param repeated - called with the answer to the accepted message; with `undefined` if the node closes before there is one
   * @throws FST_ROOMS_OVERLOADED if too many messages wait; errors of `first` and `repeated`
   */
  once<T> (key: string, first: (accept: Accept) => T | Promise<T>, repeated: (answer: Answer | undefined) => T): T | Promise<T>
}

/** A message that is being decided, and the messages that wait for it. */
interface Pending {
  readonly key: string
  readonly begunAt: number
  readonly waiting: ((turn: Turn) => void)[]
}

/** The end of a message's wait: it is handled now, or gets the answer. */
type Turn = { readonly next: Pending } | { readonly next: undefined, readonly answer: Answer | undefined }

/** An answer that is remembered. Its data is kept as JSON, because the host may change the object. */
class Kept implements Answer {
  readonly id: string | undefined
  readonly local: number
  readonly at: number
  readonly #json: string | undefined

  constructor (at: number, id: string | undefined, local: number, json: string | undefined) {
    this.at = at
    this.id = id
    this.local = local
    this.#json = json
  }

  get data (): unknown { return this.#json === undefined ? undefined : JSON.parse(this.#json) }
  /** How many answers it counts for. */
  get units (): number { return 1 + Math.floor((this.#json?.length ?? 0) / charactersPerUnit) }
}

/** The answers to messages with a `mid` or an `Idempotency-Key`, on this node: bounded in number and in time, without a timer. */
export class Mids implements Once {
  readonly #limit: number
  readonly #counters: Pick<Counters, 'duplicates'>
  /** By key, the oldest first. */
  readonly #kept = new Map<string, Kept>()
  #units = 0
  /** By key, the oldest first. */
  readonly #pending = new Map<string, Pending>()
  /** From then on no message waits for another. */
  #waitUntil = Infinity

  /** @param limit - answers that are remembered */
  constructor (limit: number, counters: Pick<Counters, 'duplicates'>) {
    this.#limit = limit
    this.#counters = counters
  }

  /** Answers that are remembered. */
  get size (): number { return this.#kept.size }

  once<T> (key: string, first: (accept: Accept) => T | Promise<T>, repeated: (answer: Answer | undefined) => T): T | Promise<T> {
    const now = performance.now()
    const kept = this.#kept.get(key)
    if (kept !== undefined && now - kept.at < window) return this.#repeat(repeated, kept)
    const pending = this.#pending.get(key)
    if (pending === undefined) return this.#handle(this.#begin(key, now, []), first)
    if (now >= this.#waitUntil) return repeated(undefined)
    if (pending.waiting.length === maxWaiting) throw new FST_ROOMS_OVERLOADED('too many messages with one mid wait for the first of them')
    return new Promise<Turn>(resolve => { pending.waiting.push(resolve) }).then(turn => turn.next === undefined ? this.#repeat(repeated, turn.answer) : this.#handle(turn.next, first))
  }

  /** Forgets old answers, and messages that are not decided in time. Call it now and then. */
  sweep (now: number): void {
    for (const [key, kept] of this.#kept) {
      if (now - kept.at < window) break
      this.#forget(key, kept)
    }
    for (const pending of this.#pending.values()) {
      if (now - pending.begunAt < window) break
      this.#handOver(pending, now)
    }
    if (now >= this.#waitUntil) this.#release()
  }

  /** Lets no message wait longer than until `end`, on the clock of `performance`, because the node is closing. */
  drain (end: number): void {
    this.#waitUntil = end
  }

  /** Forgets all answers, and lets no message wait. */
  close (): void {
    this.#kept.clear()
    this.#units = 0
    this.#waitUntil = -Infinity
    this.#release()
  }

  #begin (key: string, begunAt: number, waiting: Pending['waiting']): Pending {
    const pending = { key, begunAt, waiting }
    this.#pending.set(key, pending)
    return pending
  }

  #handle<T> (pending: Pending, first: (accept: Accept) => T | Promise<T>): T | Promise<T> {
    const settled = (): void => {
      if (!this.#isDecided(pending)) this.#handOver(pending, performance.now())
    }
    let result: T | Promise<T>
    try {
      result = first((id, local, data) => { this.#accept(pending, id, local, data) })
    } catch (error) {
      settled()
      throw error
    }
    if (result instanceof Promise) result.then(settled, settled)
    else settled()
    return result
  }

  #repeat<T> (repeated: (answer: Answer | undefined) => T, answer: Answer | undefined): T {
    if (answer !== undefined) this.#counters.duplicates++
    return repeated(answer)
  }

  /** Whether a message was accepted, or its time is over. */
  #isDecided (pending: Pending): boolean {
    return this.#pending.get(pending.key) !== pending
  }

  #accept (pending: Pending, id: string | undefined, local: number, data: unknown): void {
    const { key, waiting } = pending
    const json = data === undefined ? undefined : JSON.stringify(data)
    if (this.#isDecided(pending)) return
    this.#pending.delete(key)
    const answer = new Kept(performance.now(), id, local, json)
    const old = this.#kept.get(key)
    if (old !== undefined) this.#forget(key, old)
    this.#kept.set(key, answer)
    this.#units += answer.units
    for (const [oldest, kept] of this.#kept) {
      if (this.#units <= this.#limit) break
      this.#forget(oldest, kept)
    }
    for (const resume of waiting) resume({ next: undefined, answer })
  }

  #forget (key: string, kept: Kept): void {
    this.#kept.delete(key)
    this.#units -= kept.units
  }

  /** Forgets a message that was not accepted. The one that has waited longest for it is handled now. */
  #handOver ({ key, waiting: [resume, ...others] }: Pending, now: number): void {
    this.#pending.delete(key)
    if (resume !== undefined) resume({ next: this.#begin(key, now, others) })
  }

  /** Lets all messages that wait go without an answer. */
  #release (): void {
    for (const { waiting } of this.#pending.values()) for (const resume of waiting.splice(0)) resume({ next: undefined, answer: undefined })
  }
}

/** The key of a member's message, or of a broadcast route's. A user has mids of its own; anonymous clients share those of the topic. No topic has a space in its name. */
export function memberKey (topic: string, user: string | undefined, mid: string): string {
  return user === undefined ? `${topic} a${mid}` : `${topic} u${user.length} ${user}${mid}`
}

/** The key of a broadcast of the host, which no mid of a member can take. */
export function hostKey (topic: string, mid: string): string {
  return `${topic} h${mid}`
}

/** The `mid` of a publication: a key without its topic, because a broker compares it within the topic. At most 324 characters. */
export function sharedMid (topic: string, key: string): string {
  return key.slice(topic.length + 1)
}

/**
 * Publishes a message once for its key. Only a result with `published: true` is remembered: any other may succeed when it is repeated.
 * @throws FST_ROOMS_CLOSED if the node closes while it waits; errors of `once` and `publish`
 */
export function publishOnce (mids: Once, key: string, topic: string, publish: () => BroadcastResult | Promise<BroadcastResult>): BroadcastResult | Promise<BroadcastResult> {
  return mids.once<BroadcastResult>(key, accept => {
    const note = (result: BroadcastResult): BroadcastResult => {
      if (result.published) accept(result.id, result.local)
      return result
    }
    const result = publish()
    return result instanceof Promise ? result.then(note) : note(result)
  }, answer => {
    if (answer === undefined) throw new FST_ROOMS_CLOSED()
    const { id, local } = answer
    return { topic, ...(id === undefined ? {} : { id }), local, published: true, duplicate: true }
  })
}
