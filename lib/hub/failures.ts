import { asError } from '../error-utils.ts'
import type { Counters } from './counters.ts'
import { isEndOf } from './end-cause.ts'
import * as events from './events.ts'
import type { AnySession, Host } from './ports.ts'

/** Errors of one session, and of all, that onError and subscribers of `fastify-rooms:error` are told of within `perMilliseconds`. */
export const toldOfSession = 100
export const toldInAll = 10_000
const perMilliseconds = 1_000

/** Milliseconds between two faults of the broker that are told. All are counted. */
const faultEvery = 1_000

/** The members of the hub that failures use. */
export type FailureHub = Pick<Host, 'hooks' | 'log' | 'rooms'> & { readonly counters: Pick<Counters, 'errors' | 'brokerFaults'> }

/**
 * Tells errors of the host's hooks to onError, else to the log; each failure once, and never up the stack.
 *
 * An onError that causes errors must not call itself for ever: a loop in microtasks would stop the event loop. An error that comes out of
 * handling an error goes to the log alone, and so does each error above the bounds. These are lifted by a timer, and not by
 * the clock, because a timer needs the event loop to turn.
 */
export class Failures {
  readonly #hub: FailureHub
  readonly #told = new WeakSet<Error>()
  /** The host is being told of an error: the synchronous part of onError, or a subscriber, is on the stack. */
  #isTelling = false
  /** Calls of onError whose promises have not settled: of each session, and in all. */
  readonly #unsettled = new WeakMap<AnySession, number>()
  #unsettledInAll = 0
  /** Errors that were told since the bounds were last lifted. */
  readonly #countOf = new Map<AnySession, number>()
  #count = 0
  #faultToldAt = -Infinity

  constructor (hub: FailureHub) {
    this.#hub = hub
  }

  /** Whether an error about this session is being handled: what the host sends to it now is sent by onError, as far as can be told. */
  isHandling (session: AnySession): boolean {
    return this.#isTelling || (this.#unsettledInAll > 0 && this.#unsettled.has(session))
  }

  /**
   * Counts an error, and tells the host of it, unless it is the end of the session. Never throws, whatever the host's functions do.
   * @param whileHandling - the error comes out of handling another: it goes to the log alone
   */
  tell (error: Error, session?: AnySession, whileHandling = false): void {
    if (this.#told.has(error)) return
    this.#told.add(error)
    // The same failure may arrive twice in a turn. The same object that is thrown again later is another failure.
    setImmediate(() => { this.#told.delete(error) })
    const { hooks: { onError }, counters, log, rooms } = this.#hub
    if (session !== undefined && isEndOf(session, error)) {
      log.debug({ err: error, session: session.id, topic: session.topic }, 'a hook ended with its session')
      return
    }
    counters.errors++
    const isTold = !whileHandling && this.#draw(session)
    if (!isTold || onError === undefined) this.#log(error, session)
    if (!isTold) return
    const before = this.#isTelling
    this.#isTelling = true
    try {
      events.failed(rooms, error, session)
      if (onError !== undefined) this.#run(() => this.#noted(onError(error, session), session), failure => { this.tell(failure, session, true) })
    } finally {
      this.#isTelling = before
    }
  }

  /** Counts a breach of contract by the broker, and tells `onError` of it at most once a second. */
  tellFault (error: Error): void {
    this.#hub.counters.brokerFaults++
    const now = performance.now()
    if (now - this.#faultToldAt < faultEvery) return
    this.#faultToldAt = now
    this.tell(error)
  }

  /** Whether one more error may be told. */
  #draw (session: AnySession | undefined): boolean {
    if (this.#count === toldInAll) return false
    const count = session === undefined ? 0 : this.#countOf.get(session) ?? 0
    if (count === toldOfSession) return false
    if (this.#count++ === 0) {
      setTimeout(() => {
        this.#count = 0
        this.#countOf.clear()
      }, perMilliseconds).unref()
    }
    if (session !== undefined) this.#countOf.set(session, count + 1)
    return true
  }

  /** Notes that an onError about a session runs until its promise settles. */
  #noted (result: unknown, session: AnySession | undefined): Promise<unknown> {
    const settled = Promise.resolve(result)
    if (session === undefined) return settled
    this.#unsettledInAll++
    this.#unsettled.set(session, (this.#unsettled.get(session) ?? 0) + 1)
    return settled.finally(() => {
      this.#unsettledInAll--
      const remaining = this.#unsettled.get(session)! - 1
      if (remaining === 0) this.#unsettled.delete(session)
      else this.#unsettled.set(session, remaining)
    })
  }

  #log (err: Error, session: AnySession | undefined): void {
    this.#hub.log.error({ err, session: session?.id, topic: session?.topic }, 'a hook of fastify-rooms failed')
  }

  /** Runs a hook whose answer the hub does not use. */
  guard (hook: () => unknown, session?: AnySession): void {
    this.#run(hook, error => { this.tell(error, session) })
  }

  #run (hook: () => unknown, failed: (error: Error) => void): void {
    try {
      Promise.resolve(hook()).catch((error: unknown) => { failed(asError(error)) })
    } catch (error) {
      failed(asError(error))
    }
  }
}
