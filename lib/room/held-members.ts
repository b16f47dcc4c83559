import { encodings, perEncoding, type Encoding } from '../transport/encoding.ts'
import { Hold } from './hold.ts'
import type { Lag } from './lag.ts'
import { overhead, sizeOf, type LatestValue } from './latest-values.ts'
import type { RoomMember } from './member.ts'

/** A frame of a room that is not a message. */
export class OtherFrame {
  readonly #length: number
  readonly #make: (encoding: Encoding) => Buffer
  readonly #frames = perEncoding<Buffer | undefined>(undefined)

  /** @param length - characters of its text */
  constructor (length: number, make: (encoding: Encoding) => Buffer) {
    this.#length = length
    this.#make = make
  }

  get size (): number { return overhead + this.#length }

  /** The bytes of the frame in one encoding, made once. */
  frame (encoding: Encoding): Buffer {
    this.#frames[encoding] ??= this.#make(encoding)
    return this.#frames[encoding]
  }
}

/**
 * The members of one room for which `onJoined` runs, and the room's frames that wait for them: one list for all of these members, in which each has a place. The
 * list begins with the first frame that any of them waits for, and is empty while there are none.
 */
export class HeldMembers<M extends RoomMember> {
  /** In the order of their places. */
  readonly members = new Set<M>()
  #frames: (LatestValue | OtherFrame)[] = []
  /** The number of the first frame in the list. */
  #start = 0
  /** Bytes of all frames so far, those included that no longer wait. */
  #bytes = 0

  /** The number of the next frame. */
  get #end (): number { return this.#start + this.#frames.length }

  /** Adds a member. All frames from now on wait for it. */
  add (member: M, lag: Lag): void {
    lag.hold = new Hold(this.#end, this.#bytes, lag.owed)
    member.lag = lag
    this.members.add(member)
  }

  /** Queues a message. */
  pushMessage (value: LatestValue): void {
    value.delivery.retain()
    this.#frames.push(value)
    this.#bytes += sizeOf(value.delivery)
  }

  /** Queues another frame, for members that can be answered. */
  pushOther (frame: OtherFrame): void {
    this.#frames.push(frame)
    this.#bytes += frame.size
  }

  /** Queues a private frame of a member. */
  pushOwn (hold: Hold, frame: Buffer): void {
    hold.push(frame, this.#end)
  }

  /** Bytes of the room that wait for a member. */
  bytesFor ({ before }: Hold): number { return this.#bytes - before }

  /** Yields the members for which more than this many bytes of the room wait. The caller removes each. */
  * over (bound: number): Generator<M> {
    for (const member of this.members) {
      if (this.bytesFor(member.lag!.hold!) <= bound) return // for those behind it no more bytes wait
      yield member
    }
  }

  /** The messages that wait for a member. */
  messages ({ start }: Hold): LatestValue[] {
    return this.#frames.slice(start - this.#start).filter((frame): frame is LatestValue => !(frame instanceof OtherFrame))
  }

  /** All frames that wait for a member, in order. */
  framesFor ({ id, transport: { encoding } }: M, { start, frames, places }: Hold): Buffer[] {
    const { canBeAnswered } = encodings[encoding].envelope
    const all: Buffer[] = []
    let own = 0
    for (let place = start; place < this.#end; place++) {
      while (own < frames.length && places[own]! <= place) all.push(frames[own++]!)
      const frame = this.#frames[place - this.#start]!
      if (frame instanceof OtherFrame) {
        if (canBeAnswered) all.push(frame.frame(encoding))
      } else if (frame.except !== id) all.push(frame.delivery.frame(encoding))
    }
    return [...all, ...frames.slice(own)]
  }

  /** Removes a member, and the frames for which no other member waits. The member keeps its lag. */
  remove (member: M): void {
    this.members.delete(member)
    const [first] = this.members
    const start = first === undefined ? this.#end : first.lag!.hold!.start
    this.#frames.splice(0, start - this.#start)
    this.#start = start
  }
}
