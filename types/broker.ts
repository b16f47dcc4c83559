/**
 * The seam between a node's rooms and what carries publications between nodes. The guarantees stand here; an
 * implementation that keeps them changes nothing for the package's users.
 *
 * The hub relies on none of them blindly. It checks each entry, bounds each wait, drops what comes twice or late, and
 * tells members of what is lost. A broken guarantee is counted (`stats().brokerFaults`) and reported as `FST_ROOMS_BROKER_FAULT`.
 */

/**
 * A place in the order of one topic.
 *
 * `epoch`: 11 to 64 letters and digits (`[A-Za-z0-9]`), random, at least 64 bits; a new one whenever the topic's data was lost. `offset`: a whole number from 0
 * below 10 ** 15 that grows by exactly one per publication of the topic. Any other position is refused.
 */
export interface Position { epoch: string, offset: number }

/**
 * One message on its way. `tail` is the finished end of a frame as bytes: `"data":…` and all that follows it, `}` included. A broker MUST NOT change
 * it, nor reuse its memory.
 */
export interface Publication {
  v: 1
  /** Unique per publication; 1 to 255 characters. */
  uid: string
  /** The node that published it; 1 to 255 characters. */
  node: string
  topic: string
  /** A broker may bring it back as any `Uint8Array`. */
  tail: Buffer
  /** Bytes of the serialised payload, which stand in `tail` after `"data":`. */
  payloadLength: number
  /** A session that is not to receive it live. No access control. */
  except?: string
  /** Names the value that this message is the newest of. It stands in `tail`, too. */
  key?: string
  /** When the publisher stops waiting, in milliseconds since 1970. After it the hub takes the outcome as `unknown`, and a later one changes nothing. */
  deadline: number
}

export interface Outcome {
  /**
   * `ok`: accepted. `duplicate`: accepted before. `stale`: a newer value is there. `failed`: not accepted, and it never will be. `unknown`: it may have been
   * accepted.
   */
  state: 'ok' | 'duplicate' | 'stale' | 'failed' | 'unknown'
  position?: Position
}

export type BrokerState = 'up' | 'degraded' | 'down'

/** What a node gives to its broker. None of these throws, whatever it is given. */
export interface BrokerHandlers {
  /**
   * A publication for an attached topic, own publications included. MUST be called once per publication, in the order of the positions, and for an own one before
   * its outcome settles.
   */
  entry (topic: string, publication: Publication, position?: Position): void
  /** Bytes that another node sent with `control`. */
  control (fromNode: string, bytes: Buffer): void
  state (state: BrokerState, cause?: Error): void
  /**
   * Publications of these topics may have been missed. Members are told by a `gap` frame, and until the next entry no position of these topics is promised
   * to a client that comes back.
   */
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
  /**
   * `true`: the broker lives in this process, `entry` brings back the very object that `publish` was given, and `attach` settles at once. Then the bytes of a
   * publication are not made unless `tail` is read. It stands beside `capabilities` and, in a class, is a getter, so that a broker that wraps another and copies
   * what it is given does not take it over by copying its members.
   */
  readonly inProcess?: boolean
  /** MUST resolve though the server is down, and say so through `handlers.state`. Called once, before anything else. */
  start (node: string, handlers: BrokerHandlers): Promise<void>
  /**
   * Begins delivery of these topics. MUST settle after the server confirmed the interest; the positions are read after
   * that (`null` where there are none). `attach` and `detach` of one topic MUST take effect in the order of the calls. The hub waits for `limits.handshake`.
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
  /** Releases everything. MUST NOT close a client that the host passed in. The hub waits for 2 s. */
  close (): Promise<void>
}
