import type { MemberSession } from './session.ts'

/**
 * Finds members that do not read: more than the bound waits for them, and not only from this turn of the loop, since a member
 * with nothing waiting takes whatever one turn queues. The verdict falls during a fan-out and is carried out after it, so that
 * what the end of a membership sets off comes after the message and not in the midst of it.
 */
export class Backlog {
  readonly bytes: number
  readonly #end: (session: MemberSession) => void
  #slow: MemberSession[] = []
  #fanOuts = 0
  #turn = 1
  #turnEnds = false

  /** @param bytes - the bound; @param end - carries out the verdict. */
  constructor (bytes: number, end: (session: MemberSession) => void) {
    this.bytes = bytes
    this.#end = end
  }

  /** Something was queued to a member. A property, because it is handed into the fan-out. */
  readonly sent = (session: MemberSession): void => {
    const { connection } = session
    if (connection.condemned) return
    if (connection.bufferedBytes <= this.bytes) {
      connection.overTurn = 0
    } else if (connection.overTurn === 0) {
      connection.overTurn = this.#turn
      this.#endTurn()
    } else if (connection.overTurn !== this.#turn) {
      connection.condemned = true
      this.#slow.push(session)
      if (this.#fanOuts === 0) this.#endSlow()
    }
  }

  fanOut<T> (run: () => T): T {
    this.#fanOuts++
    try {
      return run()
    } finally {
      if (--this.#fanOuts === 0) this.#endSlow()
    }
  }

  #endSlow (): void {
    for (const session of this.#slow.splice(0)) this.#end(session)
  }

  #endTurn (): void {
    if (this.#turnEnds) return
    this.#turnEnds = true
    setImmediate(() => {
      this.#turn++
      this.#turnEnds = false
    })
  }
}
