import type { EndReason, Position } from './protocol.ts'

/**
 * The interface between a node's rooms and a broker, which carries publications between nodes. An implementation MUST keep the guarantees
 * in this file; then users of the package see no difference between brokers.
 *
 * The hub checks each entry, bounds each wait, drops entries that arrive twice or late, and tells members of lost ones. A broken guarantee is
 * counted (`stats().brokerFaults`) and reported as `FST_ROOMS_BROKER_FAULT`.
 */

/**
 * One message in flight. `tail` holds the bytes of the end of its frame: `"data":…` and the members after it, `}` included. A broker MUST NOT change
 * it, nor reuse its memory.
 */
export interface Publication {
  v: 1
  /** Unique per publication; 1 to 255 characters. */
  uid: string
  /** The node that published it; 1 to 255 characters. */
  node: string
  topic: string
  /** In `entry` it may be any `Uint8Array`. */
  tail: Buffer
  /** Bytes of the serialised payload, which is in `tail` after `"data":`. 0 for the end of a stream, whose `tail` is `"reason":…` and the members after it. */
  payloadLength: number
  /**
   * The publication ends its topic. The broker keeps it like a message, and notes with the position of the topic that it has ended: it MUST answer each later
   * publication of the topic with `ended`, and neither append nor deliver it.
   */
  end?: EndReason
  /** The id of a session that does not get it live. This is not access control. */
  except?: string
  /**
   * Names the publication within its topic, together with the one who sent it. For 5 minutes the broker MUST answer `duplicate`, with the position of the first, to a
   * second one with the same `mid`, whichever node sends it, if its capability `once` is `shared`. 1 to 400 characters.
   */
  mid?: string
  /** Names the value that this message replaces. It is in `tail`, too. */
  key?: string
  /**
   * The version of the value, for a topic that keeps the newest message of each key. If the kept one has a greater version, the broker MUST answer `stale`, and
   * neither append nor deliver this one.
   */
  version?: number
  /**
   * `fail`: while the server is away, it waits for no connection: the broker SHOULD answer `failed` at once, also if earlier publications of the topic wait, and the hub
   * then delivers it on this node alone. Absent: the broker may hold it until its deadline.
   */
  whenDown?: 'fail'
  /** The messages that the topic keeps. The broker appends this one, and drops what is over the bounds. Absent: the topic keeps none. */
  retention?: Retention
  /** The time at which the publisher stops waiting, in milliseconds since 1970. From then on the outcome is `unknown`, and a later one is ignored. */
  deadline: number
}

/** The messages that a topic keeps. */
export interface Retention {
  /** Most messages; `Infinity`: no bound. */
  readonly size: number
  /** Most bytes of their tails. The values of a topic with `latest` may count more, because each needs objects of its own. */
  readonly bytes: number
  /** Milliseconds from the last publication until all of them expire. */
  readonly ttl: number
  /** Keeps the newest message of each key, in place of the newest messages. Messages without a key are one value. */
  readonly latest: boolean
}

/** A message that is kept. */
export interface KeptMessage {
  /** Its position, in the epoch of the page. */
  readonly offset: number
  /** As in a publication. The reader MUST NOT change it. */
  readonly tail: Buffer
  /** As in a publication: 0 for the end of a stream. */
  readonly payloadLength: number
  readonly key?: string | undefined
}

/** A reading of kept messages. */
export interface HistoryQuery {
  /** Only messages behind this offset, from the oldest on. Absent: the newest messages. */
  readonly after?: number
  /** Most messages. */
  readonly limit: number
  /** Most bytes of their tails. */
  readonly bytes: number
  /** The messages that the topic keeps. A topic that has no position yet gets its first one, so that what is published after this is known to be missing. */
  readonly retention: Retention
}

/** Offsets that were left out, behind `after` and before `to`. */
export interface Skip { readonly after: number, readonly to: number }

/** The position of an entry. */
export interface EntryPosition extends Position {
  /** The offset of the publication before it, if it is not the offset before it. */
  readonly after?: number
}

/** Kept messages of one topic, in the order of their positions. */
export interface HistoryPage {
  /** The position of the topic's last publication. */
  readonly position: Position
  readonly messages: readonly KeptMessage[]
  /**
   * The least offset behind which every message is kept: the top if none is kept. A topic that keeps the newest message of each key has it behind the last message
   * that was replaced.
   */
  readonly from: number
  /**
   * Offsets that no publication has: behind `after` and before `to`, in order. A broker that may have lost publications counts on from a later offset, so that a position
   * which it has forgotten does not become that of another publication: a position among them has missed some. The publication behind `to` follows the one at `after`.
   * Default: none.
   */
  readonly skips?: readonly Skip[]
  /** The topic's last publication has ended it. It is set as long as the topic has a position, also if that publication is no longer kept. */
  readonly ended?: EndReason
}

/** The position of a topic that was attached. */
export interface AttachedPosition extends Position {
  /** The publication at this position has ended the topic. */
  ended?: EndReason
}

/** Kept messages of all topics. */
export interface HistoryStats {
  /** Topics with kept messages. */
  topics: number
  messages: number
  /** Bytes of their tails, and of the keys and objects of values. */
  bytes: number
  /** Topics whose messages were dropped because all topics together kept too many bytes. Grows only. */
  evicted: number
}

export interface Outcome {
  /**
   * `ok`: accepted. `duplicate`: accepted before. `stale`: there is a newer value. `ended`: the topic has ended before. `failed`: not accepted, now or later.
   * `unknown`: it may have been accepted.
   */
  state: 'ok' | 'duplicate' | 'stale' | 'ended' | 'failed' | 'unknown'
  position?: Position
}

/** A member of a topic, as all nodes see it. */
export interface PresenceMember {
  session: string
  node: string
  user?: string
  /** Presence info as JSON. Absent: none. */
  info?: string
}

/** A change of the members of a topic on this node. */
export interface PresenceChange {
  topic: string
  session: string
  /** The user of the member, the same in all changes of a session. Absent: the member is anonymous. */
  user?: string
  /** `set`: the session has joined, or has new info. `leave`: it has left. A `leave` of a session that is not noted changes nothing. */
  type: 'set' | 'leave'
  /** Presence info as JSON; with `set` alone. */
  info?: string
}

/** The answer to a change. */
export interface PresenceOutcome {
  /**
   * `first`: with this session its user has come to the topic, having had none there on any node. `last`: with this session its user has left the topic on all nodes. A
   * change that is sent again is answered as before, at least for one minute, because the answer may have been lost.
   */
  user?: 'first' | 'last'
}

/** Changes of the members of a topic on one node, as all nodes are told of them. */
export interface PresenceDelta {
  /** Grows by one with each delta of the topic, over all nodes. A hole means that deltas are missing: the list has to be read again. */
  version: number
  /** The node of these members. They leave in a delta of their node, too, if it has gone and another node removes them. */
  node: string
  set: PresenceMember[]
  /** The ids of sessions. */
  leave: string[]
}

/** The members of a topic on all nodes. */
export interface PresencePage {
  /** The version of the topic's last delta; 0 if there was none. */
  version: number
  /** Members, the ones of nodes that are gone left out. At most 15 s old for these. */
  count: number
  /** At most `limit` of them, in no order. */
  members: PresenceMember[]
}

/** A user whose last session was on a node that has gone, or has come back with its node. */
export interface GoneUser {
  topic: string
  user: string
  /** Presence info of a session of the user, the one that was removed last, as JSON. */
  info?: string
}

/** The members of topics over all nodes. Each function rejects if the server does not answer within 5 s. */
export interface BrokerPresence {
  /**
   * Notes changes of members of this node. They take effect in the order of the calls, those of one topic as one atomic step, and are told to all nodes that have the
   * topic attached, this one included, because their versions count. A broker that has lost its connection sends them again when it is back: a node's members are what
   * it has said last. After a rejection the hub sends the same changes again, before later ones.
   */
  change (changes: PresenceChange[]): Promise<PresenceOutcome[]>
  /** Reads the members of a topic. `limit: 0`: only their number and the version. */
  read (topic: string, limit: number): Promise<PresencePage>
  /**
   * Notes how many members topics have on this node, for topics without presence, too; 0: none. At most once a second. The hub reports all topics again when the state
   * has become `up`.
   */
  report (counts: ReadonlyMap<string, number>): Promise<void>
  /** Returns the numbers of members that all live nodes have reported for these topics. */
  counts (topics: string[]): Promise<number[]>
  /** Returns the topics for which a live node has reported members; at most `limit`. */
  topics (limit: number): Promise<string[]>
}

/** The producers of streams over nodes. A topic has one at a time, and if its node dies, another node ends the topic. */
export interface BrokerStreams {
  /**
   * Claims a topic for a producer on this node. Resolves with `false` if another node has it, also if that one has died and its topic has not been ended yet. Rejects if
   * the server does not answer. A broker that has lost its connection says again what is claimed when it is back.
   */
  claim (topic: string): Promise<boolean>
  /** Resolves with whether another node has claimed a topic. Rejects if the server does not answer. */
  isTaken (topic: string): Promise<boolean>
  /** Gives a topic back. It was claimed, or a claim was not answered. MUST NOT throw, and is repeated by the broker until the server has taken it. */
  release (topic: string): void
}

/** Numbers of a broker, on this node: gauges, and counters since its start. A number that a broker has no use for is 0. */
export interface BrokerStats {
  /** Gauge: milliseconds that the server took for its last answer to a probe; if a probe has waited longer than that, milliseconds that it has waited. */
  lag: number
  /** Gauge: publications that the server has not answered. */
  queued: number
  /** Gauge: their bytes. */
  queuedBytes: number
  /** Gauge: topics that this node is attached to, and those whose `detach` lingers. */
  topics: number
  /** Connections to the server that were made again. Attempts that fail do not count. */
  reconnects: number
  /** Topics whose subscription was made again. */
  resubscribed: number
  /** Probes that the server has not answered in time. */
  missedProbes: number
  /** Holes in the order of a topic that were filled from kept messages. */
  mended: number
  /** Holes that could not be filled, and were reported by `lost`. */
  holes: number
  /** Topics that have begun a new epoch while they were attached, because the server had lost their positions or newest messages. */
  resets: number
  /** Calls of publications that were sent twice and recognised by their fence. */
  fenced: number
  /** Entries that were dropped, because too many waited; with history they are read later. */
  dropped: number
  /** Entries, and bytes of other nodes, that could not be read. */
  unreadable: number
}

export type BrokerState = 'up' | 'degraded' | 'down'

/** The functions that a node gives to its broker. They do not throw, whatever their arguments are. */
export interface BrokerHandlers {
  /**
   * Delivers a publication for an attached topic, own publications included. MUST be called once for each publication, in the order of the
   * positions, and for an own one before its outcome settles. A broker that is not up MAY settle the outcome at the deadline, and deliver the publication later.
   */
  entry (topic: string, publication: Publication, position?: EntryPosition): void
  /** Delivers bytes that another node sent with `control`, in the order of its calls. */
  control (fromNode: string, bytes: Buffer): void
  /**
   * Delivers changes of members, those of this node included, for attached topics. MUST be called in the order of the versions, and for each version once, unless deltas
   * are lost. `lost` tells this, and so does the state when it becomes `up` again: a broker that can read the publications which it has missed says nothing of them. A
   * broker without the capability `presence` never calls it.
   * @param delta - `undefined`: one came that cannot be read, and the list is read again
   */
  presence? (topic: string, delta: PresenceDelta | undefined): void
  /** Reports users whose last session has gone with its node. It is called on one node of all. */
  gone? (users: GoneUser[]): void
  /**
   * Reports users of this node whose list was sent again, and who had been reported as gone meanwhile. Not for sessions whose `change` has not been answered: its answer
   * tells that.
   */
  back? (users: GoneUser[]): void
  /**
   * Ends topics that were claimed (`BrokerStreams`) by a node that has died, or by this one while it counted as dead. It is called on one node of all. When it resolves,
   * the broker gives the topics back; if it rejects, it is called again, on this node or another one.
   */
  orphaned? (topics: string[]): Promise<void>
  /**
   * Reports the state of the broker. With the same state as before and a `cause`, it reports a fault that does not change the state: bytes that cannot be read, a
   * setting of the server, another reason why it is down. Such a fault is reported once, or at most once a minute.
   */
  state (state: BrokerState, cause?: Error): void
  /**
   * Reports that publications of these topics may have been missed. Members are told by a `gap` frame, and until the next entry a client that
   * reconnects is promised no position of these topics.
   */
  lost (topics: string[] | 'all'): void
}

export interface BrokerCapabilities {
  /** `total`: one order per topic for all members. `node`: one order for the members of a node, and across nodes one for each publishing node. */
  order: 'total' | 'node'
  history: boolean
  /** Whether it notes the members of topics over all nodes (`Broker.presence`). `true` also for a broker of one process, which has no other nodes. */
  presence: boolean
  /** Whether message ids are unique over all nodes (`shared`) or on one node. */
  once: 'shared' | 'node'
}

/** The parts of the options that a broker may need. */
export interface BrokerSettings {
  /** `limits.history`: most bytes of kept messages of all topics, for a broker that keeps them in this process. */
  readonly historyBytes: number
}

export interface Broker {
  readonly capabilities: BrokerCapabilities
  /**
   * `true`: the broker is in this process, `entry` gets the same object that `publish` was given, and `attach` settles without waiting. Then the bytes
   * of a publication are made only if `tail` is read. In a class it is a getter, and it is not one of `capabilities`, so that a wrapper that copies
   * publications does not inherit it by copying the members of another broker.
   */
  readonly inProcess?: boolean
  /**
   * Called once, before the other functions. MUST resolve even if the server is down, and report that by `handlers.state`.
   * @param node - the id of this node: 12 letters and digits, with which the ids of its sessions begin; for a broker of this process a UUID, which they do not carry
   */
  start (node: string, handlers: BrokerHandlers, settings?: BrokerSettings): Promise<void>
  /**
   * Begins delivery of these topics. MUST settle after the server has confirmed the subscription, with positions that are read after that (`null`:
   * the topic has none). `attach` and `detach` of one topic MUST take effect in the order of the calls. The hub waits for `limits.handshake`.
   * @param retention - the messages that these topics keep. Such a topic has a position from its first `attach` or publication on, and keeps it while it has
   * neither members nor kept messages.
   */
  attach (topics: string[], retention?: Retention): Promise<(AttachedPosition | null)[]>
  /** Ends delivery of these topics. MUST NOT call `entry` for them after it has resolved. */
  detach (topics: string[]): Promise<void>
  /**
   * Publishes. Append and publish MUST be one atomic step for each topic. MAY return synchronously, and then MUST have called `entry` for the topics
   * attached here before it returns. MUST NOT throw or reject, because a failure is an outcome.
   */
  publish (batch: Publication[]): Outcome[] | Promise<Outcome[]>
  /**
   * Reads kept messages. MUST be present if `capabilities.history` is `true`. MAY return synchronously. Rejects if the server does not answer.
   */
  history? (topic: string, query: HistoryQuery): HistoryPage | Promise<HistoryPage>
  /** Counts kept messages, if they are in this process. */
  historyStats? (): HistoryStats
  /**
   * Sends bytes, at most 16 MiB, to one node, to the nodes that hold a user (`hold`), or to all; never to this one. `sent`: the server has taken them for at least one
   * node. `gone`: there is no such node. `unknown`: the server has not answered. MUST NOT reject.
   */
  control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<'sent' | 'gone' | 'unknown'>
  /**
   * Notes the users that this node holds from now on, and no longer, so that `control` reaches it: those of its sessions, joining ones included, and of its connections
   * without a topic. Called at most once in a turn of the event loop. A user is removed only after it was added. MUST NOT throw. A broker that has lost its connection
   * notes them again when it is back. Absent: `control` sends what is for a user to all nodes.
   */
  hold? (add: string[], remove: string[]): void
  /** MUST be present if `capabilities.presence` is `true` and the broker is not in this process. */
  readonly presence?: BrokerPresence
  /** Absent: each node knows the producers of its own streams alone. */
  readonly streams?: BrokerStreams
  stats? (): BrokerStats
  /** Releases all resources. MUST NOT close a client that the host passed in. The hub waits for 2 s. */
  close (): Promise<void>
}
