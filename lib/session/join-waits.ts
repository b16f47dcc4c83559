/** Joins that go on in one turn of the event loop. Each sends kept messages, and the other members must not wait for thousands of joins. */
const perTurn = 25

/** Joins that wait for the broker, or for their room: each until a deadline, and at most until its session ends. */
export class JoinWaits {
  /** By session: a function that ends its wait. */
  readonly #ends = new Map<object, () => void>()
  /** Joins whose wait is over, and which go on in one of the next turns. */
  readonly #over: (() => void)[] = []
  #timer: NodeJS.Immediate | undefined

  /** Joins that wait. */
  get size (): number { return this.#ends.size }

  has (session: object): boolean {
    return this.#ends.has(session)
  }

  /** Ends the wait of a session that has ended. */
  end (session: object): void {
    this.#ends.get(session)?.()
  }

  /**
   * Waits for an event. Settles with `false` at the deadline, or when the session ends.
   * @param deadline - on the clock of `performance`
   * @param listen - waits for the event. Returns a function that ends this
   */
  until (session: object, deadline: number, listen: (done: () => void) => () => void): Promise<boolean> {
    return new Promise(resolve => {
      const settle = (isOver: boolean): void => {
        clearTimeout(timer)
        stop()
        this.#ends.delete(session)
        resolve(isOver)
      }
      const timer = setTimeout(settle, deadline - performance.now(), false)
      const stop = listen(() => { this.#goOn(() => { settle(true) }) })
      this.#ends.set(session, () => { settle(false) })
    })
  }

  #goOn (go: () => void): void {
    this.#over.push(go)
    this.#timer ??= setImmediate(this.#next)
  }

  readonly #next = (): void => {
    for (const go of this.#over.splice(0, perTurn)) go()
    this.#timer = this.#over.length === 0 ? undefined : setImmediate(this.#next)
  }
}
