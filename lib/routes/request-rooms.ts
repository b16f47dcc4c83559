import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { BroadcastOptions, RequestRooms } from '../../types/index.ts'
import { FST_ROOMS_CLOSED, FST_ROOMS_RESPONSE_ENDED, asError } from '../errors.ts'
import type { Hub } from '../hub/hub.ts'
import { checkExcept } from '../rooms.ts'
import { kPending, kReply } from '../symbols.ts'
import type { TopicRegistry } from '../topics.ts'

type Body = { errored?: Error | null, pipe?: unknown, getReader?: unknown } | string | Buffer | null | undefined

/** Broadcasts that wait for the success of one response. */
class PendingBroadcasts implements RequestRooms<any> {
  readonly #hub: Hub
  readonly #registry: TopicRegistry
  readonly #reply: FastifyReply
  #waiting: (() => void)[] = []
  #settled = false
  /** The client has gone before the response was finished. */
  #gone = false
  /** The handler has answered, with this. */
  #answer: { body: Body } | undefined

  constructor (hub: Hub, registry: TopicRegistry, reply: FastifyReply) {
    this.#hub = hub
    this.#registry = registry
    this.#reply = reply
    const { raw } = reply
    this.#settled = raw.writableFinished
    this.#gone = raw.destroyed && !raw.writableFinished
    raw.once('finish', () => { this.#settle(raw.statusCode < 400) })
    raw.once('close', () => { this.#closed() })
  }

  broadcast (topic: string, payload: unknown, options?: BroadcastOptions): void {
    if (this.#hub.state === 'closed') throw new FST_ROOMS_CLOSED()
    if (this.#settled) throw new FST_ROOMS_RESPONSE_ENDED()
    const definition = this.#registry.get(topic)
    const except = checkExcept(options?.except)
    const json = definition.message.serialise(payload)
    this.#waiting.push(() => {
      Promise.resolve(this.#hub.publish(definition, topic, json, { except })).catch((error: unknown) => { this.#hub.fail(asError(error)) })
    })
  }

  /** onSend: the handler has answered. To a client that has gone nothing more will happen, unless it is a stream. */
  answered (body: Body): void {
    this.#answer = { body }
    if (this.#gone && !isStream(body)) this.#settle(this.#reply.raw.statusCode < 400)
    else if (this.#gone) this.#settle(false)
  }

  /** The connection has closed; where that was before the response was finished, the answer counts and not its way. */
  #closed (): void {
    if (this.#settled) return
    this.#gone = true
    const { raw } = this.#reply
    const { body } = this.#answer ?? { body: undefined }
    if (this.#answer !== undefined) this.#settle(raw.statusCode < 400 && !isErrored(body) && raw.errored == null)
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

function isStream (body: Body): body is { errored?: Error | null } {
  return typeof body === 'object' && body !== null && !Buffer.isBuffer(body) && (typeof body.pipe === 'function' || typeof body.getReader === 'function')
}

function isErrored (body: Body): boolean {
  return isStream(body) && body.errored != null
}

type Carrier = FastifyRequest & { [kReply]: FastifyReply | null, [kPending]: PendingBroadcasts | null }

/** Adds `request.rooms` to the scope. */
export function decorateRequests (app: FastifyInstance, hub: Hub, registry: TopicRegistry): void {
  app.decorateRequest(kReply as never, null as never)
  app.decorateRequest(kPending as never, null as never)
  app.decorateRequest('rooms', {
    getter () {
      const carrier = this as unknown as Carrier
      carrier[kPending] ??= new PendingBroadcasts(hub, registry, carrier[kReply]!)
      return carrier[kPending]
    }
  } as never)
  app.addHook('onRequest', (request, reply, done) => {
    (request as Carrier)[kReply] = reply
    done()
  })
  app.addHook('onSend', (request, _reply, payload, done) => {
    (request as Carrier)[kPending]?.answered(payload as Body)
    done()
  })
}
