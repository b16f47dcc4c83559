import { setImmediate as turnEnd } from 'node:timers/promises'
import type { Ending, HubContext } from '../hub/context.ts'
import { endingFor, serverEnding } from '../session/join.ts'
import type { MemberSession } from '../session/session.ts'

/** Sessions that the host is asked about at a time, and in one turn of the event loop. */
const atATime = 100

/** Asks the host again about sessions, and ends those that may not stay. */
export class Reviews {
  readonly #hub: HubContext
  /** Questions that the host has not answered; telling it of one that failed is a part of it. */
  #asking = 0
  /** Sessions to be asked about in the next turn of the event loop; all calls of one turn share it. */
  #next: { sessions: Set<MemberSession>, ended: Promise<MemberSession[]> } | undefined

  constructor (hub: HubContext) {
    this.#hub = hub
  }

  /** Asks about one session, and ends it if it may not stay: whether it did. */
  async one (session: MemberSession): Promise<boolean> {
    if (session.state === 'closed') return false
    const ending = await this.#verdict(session)
    if (ending === undefined || session.state as string === 'closed') return false
    this.#hub.end(session, ending)
    return true
  }

  /**
   * The same with many; returns how many were ended. While the host is being asked a call waits for the next turn: if it comes from `authorize`, or from the
   * `onError` that is told of its failure, it would be a recursion, in the stack or in microtasks.
   */
  async all (sessions: MemberSession[]): Promise<number> {
    if (this.#asking === 0) return (await this.#pass(sessions)).length
    this.#next ??= { sessions: new Set(), ended: this.#nextPass() }
    const next = this.#next
    for (const session of sessions) next.sessions.add(session)
    const ended = new Set(await next.ended)
    return sessions.filter(session => ended.has(session)).length
  }

  async #nextPass (): Promise<MemberSession[]> {
    await turnEnd()
    const { sessions } = this.#next!
    this.#next = undefined
    return this.#pass([...sessions])
  }

  async #pass (sessions: MemberSession[]): Promise<MemberSession[]> {
    const rest = sessions.values()
    const ended: MemberSession[] = []
    const worker = async (): Promise<void> => {
      for (const session of rest) {
        if (await this.one(session)) ended.push(session)
        await turnEnd() // others have work, too
      }
    }
    await Promise.all(Array.from({ length: Math.min(atATime, sessions.length) }, worker))
    return ended
  }

  /** How a session ends that may not stay; `undefined` if it may. A question that cannot be answered is not a permission. */
  async #verdict (session: MemberSession): Promise<Ending | undefined> {
    this.#asking++
    const ending = await this.#ask(session)
    this.#asking--
    return ending
  }

  /** Never rejects. */
  async #ask (session: MemberSession): Promise<Ending | undefined> {
    try {
      return await this.#hub.hooks.authorize!({ action: 'stay', topic: session.topic, session }) === true ? undefined : serverEnding(4301, 'forbidden')
    } catch (thrown) {
      return endingFor(this.#hub, session, thrown, 1011)
    }
  }
}
