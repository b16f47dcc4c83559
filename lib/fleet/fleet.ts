import type { BroadcastResult } from '../../types/index.ts'
import { FST_ROOMS_ASK_TIMEOUT, FST_ROOMS_BROKER_DOWN, FST_ROOMS_NO_SUCH_SESSION, FST_ROOMS_STREAM_ENDED } from '../errors.ts'
import type { ControlOutcome } from '../feed/broker-link.ts'
import type { DirectsElsewhere, PublishOptions } from '../hub/ports.ts'
import type { Page, PageRequest } from '../history/read.ts'
import type { Ending } from '../session/ending.ts'
import type { Streams } from '../streams/streams.ts'
import { anyPayload } from '../topics/payload.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { countOf, errorOf } from './answers.ts'
import { LocalSessions, type SessionsHub } from './local-sessions.ts'
import { encode, isUserName, type Selector, type Sender } from './messages.ts'
import { nodeOf } from './node-id.ts'
import { Receiver, type ReceiverPorts } from './receiver.ts'
import { NodeRequests, type Answer, type ControlLink, type NodeRequest } from './requests.ts'

/** The members of the hub that calls over nodes use. */
export interface FleetPorts extends Pick<ReceiverPorts, 'counters' | 'log' | 'fail'> {
  /** The id of this node. */
  readonly node: string
  readonly link: ControlLink & { readonly isInProcess: boolean }
  readonly sessions: SessionsHub
  readonly streams: Pick<Streams, 'stop' | 'isHere'>
  /** Milliseconds that a request waits for the answer of another node. */
  readonly timeout: number
  /** @throws FST_ROOMS_STREAM_ENDED */
  publish (definition: TopicDefinition, topic: string, json: string, options: PublishOptions): BroadcastResult | Promise<BroadcastResult>
  /** @throws FST_ROOMS_CLOSED, FST_ROOMS_BROKER_SILENT */
  page (definition: TopicDefinition, topic: string, request: PageRequest): Promise<Page>
}

const userPrefix = 'user:'

/**
 * The calls of `app.rooms`, and the private messages of members, over all nodes. A session's id names its node, which is asked alone. All other calls are told to the
 * nodes, and no answer is awaited. With a broker of this process there is no other node, and nothing is sent.
 */
export class Fleet implements DirectsElsewhere {
  readonly #ports: FleetPorts
  readonly #local: LocalSessions
  readonly #requests: NodeRequests
  readonly #receiver: Receiver

  constructor (ports: FleetPorts) {
    const { link, streams, counters, log, sessions, fail } = ports
    this.#ports = ports
    this.#local = new LocalSessions(sessions)
    this.#requests = new NodeRequests(link)
    this.#receiver = new Receiver({ link, local: this.#local, streams, counters, log, fail, answered: (node, answer) => { this.#requests.answered(node, answer) } })
  }

  /** Takes a message of another node. Never throws. */
  receive (fromNode: string, bytes: Uint8Array): void {
    this.#receiver.receive(fromNode, bytes)
  }

  /** @throws FST_ROOMS_NO_SUCH_SESSION, FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_SESSION_CLOSED, FST_ROOMS_BROKER_DOWN */
  async send (session: string, payload: unknown): Promise<void> {
    const node = this.#otherNode(session)
    if (node === undefined) return this.#local.send(this.#local.get(session), payload)
    const json = anyPayload.serialise(payload)
    await this.#ask(node, session, id => encode('send', { id, session, wait: this.#ports.timeout }, json))
  }

  /**
   * @param timeout - milliseconds
   * @throws FST_ROOMS_NO_SUCH_SESSION, FST_ROOMS_NOT_ASKABLE, FST_ROOMS_INVALID_PAYLOAD, FST_ROOMS_SESSION_CLOSED, FST_ROOMS_ASK_TIMEOUT, FST_ROOMS_BROKER_DOWN, the signal's reason
   */
  async ask (session: string, payload: unknown, timeout: number, signal: AbortSignal | undefined): Promise<unknown> {
    const node = this.#otherNode(session)
    if (node === undefined) return this.#local.get(session).ask(payload, timeout, signal)
    const json = anyPayload.serialise(payload)
    const { data } = await this.#request({
      node,
      session,
      timeout,
      signal,
      encode: id => encode('ask', { id, session, timeout }, json),
      late: isSent => isSent ? new FST_ROOMS_ASK_TIMEOUT(session, timeout) : new FST_ROOMS_BROKER_DOWN(),
      abandoned: id => { this.#tell(`node:${node}`, () => encode('cancel', { id })) }
    })
    return data
  }

  /**
   * @param definition - of `topic`, if only sessions in it are meant
   * @throws FST_ROOMS_INVALID_PAYLOAD, in which case no session gets it
   */
  async sendToUser (user: string, payload: unknown, topic?: string, definition?: TopicDefinition): Promise<{ local: number, published: boolean }> {
    const json = definition?.message.serialise(payload)
    const bytes = this.#mayBeElsewhere(user) ? encode('user', { user, ...(topic === undefined ? {} : { topic }) }, json ?? anyPayload.serialise(payload)) : undefined
    const local = this.#local.sendToUser(user, topic, payload, json)
    const outcome = bytes === undefined ? 'gone' : await this.#ports.link.control(`user:${user}`, bytes)
    return { local: await local, published: outcome !== 'unknown' }
  }

  /** @throws FST_ROOMS_BROKER_DOWN, after sessions of this node were ended */
  async kick (selector: Selector, ending: Ending): Promise<number> {
    const { code, reason } = ending
    return this.#select(selector, () => this.#local.kick(selector, ending), id => encode('kick', { ...selector, ...id, code, reason }))
  }

  /** @throws FST_ROOMS_BROKER_DOWN, after the host was asked about sessions of this node */
  async reauthorize (selector: Selector): Promise<number> {
    return this.#select(selector, () => this.#local.reauthorize(selector), id => encode('reauthorize', { ...selector, ...id }))
  }

  /**
   * Stops the producer of a stream, wherever it is. If no node has one, the stream ends, too, so that its readers do not wait for ever.
   * @returns whether there was one here, or messages of a stream that had not ended
   * @throws FST_ROOMS_BROKER_DOWN, FST_ROOMS_BROKER_SILENT, FST_ROOMS_CLOSED
   */
  async stop (definition: TopicDefinition, topic: string): Promise<boolean> {
    const { link, streams, page, publish } = this.#ports
    if (link.isInProcess || streams.isHere(topic)) return streams.stop(topic)
    const { position, ended } = await page(definition, topic, { limit: 1 })
    if (ended !== undefined) return false
    const told = this.#tell('*', () => encode('stop', { topic }))
    if (position === undefined || position.offset === 0) {
      // A stream that has not begun must not end for a producer that comes later.
      await this.#taken(told)
      return false
    }
    try {
      const { published } = await publish(definition, topic, '', { end: 'stopped' })
      if (!published) throw new FST_ROOMS_BROKER_DOWN()
    } catch (error) {
      // Its producer, which was told, was faster.
      if (!(error instanceof FST_ROOMS_STREAM_ENDED)) throw error
    }
    return true
  }

  mayReach (to: string): boolean {
    return to.startsWith(userPrefix) ? this.#mayBeElsewhere(to.slice(userPrefix.length)) : this.#otherNode(to) !== undefined
  }

  async direct ({ id, user }: Sender, to: string, topic: string, json: string): Promise<boolean> {
    const from = { id, user }
    if (to.startsWith(userPrefix)) {
      const receiver = to.slice(userPrefix.length)
      const outcome = await this.#ports.link.control(`user:${receiver}`, encode('direct', { user: receiver, topic, from }, json))
      if (outcome === 'unknown') throw new FST_ROOMS_BROKER_DOWN()
      return outcome === 'sent'
    }
    return ifThere(this.#ask(this.#otherNode(to)!, to, id => encode('direct', { id, session: to, topic, from }, json)), () => true, false)
  }

  /** Rejects all requests to other nodes. */
  close (): void {
    this.#requests.close()
  }

  /** The node of a session, if it is another one. */
  #otherNode (session: string): string | undefined {
    const { link, node } = this.#ports
    if (link.isInProcess) return undefined
    const named = nodeOf(session)
    return named === node ? undefined : named
  }

  #mayBeElsewhere (user: string): boolean {
    return !this.#ports.link.isInProcess && isUserName(user)
  }

  /** Applies a call to the sessions that match: on the node of the one that is named, or on all nodes. Resolves with the number on this node, or on that of the session. */
  async #select (selector: Selector, local: () => number | Promise<number>, bytes: (id?: { id: number }) => Buffer): Promise<number> {
    const { session, user } = selector
    if (user !== undefined && !isUserName(user)) return local()
    if (session !== undefined) {
      const node = this.#otherNode(session)
      return node === undefined ? local() : ifThere(this.#ask(node, session, id => bytes({ id })), ({ data }) => countOf(data), 0)
    }
    // All nodes are told of a user's, too: an upgrade that is under way may be on any of them.
    const told = this.#tell('*', () => bytes())
    const ended = await local()
    await this.#taken(told)
    return ended
  }

  /** Tells other nodes something, if there can be any. Never rejects. */
  async #tell (to: Parameters<ControlLink['control']>[0], bytes: () => Buffer): Promise<ControlOutcome> {
    return this.#ports.link.isInProcess ? 'gone' : this.#ports.link.control(to, bytes())
  }

  /** @throws FST_ROOMS_BROKER_DOWN if the broker has not taken a message */
  async #taken (told: Promise<ControlOutcome>): Promise<void> {
    if (await told === 'unknown') throw new FST_ROOMS_BROKER_DOWN()
  }

  #ask (node: string, session: string, encode: (id: number) => Buffer): Promise<Answer> {
    return this.#request({ node, session, encode, timeout: this.#ports.timeout, late: () => new FST_ROOMS_BROKER_DOWN() })
  }

  /** @throws the error of the answer */
  async #request (request: NodeRequest): Promise<Answer> {
    const answer = await this.#requests.ask(request)
    if (answer.error !== undefined) throw errorOf(answer.error, request.session, request.timeout)
    return answer
  }
}

/** Resolves with a value of the answer; with another one if there is no such session. */
async function ifThere<T> (asked: Promise<Answer>, read: (answer: Answer) => T, otherwise: T): Promise<T> {
  try {
    return read(await asked)
  } catch (error) {
    if (error instanceof FST_ROOMS_NO_SUCH_SESSION) return otherwise
    throw error
  }
}
