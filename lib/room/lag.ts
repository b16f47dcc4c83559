import type { Position, SlowPolicy } from '../../types/index.ts'

/** The place at which a slow member stopped reading: numbers and never a queue, so it costs the same however far the member falls behind. */
export class Lag {
  /** The room's last message that the member was sent. */
  readonly message: number
  /** The room's last presence frame that the member was sent. */
  readonly announcement: number
  /** The position of the last message that the member was sent; `undefined` if the broker has none. */
  readonly position: Position | undefined
  /** Messages since then from which the member is excepted. */
  excepted: number
  /** Private frames from among those that the member was not sent. They are never dropped. */
  owed: Buffer[]
  /** The policy that applies; `undefined` until it is decided. */
  policy: SlowPolicy | undefined
  /** The gap frame of the first loss since then, to be sent when the member has caught up. */
  loss: string | undefined
  /** The latest values that it was to be sent have become too many. */
  isLost = false

  constructor (message: number, announcement: number, position: Position | undefined, excepted: number, owed: Buffer[]) {
    this.message = message
    this.announcement = announcement
    this.position = position
    this.excepted = excepted
    this.owed = owed
  }
}
