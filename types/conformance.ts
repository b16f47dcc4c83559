/**
 * The suite for authors of brokers, `fastify-rooms/broker-conformance`.
 */
import type { Broker } from './broker.ts'

/** The functions of a test runner that the suite calls. */
export interface ConformanceRunner {
  /** Adds a test, which fails if the function rejects: `test` of `node:test`, tap, Vitest or Jest. */
  test (name: string, run: () => Promise<void>): unknown
  /** Is told of each case that is not run. Default: none; the report names them, too. */
  skip? (name: string, reason: string): unknown
}

/** The brokers of one case, on a server that no other case uses, or under a prefix that no other case uses. */
export interface ConformanceFleet {
  /** Makes the broker of one more node. The suite starts and closes it. */
  broker (): Broker | Promise<Broker>
  /**
   * Cuts a broker off its server: the server gets nothing that the broker sends, and the broker gets nothing. The broker may not have been started. Absent: cases of an
   * outage are not run.
   */
  cut? (broker: Broker): void | Promise<void>
  /** Ends a cut. MUST be present if `cut` is. */
  heal? (broker: Broker): void | Promise<void>
  /** Ends a node as SIGKILL does: the server is told nothing. Absent: cases of a dead node are not run. */
  kill? (broker: Broker): void | Promise<void>
  /** Releases the server. Called after all brokers have been closed. */
  close? (): void | Promise<void>
}

export interface ConformanceOptions {
  /** Text in front of the name of each test. Default: none. */
  name?: string
  /** Most nodes of a fleet: 1 for a broker of one process. Default 3, which is also the most that the suite uses. */
  nodes?: 1 | 2 | 3
  /** Milliseconds to wait for events that must come. Default 5,000. */
  timeout?: number
  /** Milliseconds to wait for events that must not come. Default 50. */
  quiet?: number
  /** Milliseconds until members of a node that was killed are gone. Default 30,000. */
  gone?: number
  /** Milliseconds until a broker notices that it is cut off, and after the cut that it is not any more. Default 15,000. */
  noticed?: number
  /** Cases that are not run, by name, with the reason. Unknown names are an error. Default: none. */
  except?: Readonly<Record<string, string>>
}

/** The cases of the suite, as one broker ran them. */
export interface ConformanceReport {
  /** Names of the cases that were given to the runner. */
  cases: string[]
  /** Cases that were not, because the broker or the fleet lacks what they need, or by `except`. */
  omitted: { name: string, reason: string }[]
}
