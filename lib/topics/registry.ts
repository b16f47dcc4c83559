import type { TopicMap } from '../../types/index.ts'
import { FST_ROOMS_INVALID_TOPIC_OPTION, FST_ROOMS_NO_SUCH_TOPIC } from '../errors.ts'
import { compileTopic, type TopicDefaults, type TopicDefinition } from './compile.ts'
import type { CompilePayload } from './payload.ts'
import { isTopicName, maxTopicLength } from '../protocol/topic-name.ts'

export type { SlowRule, TopicDefinition } from './compile.ts'

/** The topics of a topic map, compiled. */
export class TopicRegistry {
  readonly definitions: readonly TopicDefinition[]
  /** Whether no topics were declared, so that any well-formed name is a topic. */
  readonly open: boolean
  readonly #exact = new Map<string, TopicDefinition>()
  readonly #families: TopicDefinition[] = []
  readonly #topicLength: number

  /** @throws FST_ROOMS_INVALID_TOPIC_OPTION, FST_ROOMS_INVALID_SCHEMA */
  constructor (topics: TopicMap | undefined, compile: CompilePayload, defaults: TopicDefaults) {
    this.open = topics === undefined
    this.#topicLength = defaults.limits.topicLength
    this.definitions = Object.entries(topics ?? { '*': { publish: true, presence: true, post: true } }).map(([key, options]) => compileTopic(key, options, compile, defaults))
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

  /** Returns the definition that a name falls under: an exact name goes before a family. */
  find (topic: unknown): TopicDefinition | undefined {
    if (!isTopicName(topic) || topic.length > this.#topicLength) return undefined
    return this.#exact.get(topic) ?? this.#families.find(({ stem }) => topic.length > stem.length && topic.startsWith(stem))
  }

  /**
   * Returns the definition that a name falls under.
   * @throws FST_ROOMS_NO_SUCH_TOPIC
   */
  get (topic: unknown): TopicDefinition {
    const definition = this.find(topic)
    if (definition === undefined) throw new FST_ROOMS_NO_SUCH_TOPIC(String(topic).slice(0, maxTopicLength))
    return definition
  }
}
