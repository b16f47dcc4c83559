import { isErrored, type Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { BroadcastOptions, RequestRooms } from '../../types/index.ts'
import { asError } from '../error-utils.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_NO_RESPONSE, FST_ROOMS_RESPONSE_ENDED } from '../errors.ts'
import type { RequestHub } from '../hub/hub-api.ts'
import { checkBroadcast, publishOfHost } from './rooms.ts'
import { kPending, kReply } from '../symbols.ts'
import type { TopicRegistry } from '../topics/registry.ts'

/** Broadcasts of one request, which are sent when its response has succeeded. */
class PendingBroadcasts implements RequestRooms<any> {
  readonly #hub: RequestHub
  readonly #registry: TopicRegistry
  readonly #reply: FastifyReply
  #waiting: (() => void)[] = []
  /** Whether the broadcasts have been sent or dropped. */
  #decided = false
  /** Whether the client closed the connection before the response was finished. */
  #clientGone = false
  /** The answer of the handler, once there is one. */
  #answer: { stream: Readable | null } | undefined

  constructor (hub: RequestHub, registry: TopicRegistry, reply: FastifyReply) {
    this.#hub = hub
    this.#registry = registry
    this.#reply = reply
    const { raw } = reply
    this.#decided = raw.writableFinished || (raw.writableEnded && raw.destroyed)
    this.#clientGone = raw.destroyed
    raw.once('finish', () => { this.#decide(raw.statusCode < 400) })
    raw.once('close', () => { this.#onClose() })
  }

  broadcast (topic: string, payload: unknown, options?: BroadcastOptions): void {
    if (this.#hub.state === 'closed') throw new FST_ROOMS_CLOSED()
    if (this.#decided) throw new FST_ROOMS_RESPONSE_ENDED()
    const definition = this.#registry.get(topic)
    const publishOptions = checkBroadcast(definition, options)
    const json = definition.message.serialise(payload)
    this.#waiting.push(() => {
      Promise.resolve(publishOfHost(this.#hub, definition, topic, json, publishOptions)).catch((error: unknown) => { this.#hub.fail(asError(error)) })
    })
  }

  /** Call in `onSend`. Decides if the client has gone, because no further event follows, unless the body is a stream. */
  handlerAnswered (body: unknown): void {
    const stream = streamOf(body)
    this.#answer = { stream }
    if (this.#clientGone) this.#decide(stream === null && this.#reply.raw.statusCode < 400)
  }

  /** Sends nothing. */
  drop (): void { this.#decide(false) }

  /** Decides when the connection closes. If the response was not finished, the handler's answer decides, not its transmission. */
  #onClose (): void {
    if (this.#decided) return
    this.#clientGone = true
    const { raw } = this.#reply
    const answer = this.#answer
    if (answer !== undefined) this.#decide(raw.statusCode < 400 && !(answer.stream !== null && isErrored(answer.stream)) && raw.errored == null)
    else if (this.#reply.sent) this.#decide(raw.headersSent && raw.statusCode < 400) // hijacked
  }

  #decide (success: boolean): void {
    if (this.#decided) return
    this.#decided = true
    const waiting = this.#waiting
    this.#waiting = []
    if (!success) return
    for (const publish of waiting) {
      try {
        publish()
      } catch (error) {
        this.#hub.fail(asError(error)) // thrown if the app has closed meanwhile
      }
    }
  }
}

/** Returns the stream of a handler's answer: a Node.js stream, a web stream, or the body of a Response; `null` if it has none. */
function streamOf (body: unknown): Readable | null {
  const source = body instanceof Response ? body.body : body as Partial<Readable & ReadableStream> | null
  // The cast is safe, because isErrored takes web streams, too, though its type does not.
  return typeof source === 'object' && (typeof (source as Readable | null)?.pipe === 'function' || typeof (source as ReadableStream | null)?.getReader === 'function') ? source as Readable : null
}

type Carrier = FastifyRequest & { [kReply]: FastifyReply | null, [kPending]: PendingBroadcasts | null }

/** Removes the reply of a request that joins a topic, because it has no response that could succeed: an upgrade has none, and an event stream ends with the member. */
export function dropReply (request: FastifyRequest): void {
  const carrier = request as Carrier
  carrier[kPending]?.drop()
  carrier[kReply] = null
  carrier[kPending] = null
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
    (request as Carrier)[kPending]?.handlerAnswered(payload)
    done()
  })
}
