import { FST_ROOMS_MESSAGES_LOST } from '../errors.ts'
import { serverEnding, type Ending } from '../session/ending.ts'
import type { Transport } from '../transport/transport.ts'
import type { Gap } from './feed.ts'

/** Receivers that are ended in one turn of the event loop, in all rooms: as many as `drain.batch` lets go by default. */
const perTurn = 500

/** A room as a loss sees it. */
export interface LossyRoom {
  readonly topic: string
  readonly definition: { readonly key: string }
  readonly readers: Iterable<{ interrupt (error: Error): boolean, end (error: Error): void }>
  open (): Iterable<{ readonly transport: Transport, end (ending: Ending): void }>
  /** Queues a gap frame to all members that can be answered. */
  tellGap (gap: Gap): void
}

/**
 * Tells the receivers of a topic that messages are missing: `gap` to members that can be answered, close 4202 to the others, an error to readers. A broker that was
 * cut off may have lost messages of all topics at once, so only so many receivers are ended in a turn; none of the others gets another message.
 */
export class Losses {
  #waiting: (() => void)[] = []
  /** How many more receivers may be ended in this turn. */
  #remaining = perTurn
  #timer: NodeJS.Immediate | undefined
  readonly #note: (room: LossyRoom, gap: Gap) => void

  /** @param note - is called with each loss */
  constructor (note: (room: LossyRoom, gap: Gap) => void) {
    this.#note = note
  }

  tell (room: LossyRoom, gap: Gap): void {
    this.#note(room, gap)
    room.tellGap(gap)
    const error = new FST_ROOMS_MESSAGES_LOST(room.topic)
    for (const reader of [...room.readers]) {
      if (reader.interrupt(error)) this.#soon(() => { reader.end(error) })
    }
    const untold = Array.from(room.open()).filter(({ transport }) => !transport.envelope.canBeAnswered && !transport.isClosing)
    for (const member of untold) {
      if (this.#soon(() => { member.end(serverEnding(4202)) })) member.transport.isClosing = true
    }
  }

  /** Calls back now, or in a later turn: then it returns `true`. */
  #soon (end: () => void): boolean {
    this.#timer ??= setImmediate(this.#next)
    if (this.#remaining > 0) {
      this.#remaining--
      end()
      return false
    }
    this.#waiting.push(end)
    return true
  }

  readonly #next = (): void => {
    this.#timer = undefined
    const now = this.#waiting.splice(0, perTurn)
    this.#remaining = perTurn - now.length
    if (now.length > 0) this.#timer = setImmediate(this.#next)
    for (const end of now) end()
  }
}
