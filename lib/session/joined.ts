import type { AnySession, Settings } from '../hub/ports.ts'
import { endingFor, serverEnding } from './ending.ts'
import type { Membership } from './membership.ts'

/** The members of the hub that the call of `onJoined` uses. */
export interface JoinedHub {
  readonly settings: Pick<Settings, 'limits'>
  /** Ends the wait of a member for `onJoined`: sends it what has waited. Does nothing if the member does not wait. */
  release (session: Membership): void
}

/** Milliseconds for which this process has stood still since the member's connection was opened. */
function stalledOf ({ connection }: Membership): number {
  return connection.stalled + connection.hub.stalledFor(performance.now())
}

/**
 * Closes a member with 4100 if it still waits for `onJoined` after `limits.handshake`. Time in which this process stood still does not count.
 * @returns a function that ends the watch
 */
function watch (session: Membership, milliseconds: number): () => void {
  let stalled = stalledOf(session)
  const late = (): void => {
    if (session.lag?.hold === undefined) return // it has ended, or the hook reads its messages
    const since = stalledOf(session) - stalled
    stalled += since
    if (since > 0) timer = setTimeout(late, since).unref()
    else session.end(serverEnding(4100))
  }
  let timer = setTimeout(late, milliseconds).unref()
  return () => { clearTimeout(timer) }
}

/**
 * Calls `onJoined` for a member that its room holds, and releases the member when the hook has settled, or before if it reads the member's messages. An error ends
 * the membership: one that speaks to the peer with its code, any other as a failure of the server.
 */
export async function callOnJoined (hub: JoinedHub, session: Membership, onJoined: (session: AnySession) => unknown): Promise<void> {
  const endWatch = watch(session, hub.settings.limits.handshake)
  try {
    await onJoined(session)
    hub.release(session)
  } catch (error) {
    session.end(endingFor(session, error, 1011))
  } finally {
    endWatch()
  }
}
