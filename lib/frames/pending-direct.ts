import type { DirectDetails } from '../../types/index.ts'
import type { DirectReceiver } from '../hub/ports.ts'
import type { Membership } from '../session/membership.ts'

/** Queues the private payload of a member to one session. Returns `false` if that session has closed, or is closed now because it does not read. */
export function queueDirect (sender: { readonly id: string, readonly user?: string | undefined }, receiver: DirectReceiver, json: string): boolean {
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
  /** Settles when the last `deliver` has reached other nodes; `undefined` if it was not sent to any. */
  sent: Promise<boolean> | undefined
  readonly #sender: Membership
  /** The member's own payload as JSON. */
  readonly #json: string
  readonly #sendElsewhere: ((json: string) => Promise<boolean>) | undefined

  /** @param sendElsewhere - sends JSON to the receivers on other nodes; `undefined` if there are none */
  constructor (sender: Membership, json: string, to: DirectDetails['to'], receivers: DirectReceiver[], sendElsewhere?: (json: string) => Promise<boolean>) {
    this.to = to
    this.receivers = Object.freeze(receivers)
    this.#sender = sender
    this.#json = json
    this.#sendElsewhere = sendElsewhere
  }

  // A property, so that a handler may take it out of its argument. An argument that is given as `undefined` is a payload, because a
  // filter that failed must not deliver the original.
  readonly deliver = (...changed: [payload?: unknown]): number => {
    const own = changed.length === 0 ? this.#json : undefined
    const receivers = this.receivers as readonly DirectReceiver[]
    const payloads = receivers.map(({ definition }) => own ?? definition.message.serialise(changed[0]))
    // Receivers on other nodes are in the sender's topic.
    const elsewhere = this.#sendElsewhere === undefined ? undefined : own ?? this.#sender.definition.message.serialise(changed[0])
    this.local = 0
    this.sent = undefined
    // Once the server has ended the sender, its messages no longer count.
    if (this.#sender.isEndedByServer) return 0
    this.local = receivers.filter((receiver, index) => queueDirect(this.#sender, receiver, payloads[index]!)).length
    if (elsewhere !== undefined) {
      this.sent = this.#sendElsewhere!(elsewhere)
      this.sent.catch(() => {}) // the member is told, unless the handler gives its own answer
    }
    return this.local
  }
}
