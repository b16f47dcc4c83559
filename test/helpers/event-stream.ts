import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import type { Readable } from 'node:stream'
import type { Test } from 'tap'
import type { ServerFrame } from '../../types/index.ts'

/** An event as it stands in the stream: its fields, `undefined` if there is none. */
export interface StreamEvent { id?: string, event?: string, data?: string, retry?: string, comment?: string }

/** Parses whole blocks of an event stream. */
export function eventsIn (text: string): StreamEvent[] {
  return text.split('\n\n').slice(0, -1).map(block => {
    const event: Record<string, string> = {}
    for (const line of block.split('\n')) {
      const colon = line.indexOf(':')
      const name = colon === 0 ? 'comment' : line.slice(0, colon)
      const value = line.slice(colon + 1).replace(/^ /, '')
      event[name] = name in event ? `${event[name]}\n${value}` : value
    }
    return event
  })
}

/** A client of event streams that is not an EventSource: it shows all that was sent, and never comes back by itself. */
export class EventClient {
  text = ''
  isOver = false
  readonly ended: Promise<void>
  #read = 0

  constructor (body: Readable) {
    body.setEncoding('utf8')
    body.on('data', (chunk: string) => { this.text += chunk })
    body.on('error', () => {})
    this.ended = new Promise(resolve => {
      body.on('close', () => {
        this.isOver = true
        resolve()
      })
    })
  }

  get events (): StreamEvent[] { return eventsIn(this.text) }
  /** All frames so far. */
  get frames (): ServerFrame[] { return this.events.flatMap(({ data, event }) => data === undefined || event !== undefined ? [] : [JSON.parse(data)]) }
  /** The payloads of all messages so far. */
  get payloads (): unknown[] { return this.frames.flatMap(frame => frame.type === 'message' ? [frame.data] : []) }

  /** The next frame of a type; frames before it are skipped. Rejects if the stream ends before it comes. */
  async next<K extends ServerFrame['type']> (type: K): Promise<Extract<ServerFrame, { type: K }>> {
    for (const deadline = Date.now() + 20_000; Date.now() < deadline;) {
      const isLast = this.isOver
      const { frames } = this
      while (this.#read < frames.length) {
        const frame = frames[this.#read++]!
        if (frame.type === type) return frame as Extract<ServerFrame, { type: K }>
      }
      if (isLast) throw new Error(`the stream ended before ${type}: ${this.text}`)
      await new Promise(resolve => setTimeout(resolve, 2))
    }
    throw new Error(`no ${type} came: ${this.text}`)
  }
}

/** Requests an event stream. @param url - `127.0.0.1:<port>/<path>` */
export async function openStream (t: Test, url: string, headers: Record<string, string> = {}, options: RequestOptions = {}): Promise<EventClient & { status: number, headers: IncomingMessage['headers'], hello: Extract<ServerFrame, { type: 'hello' }>, cut (): void, body: Readable }> {
  const request = httpRequest(`http://${url}`, { agent: false, headers: { accept: 'text/event-stream', ...headers }, ...options })
  t.teardown(() => { request.destroy() })
  request.on('error', () => {})
  request.end()
  const [response] = await once(request, 'response') as [IncomingMessage]
  const client = new EventClient(response)
  return Object.assign(client, { status: response.statusCode!, headers: response.headers, hello: undefined as never, cut: () => { request.destroy() }, body: response })
}

/** Joins with an event stream, and reads hello. */
export async function joinStream (t: Test, url: string, headers: Record<string, string> = {}): ReturnType<typeof openStream> {
  const client = await openStream(t, url, headers)
  return Object.assign(client, { hello: await client.next('hello') })
}
