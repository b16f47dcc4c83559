import type { Member } from '../../types/index.ts'
import { presenceCount, presenceDiff, presenceState } from '../protocol/server-frames.ts'

/** Rule 10 of the protocol: at most one presence frame per room and this many milliseconds. */
export const diffEvery = 100
/** A room with more members than this sends counts instead of lists, */
export const countAbove = 200
/** at most one per this many milliseconds, */
export const countEvery = 1_000
/** until it has fewer members than this. */
const listBelow = 150

/** A member as a roster sees it. The roster writes `isAnnounced`. */
export interface PresentMember {
  readonly id: string
  readonly user: string | undefined
  readonly info: any
  /** A presence frame has named the member. */
  isAnnounced: boolean
}

/** The members of a room on other nodes, as its roster sees them. */
export interface RemoteList {
  readonly count: number
  /** Whether each of them is known, and not only their number. */
  readonly isListed: boolean
  list (): Iterable<PresentMember>
}

/** A room as its roster sees it. */
export interface PresentRoom {
  readonly size: number
  /** All open members. */
  open (): Iterable<PresentMember>
  /** Members that have left and are still shown, because their users may come back. */
  readonly held: ReadonlySet<PresentMember>
  /** Its members on other nodes; `undefined` if the broker has none. */
  readonly remote: RemoteList | undefined
  /** Queues a presence frame to all members that can be answered. */
  announce (text: string): void
}

/** A member as others see it. */
export function describe ({ id, user, info }: PresentMember): Member {
  return {
    session: id,
    ...(user === undefined ? {} : { user }),
    ...(info === undefined ? {} : { info })
  }
}

/** A member as a frame names it. */
function name (member: PresentMember): Member {
  member.isAnnounced = true
  return describe(member)
}

/** The members of one room, on all nodes, as its members are told of them. */
export class Roster {
  readonly room: PresentRoom
  /** Changes since the last frame. A join and a leave of one session cancel out. */
  readonly #changes = new Map<string, PresentMember | 'gone'>()
  /** The last frame was a count. */
  #isCounting = false
  /** Other nodes have another number of members. */
  #isRecounted = false
  /** When the next frame may be sent, on the clock of `performance`. */
  #nextAt = 0
  #snapshot: string | undefined

  constructor (room: PresentRoom) {
    this.room = room
  }

  /** Drops the snapshot, because the room has changed. */
  outdate (): void {
    this.#snapshot = undefined
  }

  /** Notes that the number of members on other nodes has changed. */
  recount (): void {
    this.outdate()
    this.#isRecounted = true
  }

  /** Notes that a member has joined or has new info. */
  memberChanged (member: PresentMember): void {
    this.outdate()
    this.#changes.set(member.id, member)
  }

  memberLeft (member: PresentMember): void {
    this.outdate()
    // A join cancels out only if no frame has named the member, not even a snapshot.
    if (this.#changes.get(member.id) === member && !member.isAnnounced) this.#changes.delete(member.id)
    else this.#changes.set(member.id, 'gone')
  }

  /**
   * Notes that a member has left and is still shown. Frames stay as they would be if it had not left.
   * @param held - stands for the member from now on
   */
  memberHeld (member: PresentMember, held: PresentMember): void {
    if (this.#changes.get(member.id) === member) this.#changes.set(member.id, held)
  }

  /** Members of this node as the room is told of them. */
  get own (): number { return this.room.size + this.room.held.size }

  /** Whether the members may be told one by one, and have to be known. */
  get mayList (): boolean { return this.#size < listBelow || (!this.#isCounting && this.#size <= countAbove) }

  /** Members as the room is told of them. */
  get #size (): number { return this.own + (this.room.remote?.count ?? 0) }

  /** Milliseconds until the next frame may be sent. */
  wait (now: number): number { return Math.max(0, this.#nextAt - now) }

  /** Returns the frame of all changes since the last one; `undefined` if there are none. */
  flush (now: number): string | undefined {
    const count = this.#size
    const wasCounting = this.#isCounting
    this.#isCounting = this.#mustCount(wasCounting ? listBelow - 1 : countAbove)
    const hasNewCount = this.#isRecounted && this.#isCounting
    this.#isRecounted = false
    if (this.#changes.size === 0 && wasCounting === this.#isCounting && !hasNewCount) return undefined
    let frame: string
    if (this.#isCounting) {
      frame = presenceCount(count)
    } else if (wasCounting) {
      this.outdate() // the last snapshot is a count
      frame = this.snapshot()
    } else {
      frame = this.#diff(count)
    }
    this.#changes.clear()
    this.#nextAt = now + (this.#isCounting ? countEvery : diffEvery)
    return frame
  }

  /** Returns the frame that names all members, or counts them. Made once per version of the room. */
  snapshot (): string {
    const size = this.#size
    // A member that was sent a count has no list to which a difference could be applied.
    this.#isCounting ||= this.#mustCount(countAbove)
    this.#snapshot ??= this.#isCounting
      ? presenceCount(size)
      : presenceState(size, [...Array.from(this.room.open(), name), ...Array.from(this.room.held, name), ...Array.from(this.room.remote?.list() ?? [], name)])
    return this.#snapshot
  }

  #mustCount (bound: number): boolean {
    return this.#size > bound || this.room.remote?.isListed === false
  }

  #diff (count: number): string {
    const join: Member[] = []
    const leave: { session: string }[] = []
    for (const [session, change] of this.#changes) {
      if (change === 'gone') leave.push({ session })
      else join.push(name(change))
    }
    return presenceDiff(count, join, leave)
  }
}
