/** Longest topic name, in characters (all of them ASCII, so bytes too). */
export const maxTopicLength = 255

/** The characters of a topic name: those that RFC 3986 calls unreserved, and the colon. */
export const topicCharacters = 'A-Za-z0-9_.:~-'

const pattern = new RegExp(`^[${topicCharacters}]{1,${maxTopicLength}}$`)

/** Whether a string is a well-formed topic name. */
export function isTopicName (name: unknown): name is string {
  // `.` and `..` are excluded, because clients remove such path segments from a URL (RFC 3986 5.2.4).
  return typeof name === 'string' && pattern.test(name) && name !== '.' && name !== '..'
}
