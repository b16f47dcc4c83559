import { asError } from '../error-utils.ts'
import { FST_ROOMS_NO_SUCH_SESSION } from '../errors.ts'
import { queueDirect } from '../frames/pending-direct.ts'
import type { Counters } from '../hub/counters.ts'
import type { Log } from '../hub/ports.ts'
import type { Streams } from '../streams/streams.ts'
import { anyPayload } from '../topics/payload.ts'
import type { LocalSessions } from './local-sessions.ts'
import { answerError, decode, encode, type NodeMessage, type NodeMessages, type Unreadable } from './messages.ts'
import type { Answer, ControlLink } from './requests.ts'

/** This node, as the messages of other nodes change it. */
export interface ReceiverPorts {
  readonly link: ControlLink
  readonly local: LocalSessions
  readonly streams: Pick<Streams, 'stop'>
  readonly counters: Pick<Counters, 'unreadable'>
  readonly log: Pick<Log, 'warn'>
  /** A request of this node was answered. */
  answered (fromNode: string, answer: Answer): void
  /** Tells the host of an error that no caller is told of. */
  fail (error: Error): void
}

type Message<T extends keyof NodeMessages> = NodeMessage & { type: T }

/** Does what other nodes ask for. */
export class Receiver {
  readonly #ports: ReceiverPorts
  /** Questions of other nodes to clients of this one, by node and id. */
  readonly #asks = new Map<string, AbortController>()
  /** The faults that were logged. Messages that cannot be read come in numbers, for example while nodes of two versions run. */
  readonly #logged = new Set<Unreadable['fault']>()

  constructor (ports: ReceiverPorts) {
    this.#ports = ports
  }

  /** Takes a message. Never throws. */
  receive (node: string, bytes: Uint8Array): void {
    const message = decode(bytes)
    if ('fault' in message) this.#unreadable(node, message)
    else {
      try {
        this.#take(node, message)
      } catch (error) {
        this.#ports.fail(asError(error))
      }
    }
  }

  #take (node: string, message: NodeMessage): void {
    const { local, streams, answered, fail } = this.#ports
    const failed = (error: unknown): void => { fail(asError(error)) }
    switch (message.type) {
      case 'send':
        this.#answer(node, message.id, () => this.#send(message))
        break
      case 'ask':
        this.#ask(node, message)
        break
      case 'cancel':
        this.#asks.get(`${node} ${message.id}`)?.abort()
        break
      case 'user': {
        const { user, topic, data } = message
        // The node that sent it has checked a payload for one topic.
        local.sendToUser(user, topic, data, topic === undefined ? undefined : anyPayload.stringify(data))
        break
      }
      case 'direct':
        this.#direct(node, message)
        break
      case 'kick': {
        const { id, code, reason } = message
        const kick = (): number => local.kick(message, { code, reason, by: 'server' })
        if (id === undefined) kick()
        else this.#answer(node, id, async () => kick())
        break
      }
      case 'reauthorize':
        if (message.id === undefined) local.reauthorize(message).catch(failed)
        else this.#answer(node, message.id, () => local.reauthorize(message))
        break
      case 'stop':
        streams.stop(message.topic).catch(failed)
        break
      case 'answer':
        answered(node, message)
        break
    }
  }

  async #send ({ session, wait, data }: Message<'send'>): Promise<void> {
    const { local } = this.#ports
    let timer: NodeJS.Timeout | undefined
    const halfTime = new Promise<void>(resolve => { timer = setTimeout(resolve, wait / 2) })
    try {
      // A session that reads slowly must not look like a node that does not answer.
      await Promise.race([local.send(local.get(session), data), halfTime])
    } finally {
      clearTimeout(timer)
    }
  }

  #ask (node: string, { id, session, timeout, data }: Message<'ask'>): void {
    const { local } = this.#ports
    const key = `${node} ${id}`
    const { signal } = this.#asks.set(key, new AbortController()).get(key)!
    this.#answer(node, id, async () => {
      try {
        return await local.get(session).ask(data, timeout, signal)
      } finally {
        this.#asks.delete(key)
      }
    }, signal)
  }

  #direct (node: string, { id, session, user, topic, from, data }: Message<'direct'>): void {
    const { local } = this.#ports
    const json = anyPayload.stringify(data)
    if (id === undefined) {
      local.directToUser(user!, topic, from, json)
      return
    }
    this.#answer(node, id, async () => {
      const receiver = local.find(session!)
      if (receiver?.topic !== topic || receiver.state !== 'open' || !queueDirect(from, receiver, json)) throw new FST_ROOMS_NO_SUCH_SESSION(session!)
    })
  }

  /** Answers a request with what `work` resolves with, or with its error; not at all if the node that has asked waits no longer. */
  async #answer (node: string, id: number, work: () => Promise<unknown>, signal?: AbortSignal): Promise<void> {
    let bytes: Buffer
    try {
      const data = await work()
      bytes = encode('answer', { id }, JSON.stringify(data))
    } catch (error) {
      bytes = encode('answer', { id, error: answerError(asError(error)) })
    }
    // A node that gets no answer gives up at its deadline.
    if (signal?.aborted !== true) await this.#ports.link.control(`node:${node}`, bytes)
  }

  #unreadable (node: string, { fault, detail }: Unreadable): void {
    const { counters, log } = this.#ports
    counters.unreadable++
    if (this.#logged.has(fault)) return
    this.#logged.add(fault)
    log.warn({ node, fault, detail }, 'a message of another node cannot be read, and is ignored; further ones with this fault are counted (stats().unreadable) and not logged')
  }
}
