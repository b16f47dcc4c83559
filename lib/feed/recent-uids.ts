/** Uids that are remembered at least; at most twice as many are. A broker that repeats a publication does so within seconds. */
const remembered = 4_096

/** The uids of the latest entries, in two generations: the older one is dropped as a whole when the newer one is full. */
export class RecentUids {
  #newer = new Set<string>()
  #older = new Set<string>()

  /** Notes a uid. Returns whether it was noted before. */
  isRepeated (uid: string): boolean {
    if (this.#newer.has(uid) || this.#older.has(uid)) return true
    if (this.#newer.size === remembered) {
      this.#older = this.#newer
      this.#newer = new Set()
    }
    this.#newer.add(uid)
    return false
  }
}
