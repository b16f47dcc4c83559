import { closeBehaviour, type CloseBehaviour } from '../protocol/close-codes.ts'

/** Longest time between two attempts, in milliseconds. */
const longest = 20_000

/** Time after which a connection counts as one that works, in milliseconds. */
const settled = 5_000

/** A range of milliseconds. */
export interface Range { readonly min: number, readonly max: number }

/** Returns what to do after an HTTP status, or a close code. */
const behaviourOf = (code: number): CloseBehaviour =>
  code >= 1_000 ? closeBehaviour(code) : code === 401 ? 'renew' : code === 429 ? 'backoff' : code > 399 && code < 500 && code !== 408 && code !== 425 ? 'stop' : 'resume'

/** When to try again. */
export interface Retry {
  /** Whether the next attempt needs a new token. */
  readonly expired: boolean
  /** Plans the next attempt. `false`: trying again is useless. */
  after (code: number, range?: Range): boolean
  /** The attempt has succeeded. */
  succeed (): void
  /** Forgets failed attempts, and a planned one. */
  reset (): void
}

/** Plans attempts: full jitter, 0.5 to 20 s, unless the server has named a range. */
export const createRetry = (attempt: () => void, canRenew: boolean): Retry => {
  let failures = 0
  let renewals = 0
  let joinedAt = 0
  let timer: ReturnType<typeof setTimeout>
  const retry = {
    expired: false,
    after (code: number, range?: Range) {
      const behaviour = behaviourOf(code)
      if (joinedAt && Date.now() - joinedAt > settled) failures = renewals = 0
      joinedAt = 0
      retry.expired = behaviour === 'renew'
      if (behaviour === 'stop' || (retry.expired && (!canRenew || renewals++))) return false
      if (behaviour === 'backoff' && failures < 3) failures = 3
      const { min, max } = range ?? { min: 0, max: retry.expired ? 0 : Math.min(longest, 500 * 2 ** failures++) }
      clearTimeout(timer)
      timer = setTimeout(attempt, min + Math.random() * (max - min))
      return true
    },
    succeed () {
      retry.expired = false
      joinedAt = Date.now()
    },
    reset () {
      clearTimeout(timer)
      failures = 0
    }
  }
  return retry
}
