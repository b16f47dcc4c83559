import type { TopicDefinition, TopicRegistry } from '../topics/registry.ts'

/** A literal of find-my-way: a colon would begin a parameter. */
function literal (text: string): string {
  return text.replaceAll(':', '::')
}

/** Names as a regular expression. Of the characters of a topic name only the dot means more than itself. */
function pattern (names: string[]): string {
  return names.map(name => name.replaceAll('.', '\\.')).join('|')
}

/**
 * The paths of a topic's URL. A colon may also arrive percent-encoded, which the router leaves as it is where it compares literals
 * (and a `%` in a literal of ours stands for an encoded one): so the twin begins with a parameter, an empty one, which makes the
 * whole segment a pattern that is compared after decoding.
 */
export function topicPaths ({ definitions }: TopicRegistry, { stem, family }: TopicDefinition): string[] {
  const path = literal(stem)
  if (!stem.includes(':')) return [`/${path}${family ? ':topic' : ''}`]
  if (!family) return [`/${path}`, `/:empty()${path}`]
  // Patterns of one segment have no order among them, and an exact name goes before a family.
  const exact = definitions.filter(other => !other.family && other.key.startsWith(stem)).map(({ key }) => key.slice(stem.length))
  const rest = exact.length === 0 ? '.+' : `(?!(?:${pattern(exact)})$).+`
  return [`/${path}:topic`, `/:empty()${path}:topic(${rest})`]
}
