import type { BrokerState, Health, Stats } from '../../types/index.ts'
import type { Histogram } from './histogram.ts'
import type { Labels, MetricDescription, Sample } from './metric.ts'

/** The values of one scrape. */
export interface Reading extends Stats {
  health: Health
  fanOuts: Histogram
  /** Members by key of the topic map, for the topics in the options. */
  topicMembers: ReadonlyMap<string, number>
  /** Broadcasts by key of the topic map, for the topics in the options. */
  topicBroadcasts: ReadonlyMap<string, number>
}

export interface Entry extends MetricDescription {
  read: (reading: Reading, name: string) => Sample[]
  /** Present only if the host gave `topics`. */
  perTopic?: true
}

const states: readonly BrokerState[] = ['up', 'degraded', 'down']

const one = (value: number, labels: Labels = {}): Sample[] => [{ value, labels }]

function gauge (help: string, read: (reading: Reading) => number): Entry {
  return { type: 'gauge', help, aggregator: 'sum', labelNames: [], read: reading => one(read(reading)) }
}

/** A gauge of 1 or 0. For several workers it is 1 if it is 1 in each. */
function flag (help: string, read: (reading: Reading) => boolean): Entry {
  return { type: 'gauge', help, aggregator: 'min', labelNames: [], read: reading => one(read(reading) ? 1 : 0) }
}

/** A gauge that is that of the worst worker, for several of them. */
function worst (help: string, read: (reading: Reading) => number): Entry {
  return { type: 'gauge', help, aggregator: 'max', labelNames: [], read: reading => one(read(reading)) }
}

function counter (help: string, read: (reading: Reading) => number): Entry {
  return { type: 'counter', help, aggregator: 'sum', labelNames: [], read: reading => one(read(reading)) }
}

function byTopic (type: 'gauge' | 'counter', help: string, read: (reading: Reading) => ReadonlyMap<string, number>): Entry {
  return { type, help, aggregator: 'sum', labelNames: ['topic'], perTopic: true, read: reading => [...read(reading)].flatMap(([topic, value]) => one(value, { topic })) }
}

/** The metrics by name, without the prefix. */
export const catalogue: Readonly<Record<string, Entry>> = {
  connections: gauge('Open connections, those still joining included', ({ connections }) => connections),
  members: gauge('Members of all rooms', ({ members }) => members),
  topics: gauge('Rooms with a member, a subscriber or a request that waits', ({ topics }) => topics),
  queued_bytes: gauge('Bytes written to sockets that the operating system has not taken yet', ({ queuedBytes }) => queuedBytes),
  working: gauge('Asynchronous calls of onMessage and onDirect that have not finished', ({ working }) => working),
  lagging: gauge('Slow members, which get no messages of their room until they have read the buffered bytes', ({ lagging }) => lagging),
  publishing: gauge('Publications that the broker has not answered', ({ publishing }) => publishing),
  waiting: gauge('Requests that wait for a message', ({ waiting }) => waiting),
  streams: gauge('Streams whose producer is in this process', ({ streams }) => streams),
  history_topics: gauge('Topics with kept messages in this process', ({ history }) => history.topics),
  history_messages: gauge('Messages that topics keep in this process', ({ history }) => history.messages),
  history_bytes: gauge('Bytes of the messages that topics keep in this process', ({ history }) => history.bytes),
  ready: flag('Whether joins are accepted and the broker is up', ({ health }) => health.ok),
  broker_up: flag('Whether the broker is up', ({ health }) => health.broker === 'up'),
  broker_state: { type: 'gauge', help: '1 for the state of the broker, 0 for its other states', aggregator: 'sum', labelNames: ['state'], read: ({ broker }) => states.flatMap(state => one(broker.state === state ? 1 : 0, { state })) },
  broker_state_seconds: worst('Time for which the broker has been in its state', ({ broker }) => broker.stateFor / 1_000),
  broker_lag_seconds: worst('Time that the server of the broker took for its last answer to a probe, or that a probe has waited', ({ broker }) => broker.lag / 1_000),
  broker_queued_publications: gauge('Publications that the server of the broker has not answered', ({ broker }) => broker.queued),
  broker_queued_bytes: gauge('Bytes of the publications that the server of the broker has not answered', ({ broker }) => broker.queuedBytes),
  broker_topics: gauge('Topics that the broker delivers to this process, and those that linger after the last member has left', ({ broker }) => broker.topics),
  joins_total: counter('Sessions that became members', ({ joined }) => joined),
  recovered_joins_total: counter('Joins with a position after which the member got every message', ({ recovered }) => recovered),
  unrecovered_joins_total: counter('Joins with a position after which messages were missing', ({ unrecovered }) => unrecovered),
  replayed_messages_total: counter('Kept messages queued to members that joined', ({ replayed }) => replayed),
  history_evictions_total: counter('Topics that lost kept messages over limits.history', ({ history }) => history.evicted),
  broadcasts_total: counter('Messages to rooms, from code, broadcast routes and members', ({ broadcasts }) => broadcasts),
  duplicates_total: counter('Messages that had been accepted before, and were answered with the first result', ({ duplicates }) => duplicates),
  deliveries_total: counter('Messages queued to members by broadcasts', ({ deliveries }) => deliveries),
  directs_total: counter('Private messages queued to members', ({ directs }) => directs),
  received_frames_total: counter('Frames from members', ({ received }) => received),
  received_bytes_total: counter('Bytes of frames from members', ({ receivedBytes }) => receivedBytes),
  pauses_total: counter('Times that reading from a member was paused', ({ paused }) => paused),
  sent_bytes_total: counter('Bytes of frames queued to members', ({ sentBytes }) => sentBytes),
  invalid_frames_total: counter('Frames and payloads from members that were refused', ({ invalid }) => invalid),
  refused_joins_total: counter('Joins refused after the upgrade', ({ refused }) => refused),
  refusals_total: { type: 'counter', help: 'Joins, broadcasts over HTTP and frames of members that were refused, by reason', aggregator: 'sum', labelNames: ['reason'], read: ({ refusals }) => Object.entries(refusals).flatMap(([reason, value]) => one(value, { reason })) },
  slow_closes_total: counter('Slow members that were closed', ({ slow }) => slow),
  dropped_messages_total: counter('Messages that slow members did not get', ({ dropped }) => dropped),
  conflated_messages_total: counter('Messages that slow members did not get, because a newer one of the same key replaced them', ({ conflated }) => conflated),
  silent_closes_total: counter('Connections ended because the peer was silent', ({ silent }) => silent),
  expired_closes_total: counter('Sessions ended because their credentials had expired', ({ expired }) => expired),
  errors_total: counter('Errors of hooks', ({ errors }) => errors),
  unanswered_publications_total: counter('Publications, and messages to other nodes, that the broker has not answered in time', ({ unanswered }) => unanswered),
  repeated_entries_total: counter('Entries of the broker that arrived twice or late, and were not delivered', ({ repeated }) => repeated),
  losses_total: counter('Times that the members of a topic were told that messages may be missing', ({ losses }) => losses),
  broker_faults_total: counter('Times that the broker broke its contract', ({ brokerFaults }) => brokerFaults),
  unreadable_node_messages_total: counter('Messages of other nodes that were ignored, because they are of another version or damaged', ({ unreadable }) => unreadable),
  broker_outages_total: counter('Times that the broker was up, and then was no longer', ({ broker }) => broker.outages),
  broker_outcomes_total: { type: 'counter', help: 'Publications that have been settled, by outcome', aggregator: 'sum', labelNames: ['outcome'], read: ({ broker }) => Object.entries(broker.outcomes).flatMap(([outcome, value]) => one(value, { outcome })) },
  broker_entries_total: counter('Entries that the broker has brought for topics with a room here', ({ broker }) => broker.entries),
  broker_reconnects_total: counter('Connections of the broker to its server that were made again', ({ broker }) => broker.reconnects),
  broker_resubscribed_topics_total: counter('Topics whose subscription was made again', ({ broker }) => broker.resubscribed),
  broker_missed_probes_total: counter('Probes that the server of the broker has not answered in time', ({ broker }) => broker.missedProbes),
  broker_mended_holes_total: counter('Holes in the order of a topic that were filled from kept messages', ({ broker }) => broker.mended),
  broker_lost_holes_total: counter('Holes in the order of a topic that could not be filled, and were told', ({ broker }) => broker.holes),
  broker_resets_total: counter('Topics that have begun a new epoch, because the server had lost data', ({ broker }) => broker.resets),
  broker_fenced_calls_total: counter('Calls that were sent twice, and recognised by their fence', ({ broker }) => broker.fenced),
  broker_dropped_entries_total: counter('Entries that the broker dropped, because too many waited', ({ broker }) => broker.dropped),
  broker_unreadable_entries_total: counter('Entries of the broker that could not be read', ({ broker }) => broker.unreadable),
  fan_out_seconds: { type: 'histogram', help: 'Time to write the frames that a room queued in one turn of the event loop to all members', aggregator: 'sum', labelNames: ['le'], read: ({ fanOuts }, name) => fanOuts.samples(name) },
  topic_members: byTopic('gauge', 'Members of the topics under a key', ({ topicMembers }) => topicMembers),
  topic_broadcasts_total: byTopic('counter', 'Messages to the topics under a key', ({ topicBroadcasts }) => topicBroadcasts)
}

/** Names of the package's own labels. */
export const ownLabels: ReadonlySet<string> = new Set(Object.values(catalogue).flatMap(({ labelNames }) => labelNames))
