import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_CLOSED, FST_ROOMS_NO_SUCH_SESSION, FST_ROOMS_OVERLOADED } from '../errors.ts'
import type { ControlOutcome } from '../feed/broker-link.ts'
import type { NodeMessage } from './messages.ts'

/** Most requests that wait for the answers of other nodes. */
export const maxPending = 10_000

/** The way to other nodes. It settles in bounded time, and never rejects. */
export interface ControlLink {
  control (to: `node:${string}` | `user:${string}` | '*', bytes: Buffer): Promise<ControlOutcome>
}

export type Answer = NodeMessage & { type: 'answer' }

/** A request to one node. */
export interface NodeRequest {
  readonly node: string
  /** Returns the bytes of the request with this id. */
  encode (id: number): Buffer
  /** The session that it is about. */
  readonly session: string
  /** Milliseconds that it waits for the answer. */
  readonly timeout: number
  readonly signal?: AbortSignal | undefined
  /**
   * The error of a request that was not answered in time.
   * @param isSent - the broker has taken it
   */
  late (isSent: boolean): Error
  /** Called if the request is given up before its answer: at its deadline, or when its signal is aborted. */
  abandoned? (id: number): void
}

interface Pending {
  readonly node: string
  resolve (answer: Answer): void
  reject (error: Error): void
}

/** The requests of this node to single other nodes. Each has an id, a deadline and one end. */
export class NodeRequests {
  readonly #link: ControlLink
  readonly #pending = new Map<number, Pending>()
  #count = 0
  #isClosed = false

  constructor (link: ControlLink) {
    this.#link = link
  }

  /** Requests that wait. */
  get size (): number { return this.#pending.size }

  /**
   * Sends a request, and resolves with its answer.
   * @throws FST_ROOMS_NO_SUCH_SESSION if there is no such node, FST_ROOMS_BROKER_DOWN, FST_ROOMS_OVERLOADED, FST_ROOMS_CLOSED, `late`, the signal's reason, errors of `encode`
   */
  async ask ({ node, encode, session, timeout, signal, late, abandoned }: NodeRequest): Promise<Answer> {
    signal?.throwIfAborted()
    if (this.#isClosed) throw new FST_ROOMS_CLOSED()
    if (this.#pending.size >= maxPending) throw new FST_ROOMS_OVERLOADED('too many requests wait for other nodes')
    const id = ++this.#count
    const bytes = encode(id)
    let isSent = false
    let timer: NodeJS.Timeout | undefined
    let abort: (() => void) | undefined
    try {
      return await new Promise<Answer>((resolve, reject) => {
        const giveUp = (error: Error): void => {
          if (!this.#pending.delete(id)) return
          reject(error)
          abandoned?.(id)
        }
        abort = () => { giveUp(signal!.reason as Error) }
        signal?.addEventListener('abort', abort)
        this.#pending.set(id, { node, resolve, reject })
        // After a stall of the event loop an answer may wait to be read, so the end comes one turn later.
        timer = setTimeout(() => { setImmediate(() => { giveUp(late(isSent)) }) }, timeout)
        this.#link.control(`node:${node}`, bytes).then(outcome => {
          isSent = outcome === 'sent'
          if (outcome === 'gone') reject(new FST_ROOMS_NO_SUCH_SESSION(session))
          else if (outcome === 'unknown') reject(new FST_ROOMS_BROKER_DOWN())
        })
      })
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort!)
      this.#pending.delete(id)
    }
  }

  /** Takes an answer. Ignores one that arrives after the deadline, or comes from a node that was not asked. */
  answered (fromNode: string, answer: Answer): void {
    const pending = this.#pending.get(answer.id)
    if (pending?.node === fromNode) pending.resolve(answer)
  }

  /** Rejects all requests, because this node closes. */
  close (): void {
    this.#isClosed = true
    for (const { reject } of this.#pending.values()) reject(new FST_ROOMS_CLOSED())
  }
}
