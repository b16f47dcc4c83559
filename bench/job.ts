/** The protocol of a peer: plain JSON, the envelopes of `rooms.v1`, or Engine.IO packets, or events of an event stream. */
export type Protocol = 'plain' | 'rooms' | 'socket.io' | 'sse'

/** The members of a run, the work of a round, and the kind of measurement. */
export interface Load {
  kind: 'rounds' | 'joins' | 'client' | 'echo' | 'latency' | 'connect' | 'idle' | 'post' | 'drain' | 'storm' | 'memory' | 'polls'
  members: number
  rooms: number
  /** Seconds of CPU time that each server, but not a primary, uses to warm up. With several processes on one core, a second of time is too short to compile their code. */
  warm?: number
  /** The client that receives, in the process of the load generator. */
  client?: 'fastify-rooms/client' | 'ws'
  /** Each member joins all rooms, by frames on one connection. */
  multiplexed?: boolean
  /** Broadcasts to each room in one turn. With `publishers`, each of that many members sends one message instead. */
  window: number
  publishers?: number
  /** The publishers ask for an ack. */
  ref?: boolean
  /** A broadcast leaves out its publisher. */
  except?: boolean
  /** Connections that join in each round, and are gone after it. */
  joins?: number
  deflate?: boolean
  /** Further members that stop reading once they have joined. */
  stopped?: number
  /** Messages a second, for latency. */
  rate?: number
  /** Kept messages that each member is sent when it joins, or that are kept of each room. */
  kept?: number
  /** Milliseconds within which the members of a storm connect and join, at random times. Default: connections that are open join in one turn of the load generator. */
  spread?: number
  /** Servers of one fleet, over which the members are spread; the first one publishes. Default: one server that knows of no other. */
  nodes?: number
  /** Workers of `node:cluster`, over which the members are spread; the first one publishes. Default: a server without workers. */
  workers?: number
}

/** A server of a fleet, or a worker of a cluster. */
export interface Node {
  port: number
  pid: number
}

export interface Job extends Load {
  protocol: Protocol
  port: number
  control: number
  /** The server's process, whose CPU time and memory are read. */
  pid: number
  /** The other servers of the fleet, or the other workers of the cluster. */
  others?: Node[]
  /** The process of the primary of a cluster, which has no members. */
  primary?: number
  /** The Redis server of the fleet. */
  redis?: Node
  seconds: { warmUp: number, cpu: number, wall: number }
}

/** `unit` is a delivery, a request or a connection, depending on the scenario. */
export interface Figures {
  units: number
  seconds: number
  /** CPU microseconds of the server for each unit. */
  cpu: number
  /** The system time in `cpu`: microseconds of the kernel for each unit. */
  kernel?: number
  perSecond: number
  /** Share of the frames that came compressed. */
  compressed?: number
  /** CPU microseconds for each unit with the cost of the joins included. */
  gross?: number
  /** The 99th percentile of the same load with joins that replay nothing, and without joins, in milliseconds. */
  joinsP99?: number
  calmP99?: number
  /** CPU microseconds of the Redis server for each broadcast. */
  redis?: number
  /** CPU microseconds of the primary of a cluster for each broadcast. */
  primary?: number
  /** CPU microseconds, for each unit, of the one process that used the most. */
  busiest?: number
  /** Units for each CPU second of that process. */
  capacity?: number
  /** Bytes of memory divided by the bytes of what they hold. */
  share?: number
  /** Milliseconds. */
  p50?: number
  p99?: number
  /** Resident bytes for each connection; for a drain, bytes of the goodbye. */
  bytes?: number
  /** Milliseconds from the command to drain to the last end of a connection. */
  took?: number
  /** The longest stall of the server's event loop during the drain, in milliseconds. */
  stall?: number
  /** The share of a core that other processes had: the larger of the server's core and the load generator's. */
  others?: number
}

export type Answer = { figures: Figures } | { error: string }
