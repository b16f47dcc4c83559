import { unpooled } from '../transport/ws/frame.ts'

/** Bytes that a private frame costs besides its own while it waits: objects of Node.js and of V8. */
const frameOverhead = 512

/** The place at which a member waits while the host's `onJoined` runs: numbers, and the private frames that wait for this member alone. */
export class Hold {
  /** The number of the first frame of the room that waits for the member. */
  readonly start: number
  /** Bytes of all frames of the room before that one. */
  readonly before: number
  /** The private frames that wait, and for each the number of the frame of the room behind it. */
  readonly frames: Buffer[]
  readonly places: number[] = []
  /** Bytes of the private frames that wait. */
  frameBytes = 0
  /** The room's frames no longer wait for the member, because they became more than `slow.bytes`. The member is slow. */
  isExceeded = false

  /** @param frames - the frames that the member's lag owes it */
  constructor (start: number, before: number, frames: Buffer[]) {
    this.start = start
    this.before = before
    this.frames = frames
  }

  /** Queues a private frame. */
  push (frame: Buffer, place: number): void {
    // The frame may wait for seconds.
    this.frames.push(unpooled(frame))
    this.places.push(place)
    this.frameBytes += frame.length + frameOverhead
  }
}
