import { isErrored, type Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { BroadcastOptions, RequestRooms } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_NO_RESPONSE, FST_ROOMS_RESPONSE_ENDED } from '../errors.ts'
import type { RequestHub } from '../hub/hub-api.ts'
import { checkBroadcast } from './rooms.ts'
import { kPending, kReply } from '../symbols.ts'
import type { TopicRegistry } from '../topics/registry.ts'

/** Broadcasts that wait for the success of one response. */
class PendingBroadcasts implements RequestRooms<any> {
  readonly #hub: RequestHub
  readonly #registry: TopicRegistry
  readonly #reply: FastifyReply
  #waiting: (() => void)[] = []
  #settled = false
  /** The client has gone before the response was finished. */
  #gone = false
  /** The handler has answered, with this. */
  #answer: { stream: Readable | null } | undefined

  constructor (hub: RequestHub, registry: TopicRegistry, reply: FastifyReply) {
    this.#hub = hub
    this.#registry = registry
    this.#reply = reply
    const { raw } = reply
    this.#settled = raw.writableFinished || (raw.writableEnded && raw.destroyed)
    this.#gone = raw.destroyed
    raw.once('finish', () => { this.#settle(raw.statusCode < 400) })
    raw.once('close', () => { this.#closed() })
  }

  broadcast (topic: string, payload: unknown, options?: BroadcastOptions): void {
    if (this.#hub.state === 'closed') throw new FST_ROOMS_CLOSED()
    if (this.#settled) throw new FST_ROOMS_RESPONSE_ENDED()
    const definition = this.#registry.get(topic)
    const origin = checkBroadcast(options)
    const json = definition.message.serialise(payload)
    this.#waiting.push(() => {
      Promise.resolve(this.#hub.publish(definition, topic, json, origin)).catch((error: unknown) => { this.#hub.fail(asError(error)) })
    })
  }

  /** onSend: the handler has answered. To a client that has gone nothing more will happen, unless it is a stream. */
  answered (body: unknown): void {
    const stream = streamOf(body)
    this.#answer = { stream }
    if (this.#gone) this.#settle(stream === null && this.#reply.raw.statusCode < 400)
  }

  /** The connection has closed; where that was before the response was finished, the answer counts and not its way. */
  #closed (): void {
    if (this.#settled) return
    this.#gone = true
    const { raw } = this.#reply
    const answer = this.#answer
    if (answer !== undefined) this.#settle(raw.statusCode < 400 && !(answer.stream !== null && isErrored(answer.stream)) && raw.errored == null)
    else if (this.#reply.sent) this.#settle(raw.headersSent && raw.statusCode < 400) // hijacked
  }

  #settle (success: boolean): void {
    if (this.#settled) return
    this.#settled = true
    const waiting = this.#waiting
    this.#waiting = []
    if (!success) return
    for (const publish of waiting) {
      try {
        publish()
      } catch (error) {
        this.#hub.fail(asError(error)) // the app has closed meanwhile
      }
    }
  }
}

/** The stream in what a handler answers, of Node.js or of the web; a Response carries one. */
function streamOf (body: unknown): Readable | null {
  const source = body instanceof Response ? body.body : body as Partial<Readable & ReadableStream> | null
  // isErrored knows the streams of the web as well; its type does not.
  return typeof source === 'object' && (typeof (source as Readable | null)?.pipe === 'function' || typeof (source as ReadableStream | null)?.getReader === 'function') ? source as Readable : null
}

type Carrier = FastifyRequest & { [kReply]: FastifyReply | null, [kPending]: PendingBroadcasts | null }

/** The request was upgraded: it has no response any more. */
export function forgetReply (request: FastifyRequest): void {
  (request as Carrier)[kReply] = null;
  (request as Carrier)[kPending] = null
}

/** Adds `request.rooms` to the scope. */
export function decorateRequests (app: FastifyInstance, hub: RequestHub, registry: TopicRegistry): void {
  app.decorateRequest(kReply as never, null as never)
  app.decorateRequest(kPending as never, null as never)
  app.decorateRequest('rooms', {
    getter () {
      const carrier = this as unknown as Carrier
      if (carrier[kReply] === null) throw new FST_ROOMS_NO_RESPONSE()
      carrier[kPending] ??= new PendingBroadcasts(hub, registry, carrier[kReply])
      return carrier[kPending]
    }
  } as never)
  app.addHook('onRequest', (request, reply, done) => {
    (request as Carrier)[kReply] = reply
    done()
  })
  app.addHook('onSend', (request, _reply, payload, done) => {
    (request as Carrier)[kPending]?.answered(payload)
    done()
  })
}
