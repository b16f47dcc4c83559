import { FST_ROOMS_MESSAGES_LOST } from '../errors.ts'
import { gap as gapFrame } from '../protocol/server-frames.ts'
import type { HubContext } from '../hub/context.ts'
import { serverEnding } from '../session/join.ts'
import type { Room } from '../room/room.ts'
import type { MemberSession } from '../session/session.ts'
import type { Gap } from './feed.ts'

/** Receivers that are ended in one turn of the event loop, in all rooms: as many as `drain.batch` lets go by default. */
const perTurn = 500

/**
 * Tells the receivers of a topic that messages are missing: `gap` to members of `rooms.v1`, close 4202 to raw ones, an error to subscribers. A broker that was
 * cut off may have lost messages of all topics at once, so only so many receivers are ended in a turn; none of the others gets another message.
 */
export class Losses {
  readonly #end: HubContext['end']
  #waiting: (() => void)[] = []
  /** How many more may be ended in this turn. */
  #left = perTurn
  #timer: NodeJS.Immediate | undefined

  constructor (end: HubContext['end']) {
    this.#end = end
  }

  tell (room: Room, gap: Gap): void {
    room.tellLoss(gapFrame(gap))
    const error = new FST_ROOMS_MESSAGES_LOST(room.topic)
    for (const subscription of [...room.subscriptions]) {
      if (subscription.interrupt(error)) this.#soon(() => { subscription.end(error) })
    }
    for (const session of Array.from(room.open()).filter(isRaw)) {
      if (this.#soon(() => { this.#end(session, serverEnding(4202)) })) session.connection.condemned = true
    }
  }

  /** Calls back now, or in a later turn: then it returns `true`. */
  #soon (end: () => void): boolean {
    this.#timer ??= setImmediate(this.#next)
    if (this.#left > 0) {
      this.#left--
      end()
      return false
    }
    this.#waiting.push(end)
    return true
  }

  readonly #next = (): void => {
    this.#timer = undefined
    const now = this.#waiting.splice(0, perTurn)
    this.#left = perTurn - now.length
    if (now.length > 0) this.#timer = setImmediate(this.#next)
    for (const end of now) end()
  }
}

/** Whether a raw member has not been told of a loss. */
function isRaw ({ connection }: MemberSession): boolean {
  return connection.mode === 'rooms.raw' && !connection.condemned
}
