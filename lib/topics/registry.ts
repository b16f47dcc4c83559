import type { SlowPolicy, TopicMap, TopicOptions, TopicsAsData } from '../../types/index.ts'
import { FST_ROOMS_INVALID_SCHEMA, FST_ROOMS_INVALID_TOPIC_OPTION, FST_ROOMS_NO_SUCH_TOPIC } from '../errors.ts'
import { asError } from '../error-utils.ts'
import { anyPayload, type CompilePayload, type PayloadType } from './payload.ts'
import { isTopicName, maxTopicLength } from '../protocol/topic-name.ts'
import { explainFault, schemaFault } from '../schema/fault.ts'

/** Declares topics. Returns its argument: what it does is to keep the names and schemas as literal types. */
export function defineTopics<const T extends TopicMap> (topics: T & TopicsAsData<T>): T {
  return topics
}

/** What happens to a member for which more than so many bytes wait. */
export interface SlowRule {
  readonly policy: SlowPolicy | ((session: never, backlog: { bytes: number }) => unknown)
  readonly bytes: number
}

/** What the options say for topics that do not say it themselves. */
export interface TopicDefaults {
  readonly limits: { readonly payload: number, readonly messages: number, readonly per: number, readonly topicLength: number }
  readonly slow: SlowRule
}

/** A topic, or a family of them, as compiled. */
export interface TopicDefinition {
  /** As declared; `*` for the open lobby. */
  readonly key: string
  /** The exact name, or for a family what stands before its `*`. */
  readonly stem: string
  readonly family: boolean
  readonly message: PayloadType
  /** `null`: members may not publish. */
  readonly publish: PayloadType | null
  /** Members send something else than members receive. */
  readonly converted: boolean
  /** `null`: joins and leaves are not announced. */
  readonly presence: PayloadType | null
  /** The path of the broadcast route where it is not the topic's own URL. */
  readonly post: boolean | string
  readonly maxMembers: number
  readonly maxPayload: number
  /** Frames of one member: how many in how many milliseconds. */
  readonly rate: { readonly capacity: number, readonly per: number }
  readonly slow: SlowRule
}

function define (key: string, options: TopicOptions, compile: CompilePayload, defaults: TopicDefaults): TopicDefinition {
  const family = key.endsWith('*')
  const stem = family ? key.slice(0, -1) : key
  if (!isTopicName(family ? `${stem}x` : stem)) {
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, `a name is 1 to ${maxTopicLength} characters of letters, digits and _ . : ~ -, a family is one with a trailing *`)
  }
  const { topicLength } = defaults.limits
  if (stem.length + (family ? 1 : 0) > topicLength) throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, `a name has at most ${topicLength} characters here (limits.topicLength)`)
  if (family && typeof options.post === 'string') {
    throw new FST_ROOMS_INVALID_TOPIC_OPTION(key, 'the path in "post" is for one topic: a family takes true')
  }

  const compiled = (option: 'message' | 'publish' | 'presence'): PayloadType => {
    const schema = options[option]
    if (schema === undefined || schema === true) return anyPayload
    const fault = schemaFault(schema)
    if (fault !== null) throw new FST_ROOMS_INVALID_SCHEMA(key, option, fault)
    try {
      return compile(schema)
    } catch (error) {
      throw new FST_ROOMS_INVALID_SCHEMA(key, option, explainFault(schema, asError(error).message))
    }
  }
  const message = compiled('message')
  const { members = Infinity, payload, messages, per } = { ...defaults.limits, ...options.limits }
  const same = options.publish === true || options.publish === options.message
  return {
    key,
    stem,
    family,
    message,
    publish: options.publish === undefined ? null : same ? message : compiled('publish'),
    converted: options.publish !== undefined && !same,
    presence: options.presence === undefined ? null : compiled('presence'),
    post: options.post ?? false,
    maxMembers: members,
    maxPayload: payload,
    rate: { capacity: messages, per },
    slow: { policy: options.slow?.policy ?? defaults.slow.policy, bytes: options.slow?.bytes ?? defaults.slow.bytes }
  }
}

/** Which topics exist, and what is known of each. */
export class TopicRegistry {
  readonly definitions: readonly TopicDefinition[]
  /** No topics were declared: any well-formed name is one. */
  readonly open: boolean
  readonly #exact = new Map<string, TopicDefinition>()
  readonly #families: TopicDefinition[] = []
  readonly #topicLength: number

  /** @throws FST_ROOMS_INVALID_TOPIC_OPTION, FST_ROOMS_INVALID_SCHEMA */
  constructor (topics: TopicMap | undefined, compile: CompilePayload, defaults: TopicDefaults) {
    this.open = topics === undefined
    this.#topicLength = defaults.limits.topicLength
    this.definitions = Object.entries(topics ?? { '*': { publish: true, presence: true, post: true } }).map(([key, options]) => define(key, options, compile, defaults))
    for (const definition of this.definitions) {
      if (!definition.family) {
        this.#exact.set(definition.key, definition)
        continue
      }
      const other = this.#families.find(({ stem }) => stem.startsWith(definition.stem) || definition.stem.startsWith(stem))
      if (other !== undefined) throw new FST_ROOMS_INVALID_TOPIC_OPTION(definition.key, `it overlaps with the family "${other.key}"`)
      this.#families.push(definition)
    }
  }

  /** The definition that a name falls under: an exact one before a family. */
  find (topic: unknown): TopicDefinition | undefined {
    if (!isTopicName(topic) || topic.length > this.#topicLength) return undefined
    return this.#exact.get(topic) ?? this.#families.find(({ stem }) => topic.length > stem.length && topic.startsWith(stem))
  }

  /** @throws FST_ROOMS_NO_SUCH_TOPIC */
  get (topic: unknown): TopicDefinition {
    const definition = this.find(topic)
    if (definition === undefined) throw new FST_ROOMS_NO_SUCH_TOPIC(String(topic).slice(0, maxTopicLength))
    return definition
  }
}
