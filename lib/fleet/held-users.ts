/** The broker as it is told of users. */
export interface HoldLink {
  hold (add: string[], remove: string[]): void
}

/** The users that this node has sessions or connections of. The broker is told of the first and the last one, once a turn of the event loop. */
export class HeldUsers {
  readonly #link: HoldLink
  /** Sessions in topics, and each connection of several topics, count one by one. */
  readonly #counts = new Map<string, number>()
  /** The users that the broker was told to hold. */
  readonly #told = new Set<string>()
  /** The users whose count has changed in this turn. */
  readonly #changed = new Set<string>()

  constructor (link: HoldLink) {
    this.#link = link
  }

  came (user: string): void {
    this.#counts.set(user, (this.#counts.get(user) ?? 0) + 1)
    this.#note(user)
  }

  left (user: string): void {
    const count = this.#counts.get(user)! - 1
    if (count === 0) this.#counts.delete(user)
    else this.#counts.set(user, count)
    this.#note(user)
  }

  #note (user: string): void {
    if (this.#changed.size === 0) setImmediate(this.#tell)
    this.#changed.add(user)
  }

  readonly #tell = (): void => {
    const add: string[] = []
    const remove: string[] = []
    for (const user of this.#changed) {
      if (this.#counts.has(user)) {
        if (!this.#told.has(user)) add.push(user)
      } else if (this.#told.has(user)) remove.push(user)
    }
    this.#changed.clear()
    for (const user of add) this.#told.add(user)
    for (const user of remove) this.#told.delete(user)
    if (add.length > 0 || remove.length > 0) this.#link.hold(add, remove)
  }
}
