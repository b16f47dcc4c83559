import type { DirectDetails } from '../../types/index.ts'
import type { MemberSession } from '../session/session.ts'

/** Queues the private payload of a member to one session. Returns `false` if that session has closed, or is closed now because it does not read. */
export function queueDirect (sender: MemberSession, receiver: MemberSession, json: string): boolean {
  try {
    receiver.sendPrivate(receiver.privateFrame(json, sender.id, sender.user))
    return true
  } catch {
    return false
  }
}

/** A private message that `onDirect` decides about. */
export class PendingDirect implements DirectDetails<string, any> {
  readonly to: DirectDetails['to']
  readonly receivers: readonly MemberSession[]
  /** The number of sessions that the last `deliver` queued it to. */
  local = 0
  readonly #sender: MemberSession
  /** The member's own payload as JSON. */
  readonly #json: string

  constructor (sender: MemberSession, json: string, to: DirectDetails['to'], receivers: MemberSession[]) {
    this.to = to
    this.receivers = Object.freeze(receivers)
    this.#sender = sender
    this.#json = json
  }

  // A property, so that a handler may take it out of its argument. An argument that is there and undefined is a payload: the result of a
  // filter that failed must not deliver the original.
  readonly deliver = (...changed: [payload?: unknown]): number => {
    const own = changed.length === 0 ? this.#json : undefined
    const payloads = this.receivers.map(({ definition }) => own ?? definition.message.serialise(changed[0]))
    // The server has ended the sender meanwhile: its messages no longer count.
    this.local = this.#sender.dismissed ? 0 : this.receivers.filter((receiver, index) => queueDirect(this.#sender, receiver, payloads[index]!)).length
    return this.local
  }
}
