import type { UserMember } from '../../types/index.ts'
import type { PresentMember } from './roster.ts'

/** Adds users that have left and are still shown. */
function addHeld (users: Map<string, UserMember>, held: Iterable<PresentMember>, limit: number): UserMember[] {
  for (const member of held) {
    const user = member.user!
    const known = users.get(user)
    if (known === undefined ? users.size < limit : known.sessions.length === 0) users.set(user, describeUser(user, member, []))
  }
  return [...users.values()]
}

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
  return addHeld(users, held, limit)
}

/**
 * Returns the users of one topic, each once, from a list of all members.
 * @param members - those of one user in an order in which the latest is at the end
 */
export function groupUsers (members: Iterable<PresentMember>, held: Iterable<PresentMember>, limit: number): UserMember[] {
  const sessions = new Map<string, PresentMember[]>()
  for (const member of members) {
    const { user } = member
    if (user === undefined) continue
    const known = sessions.get(user)
    if (known !== undefined) known.push(member)
    else if (sessions.size < limit) sessions.set(user, [member])
  }
  const users = new Map(Array.from(sessions, ([user, members]) => [user, describeUser(user, members.at(-1)!, members.map(({ id }) => id))]))
  return addHeld(users, held, limit)
}
