import type { Ref } from '../../types/index.ts'
import { FST_ROOMS_ASK_TIMEOUT, FST_ROOMS_NOT_ASKABLE, FST_ROOMS_SESSION_CLOSED } from '../errors.ts'
import type { MemberSession } from './session.ts'

interface Ask { resolve (answer: unknown): void, reject (error: Error): void }

/** The questions that one session has not answered yet. */
export class Asks {
  readonly #open = new Map<Ref, Ask>()
  #count = 0

  /** @throws FST_ROOMS_NOT_ASKABLE, FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_SESSION_CLOSED, FST_ROOMS_ASK_TIMEOUT, the signal's reason */
  async ask (session: MemberSession, payload: unknown, timeout: number, signal?: AbortSignal): Promise<unknown> {
    signal?.throwIfAborted()
    if (session.connection.mode === 'rooms.raw') throw new FST_ROOMS_NOT_ASKABLE(session.id)
    const ref = `s${++this.#count}`
    const frame = session.privateFrame(session.definition.message.serialise(payload), undefined, undefined, ref)
    let timer: NodeJS.Timeout | undefined
    let abort: (() => void) | undefined
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#open.set(ref, { resolve, reject })
      timer = setTimeout(() => { reject(new FST_ROOMS_ASK_TIMEOUT(session.id, timeout)) }, timeout)
      abort = () => { reject(signal!.reason) }
    })
    signal?.addEventListener('abort', abort!)
    // The question itself may end the session, of a peer that does not read: then nobody awaits the answer.
    answer.catch(() => {})
    try {
      // The answer may fail (the session ends, say) while the question still waits to leave.
      await Promise.race([session.sendPrivate(frame), answer])
      return await answer
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort!)
      this.#open.delete(ref)
    }
  }

  /** A late answer is nobody's. */
  answer (ref: Ref, data: unknown): void {
    this.#open.get(ref)?.resolve(data)
  }

  /** The session has gone. */
  drop (session: MemberSession): void {
    for (const ask of this.#open.values()) ask.reject(new FST_ROOMS_SESSION_CLOSED(session.id))
  }
}
