import type { DirectDetails } from '../../types/index.ts'
import type { DirectReceiver } from '../hub/ports.ts'
import type { Membership } from '../session/membership.ts'

/** Queues the private payload of a member to one session. Returns `false` if that session has closed, or is closed now because it does not read. */
export function queueDirect (sender: Membership, receiver: DirectReceiver, json: string): boolean {
  try {
    receiver.sendPrivate(receiver.privateText(json, sender.id, sender.user))
    return true
  } catch {
    return false
  }
}

/** A private message that `onDirect` decides about. */
export class PendingDirect implements DirectDetails<string, any> {
  readonly to: DirectDetails['to']
  readonly receivers: readonly any[]
  /** The number of sessions that the last `deliver` queued it to. */
  local = 0
  readonly #sender: Membership
  /** The member's own payload as JSON. */
  readonly #json: string

  constructor (sender: Membership, json: string, to: DirectDetails['to'], receivers: DirectReceiver[]) {
    this.to = to
    this.receivers = Object.freeze(receivers)
    this.#sender = sender
    this.#json = json
  }

  // A property, so that a handler may take it out of its argument. An argument that is given as `undefined` is a payload, because a
  // filter that failed must not deliver the original.
  readonly deliver = (...changed: [payload?: unknown]): number => {
    const own = changed.length === 0 ? this.#json : undefined
    const receivers = this.receivers as readonly DirectReceiver[]
    const payloads = receivers.map(({ definition }) => own ?? definition.message.serialise(changed[0]))
    // Once the server has ended the sender, its messages no longer count.
    this.local = this.#sender.isEndedByServer ? 0 : receivers.filter((receiver, index) => queueDirect(this.#sender, receiver, payloads[index]!)).length
    return this.local
  }
}
