import type { ClientFrame } from '../../types/index.ts'
import { defaultPage } from '../protocol/page-size.ts'
import type { Membership } from '../session/membership.ts'
import { ifPermitted } from './authorize.ts'
import { ackOk } from '../protocol/server-frames.ts'
import { reply } from './reply.ts'

/** Buffered bytes above which the next frame waits. */
const highWaterMark = 65_536

/** Handles a `history` frame. The next frame of the member is handled when the page has been sent, because the page is large and its request small. */
export function readHistory (session: Membership, { since, limit = defaultPage, ref }: ClientFrame & { type: 'history' }): void | Promise<void> {
  const { definition, topic, hub } = session
  return ifPermitted(hub.hooks, { action: 'history', topic, session }, async () => {
    const page = await hub.history(definition, topic, { since, limit })
    await reply(session, ackOk(ref, undefined, page))
    const { transport } = session
    if (transport.bufferedBytes > highWaterMark) await transport.drained().catch(() => {}) // rejects if the connection has closed
  })
}
