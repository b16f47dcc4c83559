import type { Member, UserMember } from '../../types/index.ts'
import { FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_NOT_LISTED } from '../errors.ts'
import type { ApiHub } from '../hub/hub-api.ts'
import { groupUsers, listUsers } from '../presence/list-users.ts'
import { describe, type PresentMember } from '../presence/roster.ts'
import type { SharedPresence } from '../presence/shared-presence.ts'
import type { TopicRegistry } from '../topics/registry.ts'

/** Most topics of a fleet that are listed. */
const mostTopics = 100_000

/**
 * Whether only this node is asked.
 * @throws FST_ROOMS_INVALID_ARGUMENT
 */
function checkLocal ({ local }: { local?: unknown } = {}): boolean {
  if (local !== undefined && typeof local !== 'boolean') throw new FST_ROOMS_INVALID_ARGUMENT('local', 'true or false')
  return local === true
}

/** The members of topics as the host reads them: those of this node, or of all nodes. */
export class Listing {
  readonly #hub: ApiHub
  readonly #registry: TopicRegistry

  constructor (hub: ApiHub, registry: TopicRegistry) {
    this.#hub = hub
    this.#registry = registry
  }

  /**
   * @param limit - most members, or users
   * @throws FST_ROOMS_NO_SUCH_TOPIC, FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_NOT_LISTED, FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_DOWN
   */
  async members (topic: string, limit: number, by: 'session' | 'user', options: { local?: unknown }): Promise<Member[] | UserMember[]> {
    const { presence } = this.#registry.get(topic)
    const shared = this.#shared(checkLocal(options), presence === null, `the members of topic "${topic}" (give it "presence")`)
    if (shared === undefined && by === 'user') {
      const { users, directory } = this.#hub
      return listUsers(this.#open(topic), users.held(topic), limit, user =>
        [...directory.ofUser(user)].filter(session => session.topic === topic && session.state === 'open'))
    }
    const members = shared === undefined ? this.#open(topic) : await this.#allMembers(shared, topic, limit)
    if (by === 'user') return groupUsers(members, this.#hub.users.held(topic), limit)
    const described: Member[] = []
    for (const member of members) {
      if (described.length === limit) break
      described.push(describe(member))
    }
    return described
  }

  /** @throws FST_ROOMS_NO_SUCH_TOPIC, FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_NOT_LISTED, FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_DOWN */
  async count (topic: string, options?: { local?: unknown }): Promise<number> {
    const { presence } = this.#registry.get(topic)
    const shared = this.#shared(checkLocal(options), false, 'the numbers of members')
    return shared === undefined ? this.#hub.room(topic)?.size ?? 0 : shared.count(topic, presence !== null)
  }

  /** @throws FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_NOT_LISTED, FST_ROOMS_BROKER_SILENT, FST_ROOMS_BROKER_DOWN */
  async topics (options?: { local?: unknown }): Promise<string[]> {
    const shared = this.#shared(checkLocal(options), false, 'the topics that have members')
    const remote = shared === undefined ? [] : await shared.link.topics(mostTopics)
    const topics = new Set(remote.filter(topic => this.#registry.find(topic) !== undefined))
    for (const room of this.#hub.allRooms()) {
      if (room.size > 0) topics.add(room.topic)
    }
    return [...topics]
  }

  /** Returns what the broker knows of all nodes; `undefined` if only this node is asked, or is the only one. @throws FST_ROOMS_NOT_LISTED */
  #shared (isLocal: boolean, isLacking: boolean, what: string): SharedPresence<any> | undefined {
    const { hasOtherNodes, shared } = this.#hub
    if (isLocal || !hasOtherNodes) return undefined
    if (shared === undefined || isLacking) throw new FST_ROOMS_NOT_LISTED(what)
    return shared
  }

  #open (topic: string): Iterable<PresentMember> {
    return this.#hub.room(topic)?.open() ?? []
  }

  /** Members of all nodes, those of this node at the end. If the list is not here, the broker is asked for at most `limit` of them. */
  async #allMembers (shared: SharedPresence<any>, topic: string, limit: number): Promise<PresentMember[]> {
    const remote = this.#hub.room(topic)?.remote
    if (remote?.isListed === true && shared.isCurrent(remote)) return [...remote.list(), ...this.#open(topic)]
    const { members } = await shared.link.read(topic, limit)
    const own = [...this.#open(topic)]
    return [...members.filter(({ node }) => node !== this.#hub.node), ...own]
  }
}
