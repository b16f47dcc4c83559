/** Longest topic name, in characters (all of them ASCII, so bytes too). */
export const maxTopicLength = 255

/** The characters of a topic name: RFC 3986 unreserved plus the colon that separates a family from its member. */
export const topicCharacters = 'A-Za-z0-9_.:~-'

const pattern = new RegExp(`^[${topicCharacters}]{1,${maxTopicLength}}$`)

/** Whether a string is a well-formed topic name. */
export function isTopicName (name: unknown): name is string {
  // A path segment of dots never arrives: every client resolves it away (RFC 3986 5.2.4).
  return typeof name === 'string' && pattern.test(name) && name !== '.' && name !== '..'
}
