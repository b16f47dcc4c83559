import type { Retention, TopicHistory } from '../../types/index.ts'

/** The messages that a topic keeps, and replays. */
export interface HistoryRule extends Retention {
  /** Most bytes that are replayed to one member. */
  readonly replay: number
}

const defaultSize = 100
const defaultBytes = 1_048_576
const defaultTtl = 300_000
const defaultReplay = 1_048_576
const defaultStreamBytes = 2_097_152
const defaultStreamTtl = 600_000

/** Compiles the option `history`; `null` if the topic keeps no messages. */
export function historyRule (given: boolean | TopicHistory): HistoryRule | null {
  if (given === false) return null
  const { size, latest = false, bytes, ttl = defaultTtl, replay = defaultReplay } = given === true ? {} : given
  const count = size ?? (latest || bytes !== undefined ? Infinity : defaultSize)
  return Object.freeze({ size: count, bytes: bytes ?? defaultBytes, ttl, latest, replay })
}

/** Compiles the option `history` of a stream. A reader that comes back gets all that is kept. */
export function streamRule (given: boolean | TopicHistory | undefined): HistoryRule {
  const { size = Infinity, bytes = defaultStreamBytes, ttl = defaultStreamTtl, replay = Infinity } = typeof given === 'object' ? given : {}
  return Object.freeze({ size, bytes, ttl, latest: false, replay })
}
