/** A timer of the client. */
class Timer {
  at: number
  readonly every: number | undefined
  readonly act: () => void

  constructor (at: number, every: number | undefined, act: () => void) {
    this.at = at
    this.every = every
    this.act = act
  }
}

/** The client's modules. Only their timers are replaced: those of the server, which runs in the same process, go on as they are. */
const clientFolder = new URL('../../lib/client/', import.meta.url).href

/** Whether a module of the client has called a function. */
function isClient (caller: object): boolean {
  const { prepareStackTrace, stackTraceLimit } = Error
  try {
    Error.stackTraceLimit = 1
    Error.prepareStackTrace = (_error, [site]) => site?.getFileName()
    const given: { stack?: string } = {}
    Error.captureStackTrace(given, caller as () => void)
    return new URL(given.stack ?? '', 'file:').href.startsWith(clientFolder)
  } finally {
    Object.assign(Error, { prepareStackTrace, stackTraceLimit })
  }
}

/** A clock that replaces the time and the randomness of the client, and stands still between two calls of `advance`. */
export class Clock {
  readonly #timers = new Set<Timer>()
  /** The timers of signals. */
  readonly #signals = new Set<Timer>()
  readonly #platform = { setTimeout, setInterval, clearTimeout, clearInterval }
  readonly #random = Math.random
  readonly #timeout = AbortSignal.timeout
  #now = 0

  constructor (random: () => number) {
    const clock = this
    const platform = this.#platform
    const replace = (name: 'setTimeout' | 'setInterval') => function replaced (act: (...values: unknown[]) => void, milliseconds = 0, ...values: unknown[]): unknown {
      if (!isClient(replaced)) return platform[name](act, milliseconds, ...values)
      const timer = new Timer(clock.#now + milliseconds, name === 'setInterval' ? milliseconds : undefined, () => { act(...values) })
      clock.#timers.add(timer)
      return timer
    }
    const clear = (timer: unknown): void => {
      if (timer instanceof Timer) this.#timers.delete(timer)
      else platform.clearTimeout(timer as undefined)
    }
    Object.assign(globalThis, { setTimeout: replace('setTimeout'), setInterval: replace('setInterval'), clearTimeout: clear, clearInterval: clear })
    Math.random = random
    // A signal keeps no process alive, so its timer does not count.
    AbortSignal.timeout = function timeout (milliseconds) {
      if (!isClient(timeout)) return clock.#timeout.call(AbortSignal, milliseconds)
      const controller = new AbortController()
      clock.#signals.add(new Timer(clock.#now + milliseconds, undefined, () => { controller.abort(new DOMException('timeout', 'TimeoutError')) }))
      return controller.signal
    }
  }

  /** Timers that are set. */
  get size (): number { return this.#timers.size }

  /** Lets milliseconds pass: calls all timers that end in them, in their order. */
  advance (milliseconds: number): void {
    const end = this.#now + milliseconds
    for (;;) {
      let next: Timer | undefined
      for (const timers of [this.#timers, this.#signals]) for (const timer of timers) if (timer.at <= end && (next === undefined || timer.at < next.at)) next = timer
      if (next === undefined) break
      this.#now = Math.max(this.#now, next.at)
      if (next.every === undefined) {
        this.#timers.delete(next)
        this.#signals.delete(next)
      } else next.at += Math.max(1, next.every)
      next.act()
    }
    this.#now = end
  }

  /** Puts the timers of the platform back. */
  restore (): void {
    Object.assign(globalThis, this.#platform)
    Math.random = this.#random
    AbortSignal.timeout = this.#timeout
  }
}
