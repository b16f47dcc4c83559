import type { SlowPolicy, TopicHistory, TopicOptions } from '../../types/index.ts'
import { FST_ROOMS_INVALID_SCHEMA, FST_ROOMS_INVALID_TOPIC_OPTION } from '../errors.ts'
import { asError } from '../error-utils.ts'
import { historyRule, streamRule, type HistoryRule } from '../history/rule.ts'
import { anyPayload, type CompilePayload, type PayloadType } from './payload.ts'
import { readPresence } from './presence.ts'
import { isTopicName, maxTopicLength } from '../protocol/topic-name.ts'
import { explainFault, schemaFault } from '../schema/fault.ts'

/** The policy for a member with more than `bytes` buffered bytes. */
export interface SlowRule {
  readonly policy: SlowPolicy | ((session: never, backlog: { bytes: number }) => unknown)
  readonly bytes: number
}

/** The options that hold for a topic unless it overrides them. */
export interface TopicDefaults {
  readonly limits: { readonly payload: number, readonly messages: number, readonly per: number, readonly topicLength: number }
  readonly slow: SlowRule
  readonly history: boolean | TopicHistory
}

/** A compiled topic, or a compiled family of topics. */
export interface TopicDefinition {
  /** The key of the topic map; `*` for the open lobby. */
  readonly key: string
  /** The exact name; for a family the part before its `*`. */
  readonly stem: string
  readonly family: boolean
  readonly message: PayloadType
  /** `null` if members may not publish. */
  readonly publish: PayloadType | null
  /** Whether members send another type than they receive, so that `onMessage` has to convert. */
  readonly converted: boolean
  /** `null` if joins and leaves are not announced. */
  readonly presence: PayloadType | null
  /** Milliseconds for which the leave of a user is not told, because the user may come back; 0: told at once. */
  readonly grace: number
  /** Whether there is a broadcast route; its path, unless that is the topic's own URL. */
  readonly post: boolean | string
  readonly maxMembers: number
  /** Bytes. */
  readonly maxPayload: number
  /** Frames of one member: `capacity` within `per` milliseconds. */
  readonly rate: { readonly capacity: number, readonly per: number }
  readonly slow: SlowRule
  /** `null` if no messages are kept. */
  readonly history: HistoryRule | null
  /** `local`: while the broker does not accept a message, the members of this node get it alone. */
  readonly outage: 'wait' | 'local'
  /** The topic is a stream: it has one producer, and ends. */
  readonly stream: boolean
}

/** Returns the fault of the options of a stream; `undefined` if there is none. */
function streamFault ({ publish, history, outage }: TopicOptions): string | undefined {
  if (publish !== undefined) return 'a stream has one producer, which is the host: its members may not publish, so give no "publish"'
  if (history === false) return 'a stream keeps its messages, so that readers can come back: "history: false" is not possible'
  if (outage === 'local') return 'a stream fails if the broker does not accept its messages: "outage: \'local\'" is not possible'
  return typeof history === 'object' && history.latest === true ? 'a stream keeps all of its messages in order: "history.latest" is not possible' : undefined
}

/**
 * Compiles one entry of a topic map.
 * @throws FST_ROOMS_INVALID_TOPIC_OPTION, FST_ROOMS_INVALID_SCHEMA
 */
export function compileTopic (key: string, options: TopicOptions, compile: CompilePayload, defaults: TopicDefaults): TopicDefinition {
  const family = key.endsWith('*')
  const stem = family ? key.slice(0, -1) : key
  if (!isTopicName(family ? `${stem}x` : stem)) {
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, `a name is 1 to ${maxTopicLength} characters of letters, digits and _ . : ~ -, a family is a name with a trailing *`)
  }
  const { topicLength } = defaults.limits
  if (stem.length + (family ? 1 : 0) > topicLength) throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, `a name has at most ${topicLength} characters here (limits.topicLength)`)
  if (family && typeof options.post === 'string') {
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, 'a path in "post" is for one topic: for a family give true')
  }

  const fault = options.stream === true ? streamFault(options) : undefined
  if (fault !== undefined) throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, fault)

  const compiled = (option: 'message' | 'publish' | 'presence', schema: true | object | undefined): PayloadType => {
    if (schema === undefined || schema === true) return anyPayload
    const fault = schemaFault(schema)
    if (fault !== null) throw new FST_ROOMS_INVALID_SCHEMA(key, option, fault)
    try {
      return compile(schema)
    } catch (error) {
      throw new FST_ROOMS_INVALID_SCHEMA(key, option, explainFault(schema, asError(error).message))
    }
  }
  const message = compiled('message', options.message)
  const { members = Infinity, payload, messages, per } = { ...defaults.limits, ...options.limits }
  const same = options.publish === true || options.publish === options.message
  return {
    key,
    stem,
    family,
    message,
    publish: options.publish === undefined ? null : same ? message : compiled('publish', options.publish),
    converted: options.publish !== undefined && !same,
    ...(options.presence === undefined ? { presence: null, grace: 0 } : readPresence(key, options.presence, schema => compiled('presence', schema), compile)),
    post: options.post ?? false,
    maxMembers: members,
    maxPayload: payload,
    rate: { capacity: messages, per },
    slow: { policy: options.slow?.policy ?? defaults.slow.policy, bytes: options.slow?.bytes ?? defaults.slow.bytes },
    history: options.stream === true ? streamRule(options.history) : historyRule(options.history ?? defaults.history),
    outage: options.outage ?? 'wait',
    stream: options.stream === true
  }
}
