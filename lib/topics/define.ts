import type { TopicMap, TopicsAsData } from '../../types/topics.ts'

/** Declares topics. Returns its argument; its type parameter keeps names and schemas as literal types. */
export function defineTopics<const T extends TopicMap> (topics: T & TopicsAsData<T>): T {
  return topics
}
