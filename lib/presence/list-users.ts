import type { UserMember } from '../../types/index.ts'
import type { PresentMember } from './roster.ts'

function describeUser (user: string, { info }: PresentMember, sessions: string[]): UserMember {
  return { user, ...(info === undefined ? {} : { info }), sessions }
}

/**
 * Returns the users of one topic, each once.
 * @param members - the open members of the topic
 * @param held - members that have left and are still shown, the latest at the end
 * @param limit - most users
 * @param sessionsOf - the open sessions that a user has in the topic, the latest at the end
 */
export function listUsers (members: Iterable<PresentMember>, held: Iterable<PresentMember>, limit: number, sessionsOf: (user: string) => PresentMember[]): UserMember[] {
  const users = new Map<string, UserMember>()
  for (const { user } of members) {
    if (users.size === limit) break
    if (user === undefined || users.has(user)) continue
    const sessions = sessionsOf(user)
    users.set(user, describeUser(user, sessions.at(-1)!, sessions.map(({ id }) => id)))
  }
  for (const member of held) {
    const user = member.user!
    const known = users.get(user)
    if (known === undefined ? users.size < limit : known.sessions.length === 0) users.set(user, describeUser(user, member, []))
  }
  return [...users.values()]
}
