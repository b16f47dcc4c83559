/** How a peer is spoken to: JSON as it is, the envelopes of `rooms.v1`, or Engine.IO packets. */
export type Protocol = 'plain' | 'rooms' | 'socket.io'

/** How many members, what a round is, and what to measure. */
export interface Load {
  kind: 'rounds' | 'echo' | 'latency' | 'connect' | 'idle' | 'post' | 'drain'
  members: number
  rooms: number
  /** Broadcasts to each room in one turn; with `publishers`, one message of each of the first so many members instead. */
  window: number
  publishers?: number
  /** The publishers ask for an ack. */
  ref?: boolean
  /** A broadcast leaves out its publisher. */
  except?: boolean
  /** So many others join in each round, and are gone after it. */
  joins?: number
  deflate?: boolean
  /** So many members more, which stop reading once they have joined. */
  stopped?: number
  /** Of latency: messages a second. */
  rate?: number
}

export interface Job extends Load {
  protocol: Protocol
  port: number
  control: number
  /** Of the server, for its CPU time and memory. */
  pid: number
  seconds: { warmUp: number, cpu: number, wall: number }
}

/** `unit` is a delivery, a request or a connection, as the scenario has it. */
export interface Figures {
  units: number
  seconds: number
  /** CPU microseconds of the server for each unit. */
  cpu: number
  perSecond: number
  /** Share of the frames that came compressed. */
  compressed?: number
  /** Of joins: the same with the cost of the joins themselves left in. */
  gross?: number
  /** Milliseconds. */
  p50?: number
  p99?: number
  /** Resident bytes for each connection; of a drain, those of its goodbye. */
  bytes?: number
  /** Milliseconds from the command to drain to the last end of a connection. */
  took?: number
  /** The longest time that the server's loop stood still meanwhile, in milliseconds. */
  stall?: number
  /** The share of the core of the server, or of the load generator where that is more, that other processes had. */
  others?: number
}

export type Answer = { figures: Figures } | { error: string }
