import type { Ref } from '../../types/index.ts'
import { FST_ROOMS_ASK_TIMEOUT, FST_ROOMS_NOT_ASKABLE, FST_ROOMS_SESSION_CLOSED } from '../errors.ts'
import type { DirectReceiver } from '../hub/ports.ts'

interface PendingRequest { resolve (answer: unknown): void, reject (error: Error): void }

/** The host's requests to one session that have no answer yet. */
export class PendingRequests {
  readonly #session: DirectReceiver & { readonly canBeAsked: boolean }
  readonly #pending = new Map<Ref, PendingRequest>()
  #count = 0

  constructor (session: DirectReceiver & { readonly canBeAsked: boolean }) {
    this.#session = session
  }

  /**
   * Sends a request and waits for its answer.
   * @param timeout - milliseconds
   * @throws FST_ROOMS_NOT_ASKABLE, FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_SESSION_CLOSED, FST_ROOMS_ASK_TIMEOUT, the signal's reason
   */
  async ask (payload: unknown, timeout: number, signal?: AbortSignal): Promise<unknown> {
    signal?.throwIfAborted()
    const session = this.#session
    if (!session.canBeAsked) throw new FST_ROOMS_NOT_ASKABLE(session.id)
    const ref = `s${++this.#count}`
    const text = session.privateText(session.definition.message.serialise(payload), undefined, undefined, ref)
    let timer: NodeJS.Timeout | undefined
    let abort: (() => void) | undefined
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(ref, { resolve, reject })
      timer = setTimeout(() => { reject(new FST_ROOMS_ASK_TIMEOUT(session.id, timeout)) }, timeout)
      abort = () => { reject(signal!.reason) }
    })
    signal?.addEventListener('abort', abort!)
    // Sending the request may end a session whose peer does not read. Then the answer rejects before it is awaited.
    answer.catch(() => {})
    try {
      // The answer may fail, for instance because the session ends, while the request still waits to be sent.
      await Promise.race([session.sendPrivate(text, true), answer])
      return await answer
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort!)
      this.#pending.delete(ref)
    }
  }

  /** Takes the peer's answer. Ignores answers that arrive after the timeout. */
  answer (ref: Ref, data: unknown): void {
    this.#pending.get(ref)?.resolve(data)
  }

  /** Rejects all requests, because the session has ended. */
  reject (): void {
    for (const request of this.#pending.values()) request.reject(new FST_ROOMS_SESSION_CLOSED(this.#session.id))
  }
}
