import type { BrokerState, Health } from '../../types/index.ts'
import type { HubState, Log } from './ports.ts'

/** Milliseconds between two lines about other causes of one outage, or about the same fault. */
const causeEvery = 10_000
/** Milliseconds of an outage after which a line reminds of it. Each further line comes when the outage is twice as long. */
const firstReminder = 60_000

/** The state and its consequences in words. */
const meanings = {
  up: 'the broker is up',
  degraded: 'the broker is degraded: messages of other nodes may come late or be missing, and members are told of those that are known to be missing',
  down: 'the broker is down: topics with history take no messages, other messages reach the members of this node alone, and new joins wait and may be refused'
} as const satisfies Record<BrokerState, string>

/** The app in words. */
const apps = {
  open: 'The app is open',
  draining: 'The app lets its members go, and refuses joins',
  closed: 'The app has closed'
} as const satisfies Record<HubState, string>

/** A report of the broker about its state. */
export interface BrokerReport {
  readonly state: BrokerState
  /** `undefined`: this is the first report. */
  readonly before: BrokerState | undefined
  /** Milliseconds for which it had been in the state before. */
  readonly milliseconds: number
  readonly cause: Error | undefined
}

/** The state of the broker since the start, told to the log and to `health()`. A log line is a constant, and the values are in the members beside it. */
export class BrokerWatch {
  state: BrokerState = 'down'
  /** Times that it was up, and then was no longer. */
  outages = 0
  readonly #log: Log
  /** When the state began, on the clock of `performance`. */
  #since = performance.now()
  #cause: Error | undefined
  #isReported = false
  #wasUp = false
  /** When the broker was up for the last time, or the watch began. */
  #upUntil = this.#since
  #causeLoggedAt = -Infinity
  /** The message of the fault that was logged last, while the broker is up. */
  #fault: string | undefined
  #nextReminder = firstReminder

  constructor (log: Log) {
    this.#log = log
  }

  /** Takes a report of the broker, and writes it to the log. */
  report (state: BrokerState, cause: Error | undefined, now = performance.now()): BrokerReport {
    const before = this.#isReported ? this.state : undefined
    const report = { state, before, milliseconds: now - this.#since, cause }
    if (state === before) this.#again(cause, now)
    else this.#change(state, cause, now)
    return report
  }

  /** Reminds the log of an outage that goes on. Call it every few seconds. */
  remind (now: number): void {
    const outage = now - this.#upUntil
    if (this.state === 'up' || !this.#isReported || outage < this.#nextReminder) return
    while (this.#nextReminder <= outage) this.#nextReminder *= 2
    this.#logGoesOn(now)
  }

  /** Milliseconds for which the broker has been in its state. */
  stateFor (now = performance.now()): number {
    return now - this.#since
  }

  health (hubState: HubState): Health {
    const { state } = this
    const cause = this.#cause?.message
    const brokerFor = Math.round(this.stateFor())
    const detail = `${apps[hubState]}; ${meanings[state]}. This has been so for ${Math.round(brokerFor / 1_000)} s.${cause === undefined ? '' : ` Cause: ${cause}`}`
    return { ok: hubState === 'open' && state === 'up', state: hubState, broker: state, brokerFor, ...(cause === undefined ? {} : { cause }), detail }
  }

  #change (state: BrokerState, cause: Error | undefined, now: number): void {
    const wasUp = this.#isReported && this.state === 'up'
    const isStarting = !this.#isReported
    if (wasUp) {
      this.outages++
      this.#upUntil = now
      this.#nextReminder = firstReminder
    }
    this.#isReported = true
    this.state = state
    this.#since = now
    this.#cause = cause
    this.#causeLoggedAt = now
    this.#fault = undefined
    const milliseconds = Math.round(now - this.#upUntil)
    if (state === 'up') {
      if (this.#wasUp) this.#log.info({ milliseconds }, 'the broker is up again')
      else this.#log.info({ milliseconds }, 'the broker is up')
      this.#wasUp = true
      if (cause !== undefined) this.#logFault(cause, now)
    // A client that connects in the background is not there yet, and nothing has failed.
    } else if (state === 'down' && isStarting && cause === undefined) this.#log.info({}, 'the broker connects')
    else if (state === 'down') this.#log.error({ err: cause, milliseconds }, 'the broker is down: topics with history take no messages, other messages reach the members of this node alone, and joins may be refused')
    else this.#log.warn({ err: cause, milliseconds }, 'the broker is degraded: messages of other nodes may come late or be missing')
  }

  /** Takes a report that does not change the state. */
  #again (cause: Error | undefined, now: number): void {
    if (cause === undefined) return
    if (this.state === 'up') {
      this.#cause ??= cause
      this.#logFault(cause, now)
      return
    }
    const isOther = cause.message !== this.#cause?.message
    this.#cause = cause
    if (!isOther || now - this.#causeLoggedAt < causeEvery) return
    this.#causeLoggedAt = now
    this.#logGoesOn(now)
  }

  #logFault (err: Error, now: number): void {
    if (err.message === this.#fault && now - this.#causeLoggedAt < causeEvery) return
    this.#fault = err.message
    this.#causeLoggedAt = now
    this.#log.warn({ err }, 'the broker is up, and reports a fault')
  }

  #logGoesOn (now: number): void {
    this.#log.warn({ state: this.state, err: this.#cause, milliseconds: Math.round(now - this.#upUntil) }, 'the broker is not up yet')
  }
}
