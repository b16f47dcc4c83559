import type { Directory } from '../hub/ports.ts'

/** Called with the user of the first and the last session of a user. */
export interface UserWatcher {
  came (user: string): void
  left (user: string): void
}

/** All sessions of a hub, those still joining included: by id and by user. */
export class SessionDirectory<S extends { readonly id: string, readonly user: string | undefined }> implements Directory<S> {
  readonly #byId = new Map<string, S>()
  readonly #byUser = new Map<string, Set<S>>()
  readonly #watcher: UserWatcher | undefined

  constructor (watcher?: UserWatcher) {
    this.#watcher = watcher
  }

  get size (): number { return this.#byId.size }

  all (): Iterable<S> { return this.#byId.values() }
  find (id: string): S | undefined { return this.#byId.get(id) }
  ofUser (user: string): Iterable<S> { return this.#byUser.get(user) ?? [] }

  /** Adds a session under its id. Its user is noted by `admit`. */
  add (session: S): void {
    this.#byId.set(session.id, session)
  }

  /** Adds a session under its user. */
  admit (session: S): void {
    const { user } = session
    if (user === undefined) return
    const others = this.#byUser.get(user)
    if (others === undefined) {
      this.#byUser.set(user, new Set([session]))
      this.#watcher?.came(user)
    } else others.add(session)
  }

  remove (session: S): void {
    this.#byId.delete(session.id)
    const { user } = session
    const others = user === undefined ? undefined : this.#byUser.get(user)
    others?.delete(session)
    if (others?.size !== 0) return
    this.#byUser.delete(user!)
    this.#watcher?.left(user!)
  }
}
