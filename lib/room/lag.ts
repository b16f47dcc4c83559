import type { Position, SlowPolicy } from '../../types/index.ts'
import type { KeptFrames } from '../history/kept-frames.ts'
import type { Hold } from './hold.ts'

/** The messages that a member which has just joined is being sent. It gets the room's messages when it has all of them. */
export interface ReplayCursor {
  frames: KeptFrames
  /** The offset of the last message that was written. */
  behind: number
}

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
  /** The policy that applies; `undefined` until it is decided. `'replay'`: the member is not slow, but is being sent kept messages. */
  policy: SlowPolicy | 'replay' | undefined
  /** The place of a member under `'replay'` in what it is being sent. */
  readonly replay: ReplayCursor | undefined
  /** The gap frame of the first loss since then, to be sent when the member has caught up. */
  loss: string | undefined
  /** The latest values that it was to be sent have become too many. */
  isLost = false
  /** Set while the host's `onJoined` runs for the member. */
  hold: Hold | undefined = undefined
  /** Bytes of the room that waited for `onJoined` when they became too many. */
  waited = 0

  constructor (message: number, announcement: number, position: Position | undefined, excepted: number, owed: Buffer[], replay?: ReplayCursor) {
    this.message = message
    this.announcement = announcement
    this.position = position
    this.excepted = excepted
    this.owed = owed
    this.replay = replay
    this.policy = replay === undefined ? undefined : 'replay'
  }
}
