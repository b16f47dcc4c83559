import type { PresenceChange } from '../../types/index.ts'

/** The members of a node that the exchange has noted, for an exchange that does not know them any more. */
export class OwnMembers {
  /** By topic and session. */
  readonly #topics = new Map<string, Map<string, PresenceChange>>()

  /** Notes changes that were answered. */
  note (changes: readonly PresenceChange[]): void {
    for (const change of changes) {
      const { topic, session, type } = change
      let members = this.#topics.get(topic)
      if (members === undefined) this.#topics.set(topic, members = new Map())
      if (type === 'set') members.set(session, change)
      else members.delete(session)
      if (members.size === 0) this.#topics.delete(topic)
    }
  }

  all (): PresenceChange[] {
    return [...this.#topics.values()].flatMap(members => [...members.values()])
  }
}
