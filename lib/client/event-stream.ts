import type { WebSocketLike } from '../../types/client.ts'
import { codeOf, send } from './http.ts'
import type { Core } from './core.ts'

/** The members of a `ReadableStreamDefaultReader` that are used. */
interface Reader { read (): Promise<{ readonly done: boolean, readonly value?: Uint8Array }> }

/**
 * Opens an event stream that behaves like a WebSocket of `rooms.v1`: its frames arrive as messages, messages leave by `POST`, and pages are read by `GET`. This module
 * is loaded only if WebSockets do not come through.
 * @param url - that of the topic, with the query of a join
 */
export function openEventStream (core: Core, url: URL, token: string | null | undefined): WebSocketLike {
  const controller = new AbortController()
  const { signal } = controller
  const plain = new URL(url)
  plain.searchParams.delete('since')
  plain.searchParams.delete('presence')

  const close = (code: number, reason: string): void => {
    if (signal.aborted) return
    controller.abort()
    socket.onclose?.({ code, reason })
  }
  const tell = (data: string): void => {
    if (!signal.aborted) socket.onmessage?.({ data })
  }

  /** Reads events until the stream ends. */
  const follow = async (): Promise<void> => {
    const response = await send(core, url, 'text/event-stream', { token, signal })
    const { status } = response
    const type = response.headers.get('content-type')
    if (status === 204) return close(1000, 'refused')
    if (status !== 200 || !type?.startsWith('text/event-stream') || response.body === null) {
      const text = await response.text()
      let code = `http_${status}`
      try {
        const body = JSON.parse(text)
        if (body.protocols) return close(4000, 'blocked') // the URL of the shared connection, which has no event stream
        code = body.code ?? code
      } catch {}
      return close(codeOf(status), status === 200 ? 'bad_response' : code)
    }
    const reader: Reader = response.body.getReader()
    const decoder = new TextDecoder()
    let text = ''
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      text += decoder.decode(value, { stream: true })
      const blocks = text.split('\n\n')
      text = blocks.pop()!
      // Pings have data, too: `{}`, a frame of no type, which shows that the server is there.
      for (const block of blocks) for (const line of block.split('\n')) if (line.startsWith('data: ')) tell(line.slice(6))
    }
    close(1001, 'lost')
  }

  /** Answers a frame as the server would over a WebSocket. */
  const answer = async ({ type, ref, data, mid, key, since, limit }: Record<string, any>): Promise<object | undefined> => {
    const refusal = (code: string, message: string): object => ({ type: 'ack', ref, ok: false, error: { code, message } })
    if ((type === 'message' && key === undefined) || type === 'history') {
      const target = new URL(plain)
      if (since !== undefined) target.searchParams.set('since', since)
      if (limit !== undefined) target.searchParams.set('limit', limit)
      const details = type === 'history' ? {} : { method: 'POST', body: JSON.stringify(data), headers: { 'content-type': 'application/json', ...mid !== undefined && { 'idempotency-key': mid } } }
      const response = await send(core, target, 'application/json', details)
      const text = await response.text()
      let body
      try {
        body = JSON.parse(text)
      } catch {
        body = { message: `the answer to ${type} is not JSON: HTTP status ${response.status}` }
      }
      if (!response.ok) return refusal(body.code ?? `http_${response.status}`, body.message)
      return { type: 'ack', ref, ok: true, id: body.id, ...type === 'history' && { data: body } }
    }
    // New credentials need a new request, which resumes.
    if (type === 'auth') close(4300, 'expiring')
    else if (ref && type !== 'leave') return refusal('unsupported', `an event stream carries no ${type}${key === undefined ? '' : ' with a key'}`)
  }

  const socket: WebSocketLike = {
    get readyState () { return signal.aborted ? 3 : 1 },
    onopen: null,
    onmessage: null,
    onclose: null,
    onerror: null,
    send (text) {
      answer(JSON.parse(text)).then(ack => {
        if (ack) tell(JSON.stringify(ack))
      }, () => close(1001, 'lost'))
    },
    close () { controller.abort() }
  }
  // The caller sets its listeners in this turn.
  queueMicrotask(() => { setTimeout(() => { follow().catch(() => close(1001, 'unreachable')) }) })
  return socket
}
