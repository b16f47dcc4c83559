import type { AskOptions, AsyncApiDocument, AsyncApiOptions, BroadcastOptions, BroadcastResult, Health, HistoryOptions, InjectedClient, InjectOptions, KeptMessages, KickOptions, LocalOptions, Member, MembersOptions, Rooms, SessionSelector, Stats, StreamRun, SubscribeOptions, UserMember, UserResult } from '../../types/index.ts'
import { FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_INVALID_SELECTOR, FST_ROOMS_NOT_A_STREAM } from '../errors.ts'
import { hostKey, publishOnce } from '../feed/mids.ts'
import type { ApiHub } from '../hub/hub-api.ts'
import { defaultPage, maxPage } from '../protocol/page-size.ts'
import { isSince } from '../protocol/position.ts'
import type { PublishOptions, Publishing } from '../hub/ports.ts'
import { checkClose } from '../session/check-close.ts'
import { isKey, isMid, maxKeyLength, maxMidLength, minSharedMidLength } from '../protocol/client-frames.ts'
import { kInside } from '../symbols.ts'
import type { TopicDefinition, TopicRegistry } from '../topics/registry.ts'
import { Listing } from './members.ts'

/** Characters of the id of a session, and far more: a broker has to carry it. */
const maxSessionLength = 255
const defaultMembers = 1_000
const defaultBuffer = 1_000
const defaultAskTimeout = 10_000
const selectors = ['session', 'user', 'topic']

/**
 * Returns a whole number from 1, or the fallback if it is `undefined`.
 * @throws FST_ROOMS_INVALID_ARGUMENT
 */
export function wholeNumber (name: string, value: unknown, fallback: number): number {
  if (value === undefined) return fallback
  if (Number.isInteger(value) && value as number >= 1 && value as number < 2 ** 31) return value as number
  throw new FST_ROOMS_INVALID_ARGUMENT(name, 'a whole number from 1')
}

/** The options of a broadcast of the host, checked. */
export interface HostPublishOptions extends PublishOptions {
  mid: string | undefined
}

/** @throws FST_ROOMS_INVALID_ARGUMENT */
export function checkBroadcast ({ history }: TopicDefinition, options: BroadcastOptions | undefined): HostPublishOptions {
  const { except, key, mid, version } = options ?? {}
  if (except !== undefined && (typeof except !== 'string' || except.length > maxSessionLength)) throw new FST_ROOMS_INVALID_ARGUMENT('except', 'the id of a session')
  if (key !== undefined && !isKey(key)) throw new FST_ROOMS_INVALID_ARGUMENT('key', `a string of 1 to ${maxKeyLength} characters`)
  if (mid !== undefined && !isMid(mid, minSharedMidLength)) throw new FST_ROOMS_INVALID_ARGUMENT('mid', `a string of ${minSharedMidLength} to ${maxMidLength} characters`)
  if (version !== undefined && !(Number.isSafeInteger(version) && history?.latest === true)) throw new FST_ROOMS_INVALID_ARGUMENT('version', 'a safe integer, in topics with history: { latest: true }')
  return { except, key, mid, version }
}

/** Publishes a broadcast of the host; one with a `mid` once. */
export function publishOfHost (hub: Publishing, definition: TopicDefinition, topic: string, json: string, options: HostPublishOptions): BroadcastResult | Promise<BroadcastResult> {
  const { mid } = options
  if (mid === undefined) return hub.publish(definition, topic, json, options)
  const onceKey = hostKey(topic, mid)
  return publishOnce(hub.mids, onceKey, topic, () => hub.publish(definition, topic, json, { ...options, onceKey }))
}

/**
 * Returns the topic that `sendToUser` is limited to. `topic: undefined` is refused, because it was meant to narrow the receivers.
 * @throws FST_ROOMS_INVALID_ARGUMENT
 */
function checkTopicOption (options: unknown): string | undefined {
  if (options === undefined) return undefined
  const isObject = typeof options === 'object' && options !== null && !Array.isArray(options)
  if (!isObject || Object.keys(options).some(name => name !== 'topic')) throw new FST_ROOMS_INVALID_ARGUMENT('options', 'an object with "topic"')
  if (!('topic' in options)) return undefined
  if (typeof options.topic !== 'string') throw new FST_ROOMS_INVALID_ARGUMENT('topic', 'the name of a topic')
  return options.topic
}

/**
 * Checks a selector. A member that is `undefined` is refused, because it was meant to narrow the selection.
 * @throws FST_ROOMS_INVALID_SELECTOR
 */
function checkSelector (method: string, selector: unknown): SessionSelector<any> {
  const given = Object.entries(selector ?? {})
  if (given.length > 0 && given.every(([name, value]) => selectors.includes(name) && typeof value === 'string')) return selector as SessionSelector<any>
  throw new FST_ROOMS_INVALID_SELECTOR(method, 'at least one of "session", "user" and "topic", each a string')
}

/** The members of `app.rooms` for other entry points of this package (`fastify-rooms/metrics`, `fastify-rooms/testing`). */
export interface Inside {
  readonly hub: ApiHub
  readonly registry: TopicRegistry
  /** Clients that close when the app begins to close. */
  readonly clients: Set<{ close (): void }>
  /** The paths of the routes: below which each topic is, and of the connection of several topics. `undefined` until they are added. */
  paths: { readonly prefix: string, readonly multiplex: string | false } | undefined
}

/** `app.rooms`: checks the arguments of the host's calls and passes them to the hub. */
export class HubRooms implements Rooms<any> {
  readonly #hub: ApiHub
  readonly #registry: TopicRegistry
  readonly #inject: (path: string, options: InjectOptions) => Promise<InjectedClient>
  readonly #document: (options?: AsyncApiOptions) => AsyncApiDocument
  readonly #inside: Inside
  readonly #listing: Listing

  constructor (hub: ApiHub, registry: TopicRegistry, inject: (path: string, options: InjectOptions) => Promise<InjectedClient>, document: (options?: AsyncApiOptions) => AsyncApiDocument) {
    this.#hub = hub
    this.#registry = registry
    this.#inject = inject
    this.#document = document
    this.#listing = new Listing(hub, registry)
    this.#inside = { hub, registry, clients: new Set(), paths: undefined }
  }

  get [kInside] (): Inside { return this.#inside }

  async broadcast (topic: string, payload: unknown, options?: BroadcastOptions): Promise<BroadcastResult<any>> {
    const definition = this.#registry.get(topic)
    const publishOptions = checkBroadcast(definition, options)
    return publishOfHost(this.#hub, definition, topic, definition.message.serialise(payload), publishOptions)
  }

  async send (session: string, payload: unknown): Promise<void> {
    await this.#hub.fleet.send(session, payload)
  }

  async sendToUser (user: string, payload: unknown, options?: { topic?: string }): Promise<UserResult> {
    const topic = checkTopicOption(options)
    return this.#hub.fleet.sendToUser(user, payload, topic, topic === undefined ? undefined : this.#registry.get(topic))
  }

  async ask (session: string, payload: unknown, options: AskOptions = {}): Promise<unknown> {
    return this.#hub.fleet.ask(session, payload, wholeNumber('timeout', options.timeout, defaultAskTimeout), options.signal)
  }

  async members (topic: string, options?: MembersOptions): Promise<Member<any>[]>
  async members (topic: string, options: MembersOptions & { by: 'user' }): Promise<UserMember<any>[]>
  async members (topic: string, options: Omit<MembersOptions, 'by'> & { by?: unknown } = {}): Promise<Member<any>[] | UserMember<any>[]> {
    this.#registry.get(topic)
    const limit = wholeNumber('limit', options.limit, defaultMembers)
    const { by = 'session' } = options
    if (by !== 'session' && by !== 'user') throw new FST_ROOMS_INVALID_ARGUMENT('by', '"session" or "user"')
    return this.#listing.members(topic, limit, by, options)
  }

  async count (topic: string, options?: LocalOptions): Promise<number> {
    return this.#listing.count(topic, options)
  }

  async topics (options?: LocalOptions): Promise<string[]> {
    return this.#listing.topics(options)
  }

  has (topic: string): topic is string {
    return this.#registry.find(topic) !== undefined
  }

  async history (topic: string, options: HistoryOptions = {}): Promise<KeptMessages<any>> {
    const definition = this.#registry.get(topic)
    const { since } = options
    if (since !== undefined && !isSince(since)) throw new FST_ROOMS_INVALID_ARGUMENT('since', 'the id of a message, "0" or "latest"')
    const limit = wholeNumber('limit', options.limit, defaultPage)
    if (limit > maxPage) throw new FST_ROOMS_INVALID_ARGUMENT('limit', `a whole number up to ${maxPage}`)
    return this.#hub.history(definition, topic, { since, limit })
  }

  async stream (topic: string): Promise<StreamRun<any, any>> {
    return this.#hub.streams.claim(this.#stream(topic), topic)
  }

  async stop (topic: string): Promise<boolean> {
    return this.#hub.fleet.stop(this.#stream(topic), topic)
  }

  subscribe (topic: string, options: SubscribeOptions = {}): AsyncIterableIterator<any, void, undefined> {
    const definition = this.#registry.get(topic)
    const { signal } = options
    const stop = (): void => { subscription.end() }
    const subscription = this.#hub.subscribe(topic, definition, wholeNumber('buffer', options.buffer, defaultBuffer), () => { signal?.removeEventListener('abort', stop) })
    if (signal?.aborted === true) subscription.end()
    else signal?.addEventListener('abort', stop)
    return subscription
  }

  async kick (selector: SessionSelector<any>, options: KickOptions = {}): Promise<number> {
    const { session, user, topic } = checkSelector('kick', selector)
    const ending = { ...checkClose(options.code ?? 4005, options.reason), by: 'server' as const }
    if (topic !== undefined) this.#registry.get(topic)
    return this.#hub.fleet.kick({ session, user, topic }, ending)
  }

  async reauthorize (selector: SessionSelector<any>): Promise<number> {
    const { session, user, topic } = checkSelector('reauthorize', selector)
    if (topic !== undefined) this.#registry.get(topic)
    return this.#hub.fleet.reauthorize({ session, user, topic })
  }

  stats (): Stats {
    return this.#hub.stats()
  }

  health (): Health {
    return this.#hub.health()
  }

  asyncapi (options?: AsyncApiOptions): AsyncApiDocument {
    return this.#document(options)
  }

  async drain (): Promise<void> {
    await this.#hub.drain()
  }

  async inject (path: string, options: InjectOptions = {}): Promise<InjectedClient> {
    return this.#inject(path, options)
  }

  /** @throws FST_ROOMS_NO_SUCH_TOPIC, FST_ROOMS_NOT_A_STREAM */
  #stream (topic: string): TopicDefinition {
    const definition = this.#registry.get(topic)
    if (!definition.stream) throw new FST_ROOMS_NOT_A_STREAM(topic)
    return definition
  }
}
