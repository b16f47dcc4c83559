import type { Connection } from '../connection/connection.ts'
import { FST_ROOMS_NO_SUCH_SESSION } from '../errors.ts'
import { queueDirect } from '../frames/pending-direct.ts'
import type { Directory } from '../hub/ports.ts'
import type { RecentKicks } from '../limits/recent-kicks.ts'
import type { Ending } from '../session/ending.ts'
import type { Membership } from '../session/membership.ts'
import type { Selector, Sender } from './messages.ts'

/** The members of the hub that calls on its sessions use. */
export interface SessionsHub {
  readonly kicks: RecentKicks
  readonly directory: Directory<Membership> & { all (): Iterable<Membership> }
  /** The connections of a user that join topics by frames. */
  multiplexedOf (user: string): Iterable<Connection<Membership>>
  /** Writes this turn's frames of a room, once for all members, before all of them are ended. */
  flush (topic: string): void
  /** Asks `authorize` again about sessions, and ends those that may not stay. Resolves with how many. */
  reauthorize (sessions: Membership[]): Promise<number>
}

/** The calls of `app.rooms` on sessions, as far as these are on this node. The host calls them, and so do other nodes. */
export class LocalSessions {
  readonly #hub: SessionsHub

  constructor (hub: SessionsHub) {
    this.#hub = hub
  }

  find (session: string): Membership | undefined {
    return this.#hub.directory.find(session)
  }

  /** @throws FST_ROOMS_NO_SUCH_SESSION */
  get (session: string): Membership {
    const member = this.find(session)
    if (member === undefined) throw new FST_ROOMS_NO_SUCH_SESSION(String(session).slice(0, 64))
    return member
  }

  /**
   * Sends a private message of the host to one session. Settles as `session.send` does.
   * @throws FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_SESSION_CLOSED
   */
  async send (member: Membership, payload: unknown): Promise<void> {
    await member.sendPrivate(member.privateText(member.definition.message.serialise(payload)))
  }

  /**
   * Sends a private message of the host to the sessions of a user.
   * @param topic - only to those in this topic
   * @param json - the payload, if it was serialised for that topic; otherwise each session's topic serialises it
   * @returns to how many; all of them are queued when this returns
   * @throws FST_ROOMS_INVALID_PAYLOAD, inside the call, if the topic of one of them refuses the payload; then none gets it
   */
  sendToUser (user: string, topic: string | undefined, payload: unknown, json?: string): Promise<number> {
    const members = [...this.#hub.directory.ofUser(user)].filter(member => topic === undefined || member.topic === topic)
    const texts = members.map(member => member.privateText(json ?? member.definition.message.serialise(payload)))
    const sent = Promise.allSettled(members.map(async (member, index) => member.sendPrivate(texts[index]!)))
    return sent.then(results => results.filter(({ status }) => status === 'fulfilled').length)
  }

  /** Queues a member's private message to the sessions of a user that are members of a topic. */
  directToUser (user: string, topic: string, sender: Sender, json: string): void {
    for (const receiver of [...this.#hub.directory.ofUser(user)]) {
      if (receiver.topic === topic && receiver.state === 'open') queueDirect(sender, receiver, json)
    }
  }

  /** Ends the sessions that match, those still joining and those whose upgrades are under way included. Returns how many. */
  kick (selector: Selector, ending: Ending): number {
    const { session, user, topic } = selector
    const members = this.#select(selector)
    if (session === undefined) this.#hub.kicks.note(user, topic, ending)
    if (session === undefined && user === undefined) this.#hub.flush(topic!)
    let ended = 0
    if (session === undefined && topic === undefined) {
      // A user's connection of several topics closes, also one that has joined none.
      for (const connection of this.#hub.multiplexedOf(user!)) {
        ended += [...connection.sessions].length
        connection.close(ending)
      }
    }
    for (const member of members) {
      if (member.state === 'closed') continue // the onLeave of another member has ended it
      member.end(ending)
      ended++
    }
    return ended
  }

  /** Asks the host again about the sessions that match. Resolves with how many were ended. */
  async reauthorize (selector: Selector): Promise<number> {
    return this.#hub.reauthorize(this.#select(selector))
  }

  /** The sessions that match every given condition. */
  #select (selector: Selector): Membership[] {
    const { session, user, topic } = selector
    return this.#candidates(session, user).filter(member =>
      (session === undefined || member.id === session) && (user === undefined || member.user === user) && (topic === undefined || member.topic === topic))
  }

  /** The smallest set of sessions that contains all matches. */
  #candidates (session: string | undefined, user: string | undefined): Membership[] {
    const { directory } = this.#hub
    if (session !== undefined) {
      const member = directory.find(session)
      return member === undefined ? [] : [member]
    }
    return [...(user === undefined ? directory.all() : directory.ofUser(user))]
  }
}
