/**
 * The seam between a node's rooms and what carries publications between nodes. The guarantees stand here; an
 * implementation that keeps them changes nothing for the package's users.
 */

/** A place in the order of one topic. The epoch is random, at least 64 bits; the offset grows by one per publication. */
export interface Position { epoch: string, offset: number }

/** One message on its way. `tail` is the finished end of a frame as bytes: `"data":…` and all that follows it, `}` included. */
export interface Publication {
  v: 1
  /** Unique per publication. */
  uid: string
  /** The node that published it. */
  node: string
  topic: string
  tail: Buffer
  /** Bytes of the serialised payload, which stand in `tail` after `"data":`. */
  payloadLength: number
  /** A session that is not to receive it live. No access control. */
  except?: string
  /** Names the value that this message is the newest of. It stands in `tail`, too. */
  key?: string
  /** When the publisher stops waiting, in milliseconds since 1970. */
  deadline: number
}

export interface Outcome {
  state: 'ok' | 'duplicate' | 'stale' | 'failed' | 'unknown'
  position?: Position
}

export type BrokerState = 'up' | 'degraded' | 'down'

/** What a node gives to its broker. None of these throws. */
export interface BrokerHandlers {
  /** A publication for an attached topic. Calls for one topic come in the order of their positions. */
  entry (topic: string, publication: Publication, position?: Position): void
  /** Bytes that another node sent with `control`. */
  control (fromNode: string, bytes: Buffer): void
  state (state: BrokerState, cause?: Error): void
  /** Publications of these topics may have been missed. */
  lost (topics: string[] | 'all'): void
}

export interface BrokerCapabilities {
  /** `total`: one order per topic for everybody. `node`: one for all members of a node, and per publishing node across nodes. */
  order: 'total' | 'node'
  history: boolean
  presence: boolean
  /** Whether a message id is unique over all nodes or on one. */
  once: 'shared' | 'node'
}

export interface Broker {
  readonly capabilities: BrokerCapabilities
  /** MUST resolve though the server is down, and say so through `handlers.state`. Called once, before anything else. */
  start (node: string, handlers: BrokerHandlers): Promise<void>
  /**
   * Begins delivery of these topics. MUST settle after the server confirmed the interest; the positions are read after
   * that (`null` where there are none). `attach` and `detach` of one topic MUST take effect in the order of the calls.
   */
  attach (topics: string[]): Promise<(Position | null)[]>
  /** Ends delivery. MUST NOT emit an entry of these topics after it resolved. */
  detach (topics: string[]): Promise<void>
  /**
   * Sends. Append and publish MUST be one atomic step per topic. MAY answer synchronously, and then MUST have called
   * `entry` for the topics attached here before it returns. MUST NOT throw or reject: a failure is an outcome.
   */
  publish (batch: Publication[]): Outcome[] | Promise<Outcome[]>
  /** Sends bytes to one node, to the nodes that hold a user, or to all. */
  control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'>
  /** Releases everything. MUST NOT close a client that the host passed in. */
  close (): Promise<void>
}
