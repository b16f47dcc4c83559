import { setImmediate as turnEnd } from 'node:timers/promises'
import type { Ending, HubContext } from '../context.ts'
import { endingFor, serverEnding } from '../join.ts'
import type { MemberSession } from '../session.ts'

/** Sessions that the host is asked about at a time, and in one turn of the event loop. */
const atATime = 100

/** How a session ends that may not stay; `undefined` where it may. What cannot be answered is no permission. */
async function verdict (hub: HubContext, session: MemberSession): Promise<Ending | undefined> {
  try {
    const allowed = await hub.hooks.authorize!({ action: 'stay', topic: session.topic, session })
    return allowed === true ? undefined : serverEnding(4301, 'forbidden')
  } catch (thrown) {
    return endingFor(hub, session, thrown, 1011)
  }
}

/** Asks about one session, and ends it where it may not stay: whether it did. */
export async function review (hub: HubContext, session: MemberSession): Promise<boolean> {
  if (session.state === 'closed') return false
  const ending = await verdict(hub, session)
  if (ending === undefined || session.state as string === 'closed') return false
  hub.end(session, ending)
  return true
}

/** The same with many; returns how many were ended. */
export async function reviewAll (hub: HubContext, sessions: MemberSession[]): Promise<number> {
  const rest = sessions.values()
  let ended = 0
  const worker = async (): Promise<void> => {
    for (const session of rest) {
      if (await review(hub, session)) ended++
      await turnEnd() // others have work, too
    }
  }
  await Promise.all(Array.from({ length: Math.min(atATime, sessions.length) }, worker))
  return ended
}
