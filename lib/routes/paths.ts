import type { TopicDefinition } from '../topics.ts'

/** A literal of find-my-way: a colon would begin a parameter. */
function literal (text: string): string {
  return text.replaceAll(':', '::')
}

/**
 * The paths of a topic's URL. The router compares a literal as it is sent, so a colon has its percent-encoded twins (RFC 3986
 * 2.1: both cases of the hex digits are the same); the parameter of a family it decodes by itself.
 */
export function topicPaths ({ stem, family }: TopicDefinition): string[] {
  const spellings = new Set([literal(stem), stem.replaceAll(':', '%3A'), stem.replaceAll(':', '%3a')])
  return [...spellings].map(spelling => `/${spelling}${family ? ':topic' : ''}`)
}
