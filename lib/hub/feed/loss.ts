import { setImmediate as turnEnd } from 'node:timers/promises'
import { FST_ROOMS_MESSAGES_LOST } from '../../errors.ts'
import { gap as gapFrame } from '../../protocol/frames.ts'
import type { HubContext } from '../context.ts'
import { serverEnding } from '../join.ts'
import type { Room } from '../room.ts'
import type { MemberSession } from '../session.ts'
import type { Gap } from './feed.ts'

/** Raw members that are closed in one turn of the event loop: as many as `drain.batch` lets go by default. */
const batch = 500

/** Tells all receivers of a topic that messages are missing: `gap` to members of `rooms.v1`, close 4202 to raw ones, an error to subscribers. */
export function tellLoss (hub: HubContext, room: Room, gap: Gap): void {
  room.tellLoss(gapFrame(gap))
  for (const subscription of [...room.subscriptions]) subscription.end(new FST_ROOMS_MESSAGES_LOST(room.topic))
  const raw = Array.from(room.open()).filter(({ connection }) => connection.mode === 'rooms.raw')
  if (raw.length > 0) closeInBatches(hub, raw)
}

async function closeInBatches (hub: HubContext, sessions: MemberSession[]): Promise<void> {
  const rest = sessions.values()
  for (;;) {
    let count = 0
    for (const session of rest) {
      hub.end(session, serverEnding(4202))
      if (++count === batch) break
    }
    if (count < batch) return
    await turnEnd()
  }
}
