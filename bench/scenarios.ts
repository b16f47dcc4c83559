import type { Figures, Load, Protocol } from './job.ts'

export interface Peer {
  name: string
  /** A file in peers/. */
  file: string
  protocol: Protocol
  /** The package whose version is shown. */
  package: string
  bun?: boolean
  /** A built copy of the package under test. */
  dist?: string
  /** Takes part only in scenarios with a Redis server, with this adapter. */
  adapter?: 'sharded'
}

export const ours = 'fastify-rooms'

/** The servers beside the package under test, of which there may be several builds. */
export const peers: Peer[] = [
  { name: 'ws', file: 'ws.js', protocol: 'plain', package: 'ws' },
  { name: '@fastify/websocket', file: 'fastify-websocket.js', protocol: 'plain', package: '@fastify/websocket' },
  { name: 'socket.io', file: 'socket.io.js', protocol: 'socket.io', package: 'socket.io' },
  { name: 'socket.io (sharded)', file: 'socket.io.js', protocol: 'socket.io', package: 'socket.io', adapter: 'sharded' },
  { name: 'uWebSockets.js', file: 'uws.js', protocol: 'plain', package: 'uWebSockets.js' },
  { name: 'bun', file: 'bun.js', protocol: 'plain', package: 'bun', bun: true },
  { name: '@fastify/sse', file: 'fastify-sse.js', protocol: 'sse', package: '@fastify/sse' },
  { name: 'fastify', file: 'fastify.js', protocol: 'plain', package: 'fastify' }
]

/** The figure of a scenario that is compared. */
export type Metric = 'cpu' | 'capacity' | 'primary' | 'redis' | 'p99' | 'bytes' | 'perSecond' | 'took' | 'share'

export interface Scenario extends Load {
  id: string
  title: string
  /** The servers that the scenario is for; default: all WebSocket servers. */
  only?: string[]
  metric: Metric
  /** The servers share a private Redis server. */
  redis?: boolean
  /** Members read an event stream. */
  sse?: boolean
  /** The name of a unit. */
  unit: string
  /** Settings of the server. */
  setup?: { history?: number, payload?: number, large?: boolean, lobby?: boolean, post?: boolean, slow?: 'drop' | 'latest', drain?: { batch: number } }
}

const servers = [ours, 'ws', '@fastify/websocket', 'socket.io', 'uWebSockets.js', 'bun']
/** The servers in scenarios that measure the cost of a connection beside the libraries below. */
const small = [ours, 'ws', '@fastify/websocket']
/** The servers of event streams. */
const streams = [ours, '@fastify/sse']
/** Seconds of CPU time until the code of a server is compiled. */
const warm = 2
/** Two servers of a fleet, with half of the members each. */
const fleet = { kind: 'rounds', members: 1_000, rooms: 1, nodes: 2, redis: true, warm, metric: 'cpu', unit: 'delivery' } as const
const fleetServers = [ours, 'socket.io']
/** Two workers of `node:cluster` in place of two servers, and their primary between them. */
const cluster = { kind: 'rounds', members: 1_000, rooms: 1, workers: 2, warm, metric: 'cpu', unit: 'delivery' } as const
/** Many publications: in each round one member of each room sends a message, half of them on each worker. */
const chat = { kind: 'rounds', members: 1_000, rooms: 100, window: 1, publishers: 100, warm, metric: 'capacity', unit: 'delivery' } as const
const echo = { kind: 'echo', members: 100, rooms: 100, window: 1, warm, metric: 'capacity', unit: 'delivery' } as const
const thousand = { kind: 'rounds', members: 1_000, rooms: 1, metric: 'cpu', unit: 'delivery' } as const

export const scenarios: (Scenario & { only: string[] })[] = [
  { ...thousand, id: 'room1k-w1', title: 'One room of 1,000, window 1', window: 1 },
  { ...thousand, id: 'room1k-w64', title: 'One room of 1,000, window 64, one publisher (the server)', window: 64 },
  { ...thousand, id: 'room1k-w64-pub64', title: 'One room of 1,000, window 64, 64 publishers on sockets of their own', window: 64, publishers: 64 },
  { ...thousand, id: 'room1k-w64-pub64-ref', title: 'One room of 1,000, window 64, 64 publishers with ref: every publisher gets an ack', window: 64, publishers: 64, ref: true, only: [ours] },
  { ...thousand, id: 'room1k-w64-pub64-except', title: 'One room of 1,000, window 64, 64 publishers with except: no publisher gets its own message', window: 64, publishers: 64, except: true, only: [ours] },
  { ...thousand, id: 'room1k-w64-joins64', title: 'One room of 1,000, window 64, 64 publishers and 64 joins in each round (their own cost subtracted)', window: 64, publishers: 64, joins: 64, only: [ours] },
  { ...thousand, id: 'room1k-w64-stopped', title: 'One room of 1,000, window 64, and 10 more that have stopped reading (slow: drop)', window: 64, stopped: 10, only: [ours], setup: { slow: 'drop' } },
  { ...thousand, id: 'room1k-w1-history', title: 'One room of 1,000, window 1, that keeps its last 100 messages', window: 1, only: [ours], setup: { history: 100 } },
  { ...thousand, id: 'room1k-w64-history', title: 'One room of 1,000, window 64, one publisher (the server), that keeps its last 100 messages', window: 64, only: [ours], setup: { history: 100 } },
  { ...thousand, id: 'room1k-w10', title: 'One room of 1,000, window 10', window: 10, only: [ours] },
  { ...thousand, id: 'multiplexed-1k-x10', title: '1,000 connections with 10 topics each, one message to each topic', rooms: 10, window: 1, multiplexed: true, only: [ours] },
  { kind: 'client', id: 'client', title: 'One client in Node.js receives windows of 1,000 messages', client: 'fastify-rooms/client', members: 1, rooms: 1, window: 1_000, metric: 'cpu', unit: 'message', only: [ours] },
  { kind: 'client', id: 'client-ws', title: 'The same with a bare ws and JSON.parse', client: 'ws', members: 1, rooms: 1, window: 1_000, metric: 'cpu', unit: 'message', only: [ours] },
  { kind: 'joins', id: 'join-frame', title: 'Joining by a frame on an open connection', members: 2_000, rooms: 1, window: 0, metric: 'cpu', unit: 'join', only: [ours] },
  { kind: 'idle', id: 'idle-memory-multiplexed', title: '10,000 idle connections that have joined one topic by a frame', members: 10_000, rooms: 1, window: 0, multiplexed: true, metric: 'bytes', unit: 'connection', only: [ours] },
  { kind: 'rounds', id: 'room10k-w4', title: 'One room of 10,000, window 4', members: 10_000, rooms: 1, window: 4, metric: 'cpu', unit: 'delivery' },
  { kind: 'rounds', id: 'rooms1000x10-w1', title: '1,000 rooms of 10, window 1 each', members: 10_000, rooms: 1_000, window: 1, metric: 'cpu', unit: 'delivery' },
  { ...thousand, id: 'deflate-1k', title: 'One room of 1,000, window 1, 1 KiB of JSON, permessage-deflate', window: 1, deflate: true, setup: { large: true } },
  { ...thousand, kind: 'latency', id: 'latency', title: 'Latency: 1,000 members, 50 messages a second', window: 1, rate: 50, metric: 'p99' },
  { ...thousand, kind: 'latency', id: 'latency-stopped', title: 'Latency: 1,000 members, 50 messages a second, and 10 more that have stopped reading (slow: latest)', window: 1, rate: 50, metric: 'p99', stopped: 10, only: [ours], setup: { slow: 'latest' } },
  { kind: 'echo', id: 'echo100', title: 'Echo: 100 rooms of one, window 1 each', members: 100, rooms: 100, window: 1, metric: 'cpu', unit: 'delivery' },
  { kind: 'connect', id: 'connect', title: 'Connecting, until the member is in its room', members: 2_000, rooms: 1, window: 0, metric: 'perSecond', unit: 'connection' },
  { kind: 'idle', id: 'idle-memory', title: '10,000 idle connections', members: 10_000, rooms: 1, window: 0, metric: 'bytes', unit: 'connection' },
  { kind: 'connect', id: 'connect-lobby', title: 'Connecting to the open lobby, whose presence is announced', members: 2_000, rooms: 1, window: 0, metric: 'perSecond', unit: 'connection', setup: { lobby: true }, only: small },
  { kind: 'idle', id: 'idle-memory-lobby', title: '10,000 idle connections in the open lobby, whose presence is announced', members: 10_000, rooms: 1, window: 0, metric: 'bytes', unit: 'connection', setup: { lobby: true }, only: small },
  { kind: 'post', id: 'post', title: 'POST with no members, 64 connections', members: 0, rooms: 1, window: 0, metric: 'perSecond', unit: 'request', setup: { post: true }, only: [ours, 'fastify'] },
  { kind: 'drain', id: 'drain10k', title: 'Draining 10,000 members of one room with the defaults: 500 every 50 ms', members: 10_000, rooms: 1, window: 0, metric: 'took', unit: 'connection', only: [ours] },
  { kind: 'drain', id: 'drain10k-at-once', title: 'Draining 10,000 members of one room in one batch', members: 10_000, rooms: 1, window: 0, metric: 'took', unit: 'connection', setup: { drain: { batch: 100_000 } }, only: [ours] },
  { kind: 'storm', id: 'resume-storm', title: '10,000 members resume 100 messages each at once, while 50 others get 50 messages a second (the same joins without messages subtracted)', members: 10_000, rooms: 2, window: 0, kept: 100, rate: 50, metric: 'cpu', unit: 'delivery', only: [ours], setup: { history: 200 } },
  { kind: 'memory', id: 'history-memory', title: '10,000 topics that keep 100 messages of 200 bytes each', members: 0, rooms: 10_000, window: 0, kept: 100, metric: 'share', unit: 'message', only: [ours], setup: { history: 100, payload: 200 } },
  { kind: 'polls', id: 'polls', title: '1,000 waiting long polls, answered by one message', members: 1_000, rooms: 1, window: 0, metric: 'cpu', unit: 'answer', only: [ours, 'fastify'], setup: { history: 100 } },
  { ...fleet, id: 'fleet-w1', title: 'Two servers with Redis between them, one room of 500 members on each, window 1', window: 1, only: fleetServers },
  { ...fleet, id: 'fleet-w64', title: 'The same, window 64', window: 64, only: fleetServers },
  { ...fleet, id: 'fleet-w1-history', title: 'Two servers with Redis between them, one room of 500 members on each that keeps its last 100 messages, window 1', window: 1, only: fleetServers, setup: { history: 100 } },
  { ...fleet, id: 'fleet-w64-history', title: 'The same, window 64', window: 64, only: fleetServers, setup: { history: 100 } },
  { ...fleet, id: 'fleet-redis', title: 'The Redis server of two servers with one member each, window 1', members: 2, window: 1, metric: 'redis', only: fleetServers },
  { ...fleet, id: 'fleet-redis-history', title: 'The same, in a room that keeps its last 100 messages', members: 2, window: 1, metric: 'redis', only: fleetServers, setup: { history: 100 } },
  { ...fleet, kind: 'latency', id: 'fleet-latency', title: 'Latency over two servers: 500 members on each, 50 messages a second', window: 1, rate: 50, metric: 'p99', only: fleetServers },
  { ...fleet, kind: 'latency', id: 'fleet-latency-history', title: 'The same, in a room that keeps its last 100 messages', window: 1, rate: 50, metric: 'p99', only: fleetServers, setup: { history: 100 } },
  { ...cluster, id: 'cluster-w1', title: 'Two workers of node:cluster, one room of 500 members on each, window 1', window: 1, only: fleetServers },
  { ...cluster, id: 'cluster-w64', title: 'The same, window 64', window: 64, only: fleetServers },
  { ...cluster, id: 'cluster-w1-history', title: 'Two workers of node:cluster, one room of 500 members on each that keeps its last 100 messages, window 1', window: 1, only: fleetServers, setup: { history: 100 } },
  { ...cluster, id: 'cluster-w64-history', title: 'The same, window 64', window: 64, only: fleetServers, setup: { history: 100 } },
  { ...cluster, id: 'cluster-w1-alone', title: 'The load of cluster-w1 on one process', workers: undefined, window: 1, metric: 'capacity', only: fleetServers },
  { ...chat, id: 'cluster-chat', title: 'Two workers of node:cluster, 100 rooms with 5 members on each, in each of which one member sends a message', workers: 2, only: fleetServers },
  { ...chat, id: 'cluster-chat-alone', title: 'The same load on one process', only: fleetServers },
  { ...echo, id: 'cluster-echo', title: 'Two workers of node:cluster, echo: 50 rooms of one on each, window 1 each', workers: 2, only: fleetServers },
  { ...echo, id: 'cluster-echo-alone', title: 'The same load on one process', only: fleetServers },
  { ...cluster, id: 'cluster-primary2', title: 'The primary of 2 workers with one member each, window 10', members: 2, workers: 2, window: 10, metric: 'primary', only: fleetServers },
  { ...cluster, id: 'cluster-primary8', title: 'The primary of 8 workers with one member each, window 10', members: 8, workers: 8, window: 10, warm: 0.5, metric: 'primary', only: fleetServers },
  { ...thousand, id: 'redis-alone-w64', title: 'One server alone with Redis, a room of 1,000 that keeps nothing, window 64', window: 64, redis: true, only: [ours] },
  { kind: 'storm', id: 'fleet-storm', title: '2,000 members resume 100 messages each on another server, while 50 others get 50 messages a second (the same joins without messages subtracted)', members: 2_000, rooms: 2, nodes: 2, redis: true, window: 0, kept: 100, rate: 50, metric: 'cpu', unit: 'delivery', only: [ours], setup: { history: 200 } },
  { kind: 'storm', id: 'fleet-storm-second', title: '2,000 members connect to another server within a second, and resume 100 messages each, while 50 others get 50 messages a second (the same joins without messages subtracted)', members: 2_000, rooms: 2, nodes: 2, redis: true, window: 0, kept: 100, spread: 1_000, rate: 50, metric: 'cpu', unit: 'delivery', only: [ours], setup: { history: 200 } },
  { kind: 'memory', id: 'redis-memory', title: '1,000 topics that keep 100 messages of 200 bytes each in Redis', members: 0, rooms: 1_000, redis: true, window: 0, kept: 100, metric: 'share', unit: 'message', only: [ours], setup: { history: 100, payload: 200 } },
  { ...thousand, id: 'sse-w1', title: 'Event streams: one room of 1,000, window 1', window: 1, sse: true, only: streams },
  { ...thousand, id: 'sse-w64', title: 'Event streams: one room of 1,000, window 64', window: 64, sse: true, only: streams },
  { kind: 'idle', id: 'idle-sse', title: 'Event streams: 10,000 idle connections', members: 10_000, rooms: 1, window: 0, metric: 'bytes', unit: 'connection', sse: true, only: streams }
].map(scenario => ({ only: servers, ...scenario } as Scenario & { only: string[] }))

export interface Target {
  scenario: string
  /** A peer in the same scenario, the package itself in another one, or another figure of the same runs; a text tells the meaning of a figure that is a ratio itself. */
  against: { peer: string } | { scenario: string } | { figure: keyof Figures, named: string } | { named: string }
  /** The figure that is compared, if it is not the scenario's own. */
  figure?: keyof Figures
  /** The bound of the package's figure divided by the other. */
  bound: number
  at: 'most' | 'least'
}

const most = (scenario: string, bound: number, ...against: string[]): Target[] => against.map(peer => ({ scenario, against: { peer }, bound, at: 'most' }))
const least = (scenario: string, bound: number, peer: string): Target => ({ scenario, against: { peer }, bound, at: 'least' })
const beside = (scenario: string, bound: number, other: string): Target => ({ scenario, against: { scenario: other }, bound, at: 'most' })

export const targets: Target[] = [
  ...most('room1k-w64', 0.8, 'bun'),
  ...most('room1k-w64', 0.6, 'uWebSockets.js'),
  ...most('room1k-w64', 1 / 40, 'ws', 'socket.io'),
  ...most('room1k-w64-pub64', 1.1, 'bun'),
  ...most('room1k-w64-pub64', 0.3, 'uWebSockets.js'),
  beside('room1k-w64-pub64-ref', 1.5, 'room1k-w64-pub64'),
  beside('room1k-w64-pub64-except', 1.5, 'room1k-w64-pub64'),
  beside('room1k-w64-joins64', 1.5, 'room1k-w64-pub64'),
  beside('room1k-w64-stopped', 1.1, 'room1k-w64'),
  beside('room1k-w1-history', 1.03, 'room1k-w1'),
  beside('room1k-w64-history', 1.15, 'room1k-w64'),
  beside('multiplexed-1k-x10', 1.15, 'room1k-w10'),
  beside('client', 1.25, 'client-ws'),
  { scenario: 'join-frame', against: { scenario: 'connect' }, figure: 'cpu', bound: 0.25, at: 'most' },
  beside('latency-stopped', 1.1, 'latency'),
  beside('resume-storm', 0.1, 'room1k-w1'),
  { scenario: 'resume-storm', figure: 'p99', against: { figure: 'joinsP99', named: 'the p99 of the other members during joins that replay nothing' }, bound: 2, at: 'most' },
  { scenario: 'resume-storm', figure: 'p99', against: { figure: 'calmP99', named: 'the p99 of the other members without joins' }, bound: 2, at: 'most' },
  { scenario: 'history-memory', against: { named: 'the bytes of the messages' }, bound: 1.5, at: 'most' },
  ...most('polls', 1.5, 'fastify'),
  ...['fleet-w1', 'fleet-w1-history'].flatMap(id => most(id, 0.6, 'socket.io', 'socket.io (sharded)')),
  ...['fleet-w64', 'fleet-w64-history'].flatMap(id => most(id, 0.05, 'socket.io', 'socket.io (sharded)')),
  ...['fleet-redis', 'fleet-w64'].map((id): Target => ({ scenario: id, figure: 'redis', against: { peer: 'socket.io' }, bound: 1.1, at: 'most' })),
  ...['fleet-redis-history', 'fleet-w64-history'].map((id): Target => ({ scenario: id, figure: 'redis', against: { peer: 'socket.io' }, bound: 2, at: 'most' })),
  ...['fleet-latency', 'fleet-latency-history'].flatMap(id => most(id, 1, 'socket.io')),
  ...['cluster-w1', 'cluster-w1-history'].flatMap(id => most(id, 0.9, 'socket.io')),
  ...['cluster-w64', 'cluster-w64-history'].flatMap(id => most(id, 0.06, 'socket.io')),
  { scenario: 'cluster-w1', against: { scenario: 'cluster-w1-alone' }, figure: 'capacity', bound: 1.6, at: 'least' },
  { scenario: 'cluster-chat', figure: 'primary', against: { peer: 'socket.io' }, bound: 0.7, at: 'most' },
  ...['cluster-primary2', 'cluster-primary8'].flatMap(id => most(id, 1.6, 'socket.io')),
  beside('redis-alone-w64', 1.3, 'room1k-w64'),
  { scenario: 'fleet-storm', figure: 'p99', against: { figure: 'calmP99', named: 'the p99 of the other members without joins' }, bound: 3, at: 'most' },
  { scenario: 'fleet-storm-second', figure: 'p99', against: { figure: 'calmP99', named: 'the p99 of the other members without joins' }, bound: 3, at: 'most' },
  { scenario: 'redis-memory', against: { named: 'the bytes of the messages' }, bound: 1.6, at: 'most' },
  beside('sse-w1', 1.05, 'room1k-w1'),
  beside('sse-w64', 1.05, 'room1k-w64'),
  ...most('sse-w64', 0.1, '@fastify/sse'),
  beside('idle-sse', 1.3, 'idle-memory'),
  ...most('room1k-w1', 0.9, 'ws'),
  ...most('room1k-w1', 0.55, 'socket.io'),
  ...most('room1k-w1', 1.2, 'uWebSockets.js'),
  ...most('room10k-w4', 0.25, 'ws'),
  ...most('room10k-w4', 1.05, 'bun'),
  ...most('rooms1000x10-w1', 0.7, 'ws'),
  ...most('rooms1000x10-w1', 1, 'uWebSockets.js'),
  ...most('deflate-1k', 1 / 12, 'ws'),
  ...most('deflate-1k', 0.35, 'uWebSockets.js', 'bun'),
  ...most('latency', 1, 'ws'),
  ...most('echo100', 1.1, 'ws'),
  ...most('idle-memory', 1, 'ws'),
  ...most('idle-memory-lobby', 1, 'ws'),
  least('connect', 1, '@fastify/websocket'),
  least('connect-lobby', 0.8, '@fastify/websocket'),
  least('post', 0.9, 'fastify')
]
