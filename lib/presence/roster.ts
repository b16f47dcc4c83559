import type { Member } from '../../types/index.ts'
import { presenceCount, presenceDiff, presenceState } from '../protocol/server-frames.ts'
import type { Room } from '../room/room.ts'
import type { MemberSession } from '../session/session.ts'

/** Rule 9 of the protocol: at most one frame per room and this many milliseconds. */
const diffEvery = 100
/** Above this many members a room is only counted, */
const countAbove = 200
/** once per this many milliseconds, */
const countEvery = 1_000
/** until it falls below this many. */
const listBelow = 150

/** A member as others see it. */
export function describe (session: MemberSession): Member {
  return {
    session: session.id,
    ...(session.user === undefined ? {} : { user: session.user }),
    ...(session.info === undefined ? {} : { info: session.info })
  }
}

/** A member as a frame names it. */
function name (session: MemberSession): Member {
  session.announced = true
  return describe(session)
}

/** Who is in one room, as its members are told. */
export class RoomPresence {
  readonly room: Room
  /** Changes since the last frame; a join and a leave of one session cancel out. */
  readonly #changes = new Map<string, MemberSession | 'left'>()
  #counting = false
  #nextAt = 0
  #snapshot: string | undefined

  constructor (room: Room) {
    this.room = room
  }

  /** The room is not what the last snapshot says. */
  outdate (): void {
    this.#snapshot = undefined
  }

  joined (session: MemberSession): void {
    this.outdate()
    this.#changes.set(session.id, session)
  }

  left (session: MemberSession): void {
    this.outdate()
    // Cancelled out only where no frame, and no snapshot either, has named it.
    if (this.#changes.get(session.id) === session && !session.announced) this.#changes.delete(session.id)
    else this.#changes.set(session.id, 'left')
  }

  /** Milliseconds until a frame may leave. */
  wait (now: number): number { return Math.max(0, this.#nextAt - now) }

  /** The frame for all that changed, `undefined` where nothing is to be said. */
  flush (now: number): string | undefined {
    const count = this.room.size
    const before = this.#counting
    this.#counting = count > (before ? listBelow - 1 : countAbove)
    if (this.#changes.size === 0 && before === this.#counting) return undefined
    let frame: string
    if (this.#counting) {
      frame = presenceCount(count)
    } else if (before) {
      this.outdate() // what was asked for meanwhile was a count
      frame = this.snapshot()
    } else {
      frame = this.#diff(count)
    }
    this.#changes.clear()
    this.#nextAt = now + (this.#counting ? countEvery : diffEvery)
    return frame
  }

  /** One frame per version of the room. */
  snapshot (): string {
    const { size } = this.room
    // Who was given a count has no list that a difference could be put to.
    this.#counting ||= size > countAbove
    this.#snapshot ??= this.#counting
      ? presenceCount(size)
      : presenceState(size, Array.from(this.room.open(), name))
    return this.#snapshot
  }

  #diff (count: number): string {
    const join: Member[] = []
    const leave: { session: string }[] = []
    for (const [session, change] of this.#changes) {
      if (change === 'left') leave.push({ session })
      else join.push(name(change))
    }
    return presenceDiff(count, join, leave)
  }
}

/** Sends the presence frames of all rooms: at once where a room was quiet, else when it may, by one timer. */
export class PresenceClock {
  readonly #waiting = new Set<RoomPresence>()
  readonly #send: (presence: RoomPresence, frame: string) => void
  #timer: NodeJS.Timeout | undefined

  constructor (send: (presence: RoomPresence, frame: string) => void) {
    this.#send = send
  }

  changed (presence: RoomPresence): void {
    if (presence.wait(performance.now()) === 0) this.#flush(presence)
    else {
      this.#waiting.add(presence)
      this.#timer ??= setTimeout(() => { this.#tick() }, diffEvery).unref()
    }
  }

  forget (presence: RoomPresence): void {
    this.#waiting.delete(presence)
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#waiting.clear()
  }

  #flush (presence: RoomPresence): void {
    this.#waiting.delete(presence)
    const frame = presence.flush(performance.now())
    if (frame !== undefined) this.#send(presence, frame)
  }

  #tick (): void {
    this.#timer = undefined
    const now = performance.now()
    for (const presence of [...this.#waiting]) {
      if (presence.wait(now) === 0) this.#flush(presence)
    }
    if (this.#waiting.size > 0) this.#timer ??= setTimeout(() => { this.#tick() }, diffEvery).unref()
  }
}
