import type { BroadcastResult, EndReason, PipeOptions, StreamEnd, StreamRun, WriteOptions } from '../../types/index.ts'
import { asError, isClientError, wireError } from '../error-utils.ts'
import { FST_ROOMS_BROKER_DOWN, FST_ROOMS_INVALID_ARGUMENT, FST_ROOMS_STREAM_ENDED, FST_ROOMS_STREAM_TAKEN } from '../errors.ts'
import type { PublishOptions } from '../hub/ports.ts'
import { isKey, maxKeyLength } from '../protocol/client-frames.ts'
import { anyPayload } from '../topics/payload.ts'
import type { TopicDefinition } from '../topics/registry.ts'
import { pipe } from './pipe.ts'
import { sourceOf } from './source.ts'

/** The hub as a producer sees it. */
export interface RunPorts {
  /** Publishes to the topic. @throws FST_ROOMS_STREAM_ENDED if it has ended */
  publish (definition: TopicDefinition, topic: string, json: string, options: PublishOptions): BroadcastResult | Promise<BroadcastResult>
  /** The stream has ended: the topic has no producer any more. */
  release (run: Run): void
  /** Tells the host of an error whose promise it may not read. */
  fail (error: Error): void
}

function hasEnded (error: unknown): boolean {
  return error instanceof FST_ROOMS_STREAM_ENDED
}

/** Why a signal is aborted, as `fetch` and clients of models expect it. */
function aborted (topic: string, reason: EndReason): DOMException {
  return new DOMException(`stream "${topic}" was ${reason}`, 'AbortError')
}

/** The producer of one stream: its messages in order, and one end. */
export class Run implements StreamRun<any, any> {
  readonly topic: string
  readonly #definition: TopicDefinition
  readonly #ports: RunPorts
  readonly #abort = new AbortController()
  /** The publication before, if the broker has not answered it: a broker may take publications that it is given at once in any order. */
  #last: Promise<unknown> | undefined
  #end: Promise<StreamEnd> | undefined
  /** The error that has ended the stream. */
  #cause: Error | undefined
  #isPiped = false
  #markOver!: () => void
  readonly #over = new Promise<void>(resolve => { this.#markOver = resolve })

  constructor (definition: TopicDefinition, topic: string, ports: RunPorts) {
    this.#definition = definition
    this.topic = topic
    this.#ports = ports
  }

  get signal (): AbortSignal { return this.#abort.signal }
  /** The stream ends, or has ended: nothing is written any more. */
  get isOver (): boolean { return this.#end !== undefined }

  write (payload: unknown, options: WriteOptions = {}): Promise<string> {
    const written = this.#write(payload, options)
    // The caller need not await the promise: its rejection goes to onError and is not unhandled.
    written.catch((error: unknown) => { if (!hasEnded(error)) this.#ports.fail(asError(error)) })
    return written
  }

  pipe (source: AsyncIterable<unknown> | ReadableStream<unknown>, options: PipeOptions<any> = {}): Promise<StreamEnd<any>> {
    const piped = this.#pipe(source, options)
    piped.catch((error: unknown) => { this.#ports.fail(asError(error)) })
    return piped
  }

  async end (data?: unknown): Promise<StreamEnd<any>> {
    return this.#finish('done', data === undefined ? undefined : anyPayload.serialise(data))
  }

  async fail (error: unknown): Promise<StreamEnd<any>> {
    return this.#fail(asError(error))
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    await this.#finish('failed')
  }

  /** Ends the stream for its producer, unless it has ended before. Resolves with whether it has. */
  async stop (reason: 'stopped' | 'lost'): Promise<boolean> {
    if (this.isOver) return false
    await this.#finish(reason)
    return true
  }

  async #write (payload: unknown, { key }: WriteOptions): Promise<string> {
    if (this.isOver) throw new FST_ROOMS_STREAM_ENDED(this.topic)
    if (key !== undefined && !isKey(key)) throw new FST_ROOMS_INVALID_ARGUMENT('key', `a string of 1 to ${maxKeyLength} characters`)
    const json = this.#definition.message.serialise(payload)
    try {
      const { id } = await this.#publish(json, { key })
      return id!
    } catch (error) {
      // Readers would miss this message without knowing it, so the stream does not go on.
      if (hasEnded(error)) this.#finish('lost')
      else this.#fail(asError(error))
      throw error
    }
  }

  async #pipe (given: unknown, options: PipeOptions<any>): Promise<StreamEnd> {
    const { merge } = options
    if (merge !== undefined && typeof merge !== 'function') throw new FST_ROOMS_INVALID_ARGUMENT('merge', 'a function of two messages that returns one')
    if (this.#isPiped) throw new FST_ROOMS_STREAM_TAKEN(this.topic)
    const source = sourceOf(given)
    if (source === undefined) throw new FST_ROOMS_INVALID_ARGUMENT('source', 'an async iterable or a ReadableStream')
    this.#isPiped = true
    if (this.isOver) source.cancel()
    else {
      try {
        await pipe(source, { write: async payload => { await this.#write(payload, {}) }, over: this.#over }, options)
      } catch (error) {
        // A source that fails because it was told to stop has not failed.
        if (!this.isOver) this.#fail(asError(error))
      }
    }
    const end = this.#finish('done') // or how it has ended before
    if (this.#cause === undefined) return end
    await end.catch(() => {})
    throw this.#cause
  }

  #fail (error: Error): Promise<StreamEnd> {
    return this.#finish('failed', isClientError(error) ? JSON.stringify(wireError(error)) : undefined, error)
  }

  /** Ends the stream, once. Returns how it has ended. */
  #finish (reason: EndReason, json?: string, cause?: Error): Promise<StreamEnd> {
    if (this.#end !== undefined) return this.#end
    let begin!: () => void
    // Set before the end is published, because subscribers of events may call the producer within that.
    this.#end = new Promise(resolve => { begin = () => { resolve(this.#publishEnd(reason, json).finally(() => { this.#ports.release(this) })) } })
    this.#end.catch(() => {}) // its callers are told
    this.#cause = cause
    begin()
    this.#markOver()
    if (reason !== 'done') this.#abort.abort(cause ?? aborted(this.topic, reason))
    return this.#end
  }

  async #publishEnd (reason: EndReason, json = ''): Promise<StreamEnd> {
    const { topic } = this
    try {
      const { id } = await this.#publish(json, { end: reason })
      return { topic, ...(id === undefined ? {} : { id }), reason }
    } catch (error) {
      // A node that stops a producer of another node ends the topic itself.
      if (hasEnded(error)) return { topic, reason: reason === 'stopped' ? 'stopped' : 'lost' }
      throw error
    }
  }

  /** Publishes behind all that was published before: at once if the broker has answered that. */
  async #publish (json: string, options: PublishOptions): Promise<BroadcastResult> {
    const publish = (): BroadcastResult | Promise<BroadcastResult> => this.#ports.publish(this.#definition, this.topic, json, options)
    const answer = this.#last === undefined ? publish() : this.#last.then(publish)
    if (answer instanceof Promise) {
      const last = answer.catch(() => {}).then(() => { if (this.#last === last) this.#last = undefined })
      this.#last = last
    }
    const result = await answer
    if (!result.published) throw new FST_ROOMS_BROKER_DOWN()
    return result
  }
}
