import { setImmediate as turnEnd } from 'node:timers/promises'
import type { AnySession, Hooks } from '../hub/ports.ts'
import { endingFor, serverEnding, type Ending } from '../session/ending.ts'

/** A session that is asked about. */
export interface ReviewedSession extends AnySession {
  end (ending: Ending): void
  fail (error: Error): void
}

/** Sessions that the host is asked about at a time, and in one turn of the event loop. */
const atATime = 100

/** Asks the host again about sessions, and ends those that may not stay. */
export class Reviews {
  readonly #hooks: Hooks
  /** Questions that the host has not answered; telling it of one that failed is a part of it. */
  #asking = 0
  /** Sessions to be asked about in the next turn of the event loop; all calls of one turn share it. */
  #next: { sessions: Set<ReviewedSession>, ended: Promise<ReviewedSession[]> } | undefined
  /** When members were last asked about, on the clock of `performance`. */
  #askedAt = -1

  constructor (hooks: Hooks) {
    this.#hooks = hooks
  }

  /** Asks about a session that enters, if its upgrade began before the last question: it was not among those asked about, and may have been let in by an older answer. */
  entered (session: ReviewedSession, begunAt: number): void {
    if (begunAt <= this.#askedAt) this.one(session)
  }

  /** Asks about one session, and ends it if it may not stay. Returns whether it was ended. */
  async one (session: ReviewedSession): Promise<boolean> {
    if (session.state === 'closed') return false
    const ending = await this.#verdict(session)
    if (ending === undefined || session.state as string === 'closed') return false
    session.end(ending)
    return true
  }

  /**
   * Asks about many sessions, and ends those that may not stay. Returns how many were ended. While the host is being asked a call waits for the next turn: if it comes from `authorize`, or from the
   * `onError` that is told of its failure, it would be a recursion, in the stack or in microtasks.
   */
  async all (sessions: ReviewedSession[]): Promise<number> {
    this.#askedAt = performance.now()
    if (this.#asking === 0) return (await this.#pass(sessions)).length
    this.#next ??= { sessions: new Set(), ended: this.#nextPass() }
    const next = this.#next
    for (const session of sessions) next.sessions.add(session)
    const ended = new Set(await next.ended)
    return sessions.filter(session => ended.has(session)).length
  }

  async #nextPass (): Promise<ReviewedSession[]> {
    await turnEnd()
    const { sessions } = this.#next!
    this.#next = undefined
    return this.#pass([...sessions])
  }

  async #pass (sessions: ReviewedSession[]): Promise<ReviewedSession[]> {
    const rest = sessions.values()
    const ended: ReviewedSession[] = []
    const worker = async (): Promise<void> => {
      for (const session of rest) {
        if (await this.one(session)) ended.push(session)
        await turnEnd() // lets other work run
      }
    }
    await Promise.all(Array.from({ length: Math.min(atATime, sessions.length) }, worker))
    return ended
  }

  /** How a session ends that may not stay; `undefined` if it may. A call of `authorize` that fails is not a permission. */
  async #verdict (session: ReviewedSession): Promise<Ending | undefined> {
    this.#asking++
    const ending = await this.#ask(session)
    this.#asking--
    return ending
  }

  /** Never rejects. */
  async #ask (session: ReviewedSession): Promise<Ending | undefined> {
    try {
      return await this.#hooks.authorize!({ action: 'stay', topic: session.topic, session }) === true ? undefined : serverEnding(4301, 'forbidden')
    } catch (thrown) {
      return endingFor(session, thrown, 1011)
    }
  }
}
