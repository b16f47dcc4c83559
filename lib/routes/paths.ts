import type { TopicDefinition, TopicRegistry } from '../topics/registry.ts'

/** Escapes a literal for find-my-way, in which a colon begins a parameter. */
function literal (text: string): string {
  return text.replaceAll(':', '::')
}

/** Returns names as a regular expression. The dot is the only character of topic names that has to be escaped. */
function pattern (names: string[]): string {
  return names.map(name => name.replaceAll('.', '\\.')).join('|')
}

/**
 * Returns the paths of a topic's URL. A topic with a colon has two, because a client may percent-encode the colon, and the router compares
 * literals without decoding them (a `%` in a literal stands for an encoded one). The second path begins with an empty parameter, which makes
 * the segment a pattern that is compared after decoding.
 */
export function topicPaths ({ definitions }: TopicRegistry, { stem, family }: TopicDefinition): string[] {
  const path = literal(stem)
  if (!stem.includes(':')) return [`/${path}${family ? ':topic' : ''}`]
  if (!family) return [`/${path}`, `/:empty()${path}`]
  // The pattern of a family excludes exact names, because the router does not order the patterns of one segment.
  const exact = definitions.filter(other => !other.family && other.key.startsWith(stem)).map(({ key }) => key.slice(stem.length))
  const rest = exact.length === 0 ? '.+' : `(?!(?:${pattern(exact)})$).+`
  return [`/${path}:topic`, `/:empty()${path}:topic(${rest})`]
}
