import { AsyncResource } from 'node:async_hooks'
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

/**
 * Milliseconds that upgrades may take of one turn of the event loop. Messages to members wait that long for them at most, and an upgrade takes
 * about 0.3 ms, so that several share the work of a turn.
 */
const turn = 4
/** Places of upgrades that were taken, behind which the queue is copied. */
const mostTaken = 1_000

type Forward = (request: IncomingMessage, socket: Socket, head: Buffer) => void
/** An upgrade that waits, with the asynchronous context in which it came: what the host's hooks enter there must not reach the next one. */
interface Waiting { readonly request: IncomingMessage, readonly socket: Socket, readonly head: Buffer, readonly context: AsyncResource }

/**
 * Forwards upgrades, so many in one turn of the event loop as its time allows. The others wait for the next turns, in order.
 *
 * The system hands over about a thousand requests at once when many clients come back, for example after another server has gone. Without a
 * pause between them, other members would get no message until the last of them has joined.
 */
export class UpgradePacer {
  readonly #forward: Forward
  #waiting: (Waiting | undefined)[] = []
  /** Index of the first upgrade that waits. */
  #next = 0
  /** When upgrades began in this turn, on the clock of `performance`. */
  #began: number | undefined

  /** @param forward - takes an upgrade. It must not throw. */
  constructor (forward: Forward) {
    this.#forward = forward
  }

  /** Upgrades that wait. */
  get size (): number {
    return this.#waiting.length - this.#next
  }

  /** Forwards an upgrade at once if this turn has time left, and no other waits. */
  add (request: IncomingMessage, socket: Socket, head: Buffer): void {
    if (this.#began === undefined) {
      this.#began = performance.now()
      setImmediate(this.#beginTurn)
    } else if (this.size > 0 || this.#isOver()) {
      this.#waiting.push({ request, socket, head, context: new AsyncResource('fastify-rooms.upgrade') })
      return
    }
    this.#forward(request, socket, head)
  }

  /** Destroys the sockets of all upgrades that wait. */
  clear (): void {
    for (let n = this.#next; n < this.#waiting.length; n++) this.#waiting[n]!.socket.destroy()
    this.#waiting = []
    this.#next = 0
  }

  #isOver (): boolean {
    return performance.now() - this.#began! >= turn
  }

  readonly #beginTurn = (): void => {
    if (this.size === 0) {
      this.clear()
      this.#began = undefined
      return
    }
    if (this.#next > mostTaken) {
      this.#waiting = this.#waiting.slice(this.#next)
      this.#next = 0
    }
    this.#began = performance.now()
    this.#forwardNext()
  }

  /** Forwards one upgrade. The next one follows as a microtask, so that the asynchronous parts of this one count for the time of the turn. */
  readonly #forwardNext = (): void => {
    const waiting = this.#take()
    waiting?.context.runInAsyncScope(this.#forward, undefined, waiting.request, waiting.socket, waiting.head)
    if (this.size === 0 || this.#isOver()) setImmediate(this.#beginTurn)
    else queueMicrotask(this.#forwardNext)
  }

  /** Takes the next upgrade whose peer has not gone. */
  #take (): Waiting | undefined {
    while (this.#next < this.#waiting.length) {
      const waiting = this.#waiting[this.#next]!
      // The queue may not be empty for a long time, and must not keep those that it had.
      this.#waiting[this.#next++] = undefined
      if (!waiting.socket.destroyed) return waiting
    }
    return undefined
  }
}
